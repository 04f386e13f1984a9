"""Values that cross: nothing is lost, nothing of a program's own classes comes through."""

from __future__ import annotations

import collections
import enum
import itertools
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masrouter.sandbox.values import (
    BadMessage,
    ValueRefused,
    dump,
    load,
    pack,
    pack_exception,
    unpack,
    unpack_exception,
)

CAPS = {"depth": 50, "items": 10_000}
SURROGATES = st.text(st.characters(), max_size=8)
HASHABLE = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(min_value=1 << 200, max_value=1 << 4000),
        st.floats(allow_nan=False),
        st.complex_numbers(allow_nan=False),
        SURROGATES,
        st.binary(max_size=8),
        st.builds(range, st.integers(-9, 9), st.integers(), st.integers(1, 9)),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(tuple), st.frozensets(inner, max_size=4)
    ),
    max_leaves=6,
)
VALUES = st.recursive(
    st.one_of(HASHABLE, st.binary(max_size=8).map(bytearray)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(HASHABLE, inner, max_size=4),
        st.sets(HASHABLE, max_size=4),
        st.lists(inner, max_size=4).map(collections.deque),
    ),
    max_leaves=12,
)


def cross(value: Any) -> Any:
    return unpack(load(dump(pack(value, **CAPS))), **CAPS)


def shape(value: Any) -> Any:
    """The exact types of a value, all the way down, with what tells -0.0 from 0.0."""
    if isinstance(value, dict):
        return dict, [(shape(key), shape(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple, collections.deque)):
        return type(value), [shape(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return type(value), sorted(repr(shape(item)) for item in value)
    return type(value), repr(value)


@given(VALUES)
def test_a_value_comes_back_with_its_exact_types(value: Any) -> None:
    assert cross(value) == value
    assert shape(cross(value)) == shape(value)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from([*"ifcubytSFdqr", "it", "keys", "items", "x"]), inner),
    ),
)


@given(JSON)
def test_what_was_not_packed_is_refused_or_plain(message: Any) -> None:
    try:
        value = unpack(load(json.dumps(message).encode()), **CAPS)
    except (BadMessage, ValueRefused):
        return
    assert type(value).__module__ in ("builtins", "collections")


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, -0.0, 5e-324])
def test_a_special_float_comes_back(number: float) -> None:
    assert repr(cross(number)) == repr(number)
    assert repr(cross(complex(number, -0.0))) == repr(complex(number, -0.0))


class LyingInt(int):
    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


class LyingText(str):
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    def __str__(self) -> str:
        return "lie"

    def __hash__(self) -> int:
        return 0


class LyingList(list[int]):
    def __iter__(self) -> Any:
        return iter([42])


class Colour(enum.IntEnum):
    RED = 1


Point = collections.namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (LyingInt(3), 3),
        (LyingText("a"), "a"),
        (LyingList([1]), [1]),
        (Colour.RED, 1),
        (Point(1, 2), (1, 2)),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (collections.OrderedDict(a=1), {"a": 1}),
        (collections.defaultdict(list, a=[1]), {"a": [1]}),
    ],
)
def test_a_subclass_arrives_as_the_plain_type(value: Any, plain: Any) -> None:
    arrived = cross(value)
    assert type(arrived) is type(plain)
    assert plain.__eq__(arrived)


@pytest.mark.parametrize(
    ("make", "items"),
    [
        (lambda: (n for n in (1, 2)), [1, 2]),
        (lambda: map(abs, [-1]), [1]),
        (lambda: zip("ab", "cd", strict=True), [("a", "c"), ("b", "d")]),
        (lambda: itertools.chain([1], [2]), [1, 2]),
        (lambda: {"a": 1}.keys(), ["a"]),
        (lambda: {"a": 1}.values(), [1]),
        (lambda: {"a": 1}.items(), [("a", 1)]),
        (lambda: reversed([1, 2]), [2, 1]),
    ],
)
def test_an_iterator_arrives_as_one_and_equals_no_list(
    make: Callable[[], Any], items: list[Any]
) -> None:
    assert list(cross(make())) == items
    assert cross(make()) != items


def test_an_integer_of_any_length_crosses() -> None:
    assert cross(-(7**20_000)) == -(7**20_000)


def test_a_deque_keeps_its_length() -> None:
    arrived = cross(collections.deque([1, 2], 2))
    arrived.append(3)
    assert arrived == collections.deque([2, 3])


@pytest.mark.parametrize(
    "value", [len, lambda: 0, object(), int, [print], {1: object}, Exception("x"), ...]
)
def test_what_is_no_data_is_refused(value: object) -> None:
    with pytest.raises(ValueRefused, match="cannot leave its process") as caught:
        cross(value)
    assert caught.value.reason == "protocol"


def circle() -> list[Any]:
    values: list[Any] = []
    values.append(values)
    return values


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (circle(), "nested too deeply"),
        (itertools.count(), "more than 10000 values"),
        ([0] * 10_001, "more than 10000 values"),
        ({n: n for n in range(6000)}, "more than 10000 values"),
    ],
)
def test_what_is_too_large_is_refused(value: Any, why: str) -> None:
    with pytest.raises(ValueRefused, match=why) as caught:
        cross(value)
    assert caught.value.reason == "output"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1.5",
        b"NaN",
        b"[" * 100_000,
        b"1" * 5000,
        b"\xff",
        b'{"f":"xyz"}',
        b'{"i":1}',
        b'{"i":"0x1","f":"0x1"}',
        b'{"S":[[]]}',
        b'{"d":[[1]]}',
        b'{"d":{"a":1}}',
        b'{"r":[1,2,0]}',
        b'{"q":[[],-1]}',
        b'{"u":"ff"}',
        b'{"__class__":[]}',
    ],
)
def test_a_forged_value_is_refused(data: bytes) -> None:
    with pytest.raises(BadMessage):
        unpack(load(data), **CAPS)


def test_a_forged_value_cannot_be_larger_than_what_may_be_sent() -> None:
    with pytest.raises(ValueRefused, match="nested too deeply"):
        unpack(load(b"[" * 60 + b"]" * 60), **CAPS)
    with pytest.raises(ValueRefused, match="more than 10000"):
        unpack(load(b"[" + b"1," * 10_000 + b"1]"), **CAPS)


class OwnError(KeyError):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (ValueError("why"), ValueError, "why"),
        (KeyError("name"), KeyError, "name"),
        (OwnError(1, 2), KeyError, ""),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), UnicodeError, None),
        (ExceptionGroup("many", [ValueError()]), Exception, None),
        (SystemExit(3), SystemExit, "3"),
        (FileNotFoundError(2, "no"), FileNotFoundError, "[Errno 2] no"),
        (json.JSONDecodeError("bad", "doc", 0), ValueError, None),
    ],
)
def test_an_exception_travels_as_a_builtin_one(
    error: BaseException, kind: type[BaseException], text: str | None
) -> None:
    arrived = unpack_exception(load(dump(pack_exception(error))))
    assert type(arrived) is kind
    assert text is None or arrived.args == (text,)


@pytest.mark.parametrize("forged", [None, [], ["eval", "", ""], ["ValueError", 1, ""], ["int"] * 3])
def test_a_forged_exception_is_refused(forged: Any) -> None:
    with pytest.raises(BadMessage):
        unpack_exception(forged)
