"""Numbers, counts, times and names out of what other tools wrote; what is none of them is refused.

Nothing is rounded, clipped or defaulted here: null stays None, anything else that does not fit
raises `BadValue`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from masrouter.logs.report import quote

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST = 2**63
_WHOLE = re.compile(r"(\d{1,19})(\.0*)?", re.ASCII)
_NUMERIC = re.compile(r"-?\d+(\.\d*)?", re.ASCII)


class BadValue(Exception):
    """A field holds what cannot be mapped."""

    def __init__(self, name: str, why: str, detail: str = "") -> None:
        super().__init__(f"{name}: {why}")
        self.name = name
        self.why = why
        self.detail = detail


def text(value: object, name: str) -> str | None:
    """A non-empty string, or None for null and the empty string (exports write both for none)."""
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise BadValue(name, "expected text or null", f"got {quote(value)}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise BadValue(name, "half of a surrogate pair, which is no text") from None
    return value


def needed(value: object, name: str) -> str:
    """A non-empty string."""
    found = text(value, name)
    if found is None:
        raise BadValue(name, "expected text", f"got {quote(value)}")
    return found


def name_of(value: object, name: str) -> str | None:
    """A name or an id: text, or a number as it is written; None for null."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return json.dumps(value)
    return text(value, name)


def number(value: object, name: str) -> float | None:
    """A finite number, also as text (CSV has nothing else); None for null."""
    if value is None or value == "":
        return None
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            # Python takes 1_000 for a number; no export writes one so.
            found = math.nan if isinstance(value, str) and "_" in value else float(value)
        except (ValueError, OverflowError):
            found = math.nan
        if math.isfinite(found):
            return found
    raise BadValue(name, "expected a finite number or null", f"got {quote(value)}")


def amount(value: object, name: str) -> float | None:
    """A finite number that is not negative; None for null."""
    found = number(value, name)
    if found is not None and found < 0:
        raise BadValue(name, "expected a finite number >= 0 or null", f"got {quote(value)}")
    return found


def count(value: object, name: str) -> int | None:
    """An integer from 0 to 2^63 - 1, also as text; None for null."""
    if value is None or value == "":
        return None
    whole: object = value
    if isinstance(value, str):
        # Tables with gaps hold whole numbers as 12.0.
        match = _WHOLE.fullmatch(value)
        whole = int(match[1]) if match else value
    elif isinstance(value, float) and value.is_integer():
        whole = int(value)
    if type(whole) is int and 0 <= whole < _LONGEST:
        return whole
    raise BadValue(name, "expected an integer >= 0 or null", f"got {quote(value)}")


def integer(value: object, name: str) -> int | None:
    """An integer of 64 bits, also as text; None for null."""
    if isinstance(value, str) and value.startswith("-"):
        found = count(value[1:], name)
        return None if found is None else -found
    if type(value) is int and -_LONGEST <= value < 0:
        return value
    return count(value, name)


def mapping(value: object, name: str) -> Mapping[str, Any]:
    """An object, also as JSON text (CSV exports); an empty one for null and the empty string."""
    value = decoded(value)
    if value is None or value == "":
        return {}
    if not isinstance(value, Mapping):
        raise BadValue(name, "expected an object or null", f"got {quote(value)}")
    return value


def decoded(value: object) -> object:
    """What JSON text says, where a string is the text of an object or a list; else the value."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def moment(value: object, name: str, *, unit_s: float = 1.0) -> float | None:
    """A time in seconds since 1970: ISO 8601 text (UTC where it names no zone), or a number.

    unit_s: seconds that one unit of a number is.
    """
    if isinstance(value, datetime):
        zoned = value if value.tzinfo else value.replace(tzinfo=UTC)
        return (zoned - _EPOCH).total_seconds()
    # ISO 8601 has forms of digits alone, which a number in text must not be taken for.
    if isinstance(value, str) and value and not _NUMERIC.fullmatch(value):
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            pass  # a number as text, or no time at all: the next lines say
        else:
            return moment(found, name)
    seconds = number(value, name)
    if seconds is None:
        return None
    try:
        datetime_of(seconds * unit_s)
    except (OverflowError, ValueError):
        raise BadValue(name, "expected a time of the years 1 to 9999", f"got {value}") from None
    return seconds * unit_s


def has_no_zone(value: object) -> bool:
    """Whether a time is given as a date and a clock without saying where."""
    if isinstance(value, str) and not _NUMERIC.fullmatch(value):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return False
    return isinstance(value, datetime) and value.tzinfo is None


def datetime_of(seconds: float) -> datetime:
    """The time that lies so many seconds after 1970, in UTC."""
    return _EPOCH + timedelta(seconds=seconds)


def iso(seconds: float) -> str:
    """A time as ISO 8601 in UTC, to the microsecond."""
    return datetime_of(seconds).isoformat().replace("+00:00", "Z")


def lookup(scopes: Sequence[Mapping[str, Any]], key: str) -> Any:
    """The value of a key in the first scope that has it; None where none does.

    A key is looked up as it stands, then as a path (`metadata.agent`), then among tags of the form
    `key:value`.
    """
    for scope in scopes:
        if scope.get(key) is not None:
            return scope[key]
        value: Any = scope
        for part in key.split("."):
            value = decoded(value.get(part)) if isinstance(value, Mapping) else None
        if value is not None:
            return value
        for tags in (scope.get("tags"), scope.get("request_tags")):
            tags = decoded(tags)
            for tag in tags if isinstance(tags, list) else ():
                if isinstance(tag, str) and tag.startswith(f"{key}:"):
                    return tag[len(key) + 1 :].strip()
    return None
