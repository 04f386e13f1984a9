"""Concurrent calls share a forward: nobody waits for nothing, and nobody pays for another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masrouter.encoder import HashingEncoder
from masrouter.encoder.batching import BatchingEncoder
from masrouter.encoder.embedding_cache import FloatArray
from masrouter.errors import EncoderError

PATIENCE = 20.0


class Watched(HashingEncoder):
    """An encoder that notes its batches, refuses a text, and can be held up."""

    def __init__(self) -> None:
        super().__init__(16)
        self.batches: list[list[str]] = []
        self.entered = threading.Semaphore(0)
        self.may_go = threading.Event()
        self.may_go.set()
        self.busy = 0

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> FloatArray:
        self.busy += 1
        assert self.busy == 1, "two forwards at once"
        try:
            self.batches.append(list(texts))
            self.entered.release()
            assert self.may_go.wait(PATIENCE)
            if "bad" in texts:
                raise EncoderError("a bad text")
            return super().encode(texts)
        finally:
            self.busy -= 1


class Callers:
    """Threads that each make one call and keep what it gave."""

    def __init__(self, encode: Callable[[Sequence[str]], FloatArray]) -> None:
        self._encode = encode
        self._threads: list[threading.Thread] = []
        self.found: dict[str, FloatArray | BaseException] = {}

    def call(self, texts: list[str]) -> None:
        def work() -> None:
            try:
                self.found["+".join(texts)] = self._encode(texts)
            except BaseException as error:
                self.found["+".join(texts)] = error

        self._threads.append(threading.Thread(target=work, daemon=True))
        self._threads[-1].start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a caller hangs"


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.001)


def held(encoder: Watched, batching: BatchingEncoder, calls: list[list[str]]) -> Callers:
    """A first call is held in the encoder until all of `calls` wait, in order; then all end."""
    encoder.may_go.clear()
    callers = Callers(batching.encode)
    callers.call(["first"])
    assert encoder.entered.acquire(timeout=PATIENCE)
    for number, texts in enumerate(calls, 1):
        callers.call(texts)
        until(lambda number=number: len(batching._waiting) == number)
    encoder.may_go.set()
    callers.join()
    return callers


def test_a_lone_call_goes_straight_through() -> None:
    encoder = Watched()
    # A wait of a minute is one of a busy encoder: an idle one is asked at once.
    batching = BatchingEncoder(encoder, max_wait_s=60)
    assert (batching.identity, batching.dimension) == (encoder.identity, 16)
    for text in ("a", "b"):
        np.testing.assert_array_equal(batching.encode([text]), HashingEncoder(16).encode([text]))
    assert batching.encode([]).shape == (0, 16)
    assert encoder.batches == [["a"], ["b"], []]


def test_calls_that_come_meanwhile_share_the_next_forward() -> None:
    encoder = Watched()
    callers = held(encoder, BatchingEncoder(encoder), [["a"], ["b", "c"], ["d"]])
    assert encoder.batches == [["first"], ["a", "b", "c", "d"]]
    for name, vectors in callers.found.items():
        np.testing.assert_array_equal(vectors, HashingEncoder(16).encode(name.split("+")))


def test_a_batch_is_no_larger_than_allowed_unless_one_call_is() -> None:
    encoder = Watched()
    many = [f"m{i}" for i in range(5)]
    held(encoder, BatchingEncoder(encoder, max_batch=3), [["a"], ["b"], many, ["c"], ["d"]])
    assert encoder.batches == [["first"], ["a", "b"], many, ["c", "d"]]


def test_a_text_that_cannot_be_embedded_fails_its_caller_alone() -> None:
    encoder = Watched()
    callers = held(encoder, BatchingEncoder(encoder), [["a"], ["bad"], ["b"]])
    assert encoder.batches == [["first"], ["a", "bad", "b"], ["a"], ["bad"], ["b"]]
    error = callers.found.pop("bad")
    assert isinstance(error, EncoderError)
    assert str(error) == "a bad text"
    for name, vectors in callers.found.items():
        np.testing.assert_array_equal(vectors, HashingEncoder(16).encode([name]))


def test_texts_of_unlike_length_share_no_forward() -> None:
    encoder = Watched()
    texts = ["x" * 400, "a", "y" * 410, "b"]
    callers = held(encoder, BatchingEncoder(encoder), [[text] for text in texts])
    assert encoder.batches == [["first"], ["a", "b"], ["x" * 400, "y" * 410]]
    for name, vectors in callers.found.items():
        np.testing.assert_array_equal(vectors, HashingEncoder(16).encode([name]))


def test_what_is_no_text_never_reaches_the_batch() -> None:
    encoder = Watched()
    batching = BatchingEncoder(encoder)
    with pytest.raises(EncoderError, match=r"texts\[0\]: expected text, got NoneType"):
        batching.encode([None])  # type: ignore[list-item]
    with pytest.raises(EncoderError, match="a bad text"):
        batching.encode(["bad"])
    assert batching.encode(["good"]).any()  # a failure leaves nothing behind
    assert encoder.batches == [["bad"], ["good"]]


def test_a_leader_that_took_over_waits_for_a_full_batch() -> None:
    encoder = Watched()
    batching = BatchingEncoder(encoder, max_batch=2, max_wait_s=PATIENCE)
    encoder.may_go.clear()
    callers = Callers(batching.encode)
    callers.call(["first"])
    assert encoder.entered.acquire(timeout=PATIENCE)
    callers.call(["a"])
    until(lambda: len(batching._waiting) == 1)
    encoder.may_go.set()
    until(lambda: "first" in callers.found)
    assert encoder.batches == [["first"]]  # "a" leads now, and waits for one more
    callers.call(["b"])
    callers.join()
    assert encoder.batches == [["first"], ["a", "b"]]


def test_a_leader_that_is_interrupted_leaves_the_others_to_the_next() -> None:
    encoder = Watched()
    batching = BatchingEncoder(encoder)
    embed = encoder.encode

    def interrupted(texts: Sequence[str], *, progress: bool = False) -> FloatArray:
        if texts[0] == "stopped":
            encoder.encode = embed  # type: ignore[method-assign]
            raise KeyboardInterrupt
        return embed(texts, progress=progress)

    encoder.encode = interrupted  # type: ignore[method-assign]
    callers = held(encoder, batching, [["stopped"], ["a"], ["b"]])
    assert isinstance(callers.found.pop("stopped"), KeyboardInterrupt)
    for name, vectors in callers.found.items():
        np.testing.assert_array_equal(vectors, HashingEncoder(16).encode([name]))
    assert encoder.batches == [["first"], ["a", "b"]]


@settings(max_examples=20, deadline=None)
@given(
    calls=st.lists(
        st.lists(st.sampled_from(["a", "b", "merge two lists", "", "bad"]), max_size=4),
        min_size=1,
        max_size=12,
    ),
    max_batch=st.integers(1, 6),
    wait=st.sampled_from([0.0, 0.002]),
)
def test_every_caller_gets_its_own_vectors_or_its_own_error(
    calls: list[list[str]], max_batch: int, wait: float
) -> None:
    batching = BatchingEncoder(Watched(), max_batch=max_batch, max_wait_s=wait)
    found: list[FloatArray | BaseException | None] = [None] * len(calls)
    start = threading.Barrier(len(calls))

    def work(at: int) -> None:
        start.wait(PATIENCE)
        try:
            found[at] = batching.encode(calls[at])
        except BaseException as error:
            found[at] = error

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    for texts, result in zip(calls, found, strict=True):
        if "bad" in texts:
            assert isinstance(result, EncoderError)
        else:
            np.testing.assert_array_equal(result, HashingEncoder(16).encode(texts))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_batch": 0}, "max_batch: expected at least 1, got 0"),
        ({"max_wait_s": -1.0}, "max_wait_s: expected 0 to 60, got -1.0"),
        ({"max_wait_s": float("nan")}, "max_wait_s: expected 0 to 60, got nan"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(EncoderError, match=message):
        BatchingEncoder(HashingEncoder(), **options)  # type: ignore[arg-type]
