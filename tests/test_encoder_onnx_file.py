"""What an ONNX file may hold: nothing but one plain graph, whatever its bytes claim."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masrouter.encoder.onnx_file import check_onnx
from masrouter.errors import EncoderError

onnx = pytest.importorskip("onnx")
helper, FLOAT = onnx.helper, onnx.TensorProto.FLOAT


def model(*nodes: object, weights: tuple[object, ...] = (), functions: tuple[object, ...] = ()):  # type: ignore[no-untyped-def]
    x = helper.make_tensor_value_info("x", FLOAT, [1])
    y = helper.make_tensor_value_info("y", FLOAT, [1])
    graph = helper.make_graph(list(nodes), "graph", [x], [y], initializer=list(weights))
    return helper.make_model(graph, functions=list(functions))


def relu(**options: object):  # type: ignore[no-untyped-def]
    return helper.make_node("Relu", ["x"], ["y"], **options)


def external():  # type: ignore[no-untyped-def]
    tensor = helper.make_tensor("w", FLOAT, [1], [1.0])
    tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    return tensor


def branch():  # type: ignore[no-untyped-def]
    y = helper.make_tensor_value_info("y", FLOAT, [1])
    inner = helper.make_graph([relu()], "inner", [], [y])
    return helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)


def sparse():  # type: ignore[no-untyped-def]
    found = model(relu())
    found.graph.sparse_initializer.add()
    return found


def location_alone():  # type: ignore[no-untyped-def]
    tensor = external()
    tensor.ClearField("external_data")
    return tensor


GOOD = model(relu(), weights=(helper.make_tensor("w", FLOAT, [2], [1.0, 2.0]),)).SerializeToString()


def test_a_plain_graph_is_allowed() -> None:
    check_onnx(GOOD, "model.onnx")
    constant = helper.make_node(
        "Constant", [], ["c"], value=helper.make_tensor("c", FLOAT, [1], [1.0])
    )
    check_onnx(model(constant, relu(domain="ai.onnx")).SerializeToString(), "model.onnx")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: model(relu(), weights=(external(),)), "weights in another file"),
        (lambda: model(relu(), weights=(location_alone(),)), "weights in another file"),
        (
            lambda: model(helper.make_node("Constant", [], ["y"], value=external())),
            "weights in another file",
        ),
        (lambda: model(relu(domain="evil.ops")), "operator 'Relu' of 'evil.ops' is not ONNX's own"),
        (lambda: model(branch()), r"a node holds a graph \(a branch or loop\)"),
        (
            lambda: model(
                relu(),
                functions=(helper.make_function("d", "f", ["x"], ["y"], [relu()], []),),
            ),
            "holds functions or training steps",
        ),
        (sparse, "sparse weights"),
    ],
)
def test_what_is_no_plain_graph_is_refused(make: Callable[[], object], message: str) -> None:
    content = make().SerializeToString()  # type: ignore[attr-defined]
    with pytest.raises(EncoderError, match=f"^model.onnx: .*{message}"):
        check_onnx(content, "model.onnx")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 graphs"),
        (b"not an ONNX file at all", "not an ONNX file"),
        (GOOD + GOOD, "2 graphs"),
        (GOOD[:-1], "cut off"),
        (b"\x38\x01", "a number where a message belongs"),  # the graph's field, as an integer
        (b"\x3b", "wire type 3"),
        (b"\x80" * 11, "a number beyond 64 bits"),
        # A parser that keeps 32 bits of a key would read the field of functions here.
        (b"\xca\x81\x80\x80\x10\x00", "a field number beyond 29 bits"),
    ],
)
def test_what_is_no_onnx_file_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(
        EncoderError, match=rf"model\.onnx: not an ONNX file: .*{message}|{message}"
    ):
        check_onnx(content, "model.onnx")


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    with contextlib.suppress(EncoderError):
        check_onnx(content, "model.onnx")


HIDING = model(relu(), weights=(external(),)).SerializeToString()


@given(at=st.integers(0, len(HIDING) - 1), byte=st.integers(0, 255))
def test_what_is_allowed_is_as_harmless_to_the_library_that_parses_it(at: int, byte: int) -> None:
    """A file that one changed byte makes pass must have lost its outside weights for onnx too."""
    content = HIDING[:at] + bytes([byte]) + HIDING[at + 1 :]
    try:
        check_onnx(content, "model.onnx")
    except EncoderError:
        return
    parsed = onnx.ModelProto()
    try:
        parsed.ParseFromString(content)
    except Exception:
        return
    for tensor in parsed.graph.initializer:
        assert not tensor.external_data
        assert tensor.data_location == onnx.TensorProto.DEFAULT
    assert {node.domain for node in parsed.graph.node} <= {"", "ai.onnx"}
