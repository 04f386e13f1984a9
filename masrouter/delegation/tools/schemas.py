"""JSON Schema as the tools use it: reads what a model wrote, and says at which place it is wrong.

A small part of the language, which every provider takes: objects without further keys, arrays,
strings, integers, numbers, booleans and `enum`, with `minLength`, `minItems`, `minimum` and
`maximum`. One departure: null at a key that may be left out is the same as leaving it out, since
models write it so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from masrouter.delegation.tasks import DelegationError, TaskError
from masrouter.strict_yaml import did_you_mean

MOST_CHARACTERS = 4 << 20
"""Of a call's arguments as JSON; a longer text is not parsed."""
_SHOWN = 120

Schema = Mapping[str, Any]


def read_arguments(arguments: str | Mapping[str, Any]) -> dict[str, Any]:
    """A call's arguments as an object; a blank text is one without keys.

    Raises DelegationError, `invalid_task` or `limit`, for anything that is not strict JSON: NaN,
    a key twice, half a surrogate pair, numbers and depths that no parser takes.
    """
    try:
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, allow_nan=False)
        if len(text) > MOST_CHARACTERS:
            raise DelegationError(
                TaskError(
                    "limit",
                    f"the arguments are {len(text):,} characters of JSON, and at most "
                    f"{MOST_CHARACTERS:,} are read; hand out a part of the material",
                )
            )
        data = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_object)
        json.dumps(data, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise invalid("the arguments hold half a surrogate pair, which is no text") from None
    except RecursionError:
        raise invalid("the arguments are nested too deeply") from None
    except (TypeError, ValueError) as error:
        if not isinstance(arguments, str) or text.strip():
            raise invalid(f"the arguments are not JSON: {error}") from None
        return {}
    if not isinstance(data, dict):
        raise invalid(f"the arguments: expected an object, got {shown(data)}")
    return data


def checked(value: Any, schema: Schema, at: str = "") -> Any:
    """`value` without nulls that say nothing, and with whole floats as integers.

    Raises DelegationError, `invalid_task`, that names the place, such as `tasks[2].goal`.
    """
    kind = schema.get("type")
    if kind is None:
        return value
    if kind == "object":
        return _checked_object(value, schema, at)
    if kind == "array":
        if not isinstance(value, list):
            raise _wrong(at, "a list", value)
        if len(value) < schema.get("minItems", 0):
            raise invalid(f"{at}: expected at least {schema['minItems']}, got {len(value)}")
        return [checked(one, schema["items"], f"{at}[{i}]") for i, one in enumerate(value)]
    if kind == "string":
        return _checked_string(value, schema, at)
    if kind == "boolean":
        if not isinstance(value, bool):
            raise _wrong(at, "true or false", value)
        return value
    return _checked_number(value, schema, at)


def invalid(message: str, *, asked: str | None = None) -> DelegationError:
    """What cannot be meant."""
    return DelegationError(TaskError("invalid_task", message, asked=asked))


def shown(value: Any) -> str:
    """A value for a message: short, and as JSON."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text):,} characters)"


def _checked_object(value: Any, schema: Schema, at: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(at or "the arguments", "an object", value)
    known: Mapping[str, Schema] = schema["properties"]
    required = schema.get("required", ())
    before = f"{at}." if at else ""
    for key in value:
        if key not in known:
            near = did_you_mean(key, known)
            raise invalid(f"{before}{_cut(key)}: there is no such key{near}", asked=_cut(key))
    for key in required:
        if key not in value:
            raise invalid(f"{before}{key}: is required, and is not there")
    return {
        key: checked(one, known[key], f"{before}{key}")
        for key, one in value.items()
        if one is not None or key in required
    }


def _checked_string(value: Any, schema: Schema, at: str) -> str:
    if not isinstance(value, str):
        raise _wrong(at, "a string", value)
    if len(value) < schema.get("minLength", 0):
        raise invalid(f"{at}: expected a text, got none")
    choices = schema.get("enum")
    if choices is not None and value not in choices:
        raise invalid(
            f"{at}: expected one of {', '.join(choices)}, got {shown(value)}", asked=_cut(value)
        )
    return value


def _checked_number(value: Any, schema: Schema, at: str) -> int | float:
    whole = schema["type"] == "integer"
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _wrong(at, "a whole number" if whole else "a number", value)
    if whole and value != int(value):
        raise _wrong(at, "a whole number", value)
    least, most = schema.get("minimum"), schema.get("maximum")
    if (least is not None and value < least) or (most is not None and value > most):
        limits = f"at least {least}" if most is None else f"{least} to {most}"
        raise invalid(f"{at}: expected {limits}, got {shown(value)}")
    return int(value) if whole else value


def _wrong(at: str, expected: str, value: Any) -> DelegationError:
    return invalid(f"{at}: expected {expected}, got {shown(value)}")


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in found if keys.count(key) > 1)
        raise ValueError(f"the key {_cut(twice)!r} is there twice")
    return found
