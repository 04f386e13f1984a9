"""A sequence-to-sequence model of Hugging Face: loaded strictly, asked for texts.

`transformers` 5 has no pipelines for translation and summarisation any more, so the model is asked
directly. Weights come from safetensors alone, no code of a model is run, and a model whose files
lack some of its weights is refused rather than filled up with random ones.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from logging import CRITICAL
from pathlib import Path
from typing import Any

from masrouter.errors import ConfigError
from masrouter.llms.failures import quoted

_NO_LIMIT = 1_000_000
"""Tokenizers without a limit of their own name a number far above this."""

_POSITIONS = ("max_position_embeddings", "max_encoder_position_embeddings", "n_positions")
_LEAST_WRITTEN = 64
_HUB_NAME = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """How a model is asked: greedily, unless there are beams; never by chance."""

    prefix: str = ""
    """Stands before each text: `translate English to German: ` for T5, `>>fra<< ` for Marian."""
    source_code: str | None = None
    """Of the language read, for tokenizers that take one (`eng_Latn` for NLLB)."""
    target_code: str | None = None
    """Of the language written, for models that are told by their first token."""
    beams: int = 1
    read_tokens: int | None = None
    """Most tokens read at once, with the prefix; None takes what the model or tokenizer says."""
    new_tokens: int | None = None
    """Most tokens written for one text; None: as many as are read at most, and at least 64, as far
    as the model goes."""
    batch: int = 8
    """Texts that are worked on together."""

    def __post_init__(self) -> None:
        for key in ("beams", "read_tokens", "new_tokens", "batch"):
            value = getattr(self, key)
            if value is None and key.endswith("_tokens"):
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"generation: {key}: expected a number >= 1, got {value!r}")


@dataclass(frozen=True, slots=True)
class Written:
    """What a model wrote for one text."""

    text: str
    read: int
    """Tokens."""
    written: int
    """Tokens."""
    cut: bool
    """It had no room to come to an end."""
    unknown: int
    """Tokens of what was read that stand for nothing the model knows."""


class TextModel:
    """A loaded model; safe to use from several threads, which wait for each other."""

    def __init__(
        self,
        model: str | Path,
        generation: Generation | None = None,
        *,
        local_files_only: bool = False,
        revision: str | None = None,
        device: str = "cpu",
    ) -> None:
        """model: a folder, or a name on the Hugging Face hub. local_files_only: ask no network.

        Raises ConfigError where it cannot be loaded, or not be asked as `generation` says.
        """
        self.name = str(model)
        self._how = generation or Generation()
        self._lock = threading.Lock()
        self._tokenizer, self._model = _load(self.name, local_files_only, revision, device)
        settings = self._model.generation_config
        settings.update(
            do_sample=False, num_beams=self._how.beams, num_return_sequences=1, max_length=None,
            # An end that is forced looks like one that was reached.
            forced_eos_token_id=None,
        )  # fmt: skip
        ends = settings.eos_token_id
        self._ends = frozenset([ends] if isinstance(ends, int) else ends or ())
        if not self._ends or self._tokenizer.pad_token_id is None:
            raise self._problem("it names no token for the end of a text, or none to fill up with")
        if len(self._tokenizer) > self._model.get_input_embeddings().num_embeddings:
            raise self._problem("its tokenizer has more tokens than the model; they do not belong")
        self._set_languages()
        self.window = self._window()
        """Most tokens read at once, with the prefix."""
        self.room = self._room()
        """Most tokens written for one text."""
        settings.max_new_tokens = self.room

    def fits(self, text: str) -> bool:
        """Whether the model reads a text at once."""
        with self._lock:
            return self._length(text) <= self.window

    def write(self, texts: Sequence[str]) -> list[Written]:
        """What it writes for each text. Raises ConfigError for a text that does not fit."""
        for text in texts:
            if not self.fits(text):
                raise self._problem(f"a text is longer than the {self.window} tokens it reads")
        written: list[Written] = []
        for start in range(0, len(texts), self._how.batch):
            with self._lock:
                written += self._batch(texts[start : start + self._how.batch])
        return written

    def _batch(self, texts: Sequence[str]) -> list[Written]:
        import torch

        given = self._tokenizer(
            [self._how.prefix + text for text in texts], return_tensors="pt", padding=True
        )
        ids, mask = given["input_ids"], given["attention_mask"]  # (B, L)
        device = self._model.device
        with torch.inference_mode():
            output = self._model.generate(
                input_ids=ids.to(device), attention_mask=mask.to(device)
            ).tolist()  # (B, N), the start token first
        unknown = self._tokenizer.unk_token_id
        found = []
        for row, there, tokens in zip(ids.tolist(), mask.tolist(), output, strict=True):
            read = [token for token, own in zip(row, there, strict=True) if own]
            new = tokens[1:]
            end = next((i + 1 for i, token in enumerate(new) if token in self._ends), None)
            found.append(
                Written(
                    text=self._tokenizer.decode(new[:end], skip_special_tokens=True).strip(),
                    read=len(read),
                    written=len(new[:end]),
                    cut=end is None,
                    unknown=0 if unknown is None else read.count(unknown),
                )
            )
        return found

    def _set_languages(self) -> None:
        source, target = self._how.source_code, self._how.target_code
        if source is not None:
            if not hasattr(self._tokenizer, "src_lang"):
                raise self._problem("its tokenizer takes no source_code; leave it out")
            self._token_of("source_code", source)
            self._tokenizer.src_lang = source
        if target is not None:
            self._model.generation_config.forced_bos_token_id = self._token_of(
                "target_code", target
            )

    def _token_of(self, key: str, code: str) -> int:
        token = self._tokenizer.convert_tokens_to_ids(code)
        if not isinstance(token, int) or token == self._tokenizer.unk_token_id:
            raise self._problem(f"{key}: it has no token {code!r}")
        return token

    def _window(self) -> int:
        config = self._model.config
        limits = [getattr(config, key, None) for key in _POSITIONS]
        limits.append(self._tokenizer.model_max_length)
        known = [int(n) for n in limits if isinstance(n, int | float) and 0 < n < _NO_LIMIT]
        asked = self._how.read_tokens
        if asked is None and not known:
            raise self._problem("nothing says how much it reads at once; give read_tokens")
        if asked is not None and known and asked > min(known):
            raise self._problem(f"read_tokens: it reads at most {min(known)}, got {asked}")
        window = min(known) if asked is None else asked
        if self._length("") >= window:
            raise self._problem(
                f"{window} tokens leave no room beside the prefix {self._how.prefix!r}"
            )
        return window

    def _room(self) -> int:
        config = self._model.config
        keys = ("max_decoder_position_embeddings", "max_position_embeddings")
        most = next((n for key in keys if isinstance(n := getattr(config, key, None), int)), None)
        asked = self._how.new_tokens
        # The start token takes a position of its own.
        if asked is not None and most is not None and asked > most - 1:
            raise self._problem(f"new_tokens: it writes at most {most - 1}, got {asked}")
        wanted = max(self.window, _LEAST_WRITTEN) if asked is None else asked
        return wanted if most is None else min(wanted, most - 1)

    def _length(self, text: str) -> int:
        found = self._tokenizer(self._how.prefix + text, verbose=False)["input_ids"]
        return len(found)

    def _problem(self, why: str) -> ConfigError:
        return ConfigError(f"model {self.name!r}: {why}")


def _load(name: str, local_files_only: bool, revision: str | None, device: str) -> tuple[Any, Any]:
    where = f"model {name!r}"
    folder = Path(name).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise ConfigError(f"{where}: a folder has no revision {revision!r}")
        name, local_files_only = str(folder), True
    elif not _HUB_NAME.fullmatch(name):
        raise ConfigError(f"{where}: no such folder, and not the name of a model on the hub")
    try:
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
    except ImportError as missing:
        raise ConfigError(
            f"{where}: needs the package {missing.name}; "
            "install the extra: pip install 'masrouter[transformers]'"
        ) from missing
    place: dict[str, Any] = {
        "local_files_only": local_files_only,
        "revision": revision or "main",
        "trust_remote_code": False,
    }
    try:
        with _quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(name, **place)
            model, report = AutoModelForSeq2SeqLM.from_pretrained(
                name, use_safetensors=True, output_loading_info=True, **place
            )
            model = model.to(device).eval()
    except Exception as error:  # each way in which a model can be wrong has its own class
        raise ConfigError(
            f"{where}: cannot be loaded ({type(error).__name__}: {quoted(error)}); expected a "
            "sequence-to-sequence model with its tokenizer and .safetensors weights"
        ) from error
    lacking = sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])})
    if lacking:
        raise ConfigError(
            f"{where}: its weights lack {len(lacking)} parts of the model, such as {lacking[0]!r}"
        )
    return tokenizer, model


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keep transformers from drawing a progress bar and from logging what is reported here."""
    from transformers.utils import logging

    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity(CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
