"""A verified export as an encoder: no torch, no transformers, no sentence-transformers.

Texts are tokenised by the package `tokenizers` and embedded by a runtime (`onnx_runtime`,
`openvino_runtime`). Not here: making and finding exports.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from masrouter.encoder.embedding_cache import EmbeddingCache, FloatArray
from masrouter.encoder.export_files import (
    MODEL,
    PROBE,
    SMALLEST_COSINE,
    TOKENIZER,
    Backend,
    ExportedFiles,
    Manifest,
    read_export,
)
from masrouter.encoder.onnx_runtime import OnnxRuntime
from masrouter.encoder.openvino_runtime import OpenVinoRuntime
from masrouter.encoder.windows import Reading, WindowedEncoder
from masrouter.errors import EncoderError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Ints = npt.NDArray[np.int64]
Ids = list[list[int]]
"""Token ids of each text."""

_TOGETHER = 8
"""Texts in one run. On one core more are slower: what they work on no longer fits its cache."""


class Runtime(Protocol):
    """What computes vectors. May be used by several threads at once."""

    name: str
    precision: str
    """What is computed with."""
    length_multiple: int
    """Texts are padded to a multiple of this many tokens."""

    def run(self, ids: Ints, mask: Ints) -> FloatArray:
        """Token ids and mask (B, L) -> unit vectors (B, E)."""


class ExportedEncoder(WindowedEncoder[Ids]):
    """The export in `folder`, with the identity of the encoder that it was made from.

    Reads texts as `SentenceTransformerEncoder` does: the same tokens, windows and pooling.

    Args:
        threads: cores that one forward uses; None: all.
        batch_size, cache, max_windows: see `WindowedEncoder`.

    Raises:
        EncoderError: the export is missing, damaged, not allowed or cannot be run, or its runtime
            does not give this machine the vector that torch gave.
    """

    def __init__(
        self,
        folder: Path,
        *,
        threads: int | None = None,
        batch_size: int = 32,
        cache: EmbeddingCache | None = None,
        max_windows: int = 64,
    ) -> None:
        if threads is not None and threads < 1:
            raise EncoderError(f"encoder: threads: expected at least 1, got {threads}")
        self.folder = folder
        files = read_export(folder)
        self.manifest: Manifest = files.manifest
        runtime = _runtime(files, str(folder), threads)
        self.precision = runtime.precision
        identity = f"{files.manifest.identity}+windows{max_windows}"
        model = ExportedModel(files, runtime, str(folder))
        super().__init__(
            model,
            identity=identity,
            cache_identity=f"{identity}+{runtime.name}-{runtime.precision}",
            batch_size=batch_size,
            cache=cache,
            max_windows=max_windows,
        )
        model.check()


class ExportedModel:
    """The `TextModel` of an export."""

    def __init__(self, files: ExportedFiles, runtime: Runtime, name: str) -> None:
        self.name = name
        self.dimension = files.manifest.dimension
        self._manifest = files.manifest
        self._text = files.manifest.text
        self._runtime = runtime
        # Scales of int8 are those of a whole batch: only alone has a text one vector.
        self._together = 1 if files.manifest.precision == "int8" else _TOGETHER
        # One cuts at the window and one does not; neither is changed after, so threads may share.
        self._cutting = _tokenizer(files.tokenizer, name)
        self._cutting.enable_truncation(self._text.window)
        self._whole = _tokenizer(files.tokenizer, name)

    def read(self, texts: Sequence[str]) -> Reading[Ids]:
        """Token ids of each text, special ones included."""
        prompted = [self._text.prompt + text for text in texts] if self._text.prompt else texts
        if len(prompted) == 1:
            ids = [self._cutting.encode(prompted[0]).ids]
        else:
            ids = [encoding.ids for encoding in self._cutting.encode_batch_fast(list(prompted))]
        window = self._text.window
        return Reading(ids, [i for i, tokens in enumerate(ids) if len(tokens) >= window])

    def forward(self, features: Ids) -> FloatArray:
        """Unit vectors (B, E)."""
        if len(features) <= self._together:
            return self._run(features)
        vectors = np.empty((len(features), self.dimension), dtype=np.float32)  # (B, E)
        order = sorted(range(len(features)), key=lambda row: len(features[row]))
        for start in range(0, len(order), self._together):
            rows = order[start : start + self._together]
            vectors[rows] = self._run([features[row] for row in rows])
        return vectors

    def _run(self, features: Ids) -> FloatArray:
        ids, mask = self._padded(features)  # (B, L)
        try:
            vectors = self._runtime.run(ids, mask)
        except Exception as error:  # a graph's nodes can fail, each runtime in its own way
            raise EncoderError(f"{self.name}: cannot be run: {error}") from error
        if vectors.shape != (len(features), self.dimension) or vectors.dtype != np.float32:
            raise EncoderError(
                f"{self.name}: expected ({len(features)}, {self.dimension}) float32, got "
                f"{vectors.shape} {vectors.dtype}"
            )
        if not np.isfinite(vectors).all():
            raise EncoderError(f"{self.name}: gives vectors that are not finite")
        return vectors

    def _padded(self, features: Ids) -> tuple[Ints, Ints]:
        """Ids and mask (B, L), L the longest text's length rounded up as the runtime likes it."""
        multiple = self._runtime.length_multiple
        if len(features) == 1 and len(features[0]) % multiple == 0:
            ids = np.array(features, dtype=np.int64)  # (1, L)
            return ids, np.ones_like(ids)
        longest = max(map(len, features))
        length = min(-(-longest // multiple) * multiple, max(self._text.window, longest))
        ids = np.full((len(features), length), self._text.pad_id, dtype=np.int64)  # (B, L)
        mask = np.zeros_like(ids)
        for row, tokens in enumerate(features):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        return ids, mask

    def token_starts(self, text: str) -> list[int]:
        """Where in `text` each token of the model starts, special tokens left out."""
        return [start for start, _ in self._whole.encode(text, add_special_tokens=False).offsets]

    def capacity(self) -> int:
        """Tokens of text that fit the model's window beside special tokens and prompt."""
        prompt = self._text.prompt
        reserved = len(self.token_starts(prompt)) if prompt else 0
        special: int = self._whole.num_special_tokens_to_add(False)
        return max(1, self._text.window - reserved - special)

    def check(self) -> None:
        """EncoderError unless this machine gives `PROBE` the vector that torch gave it."""
        expected = np.array(self._manifest.probe)  # (E,)
        found = self.forward(self.read([PROBE]).features)[0].astype(np.float64)  # (E,)
        cosine = float(expected @ found / max(1e-9, np.linalg.norm(expected)))
        least = SMALLEST_COSINE[self._manifest.precision]
        if not least <= cosine <= 2 - least:
            raise EncoderError(
                f"{self.name}: the vector of a known text has cosine {cosine:.5f} with torch's, "
                f"expected at least {least}; export it again, on this machine"
            )


def _runtime(files: ExportedFiles, where: str, threads: int | None) -> Runtime:
    kinds: dict[Backend, Any] = {"onnx": OnnxRuntime, "openvino": OpenVinoRuntime}
    manifest = files.manifest
    try:
        made: Runtime = kinds[manifest.backend](
            files.model, precision=manifest.precision, threads=threads
        )
    except EncoderError:
        raise
    except Exception as error:  # a damaged graph fails in each runtime's own way
        raise EncoderError(f"{where}/{MODEL}: cannot be loaded: {error}") from error
    return made


def _tokenizer(text: str, where: str) -> Tokenizer:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise EncoderError(
            f"an exported encoder needs tokenizers ({error}): pip install 'masrouter[onnx]'"
        ) from error
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:
        raise EncoderError(f"{where}/{TOKENIZER}: cannot be loaded: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
