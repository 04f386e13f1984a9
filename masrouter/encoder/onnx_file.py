"""What an ONNX file may hold, checked on its bytes before any runtime parses them.

Allowed is one plain graph of ONNX's own operators whose weights lie in the file. Refused are
weights in other files (a path could name any file of this machine), operators of other domains,
functions, and graphs within nodes (branches and loops: a graph without them ends).

The file is a protobuf message; of its wire format only what these checks need is read here, so that
running an export needs no package beside the runtime. Field numbers: onnx.proto, IR version 13.
"""

from __future__ import annotations

from collections.abc import Iterator

from masrouter.errors import EncoderError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_Field = tuple[int, int | memoryview]
"""Number and value: an integer, or the bytes of a text, message or packed list."""

_MODEL_GRAPH, _MODEL_TRAINING, _MODEL_FUNCTIONS = 7, 20, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE = 1, 5, 15
_NODE_OP, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_ATTRIBUTE_SPARSE = (22, 23)
_TENSOR_EXTERNAL, _TENSOR_LOCATION = 13, 14
_OWN_DOMAINS = ("", "ai.onnx")


def check_onnx(content: bytes, where: str) -> None:
    """EncoderError, naming `where`, unless `content` is an ONNX file of the allowed kind."""
    graphs = 0
    try:
        for number, value in _fields(memoryview(content)):
            if number in (_MODEL_FUNCTIONS, _MODEL_TRAINING):
                raise EncoderError(f"{where}: holds functions or training steps; not run")
            if number == _MODEL_GRAPH:
                graphs += 1
                _check_graph(_message(value), where)
    except _NotProtobufError as error:
        raise EncoderError(f"{where}: not an ONNX file: {error}") from error
    if graphs != 1:
        raise EncoderError(f"{where}: not an ONNX file: {graphs} graphs")


def _check_graph(graph: memoryview, where: str) -> None:
    for number, value in _fields(graph):
        if number == _GRAPH_NODE:
            _check_node(_message(value), where)
        elif number == _GRAPH_INITIALIZER:
            _check_tensor(_message(value), where)
        elif number == _GRAPH_SPARSE:
            raise EncoderError(f"{where}: holds sparse weights; not read")


def _check_node(node: memoryview, where: str) -> None:
    operator, domain = "", ""
    for number, value in _fields(node):
        if number == _NODE_OP:
            operator = _text(value)
        elif number == _NODE_DOMAIN:
            domain = _text(value)
        elif number == _NODE_ATTRIBUTE:
            for inner, part in _fields(_message(value)):
                if inner in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
                    raise EncoderError(f"{where}: a node holds a graph (a branch or loop); not run")
                if inner in _ATTRIBUTE_SPARSE:
                    raise EncoderError(f"{where}: holds sparse weights; not read")
                if inner in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS):
                    _check_tensor(_message(part), where)
    if domain not in _OWN_DOMAINS:
        raise EncoderError(f"{where}: operator {operator!r} of {domain!r} is not ONNX's own")


def _check_tensor(tensor: memoryview, where: str) -> None:
    for number, value in _fields(tensor):
        if number == _TENSOR_EXTERNAL or (number == _TENSOR_LOCATION and value != 0):
            raise EncoderError(f"{where}: weights in another file; not read")


class _NotProtobufError(Exception):
    pass


def _fields(message: memoryview) -> Iterator[_Field]:
    """The fields of a protobuf message in order."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        if key >> 32:  # a parser that keeps 32 bits would see another field than this one
            raise _NotProtobufError("a field number beyond 29 bits")
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise _NotProtobufError(f"wire type {kind}")
        if size > len(message) - at:
            raise _NotProtobufError("cut off")
        yield number, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise _NotProtobufError("cut off")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _NotProtobufError("a number beyond 64 bits")


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise _NotProtobufError("a number where a message belongs")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_message(value)[:200]).decode("utf-8", "replace")
