"""Read a file of workers: what `--workers` takes.

    workers:
      english-to-german:
        translate: Helsinki-NLP/opus-mt-en-de     # a name on the hub, or a folder
        description: Translates English texts and documents into German.
        examples: [Put this letter into German.]
      short: {summarise: models/my-summariser, generation: {beams: 4}}
      notes:
        mcp: {command: [python, notes_server.py], tool: look_up}   # or {url: ..., tool: ...}
        description: Looks things up in the team's notes.
        takes: goal                               # or material, all: see `Worker.takes`
        usd_per_call: 0
      square: {python: "my_package.tools:square"} # described by its docstring's first line

Paths are relative to the file. A `python` worker is a callable of a module that is installed, or
stands beside the file or in the working folder; it is imported when the file is read, so the file
is as trusted as a program. Models are loaded and MCP servers met at a worker's first call, which
takes as much longer (`deadline_s` holds for it too).
"""

from __future__ import annotations

import importlib.util
import inspect
import pkgutil
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path as FilePath
from typing import Any

from masrouter.delegation.workers.first_call import LoadedAtFirstCall, MetAtFirstCall
from masrouter.delegation.workers.hugging_face import (
    SUMMARISATION,
    SUMMARISATION_REQUESTS,
    TRANSLATION,
    TRANSLATION_REQUESTS,
    summarisation_worker,
    translation_worker,
)
from masrouter.delegation.workers.mcp_tool import CALL_S, HttpServer, StdioServer
from masrouter.delegation.workers.text_model import Generation
from masrouter.delegation.workers.worker import Run, Worker
from masrouter.errors import ConfigError
from masrouter.llms.failures import quoted
from masrouter.strict_yaml import Document, Path, describe, load_strict

_KINDS = ("translate", "summarise", "mcp", "python")
_SETTINGS = (
    "description", "examples", "usd_per_call", "input_usd_per_mtok", "output_usd_per_mtok",
    "context_window", "takes", "max_concurrency", "deadline_s", "max_characters",
)  # fmt: skip
_OF_MODELS = ("generation", "local_files_only", "revision", "device")
_OF_STDIO = ("command", "environment", "folder")
_OF_HTTP = ("url", "key_env")
_OF_TOOLS = ("tool", "argument", "fixed")
_REFERENCE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
_LOOKS_LIKE_A_PATH = re.compile(r"[./~]|.*/.*/")


def read_worker_file(path: str | FilePath) -> tuple[Worker, ...]:
    """The workers of a file, in its order; raises ConfigError as `file:line: key: why`.

    What can be known without loading a model or starting a server is checked now: keys and values,
    folders, commands, installed packages, and that a `python` worker can be imported and called.
    """
    file = FilePath(path)
    try:
        document = load_strict(file.read_bytes(), str(path), error=ConfigError)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if document.value is not None:
        document.mapping((), ("workers",))
    if not document.value or not document.mapping(("workers",)):
        raise document.problem((), "expected `workers`, a mapping of names to workers")
    folder = file.resolve().parent
    return tuple(_worker(document, name, folder) for name in document.value["workers"])


def _worker(document: Document, name: str, folder: FilePath) -> Worker:
    path: Path = ("workers", name)
    entry = document.mapping(path)
    kinds = [kind for kind in _KINDS if kind in entry]
    if len(kinds) != 1:
        which = "both " + " and ".join(kinds) if kinds else "none of them"
        raise document.problem(path, f"expected one of {', '.join(_KINDS)}, got {which}")
    (kind,) = kinds
    of_kind = _OF_MODELS if kind in ("translate", "summarise") else ()
    document.mapping(path, (kind, *_SETTINGS, *of_kind))
    given = {key: entry[key] for key in _SETTINGS if key in entry}
    if "examples" in given:
        given["examples"] = _texts(document, (*path, "examples"))
    run: Run
    if kind == "python":
        run = _imported(document, (*path, kind), folder)
        if "description" not in given:
            given["description"] = _said(document, path, run)
    elif kind == "mcp":
        if "description" not in given:
            raise document.problem(
                path, "expected a `description`: the tool's own is known only at its first call"
            )
        run = _tool(document, (*path, kind), name, folder)
        given = {"max_concurrency": 4, "deadline_s": CALL_S, **given}
    else:
        run, defaults = _model(document, path, kind, folder)
        given = {**defaults, **given}
    try:
        return Worker(name=name, run=run, **given)
    except ConfigError as error:
        told = str(error).removeprefix(f"worker {name!r}: ")
        key, _, why = told.partition(": ")
        if key in entry:
            raise document.problem((*path, key), why) from None
        raise document.problem(path, told) from None


def _model(
    document: Document, path: Path, kind: str, folder: FilePath
) -> tuple[Run, Mapping[str, Any]]:
    """A model of Hugging Face that is not loaded yet, and what its worker is unless it is said."""
    entry = document.at(path)
    place = (*path, kind)
    named = _text(document, place)
    near = _beside(document, place, folder, named)
    if not near.is_dir() and _LOOKS_LIKE_A_PATH.match(named):
        raise document.problem(place, f"there is no folder {near}")
    _installed(document, place, ("transformers", "torch"), "transformers")
    generation = None
    if "generation" in entry:
        keys = tuple(one.name for one in fields(Generation))
        values = document.mapping((*path, "generation"), keys)
        for key in ("prefix", "source_code", "target_code"):
            if key in values:
                _text(document, (*path, "generation", key))
        try:
            generation = Generation(**values)
        except ConfigError as error:
            key, _, why = str(error).removeprefix("generation: ").partition(": ")
            raise document.problem((*path, "generation", key), why) from None
    options: dict[str, Any] = {"name": path[-1], "generation": generation}
    for key in ("revision", "device"):
        if key in entry:
            options[key] = _text(document, (*path, key))
    if "local_files_only" in entry:
        options["local_files_only"] = _flag(document, (*path, "local_files_only"))
    translates = kind == "translate"
    make = translation_worker if translates else summarisation_worker
    model: str | FilePath = near if near.is_dir() else named
    return LoadedAtFirstCall(lambda: make(model, **options)), {
        "description": TRANSLATION if translates else SUMMARISATION,
        "examples": TRANSLATION_REQUESTS if translates else SUMMARISATION_REQUESTS,
        "usd_per_call": 0.0,
    }


def _tool(document: Document, path: Path, name: str, folder: FilePath) -> Run:
    """A tool of a server that is not asked for anything yet."""
    entry = document.mapping(path, (*_OF_STDIO, *_OF_HTTP, *_OF_TOOLS))
    if "tool" not in entry:
        raise document.problem(path, "expected a `tool`: its name on the server")
    if ("command" in entry) == ("url" in entry):
        raise document.problem(path, "expected either a `command` or a `url`")
    _installed(document, path, ("mcp",), "mcp")
    foreign = _OF_HTTP if "command" in entry else _OF_STDIO
    for key in foreign:
        if key in entry:
            beside = "command" if "command" in entry else "url"
            raise document.problem((*path, key), f"has no meaning beside a `{beside}`")
    server = _http(document, path) if "url" in entry else _stdio(document, path, folder)
    argument = _text(document, (*path, "argument")) if "argument" in entry else None
    fixed = document.mapping((*path, "fixed")) if "fixed" in entry else None
    return MetAtFirstCall(
        server, _text(document, (*path, "tool")), name=name, argument=argument, fixed=fixed
    )


def _stdio(document: Document, path: Path, folder: FilePath) -> StdioServer:
    entry = document.at(path)
    command = _texts(document, (*path, "command"))
    if not command:
        raise document.problem((*path, "command"), "expected a program and its arguments")
    where = folder
    if "folder" in entry:
        place = (*path, "folder")
        where = _beside(document, place, folder, _text(document, place))
        if not where.is_dir():
            raise document.problem((*path, "folder"), f"there is no folder {where}")
    program = command[0]
    if "/" in program:
        program = str(_beside(document, (*path, "command", 0), where, program))
    if shutil.which(program) is None:
        raise document.problem((*path, "command", 0), f"there is no program {program!r}")
    names = _texts(document, (*path, "environment")) if "environment" in entry else ()
    return StdioServer(
        command=program, arguments=command[1:], folder=where, inherited=names
    )  # fmt: skip


def _http(document: Document, path: Path) -> HttpServer:
    url = _text(document, (*path, "url"))
    if not re.match(r"https?://[^/\s]", url):
        raise document.problem((*path, "url"), f"expected http:// or https://, got {describe(url)}")
    given = document.at(path)
    key_env = _text(document, (*path, "key_env")) if "key_env" in given else None
    return HttpServer(url=url, key_env=key_env)


def _imported(document: Document, path: Path, folder: FilePath) -> Run:
    reference = _text(document, path)
    if not _REFERENCE.fullmatch(reference):
        raise document.problem(path, f"expected module:callable, got {describe(reference)}")
    for place in (str(folder), str(FilePath.cwd())):
        # Last, so that no file there takes the place of an installed module.
        if place not in sys.path:
            sys.path.append(place)
    try:
        found: Any = pkgutil.resolve_name(reference)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a module may fail in every way, and exit
        why = f"cannot be imported ({type(error).__name__}: {quoted(error)})"
        raise document.problem(path, f"{reference!r} {why}") from error
    if not callable(found):
        raise document.problem(path, f"{reference!r} is {describe(found)}, which cannot be called")
    run: Run = found
    return run


def _beside(document: Document, path: Path, folder: FilePath, name: str) -> FilePath:
    """A path as it is seen from a folder."""
    try:
        found = folder / FilePath(name).expanduser()
        found.is_dir()  # raises for a name that no file system takes
    except (OSError, RuntimeError) as error:
        raise document.problem(path, f"{describe(name)} cannot be a path: {error}") from None
    return found


def _said(document: Document, path: Path, run: Run) -> str:
    """The first line of a callable's docstring."""
    lines = (inspect.getdoc(run) or "").strip().splitlines()
    if not lines:
        raise document.problem(path, "expected a `description`: there is no docstring to take")
    return lines[0]


def _installed(document: Document, path: Path, packages: Sequence[str], extra: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise document.problem(
                path,
                f"needs the package {package}; install the extra: pip install 'masrouter[{extra}]'",
            )


def _text(document: Document, path: Path) -> str:
    value = document.at(path)
    if not isinstance(value, str) or not value.strip():
        hint = "; quote it" if isinstance(value, bool | int | float) else ""
        raise document.problem(path, f"expected text, got {describe(value)}{hint}")
    return value


def _texts(document: Document, path: Path) -> tuple[str, ...]:
    value = document.at(path)
    if not isinstance(value, list):
        raise document.problem(path, f"expected a list of texts, got {describe(value)}")
    return tuple(_text(document, (*path, at)) for at in range(len(value)))


def _flag(document: Document, path: Path) -> bool:
    value = document.at(path)
    if not isinstance(value, bool):
        raise document.problem(path, f"expected true or false, got {describe(value)}")
    return value
