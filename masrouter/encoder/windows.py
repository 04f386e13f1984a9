"""Texts of any length -> unit vectors, by a model that reads a window of tokens.

Written once for every model and runtime: each text embedded once, the cache, batches, windows over
long texts and the pooling of their vectors. Not here: tokenisers and models (`TextModel`).
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from masrouter.encoder.embedding_cache import EmbeddingCache, FloatArray
from masrouter.errors import EncoderError

Features = TypeVar("Features")


@dataclass(frozen=True, slots=True)
class Reading(Generic[Features]):
    """Texts as a model reads them, each cut at its window."""

    features: Features
    full: Sequence[int]
    """Positions of the texts that fill the window: the only ones that may have been cut."""


class TextModel(Protocol[Features]):
    """A tokeniser and a model. May be used by several threads at once."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def dimension(self) -> int:
        """E, the length of a vector."""

    def read(self, texts: Sequence[str]) -> Reading[Features]:
        """Tokenise the texts, the model's prompt before each."""

    def forward(self, features: Features) -> FloatArray:
        """Unit vectors (B, E) of B texts that were read."""

    def token_starts(self, text: str) -> list[int]:
        """Where in `text` each of its tokens starts, special tokens left out."""

    def capacity(self) -> int:
        """Tokens of text that fit the window beside special tokens and prompt, at least 1."""


@dataclass(frozen=True, slots=True)
class _Window:
    """A stretch of a text that the model reads whole."""

    text: str
    tokens: int


class WindowedEncoder(Generic[Features]):
    """An encoder that reads texts of any length with a model of a limited window.

    A text that fits the window is the model's own vector. A longer one is split on token boundaries
    in windows of nearly equal length; its vector is the mean of theirs, weighted by tokens and
    normalised. Above `max_windows` windows, that many evenly spaced ones are read, and a warning
    says what share of the text that is.

    Args:
        identity: what `Encoder.identity` says.
        cache_identity: the same for the cache, where vectors of another runtime or precision must
            not be found.
    """

    def __init__(
        self,
        model: TextModel[Features],
        *,
        identity: str,
        cache_identity: str,
        batch_size: int,
        cache: EmbeddingCache | None,
        max_windows: int,
    ) -> None:
        for option, value in (("batch_size", batch_size), ("max_windows", max_windows)):
            if value < 1:
                raise EncoderError(f"encoder: {option}: expected at least 1, got {value}")
        self.identity = identity
        self._text_model = model
        self._cache_identity = cache_identity
        self._batch_size = batch_size
        self._cache = cache
        self._max_windows = max_windows

    @property
    def dimension(self) -> int:
        """E, the length of a vector."""
        return self._text_model.dimension

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> FloatArray:
        """Vectors (N, E), float32; see `Encoder.encode`. Equal texts are embedded once.

        With a cache, each batch is stored as it is done, so that a run that was stopped resumes.
        `progress` shows a bar over the texts that are not in the cache.
        """
        texts = readable(texts)
        if len(texts) == 1 and self._cache is None and not progress:
            return self._encode_batch(texts)
        unique = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        vectors = np.zeros((len(unique), self.dimension), dtype=np.float32)  # (U, E)
        missing = list(unique)
        if self._cache is not None:
            cached = self._cache.get_many(missing, self._cache_identity, self.dimension)
            for row, vector in enumerate(cached):
                if vector is not None:
                    vectors[row] = vector
            missing = [text for text, vector in zip(unique, cached, strict=True) if vector is None]

        # Texts of like length share a batch, so that little is padded; the longest go first, so
        # that a batch too large for the memory fails at once.
        missing.sort(key=len, reverse=True)
        starts: Any = range(0, len(missing), self._batch_size)
        if progress and missing:
            from rich.console import Console
            from rich.progress import track

            starts = track(starts, description="Embedding", console=Console(stderr=True))
        for start in starts:
            batch = missing[start : start + self._batch_size]
            encoded = self._encode_batch(batch)  # (B, E)
            vectors[[unique[text] for text in batch]] = encoded
            if self._cache is not None:
                self._cache.put_many(batch, encoded, self._cache_identity)
        return vectors[[unique[text] for text in texts]]  # (N, E)

    def _encode_batch(self, texts: Sequence[str]) -> FloatArray:
        model = self._text_model
        reading = model.read(texts)
        windows = {i: self._windows(texts[i], self._max_windows) for i in reading.full}
        long = {i: parts for i, parts in windows.items() if len(parts) > 1}
        if not long:
            return model.forward(reading.features)
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)  # (B, E)
        short = [i for i in range(len(texts)) if i not in long]
        if short:
            vectors[short] = model.forward(model.read([texts[i] for i in short]).features)
        for i, parts in long.items():
            vectors[i] = self._pool(parts)
        return vectors

    def _pool(self, windows: Sequence[_Window]) -> FloatArray:
        """Mean of the windows' vectors, weighted by their tokens, of norm 1: (E,)."""
        model = self._text_model
        total = np.zeros(self.dimension, dtype=np.float64)
        for start in range(0, len(windows), self._batch_size):
            batch = windows[start : start + self._batch_size]
            vectors = model.forward(model.read([w.text for w in batch]).features)  # (W, E)
            total += np.array([window.tokens for window in batch], dtype=np.float64) @ vectors
        pooled: FloatArray = normalised(total[None].astype(np.float32))[0]
        return pooled

    def _windows(self, text: str, at_most: int | None = None) -> list[_Window]:
        """Split `text` so that the model reads every part whole; one window where it fits."""
        starts = self._text_model.token_starts(text)
        capacity = self._text_model.capacity()
        if len(starts) <= capacity:
            return [_Window(text, len(starts))]
        count = math.ceil(len(starts) / capacity)
        tokens = [round(i * len(starts) / count) for i in range(count + 1)]
        # The first window also has what stands before the first token, the last what follows.
        edges = [0, *(starts[i] for i in tokens[1:-1]), len(text)]
        pieces = [text[a:b] for a, b in itertools.pairwise(edges) if a < b]
        if len(pieces) < 2:
            raise EncoderError(
                f"{self._text_model.name}: its window of {capacity} tokens is too short to read a "
                "text in parts"
            )
        if at_most is not None and len(pieces) > at_most:
            spread = np.linspace(0, len(pieces) - 1, at_most).round().astype(int)
            read = [pieces[i] for i in spread]
            share = sum(map(len, read)) / len(text)
            warnings.warn(
                f"a text of {len(text):,} characters has {len(pieces)} windows of {capacity} "
                f"tokens; {share:.1%} of it was read, in {at_most} windows spread evenly "
                "(raise max_windows to read more)",
                UserWarning,
                stacklevel=2,
            )
            pieces = read
        # A word that an edge cuts may take more tokens than before, so each piece is checked.
        return [window for piece in pieces for window in self._windows(piece)]


def readable(texts: Sequence[str]) -> list[str]:
    """The texts, with what no encoding can write (lone surrogates) replaced by U+FFFD."""
    if isinstance(texts, str):
        raise EncoderError("encode: expected a sequence of texts, got one text; put it in a list")
    found = []
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise EncoderError(f"encode: texts[{index}]: expected text, got {type(text).__name__}")
        found.append(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    return found


def normalised(vectors: FloatArray) -> FloatArray:
    """Rows (N, E) divided by their L2 norm; a zero row stays zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)  # (N, 1)
    return np.asarray(vectors / np.where(norms > 0, norms, 1), dtype=np.float32)
