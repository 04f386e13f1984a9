"""A small, strict part of YAML, for files that people write: catalogs and recipes.

Mappings, lists and scalars only: no anchors, aliases, tags, merge keys or second documents, no key
twice, and caps on size and depth. Scalars follow YAML 1.2's core schema, so that `no` and
`2024-01-31` stay text. Each value remembers its line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import yaml

from masrouter.errors import CatalogError, MasRouterError

MAX_BYTES = 4 << 20
MAX_DEPTH = 32

Path = tuple[str | int, ...]
"""Keys and list indices from the top to a value; () is the whole document."""

_INTEGER = re.compile(r"[-+]?[0-9]{1,18}\Z")
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,4})?\Z")
_WORDS: Mapping[str, bool | None] = {
    "": None,
    "~": None,
    "null": None,
    "Null": None,
    "NULL": None,
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file: plain dicts, lists and scalars, with the line of each."""

    value: Any
    source: str
    lines: Mapping[Path, int]
    """Line, from 1, of each key or list item by its path; () is the first value's."""
    error: type[MasRouterError]

    def line(self, path: Path) -> int:
        """Line of a value, or of the nearest thing around it."""
        while path not in self.lines and path:
            path = path[:-1]
        return self.lines.get(path, 1)

    def problem(self, path: Path, why: str) -> MasRouterError:
        """The error `source:line: key: why`, to be raised."""
        key = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".")
        where = f"{self.source}:{self.line(path)}"
        return self.error(f"{where}: {key}: {why}" if key else f"{where}: {why}")

    def mapping(self, path: Path, allowed: Iterable[str] | None = None) -> dict[str, Any]:
        """The mapping at `path`; with `allowed`, any other key is refused.

        Raises `error`, with the key that was perhaps meant.
        """
        value = self.at(path)
        if not isinstance(value, dict):
            raise self.problem(path, f"expected a mapping, got {describe(value)}")
        if allowed is not None:
            names = tuple(allowed)
            for key in value:
                if key not in names:
                    raise self.problem((*path, key), f"unknown key{did_you_mean(key, names)}")
        return value

    def at(self, path: Path) -> Any:
        """The value at `path`, which must exist."""
        value = self.value
        for step in path:
            value = value[step]
        return value


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or the names to choose from where none is near."""
    known = sorted(names)
    near = get_close_matches(name, known, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; expected one of {', '.join(known)}" if 0 < len(known) <= 20 else ""


def describe(value: object) -> str:
    """A value for a message."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = "null" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def load_strict(
    text: str | bytes, source: str, error: type[MasRouterError] = CatalogError
) -> Document:
    """Parse YAML text; raises `error` as `source:line: why`.

    An empty text gives the value None.
    """
    if len(text) > MAX_BYTES:
        raise error(f"{source}: larger than {MAX_BYTES >> 20} MiB")
    try:
        decoded = text.decode("utf-8-sig") if isinstance(text, bytes) else text
    except UnicodeDecodeError as bad:
        raise error(f"{source}: not UTF-8 at byte {bad.start + 1}") from None
    builder = _Builder(source, error)
    try:
        for event in yaml.parse(decoded, Loader=yaml.SafeLoader):
            builder.take(event)
    except yaml.MarkedYAMLError as bad:
        mark = bad.problem_mark or bad.context_mark
        line = mark.line + 1 if mark else 1
        raise error(f"{source}:{line}: not valid YAML: {bad.problem or bad.context}") from None
    except yaml.reader.ReaderError as bad:
        line = decoded.count("\n", 0, bad.position) + 1
        raise error(f"{source}:{line}: not valid YAML: {bad.reason}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as bad:
        raise error(f"{source}: not valid YAML: {bad}") from None
    return Document(builder.value, source, builder.lines, error)


def dump_strict(value: Any) -> str:
    """YAML text that `load_strict` reads back unchanged: dicts, lists, text, numbers, null."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, data: str) -> yaml.ScalarNode:
        # What would read as a number, a truth value or null is quoted.
        style = None if isinstance(_scalar(data), str) else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)


def _scalar(text: str) -> Any:
    """A plain scalar's value by YAML 1.2's core schema (decimal numbers only)."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.match(text):
        return int(text)
    if _NUMBER.match(text):
        number = float(text)
        return number if math.isfinite(number) else text
    return text


class _Builder:
    """Builds values from the parser's events, so that what is refused is never constructed."""

    def __init__(self, source: str, error: type[MasRouterError]) -> None:
        self.value: Any = None
        self.lines: dict[Path, int] = {}
        self._source, self._error = source, error
        self._documents = 0
        self._open: list[tuple[Path, dict[str, Any] | list[Any]]] = []
        self._key: list[str | None] = []

    def take(self, event: yaml.Event) -> None:
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise self._refuse(line, "a second document; write one document a file")
        elif isinstance(event, yaml.AliasEvent):
            raise self._refuse(line, f"alias *{event.anchor}; write the value out")
        elif isinstance(event, yaml.NodeEvent):
            if event.anchor is not None:
                raise self._refuse(line, f"anchor &{event.anchor}; write the value out")
            tag = getattr(event, "tag", None)
            if tag is not None:
                raise self._refuse(line, f"tag {tag}; write a plain value")
            self._node(event, line)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._open.pop()
            self._key.pop()

    def _node(self, event: yaml.NodeEvent, line: int) -> None:
        inside_mapping = bool(self._open) and isinstance(self._open[-1][1], dict)
        if inside_mapping and self._key[-1] is None:
            self._take_key(event, line)
            return
        if isinstance(event, yaml.ScalarEvent):
            plain = event.implicit[0]
            self._place(_scalar(event.value) if plain else event.value, line)
            return
        if len(self._open) >= MAX_DEPTH:
            raise self._refuse(line, f"nested deeper than {MAX_DEPTH} levels")
        fresh: dict[str, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
        path = self._place(fresh, line)
        self._open.append((path, fresh))
        self._key.append(None)

    def _take_key(self, event: yaml.NodeEvent, line: int) -> None:
        path, mapping = self._open[-1]
        if not isinstance(event, yaml.ScalarEvent):
            raise self._refuse(line, "a key that is not plain text")
        if event.value in mapping:
            first = self.lines[*path, event.value]
            raise self._refuse(line, f"{event.value}: the key stands twice, first on line {first}")
        self._key[-1] = event.value
        self.lines[*path, event.value] = line

    def _place(self, value: Any, line: int) -> Path:
        if not self._open:
            self.value = value
            self.lines[()] = line
            return ()
        path, parent = self._open[-1]
        if isinstance(parent, list):
            parent.append(value)
            here: Path = (*path, len(parent) - 1)
            self.lines[here] = line
            return here
        key = self._key[-1]
        assert key is not None
        parent[key] = value
        self._key[-1] = None
        return (*path, key)

    def _refuse(self, line: int, what: str) -> MasRouterError:
        return self._error(f"{self._source}:{line}: {what}")
