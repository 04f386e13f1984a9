"""From a request's bytes to a checked model, or to an error that repeats none of them.

JSON alone, in a strict reading: no NaN or Infinity, no key twice, no half of a surrogate pair, no
number that a double could not hold, bounded depth and bounded objects. Checking stops early, so
that a body full of faults costs no more than one with a few.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any, NoReturn, TypeVar, get_args

from fastapi import Request
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from masrouter.server.api_errors import ApiError

Model = TypeVar("Model", bound=BaseModel)

_HALF_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")
_MOST_DIGITS = 30
_MOST_DEPTH = 64
_MOST_KEYS = 256
"""Of one object. No model has as many fields, and each unknown one is a fault of its own."""
_TOLD = 3
"""Faults of one body that are told."""


def body_schema(model: type[BaseModel]) -> dict[str, Any]:
    """`openapi_extra=` of a route whose body `read_json` reads.

    Models of models are written out in place, so that the fragment stands alone.
    """
    schema = model.model_json_schema(ref_template="#/$defs/{model}")
    definitions = schema.pop("$defs", {})
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _written_out(schema, definitions)}},
        }
    }


async def read_json(request: Request, model: type[Model]) -> Model:
    """The body as a `model`. Raises ApiError 400 or 415, naming the fields that are wrong."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # A page of another origin cannot send this type without being allowed to.
        raise ApiError(
            415,
            "expected the header `Content-Type: application/json`",
            code="unsupported_media_type",
        )
    return parse_json(await request.body(), model)


def parse_json(body: bytes, model: type[Model]) -> Model:
    """`read_json` for a body that is there."""
    data = _loaded(body)
    try:
        return model.model_validate(data, strict=True)
    except ValidationError as error:
        raise _told(error, model) from None
    except (RecursionError, OverflowError):
        raise _refused("nested too deeply, or a number too large") from None


def _loaded(body: bytes) -> Any:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refused(f"not UTF-8 at byte {error.start + 1}") from None
    try:
        data = json.loads(
            text,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_integer,
            object_pairs_hook=_once,
        )
    except json.JSONDecodeError as error:
        raise _refused(f"at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise _refused(f"nested deeper than {_MOST_DEPTH} levels") from None
    _check_tree(data, halves=_HALF_PAIR.search(body) is not None)
    return data


def _check_tree(data: Any, *, halves: bool) -> None:
    level = [data]
    for _ in range(_MOST_DEPTH):
        deeper: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                if len(item) > _MOST_KEYS:
                    raise _refused(f"an object has more than {_MOST_KEYS} keys")
                deeper += item.values()
                texts: Any = item
            elif isinstance(item, list):
                deeper += item
                continue
            else:
                texts = (item,)
            if halves and not all(_is_whole(text) for text in texts):
                raise _refused("a text holds half of a surrogate pair")
        if not deeper:
            return
        level = deeper
    raise _refused(f"nested deeper than {_MOST_DEPTH} levels")


def _is_whole(text: object) -> bool:
    return not isinstance(text, str) or not any("\ud800" <= c <= "\udfff" for c in text)


def _refused(why: str) -> ApiError:
    return ApiError(400, f"the body is no JSON that can be taken: {why}", code="invalid_json")


def _no_constant(_: str) -> NoReturn:
    raise _refused("NaN and Infinity are no JSON numbers")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _refused("a number too large")
    return number


def _integer(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise _refused("a number too large")
    return int(text)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _refused("a key stands twice")
    return found


def _told(error: ValidationError, model: type[BaseModel]) -> ApiError:
    """The first faults, by field; what stands there is not repeated, unknown names included."""
    known = {name for kind in _models(model) for name in kind.model_fields}
    lines, first = [], None
    faults = error.errors(include_url=False, include_context=True, include_input=False)
    for fault in faults[:_TOLD]:
        where = _where(fault, known)
        first = first or where or None
        lines.append(f"{where or 'the body'}: {_why(fault, model)}")
    if len(faults) > _TOLD:
        lines.append(f"and {len(faults) - _TOLD} more")
    return ApiError(400, "; ".join(lines), code="invalid_request", param=first)


def _where(fault: ErrorDetails, known: set[str]) -> str:
    path = fault["loc"][:-1] if fault["type"] == "extra_forbidden" else fault["loc"]
    parts = [part for part in path if isinstance(part, int) or part in known]
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in parts).lstrip(".")


def _why(fault: ErrorDetails, model: type[BaseModel]) -> str:
    kind = fault["type"]
    if kind == "extra_forbidden":
        at = _model_at(model, fault["loc"][:-1])
        known = f"; known are {', '.join(at.model_fields)}" if at else ""
        return f"an unknown field{known}"
    if kind == "union_tag_invalid":
        return f"expected one of {fault.get('ctx', {}).get('expected_tags', 'the known kinds')}"
    message = fault["msg"].removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _model_at(model: type[BaseModel], path: Sequence[int | str]) -> type[BaseModel] | None:
    """The model that a path of field names leads to; None where several could be meant."""
    at = model
    for step in path:
        field = at.model_fields.get(step) if isinstance(step, str) else None
        inside = [] if field is None else _models_of(field.annotation)
        if len(inside) != 1:
            return None
        at = inside[0]
    return at


def _models_of(annotation: Any) -> list[type[BaseModel]]:
    """The models in a type: of `RoutingOptions | None`, one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [kind for part in get_args(annotation) for kind in _models_of(part)]


def _models(model: type[BaseModel]) -> set[type[BaseModel]]:
    """A model and those in its fields, at any depth."""
    found: set[type[BaseModel]] = set()
    waiting = [model]
    while waiting:
        kind = waiting.pop()
        if kind not in found:
            found.add(kind)
            for field in kind.model_fields.values():
                waiting += _models_of(field.annotation)
    return found


def _written_out(schema: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(schema, dict):
        reference = schema.get("$ref")
        if isinstance(reference, str):
            name = reference.removeprefix("#/$defs/")
            rest = {key: value for key, value in schema.items() if key != "$ref"}
            return _written_out(definitions[name] | rest, definitions)
        return {key: _written_out(value, definitions) for key, value in schema.items()}
    if isinstance(schema, list):
        return [_written_out(item, definitions) for item in schema]
    return schema
