"""The JSON encoding of OTLP: spans, log records and the values of their attributes.

Source: the OpenTelemetry protocol's JSON encoding (opentelemetry-proto, docs/specification.md, and
its examples trace.json and events.json): lowerCamelCase names, ids in hex, 64-bit integers as
numbers or as decimal text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from masrouter.importers.rows import Row
from masrouter.importers.values import BadValue, count, text
from masrouter.logs.report import quote

_HEX = re.compile(r"[0-9a-fA-F]+\Z")
_SIGNALS = {
    "resourceSpans": ("scopeSpans", "spans", "span"),
    "resourceLogs": ("scopeLogs", "logRecords", "log"),
}


@dataclass(frozen=True, slots=True)
class Leaf:
    """A span or a log record, with the attributes of what emitted it."""

    kind: str
    """`span`, `event` (of a span), `log`, `metrics`, `empty` or `broken` (no object or list)."""
    data: Any
    resource: Mapping[str, Any]
    span: Mapping[str, Any] | None = None
    """Of an event: the span that it is of."""


def leaves(row: Row) -> Iterator[Row]:
    """Every span, evaluation event and log record of one export request, each as a Leaf."""
    data = row.data
    if not isinstance(data, Mapping) or not data.keys() & {*_SIGNALS, "resourceMetrics"}:
        yield Row(row.file, row.where, Leaf("broken", data, {}), row.raw)
        return
    if "resourceMetrics" in data:
        yield row.part("resourceMetrics", Leaf("metrics", data["resourceMetrics"], {}))
    for signal, (scopes, items, kind) in _SIGNALS.items():
        for holder in _items(row, signal) if signal in data else ():
            if isinstance(holder.data, Leaf):
                yield holder
                continue
            resource = _resource(holder.data.get("resource"))
            for scope in _items(holder, scopes):
                if isinstance(scope.data, Leaf):
                    yield scope
                    continue
                for item in _items(scope, items):
                    yield from _leaf(item, kind, resource)


def _leaf(item: Row, kind: str, resource: Mapping[str, Any]) -> Iterator[Row]:
    if isinstance(item.data, Leaf):
        yield item
        return
    yield Row(item.file, item.where, Leaf(kind, item.data, resource))
    events = item.data.get("events") if kind == "span" else None
    for index, event in enumerate(events if isinstance(events, list) else ()):
        if isinstance(event, Mapping) and event.get("name") == "gen_ai.evaluation.result":
            leaf = Leaf("event", event, resource, item.data)
            yield Row(item.file, f"{item.where} events[{index}]", leaf)


def _items(row: Row, name: str) -> Iterator[Row]:
    """The objects of a list in a row; what is none, and a list that is empty, is a Leaf."""
    value = row.data.get(name)
    if value is None and set(row.data) - {"resource", "scope", "schemaUrl"}:
        yield row.part(name, Leaf("broken", row.data, {}))
    elif not value:
        yield row.part(name, Leaf("empty", value, {}))
    elif not isinstance(value, list):
        yield row.part(name, Leaf("broken", value, {}))
    else:
        for index, item in enumerate(value):
            data = item if isinstance(item, Mapping) else Leaf("broken", item, {})
            yield row.part(f"{name}[{index}]", data)


def _resource(value: Any) -> Mapping[str, Any]:
    try:
        return attributes(value.get("attributes")) if isinstance(value, Mapping) else {}
    except BadValue:
        return {}  # of a service: it matters only where a key is looked up in it


def attributes(value: Any) -> dict[str, Any]:
    """A list of {key, value} as a dict; raises BadValue."""
    if value is None:
        return {}
    if not isinstance(value, list):
        raise BadValue("attributes", "expected a list of {key, value}", f"got {quote(value)}")
    found: dict[str, Any] = {}
    for item in value:
        if not isinstance(item, Mapping) or not isinstance(item.get("key"), str):
            raise BadValue("attributes", "expected {key, value}", f"got {quote(item)}")
        found[item["key"]] = any_value(item.get("value"), item["key"])
    return found


def any_value(value: Any, name: str) -> Any:
    """What an AnyValue holds; None where it holds nothing."""
    if value is None or value == {}:
        return None
    if not isinstance(value, Mapping):
        raise BadValue(name, "expected {stringValue: ...} or its like", f"got {quote(value)}")
    if "intValue" in value:
        number = value["intValue"]
        if isinstance(number, str) and re.fullmatch(r"-?\d{1,19}", number, re.ASCII):
            return int(number)
        return number
    if "arrayValue" in value:
        return [any_value(item, name) for item in _values(value["arrayValue"], name)]
    if "kvlistValue" in value:
        return attributes(_values(value["kvlistValue"], name))
    for kind in ("stringValue", "boolValue", "doubleValue", "bytesValue"):
        if kind in value:
            return value[kind]
    raise BadValue(name, "expected {stringValue: ...} or its like", f"got {quote(value)}")


def _values(value: Any, name: str) -> list[Any]:
    items = value.get("values", []) if isinstance(value, Mapping) else None
    if not isinstance(items, list):
        raise BadValue(name, "expected {values: [...]}", f"got {quote(value)}")
    return items


def identity(value: Any, name: str) -> str | None:
    """A trace's or span's id, in lower case where it is hex; None where it is absent or zero."""
    found = text(value, name)
    if found is None or not found.strip("0"):
        return None
    return found.lower() if _HEX.match(found) else found


def nanoseconds(value: Any, name: str) -> float | None:
    """A time in seconds since 1970; None for 0, which stands for no time."""
    found = count(value, name)
    return found / 1e9 if found else None
