"""Values that cross between judge and worker: tagged JSON, of plain builtins only.

    None, bool, int within 2**53, str, list     as in JSON
    {"i": hex}  int        {"f": hex}  float     {"c": [hex, hex]}  complex
    {"u": hex}  str with surrogates              {"b": hex}  bytes      {"y": hex}  bytearray
    {"t": [...]}  tuple    {"S": [...]}  set     {"F": [...]}  frozenset
    {"d": [[key, value], ...]}  dict             {"q": [[...], maxlen]}  deque
    {"r": [start, stop, step]}  range            {"it": [...]}  an iterator, read to its end
    {"keys": [...]}, {"values": [...]}, {"items": [[key, value], ...]}  views of a dict

Subclasses arrive as the plain type (a Counter as a dict, a named tuple as a tuple), so that no
method of a program's own comes across. All else is refused. Exceptions travel as the name of a
builtin class and a text. Nothing here runs what it reads.
"""

from __future__ import annotations

import builtins
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

SAFE_INTEGER = 1 << 53
_ITERATOR_MODULES = ("builtins", "itertools", "collections")
_SEQUENCES: tuple[tuple[Any, str], ...] = ((tuple, "t"), (set, "S"), (frozenset, "F"))
_VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))

EXCEPTIONS: dict[str, type[BaseException]] = {
    name: kind
    for name, kind in vars(builtins).items()
    if isinstance(kind, type)
    and issubclass(kind, BaseException)
    and not issubclass(kind, BaseExceptionGroup)
    and (kind is UnicodeError or not issubclass(kind, UnicodeError))
    and kind not in (StopIteration, StopAsyncIteration)
}
"""Builtin exceptions that can be made from one text; others travel as their nearest base.

So do those that end a loop without a word: a test's `map` or `zip` over results would end, and pass
(compare PEP 479)."""


class ValueRefused(Exception):
    """A value cannot cross: `reason` is "output" where it is too large, "protocol" otherwise."""

    def __init__(self, reason: Literal["output", "protocol"], why: str) -> None:
        super().__init__(why)
        self.reason = reason
        self.why = why


class BadMessage(Exception):
    """Bytes that `dump` did not write."""


def dump(message: Any) -> bytes:
    """A message of packed values as bytes."""
    return json.dumps(message, separators=(",", ":"), allow_nan=False).encode("ascii")


def load(data: bytes) -> Any:
    """The message; raises BadMessage. Integers and texts are capped by the size of the data."""
    try:
        return json.loads(data, parse_float=_no_number, parse_constant=_no_number)
    except (ValueError, RecursionError) as bad:
        raise BadMessage(f"not a message: {type(bad).__name__}") from None


def _no_number(text: str) -> float:
    raise ValueError(f"{text[:20]} does not travel as a number")


def pack(value: object, *, depth: int, items: int) -> Any:
    """A value as what JSON can hold; raises ValueRefused beyond the caps."""
    return _Packer(items).pack(value, depth)


class _Packer:
    def __init__(self, items: int) -> None:
        self.items = items
        self.left = items

    def pack(self, value: Any, depth: int) -> Any:
        self.left -= 1
        if self.left < 0:
            raise ValueRefused("output", f"more than {self.items} values")
        kind = type(value)
        if value is None or kind is bool:
            return value
        if isinstance(value, int):
            plain = int.__add__(value, 0)
            return plain if -SAFE_INTEGER <= plain <= SAFE_INTEGER else {"i": hex(plain)}
        if isinstance(value, str):
            return self.text(str.__str__(value))
        if isinstance(value, float):
            return {"f": float.hex(value)}
        if isinstance(value, complex):
            plain_complex = complex.__add__(value, 0j) if kind is not complex else value
            return {"c": [float.hex(plain_complex.real), float.hex(plain_complex.imag)]}
        if isinstance(value, bytes):
            return {"b": bytes.hex(value)}
        if isinstance(value, bytearray):
            return {"y": bytearray.hex(value)}
        return self.container(value, depth - 1)

    def text(self, value: str) -> Any:
        try:
            value.encode()
        except UnicodeEncodeError:
            return {"u": value.encode("utf-8", "surrogatepass").hex()}
        return value

    def container(self, value: Any, depth: int) -> Any:
        if depth < 0:
            raise ValueRefused("output", "nested too deeply, or in a circle")
        for base, tag in _SEQUENCES:
            if isinstance(value, base):
                return {tag: self.each(base.__iter__(value), depth)}
        if isinstance(value, list):
            return self.each(list.__iter__(value), depth)
        if isinstance(value, dict):
            return {"d": self.pairs(dict.items(value), depth)}
        if isinstance(value, deque):
            return {"q": [self.each(deque.__iter__(value), depth), value.maxlen]}
        kind = type(value)
        if kind is range:
            return {"r": [self.pack(n, depth) for n in (value.start, value.stop, value.step)]}
        if kind in _VIEWS:
            if kind is _VIEWS[2]:
                return {"items": self.pairs(value, depth)}
            return {"keys" if kind is _VIEWS[0] else "values": self.each(value, depth)}
        if kind.__module__ in _ITERATOR_MODULES and isinstance(value, Iterator):
            return {"it": self.each(value, depth)}
        raise ValueRefused("protocol", f"a {kind.__name__!s:.80} cannot leave its process")

    def each(self, values: Iterable[Any], depth: int) -> list[Any]:
        return [self.pack(value, depth) for value in values]

    def pairs(self, pairs: Iterable[tuple[Any, Any]], depth: int) -> list[Any]:
        return [[self.pack(key, depth), self.pack(value, depth)] for key, value in pairs]


def unpack(packed: Any, *, depth: int, items: int) -> Any:
    """The value of `pack`, of plain builtins only.

    Raises BadMessage where it is not well formed, ValueRefused beyond the caps.
    """
    try:
        return _Unpacker(items).unpack(packed, depth)
    except (TypeError, ValueError, OverflowError, IndexError) as bad:
        raise BadMessage(f"a badly tagged value: {type(bad).__name__}") from None


class _Unpacker:
    def __init__(self, items: int) -> None:
        self.items = items
        self.left = items

    def unpack(self, packed: Any, depth: int) -> Any:
        self.left -= 1
        if self.left < 0:
            raise ValueRefused("output", f"more than {self.items} values")
        if packed is None or type(packed) in (bool, int, str):
            return packed
        if type(packed) is list:
            tag, content = "", packed
        elif type(packed) is dict and len(packed) == 1:
            ((tag, content),) = packed.items()
            if not tag:
                raise BadMessage("an empty tag")
        else:
            raise BadMessage("a value without a tag")
        if tag in _SCALARS:
            return _SCALARS[tag](content)
        if type(content) is not list:
            raise BadMessage(f"tag {tag!r:.20} without a list")
        if depth < 1:
            raise ValueRefused("output", "nested too deeply")
        return self.container(tag, content, depth - 1)

    def container(self, tag: str, content: list[Any], depth: int) -> Any:
        if tag in ("d", "items"):
            mapping = dict(self.pairs(content, depth))
            return mapping if tag == "d" else mapping.items()
        if tag == "q":
            values, longest = content
            return deque(self.each(values, depth), longest)
        values = self.each(content, depth)
        if tag == "r":
            start, stop, step = values
            return range(start, stop, step)
        if tag == "keys":
            return dict.fromkeys(values).keys()
        if tag == "values":
            return dict(enumerate(values)).values()
        makers: dict[str, Callable[[list[Any]], Any]] = {
            "": list,
            "t": tuple,
            "S": set,
            "F": frozenset,
            "it": iter,
        }
        if tag not in makers:
            raise BadMessage(f"unknown tag {tag!r:.20}")
        return makers[tag](values)

    def each(self, values: Any, depth: int) -> list[Any]:
        if type(values) is not list:
            raise BadMessage("expected a list")
        return [self.unpack(value, depth) for value in values]

    def pairs(self, pairs: list[Any], depth: int) -> Iterator[tuple[Any, Any]]:
        for key, value in pairs:
            yield self.unpack(key, depth), self.unpack(value, depth)


def _complex(parts: Any) -> complex:
    real, imaginary = parts
    return complex(float.fromhex(real), float.fromhex(imaginary))


_SCALARS: dict[str, Callable[[Any], Any]] = {
    "i": lambda digits: int(digits, 16),
    "f": float.fromhex,
    "c": _complex,
    "u": lambda digits: bytes.fromhex(digits).decode("utf-8", "surrogatepass"),
    "b": bytes.fromhex,
    "y": bytearray.fromhex,
}


def pack_exception(error: BaseException) -> list[str]:
    """[name of the builtin class, text, own name of the class]."""
    known = next(
        (kind.__name__ for kind in type(error).__mro__ if EXCEPTIONS.get(kind.__name__) is kind),
        "Exception",
    )
    try:
        only_text = len(error.args) == 1 and type(error.args[0]) is str
        text = error.args[0] if only_text else str(error)
    except Exception:
        text = ""
    own = f"{type(error).__name__!s:.200}"
    return [known, str.__str__(text)[:2000], own]


def unpack_exception(packed: Any) -> BaseException:
    """A builtin exception with a plain text; raises BadMessage."""
    if type(packed) is not list or [type(part) for part in packed] != [str, str, str]:
        raise BadMessage("a badly formed exception")
    kind = EXCEPTIONS.get(packed[0])
    if kind is None:
        raise BadMessage(f"unknown exception {packed[0]!r:.80}")
    return kind(packed[1])
