"""Repeated texts are embedded once, and remembered within bounds."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from masrouter.encoder import HashingEncoder
from masrouter.encoder.embedding_cache import FloatArray
from masrouter.encoder.memo import MemoEncoder, MemoStats
from masrouter.errors import EncoderError


class Counting(HashingEncoder):
    """An encoder that notes what it was asked."""

    def __init__(self) -> None:
        super().__init__(16)
        self.asked: list[list[str]] = []

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> FloatArray:
        self.asked.append(list(texts))
        if "bad" in texts:
            raise EncoderError("a bad text")
        return super().encode(texts)


TEXTS = st.lists(st.text(st.characters(codec=None), max_size=3), max_size=6)


@given(calls=st.lists(TEXTS, max_size=8), most=st.integers(1, 5))
def test_vectors_are_the_encoders_own_whatever_is_remembered(
    calls: list[list[str]], most: int
) -> None:
    memo = MemoEncoder(HashingEncoder(16), most=most)
    for texts in calls:
        np.testing.assert_array_equal(memo.encode(texts), HashingEncoder(16).encode(texts))
        assert memo.stats.entries <= most


def test_a_repeated_text_is_not_embedded_again() -> None:
    encoder = Counting()
    memo = MemoEncoder(encoder)
    assert (memo.identity, memo.dimension) == (encoder.identity, 16)
    memo.encode(["a", "b", "a"])
    memo.encode(["b", "c"])
    memo.encode(["c"])
    assert encoder.asked == [["a", "b"], ["c"]]
    assert memo.stats == MemoStats(entries=3, hits=2, misses=3)


def test_the_text_used_longest_ago_is_forgotten_first() -> None:
    encoder = Counting()
    memo = MemoEncoder(encoder, most=2)
    for text in ("a", "b", "a", "c", "a", "b"):
        memo.encode([text])
    assert encoder.asked == [["a"], ["b"], ["c"], ["b"]]
    assert memo.stats.entries == 2


def test_a_caller_may_write_on_what_it_got() -> None:
    memo = MemoEncoder(HashingEncoder(16))
    for _ in range(3):
        memo.encode(["a"])[:] = np.nan
    assert np.isfinite(memo.encode(["a"])).all()


def test_a_failure_is_not_remembered() -> None:
    encoder = Counting()
    memo = MemoEncoder(encoder)
    for _ in range(2):
        with pytest.raises(EncoderError, match="a bad text"):
            memo.encode(["bad"])
    assert memo.stats.entries == 0
    assert len(encoder.asked) == 2
    with pytest.raises(EncoderError, match="got one text; put it in a list"):
        memo.encode("text")
    with pytest.raises(EncoderError, match="most: expected at least 1, got 0"):
        MemoEncoder(encoder, most=0)


def test_threads_share_a_memo() -> None:
    memo = MemoEncoder(HashingEncoder(16), most=7)
    texts = [f"text {i}" for i in range(20)]
    expected = HashingEncoder(16).encode(texts)
    wrong: list[object] = []

    def work(seed: int) -> None:
        chance = np.random.default_rng(seed)
        try:
            for _ in range(150):
                rows = chance.integers(0, len(texts), 3)
                if not np.array_equal(memo.encode([texts[i] for i in rows]), expected[rows]):
                    wrong.append(rows)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    stats = memo.stats
    assert stats.entries == 7
    assert stats.hits > 0
