"""Embeddings of repeated texts, remembered in memory."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from masrouter.encoder.embedding_cache import FloatArray
from masrouter.encoder.load import Encoder
from masrouter.encoder.windows import readable
from masrouter.errors import EncoderError


@dataclass(frozen=True, slots=True)
class MemoStats:
    """How look-ups went, by distinct text of a call."""

    entries: int
    hits: int
    misses: int


class MemoEncoder:
    """Any encoder, with the vectors of the `most` texts last asked for kept in memory.

    Vectors are found by a hash of the text, so that a long text is not held: 4 * E + some 200 bytes
    an entry. A hit is bit for bit what the encoder gave. Failures are not remembered. Threads may
    share it; the encoder is called outside the lock, so two that miss the same text at once may
    both embed it (`BatchingEncoder` beneath embeds it once).
    """

    def __init__(self, encoder: Encoder, *, most: int = 10_000) -> None:
        if most < 1:
            raise EncoderError(f"memo: most: expected at least 1, got {most}")
        self._encoder = encoder
        self._most = most
        self._vectors: OrderedDict[bytes, FloatArray] = OrderedDict()  # oldest use first
        self._lock = threading.Lock()
        self._hits = 0
        self._misses = 0

    @property
    def identity(self) -> str:
        """The encoder's own."""
        return self._encoder.identity

    @property
    def dimension(self) -> int:
        """E, the length of a vector."""
        return self._encoder.dimension

    @property
    def stats(self) -> MemoStats:
        """Entries now, hits and misses so far."""
        with self._lock:
            return MemoStats(len(self._vectors), self._hits, self._misses)

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> FloatArray:
        """Vectors (N, E), float32, the caller's own; see `Encoder.encode`."""
        texts = readable(texts)
        keys = [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts]
        unique = dict(zip(keys, texts, strict=True))
        found: dict[bytes, FloatArray] = {}
        with self._lock:
            for key in unique:
                vector = self._vectors.get(key)
                if vector is not None:
                    self._vectors.move_to_end(key)
                    found[key] = vector
            self._hits += len(found)
            self._misses += len(unique) - len(found)
        missing = [key for key in unique if key not in found]
        if missing or not texts:
            vectors = self._encoder.encode([unique[key] for key in missing], progress=progress)
            if not texts:
                return vectors
            found.update(zip(missing, vectors, strict=True))
            self._remember({key: found[key].copy() for key in missing[-self._most :]})
        return np.stack([found[key] for key in keys])  # (N, E)

    def _remember(self, vectors: dict[bytes, FloatArray]) -> None:
        with self._lock:
            for key, vector in vectors.items():
                self._vectors[key] = vector
                self._vectors.move_to_end(key)
            while len(self._vectors) > self._most:
                self._vectors.popitem(last=False)
