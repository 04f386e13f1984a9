"""Bytes of a checkpoint's files <-> JSON, text and tensors, with nothing taken on trust.

JSON: UTF-8, one object, no duplicate keys, finite numbers within 64 bits, at most 64 levels.
Tensors are NumPy arrays here, so that reading needs no torch. The safetensors header is checked
before any library sees the file: plain dtypes, shapes that fit their bytes, and data that fills the
file without gap or overlap.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from masrouter.errors import CheckpointError

_MAX_JSON_DEPTH = 64
_MAX_HEADER_BYTES = 8 << 20
_ITEM_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}


def json_to_bytes(value: Mapping[str, Any], path: Path) -> bytes:
    """`value` as JSON with sorted keys; CheckpointError where it would not read back the same.

    Tuples become lists.
    """
    _check_json(value, path)
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    return text_to_bytes(text + "\n", path)


def json_from_bytes(content: bytes, path: Path) -> dict[str, Any]:
    """The one object in `content`, read strictly; CheckpointError where it breaks a rule."""
    value = _parse_json(text_from_bytes(content, path), path)
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected an object, got {type(value).__name__}")
    _check_json(value, path)
    return value


def text_to_bytes(text: str, path: Path) -> bytes:
    """`text` in UTF-8; CheckpointError where it is not text or has lone surrogates."""
    if not isinstance(text, str):
        raise CheckpointError(f"{path}: expected text, got {type(text).__name__}")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise CheckpointError(f"{path}: not valid text: {error}") from error


def text_from_bytes(content: bytes, path: Path) -> str:
    """`content` read as UTF-8; CheckpointError where it is not."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: not UTF-8: {error}") from error


def tensors_to_bytes(tensors: Mapping[str, NDArray[Any]], path: Path) -> bytes:
    """`tensors` as safetensors, checked as a reader will check them."""
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, np.ndarray):
            raise CheckpointError(f"{path}: {name!r}: expected an array under a name")
        if tensor.dtype.kind not in "fiub" or not tensor.dtype.isnative:
            raise CheckpointError(f"{path}: {name}: dtype {tensor.dtype} is not allowed")
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    content: bytes = safetensors.numpy.save(contiguous)
    tensors_from_bytes(content, path)
    return content


def tensors_from_bytes(content: bytes, path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a safetensors file, all finite; CheckpointError where a check fails."""
    _check_header(content, path)
    try:
        tensors: dict[str, NDArray[Any]] = safetensors.numpy.load(content)
    except Exception as error:  # the library's parser is the second check; any refusal counts
        raise CheckpointError(f"{path}: not a safetensors file: {error}") from error
    for name, tensor in tensors.items():
        if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            raise CheckpointError(f"{path}: {name}: holds values that are not finite")
    return tensors


def _parse_json(text: str, path: Path) -> Any:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(items)
        if len(result) < len(items):
            keys = [key for key, _ in items]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise CheckpointError(f"{path}: key {twice!r} appears twice")
        return result

    def constant(name: str) -> NoReturn:
        raise CheckpointError(f"{path}: {name} is not JSON; write null where a value is unknown")

    try:
        return json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except RecursionError as error:
        raise CheckpointError(f"{path}: nested too deeply") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON: {error}") from error


def _check_json(value: Any, path: Path) -> None:
    """Raise CheckpointError, naming the place, unless `value` is JSON within the module's rules."""
    pending: list[tuple[Any, str, int]] = [(value, "", 0)]
    while pending:
        item, place, depth = pending.pop()
        where = f"{path}: {place.lstrip('.') or 'top'}"
        if depth > _MAX_JSON_DEPTH:
            raise CheckpointError(f"{path}: nested deeper than {_MAX_JSON_DEPTH} levels")
        if isinstance(item, dict):
            for key, child in item.items():
                if not isinstance(key, str):
                    raise CheckpointError(f"{where}: key {key!r}: expected text")
                text_to_bytes(key, path)
                pending.append((child, f"{place}.{key}", depth + 1))
        elif isinstance(item, list | tuple):
            pending += [(child, f"{place}[{i}]", depth + 1) for i, child in enumerate(item)]
        elif isinstance(item, str):
            text_to_bytes(item, path)
        elif type(item) is int:
            if not -(1 << 63) <= item < 1 << 63:
                raise CheckpointError(f"{where}: number beyond 64 bits")
        elif type(item) is float:
            if not math.isfinite(item):
                raise CheckpointError(
                    f"{where}: {item} is not JSON; write null where a value is unknown"
                )
        elif item is not None and type(item) is not bool:
            raise CheckpointError(f"{where}: {type(item).__name__} is not JSON")


def _check_header(content: bytes, path: Path) -> None:
    """Check a safetensors file's header against the file, without the library.

    The format: 8 bytes of header length (little endian), a JSON object
    {name: {dtype, shape, data_offsets: [begin, end)}}, then the data.
    """
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > min(_MAX_HEADER_BYTES, len(content) - 8):
        raise CheckpointError(f"{path}: header of {length:,} bytes does not fit the file")
    data = memoryview(content)[8 + length :]
    header = json_from_bytes(content[8 : 8 + length], path)
    spans = []
    for name, entry in header.items():
        if name == "__metadata__":
            raise CheckpointError(f"{path}: unexpected metadata in the header")
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise CheckpointError(f"{path}: {name}: expected dtype, shape and data_offsets")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
            raise CheckpointError(f"{path}: {name}: dtype {dtype!r} is not allowed")
        if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
            raise CheckpointError(f"{path}: {name}: bad shape {shape!r} or offsets {offsets!r}")
        begin, end = offsets
        if end - begin != math.prod(shape) * _ITEM_BYTES[dtype]:
            raise CheckpointError(f"{path}: {name}: {end - begin} bytes for {dtype} {shape}")
        if dtype == "BOOL" and bytes(data[begin:end]).translate(None, b"\0\1"):
            raise CheckpointError(f"{path}: {name}: holds bytes that are neither true nor false")
        spans.append((begin, end, name))
    position = 0
    for begin, end, name in sorted(spans):
        if begin != position:
            raise CheckpointError(f"{path}: {name}: starts at byte {begin}, expected {position}")
        position = end
    if position != len(data):
        raise CheckpointError(f"{path}: {len(data)} bytes of data, the header tells of {position}")


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)
