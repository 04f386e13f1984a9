"""Read logs of queries, JSON Lines, line by line and value by value: the first bad one is told.

What every log of this room is read with; which fields a line has is each log's own matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeGuard, TypeVar

from masrouter.errors import LogError
from masrouter.logs.lines import LINE_BYTES, BadLine, parse_line


class Logged(Protocol):
    """A query of a log."""

    @property
    def query_id(self) -> str:
        """Its name, once in a log."""


Query = TypeVar("Query", bound=Logged)


def read_queries(
    paths: Iterable[str | Path], read: Callable[[Mapping[str, Any]], Query], what: str
) -> tuple[Query, ...]:
    """The queries of files, in order. read: a line's object as a query, or BadLine.

    Raises LogError as `file:line: field: why` for the first bad line and for a query id that stands
    twice, and where there is no query at all; `what` says then of what there is none.
    """
    files = [Path(path) for path in paths]
    found: dict[str, tuple[str, Query]] = {}
    for path in files:
        for number, line in enumerate(_lines(path), 1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                query = read(parse_line(line))
            except BadLine as bad:
                detail = f" ({bad.detail})" if bad.detail else ""
                raise LogError(f"{where}: {bad}{detail}") from None
            if query.query_id in found:
                first = found[query.query_id][0]
                raise LogError(
                    f"{where}: query_id: {query.query_id!r} stands already at {first}; give every "
                    "query one line"
                )
            found[query.query_id] = where, query
    if not found:
        raise LogError(f"{', '.join(map(str, files)) or 'no file given'}: no {what} there")
    return tuple(query for _, query in found.values())


def fields_of(data: Any, name: str, keys: Iterable[str]) -> Mapping[str, Any]:
    """An object that has no other keys than these."""
    if not isinstance(data, Mapping):
        raise BadLine(name, "expected an object")
    known = tuple(keys)
    for key in data:
        if key not in known:
            raise BadLine(name, f"unknown key {key!r}; there are {', '.join(known)}")
    return data


def text_of(data: Mapping[str, Any], key: str) -> str:
    """Text that says something."""
    value = data.get(key)
    if not isinstance(value, str) or not value.strip():
        raise BadLine(key, "expected non-empty text")
    return value


def string_of(data: Mapping[str, Any], key: str, name: str) -> str:
    """Text, empty or not."""
    value = data.get(key)
    if not isinstance(value, str):
        raise BadLine(name, "expected text")
    return value


def flag_of(data: Mapping[str, Any], key: str, name: str) -> bool:
    """True or false."""
    value = data.get(key)
    if not isinstance(value, bool):
        raise BadLine(name, "expected true or false")
    return value


def count_of(data: Mapping[str, Any], key: str, name: str, most: int) -> int:
    """A whole number of 1 or more."""
    value = data.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise BadLine(name, f"expected a whole number from 1 to {most}")
    return value


def score_of(data: Mapping[str, Any], name: str) -> float:
    """The `score` of an object that is called `name`."""
    value = data.get("score")
    if not _is_number(value) or not 0 <= value <= 1:
        raise BadLine(f"{name}.score", "expected a number in [0, 1]")
    return float(value)


def cost_of(data: Mapping[str, Any], name: str) -> float | None:
    """The `cost_usd` of an object that is called `name`; None is unknown."""
    value = data.get("cost_usd")
    if value is None and "cost_usd" in data:
        return None
    if not _is_number(value) or not 0 <= value < 1e9:
        raise BadLine(f"{name}.cost_usd", "expected US dollars >= 0, or null where unknown")
    return float(value)


def _lines(path: Path) -> Iterable[bytes]:
    try:
        with path.open("rb") as file:
            while line := file.readline(LINE_BYTES + 1):
                yield line
    except OSError as error:
        raise LogError(f"{path}: cannot be read: {error.strerror or error}") from error


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
