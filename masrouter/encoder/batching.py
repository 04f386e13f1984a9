"""Concurrent calls of an encoder, coalesced into one forward.

The first caller leads: it embeds at once whatever is waiting, alone when nothing else is. Those who
call meanwhile wait, and the first of them leads next, for all of them together. So an idle encoder
adds no delay, and a busy one runs ever fuller batches.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence

import numpy as np

from masrouter.encoder.embedding_cache import FloatArray
from masrouter.encoder.load import Encoder
from masrouter.encoder.windows import readable
from masrouter.errors import EncoderError

ALIKE, SHORT = 1.25, 20
"""Texts share a forward up to so many times the length of the shortest, and some characters."""


class BatchingEncoder:
    """Any encoder, called by one thread at a time with the texts of all that wait.

    Callers get what the encoder gives their own texts: where a batch fails, each call of it is
    tried alone, so that a text that cannot be embedded fails nobody else.

    Args:
        max_batch: texts in one forward, except where a single call brings more.
        max_wait_s: how long a leader that took over from another waits for more texts where its
            batch is not full; it helps where callers come back in step, each just too late. A call
            that finds the encoder idle never waits.
    """

    def __init__(self, encoder: Encoder, *, max_batch: int = 32, max_wait_s: float = 0.0) -> None:
        if max_batch < 1:
            raise EncoderError(f"batching: max_batch: expected at least 1, got {max_batch}")
        if not 0 <= max_wait_s <= 60:
            raise EncoderError(f"batching: max_wait_s: expected 0 to 60, got {max_wait_s}")
        self._encoder = encoder
        self._max_batch = max_batch
        self._max_wait_s = max_wait_s
        self._changed = threading.Condition()
        self._waiting: deque[_Call] = deque()
        self._led = False

    @property
    def identity(self) -> str:
        """The encoder's own."""
        return self._encoder.identity

    @property
    def dimension(self) -> int:
        """E, the length of a vector."""
        return self._encoder.dimension

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> FloatArray:
        """Vectors (N, E), float32, the caller's own; see `Encoder.encode`. No bar is shown."""
        call = _Call(readable(texts))
        with self._changed:
            self._waiting.append(call)
            if self._led:
                call.leads = False
                self._changed.notify()  # a leader may be waiting for more
            self._led = True
        try:
            if not call.leads:
                call.ready.wait()  # for an outcome, or to lead
            if call.leads:
                self._lead(call)
        except BaseException:
            self._withdraw(call)
            raise
        return call.outcome()

    def _lead(self, own: _Call) -> None:
        """Embed the first batch of those who wait, `own` the first of them; then hand over."""
        with self._changed:
            if own.ready.is_set() and self._max_wait_s > 0:
                self._wait_for_more()
            batch = self._take()
        try:
            self._embed(batch)
        except BaseException:
            with self._changed:  # this thread was interrupted: the others' texts are for the next
                undone = [call for call in batch if call is not own and not call.done]
                self._waiting.extendleft(reversed(undone))
            raise
        finally:
            own.leads = False
            for call in batch:
                if call.done:
                    call.ready.set()
            self._hand_over()

    def _wait_for_more(self) -> None:
        until = time.monotonic() + self._max_wait_s
        while sum(len(call.texts) for call in self._waiting) < self._max_batch:
            if not self._changed.wait(until - time.monotonic()):
                return

    def _take(self) -> list[_Call]:
        batch = [self._waiting.popleft()]
        texts = len(batch[0].texts)
        while self._waiting and texts + len(self._waiting[0].texts) <= self._max_batch:
            texts += len(self._waiting[0].texts)
            batch.append(self._waiting.popleft())
        return batch

    def _embed(self, batch: list[_Call]) -> None:
        try:
            if len(batch) == 1:
                vectors = self._encoder.encode(batch[0].texts)
            else:
                vectors = self._encode([text for call in batch for text in call.texts])
        except Exception as error:
            if len(batch) == 1:
                batch[0].fail(error)
                return
            for call in batch:
                self._embed([call])
            return
        start = 0
        for call in batch:
            call.succeed(vectors[start : start + len(call.texts)].copy())
            start += len(call.texts)

    def _encode(self, texts: list[str]) -> FloatArray:
        """Vectors (N, E), in groups of like length: in one forward every text costs as much as the
        longest, and strangers' texts are of any length."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)  # (N, E)
        start = 0
        for end in range(1, len(order) + 1):
            longest = ALIKE * (len(texts[order[start]]) + SHORT)
            if end == len(order) or len(texts[order[end]]) > longest:
                group = sorted(order[start:end])
                vectors[group] = self._encoder.encode([texts[i] for i in group])
                start = end
        return vectors

    def _hand_over(self) -> None:
        with self._changed:
            if self._waiting:
                self._waiting[0].leads = True
                self._waiting[0].ready.set()
            else:
                self._led = False

    def _withdraw(self, call: _Call) -> None:
        """Forget a call whose thread was interrupted while it waited."""
        with self._changed:
            if call not in self._waiting:
                return
            self._waiting.remove(call)
        if call.leads:
            self._hand_over()


class _Call:
    """One call of `encode`: what it asks, and what became of it."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts
        self.leads = True
        self.ready = threading.Event()
        self._vectors: FloatArray | None = None
        self._error: Exception | None = None

    @property
    def done(self) -> bool:
        return self._vectors is not None or self._error is not None

    def succeed(self, vectors: FloatArray) -> None:
        self._vectors = vectors

    def fail(self, error: Exception) -> None:
        self._error = error

    def outcome(self) -> FloatArray:
        if self._error is not None:
            raise self._error
        assert self._vectors is not None
        return self._vectors
