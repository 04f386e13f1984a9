"""Read a file of tasks to hand out: what `masrouter delegate --tasks` takes.

    tasks:                                   # or the list alone
      - goal: Summarise the report in three sentences.
        context_file: report.md              # beside this file, or in a folder below it
        model: small                         # a model, alias, tier, plan, policy, worker or `auto`
        id: summary
        max_tokens: 300
      - goal: Which of the summary's figures are wrong?
        context: The audited figures are 12, 31 and 8.
        needs: [summary]                     # waits for that task and is given its answer
        kind: knowledge                      # domain for the log

Only `goal` has to be there. What a model's name means is not settled here: see `naming`.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from masrouter.delegation.tasks import Task
from masrouter.errors import ConfigError
from masrouter.strict_yaml import Document, describe, did_you_mean, load_strict

MAX_CONTEXT_BYTES = 1 << 20
"""Largest context file, and all of a file's context files together have 16 times that."""
MAX_ID = 64
"""Characters of an id."""

_KEYS = ("goal", "context", "context_file", "model", "id", "needs", "max_tokens", "kind")
_MAX_ALL = 16 * MAX_CONTEXT_BYTES

Where = tuple[str | int, ...]


def read_task_file(path: str | Path) -> tuple[Task, ...]:
    """The tasks of a file, in its order; raises ConfigError as `file:line: key: why`.

    A `context_file` is read here: a text in the file's own folder or below it, also after links
    are followed. Its text comes after `context`, where a task has both.
    """
    file = Path(path)
    try:
        document = load_strict(file.read_bytes(), str(path), error=ConfigError)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    top: Where = ()
    if isinstance(document.value, dict):
        document.mapping((), ("tasks",))
        top = ("tasks",)
        if "tasks" not in document.value:
            raise document.problem((), "expected `tasks`, a list")
    entries = document.at(top)
    if not isinstance(entries, list) or not entries:
        raise document.problem(top, f"expected a list of tasks, got {describe(entries)}")
    files = _ContextFiles(document, file.parent)
    tasks = [_task(document, (*top, index), files) for index in range(len(entries))]
    _check_ids(document, top, tasks)
    return tuple(tasks)


def _task(document: Document, path: Where, files: _ContextFiles) -> Task:
    entry = document.mapping(path, _KEYS)
    if "goal" not in entry:
        raise document.problem(path, "expected a `goal`: what is to be done")
    given = [key for key in ("goal", "model", "kind") if key in entry]
    texts = {key: _text(document, (*path, key)) for key in given}
    context = _text(document, (*path, "context")) if "context" in entry else ""
    if "context_file" in entry:
        context = "\n\n".join(filter(None, (context, files.read((*path, "context_file")))))
    return Task(
        texts["goal"],
        context,
        texts.get("model"),
        _id(document, (*path, "id")) if "id" in entry else None,
        _needs(document, (*path, "needs")) if "needs" in entry else (),
        _count(document, (*path, "max_tokens")) if "max_tokens" in entry else None,
        texts.get("kind"),
    )


def _text(document: Document, path: Where) -> str:
    value = document.at(path)
    if not isinstance(value, str):
        hint = "" if isinstance(value, dict | list) or value is None else "; quote it"
        raise document.problem(path, f"expected text, got {describe(value)}{hint}")
    if not value.strip():
        raise document.problem(path, "expected text, got none; leave the key out")
    return value


def _id(document: Document, path: Where) -> str:
    name = _text(document, path)
    if len(name) > MAX_ID or not name.isprintable() or name != name.strip():
        raise document.problem(
            path, f"expected at most {MAX_ID} characters on one line, got {describe(name)}"
        )
    return name


def _needs(document: Document, path: Where) -> tuple[str, ...]:
    value = document.at(path)
    if not isinstance(value, list):
        raise document.problem(path, f"expected a list of ids, got {describe(value)}")
    names = [_id(document, (*path, index)) for index in range(len(value))]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise document.problem((*path, index), f"{name!r} stands here twice")
    return tuple(names)


def _count(document: Document, path: Where) -> int:
    value = document.at(path)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise document.problem(path, f"expected a number of tokens >= 1, got {describe(value)}")
    return value


def _check_ids(document: Document, top: Where, tasks: Sequence[Task]) -> None:
    """Ids are told apart, `needs` names some of them, and no task waits for itself."""
    index_of: dict[str, int] = {}
    for index, task in enumerate(tasks):
        name = task.id or f"task-{index + 1}"
        if name in index_of:
            first = document.line((*top, index_of[name]))
            raise document.problem(
                (*top, index, "id"), f"{name!r} is the id of the task on line {first} already"
            )
        index_of[name] = index
    graph: Mapping[str, Sequence[str]] = {
        name: tasks[index].needs for name, index in index_of.items()
    }
    for name, needs in graph.items():
        for at, needed in enumerate(needs):
            if needed not in index_of:
                near = did_you_mean(needed, index_of)
                raise document.problem(
                    (*top, index_of[name], "needs", at), f"no task has the id {needed!r}{near}"
                )
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        cycle: list[str] = error.args[1]
        raise document.problem(
            (*top, index_of[cycle[0]], "needs"),
            f"these tasks wait for each other: {' -> '.join(reversed(cycle))}",
        ) from None


class _ContextFiles:
    """Reads the texts that a task file names, within its folder and the limits."""

    def __init__(self, document: Document, folder: Path) -> None:
        self._document, self._folder = document, folder
        self._left = _MAX_ALL

    def read(self, path: Where) -> str:
        """The text that the value at `path` names; may raise the document's error."""
        name = _text(self._document, path)
        try:
            return self._decoded(path, name, self._bytes(path, name))
        except OSError as error:
            raise self._problem(path, name, f"cannot be read: {error.strerror}") from error
        except RuntimeError:  # how pathlib names a link that leads to itself
            raise self._problem(path, name, "is a link that leads to itself") from None

    def _bytes(self, path: Where, name: str) -> bytes:
        if "\0" in name:
            raise self._problem(path, name, "is no file name")
        folder = self._folder.resolve()
        found = (folder / name).resolve()
        if not found.is_relative_to(folder):
            raise self._problem(
                path, name, "lies outside the folder of this file, where context files have to be"
            )
        # A pipe or a device could be read for ever.
        if not stat.S_ISREG(found.stat().st_mode):
            raise self._problem(path, name, "is no regular file")
        most = min(MAX_CONTEXT_BYTES, self._left)
        with found.open("rb") as opened:
            data = opened.read(most + 1)
        if len(data) > most:
            too = (
                f"is larger than {MAX_CONTEXT_BYTES >> 20} MiB"
                if most == MAX_CONTEXT_BYTES
                else f"and those before it are larger than {_MAX_ALL >> 20} MiB"
            )
            raise self._problem(path, name, f"{too}; hand out a part of it")
        self._left -= len(data)
        return data

    def _decoded(self, path: Where, name: str, data: bytes) -> str:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as bad:
            raise self._problem(path, name, f"is no UTF-8 text (byte {bad.start + 1})") from None
        if not text.strip():
            raise self._problem(path, name, "is empty")
        return text

    def _problem(self, path: Where, name: str, why: str) -> Exception:
        return self._document.problem(path, f"{describe(name)} {why}")
