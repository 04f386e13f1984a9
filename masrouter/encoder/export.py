"""Exports an encoder from torch, once, and checks it against torch on the spot.

The whole sentence-transformers model is exported, so that pooling and normalisation are its own.
What cannot be exported faithfully is refused: the check embeds texts of every kind with both.
Needs torch, onnx and onnxscript; for int8 and for the check also the runtime.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from masrouter.encoder.export_files import (
    MODEL,
    PRECISIONS,
    PROBE,
    SMALLEST_COSINE,
    TOKENIZER,
    Backend,
    Manifest,
    Precision,
    TextSettings,
    has_export,
    write_manifest,
)
from masrouter.encoder.exported import ExportedEncoder
from masrouter.encoder.sentence_transformer import SentenceTransformerEncoder, TorchModel
from masrouter.encoder.weights import EncoderWeights, find_weights
from masrouter.errors import EncoderError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_NEEDED = ("torch", "sentence_transformers", "onnx", "onnxscript")
_OPSET = 20  # the first with GELU as one operator
_LONGEST_CHECK = 1500
"""Words of the longest text of the check: several windows of most models."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was exported, and how near it is to torch."""

    folder: Path
    identity: str
    backend: Backend
    precision: Precision
    texts: int
    """Texts that both embedded."""
    worst_cosine: float
    """The least cosine of their vectors."""
    size_bytes: int
    """Of all files."""
    seconds: float


def missing_to_export() -> list[str]:
    """The packages that an export needs and that are not installed."""
    missing = []
    for name in _NEEDED:
        try:
            found = importlib.util.find_spec(name)
        except (ImportError, ValueError):  # an import hook refuses it
            found = None
        if found is None:
            missing.append(name)
    return missing


def export_encoder(
    name: str | Path,
    folder: str | Path,
    *,
    backend: Backend,
    precision: Precision | None = None,
    revision: str | None = None,
) -> ExportReport:
    """Export the sentence-transformers model `name` to `folder`; an export there is replaced.

    Args:
        backend: what will run it: `onnx` or `openvino`.
        precision: None: the backend's default, see `load_encoder`.
        revision: branch, tag or commit, for a model from the hub.

    Raises:
        EncoderError: a package is missing; the model is missing or cannot be exported; a vector of
            the export is too far from torch's; or `folder` holds something else.
    """
    started = time.monotonic()
    name, folder = str(name), Path(folder)
    if backend not in PRECISIONS:
        raise EncoderError(f"backend: expected one of {', '.join(PRECISIONS)}, got {backend!r}")
    precision = precision or PRECISIONS[backend][0]
    if precision not in PRECISIONS[backend]:
        allowed = ", ".join(PRECISIONS[backend])
        raise EncoderError(f"precision of {backend}: expected one of {allowed}, got {precision!r}")
    if missing := missing_to_export():
        raise EncoderError(
            f"{name}: exporting needs {', '.join(missing)}: pip install 'masrouter[export]'"
        )
    if folder.exists() and not has_export(folder) and any(folder.iterdir()):
        raise EncoderError(f"{folder}: holds something other than an export; not replaced")
    weights = find_weights(name, revision)
    torch_encoder = SentenceTransformerEncoder(name, device="cpu", revision=revision)
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        manifest = _export(name, weights, made, backend, precision, torch_encoder)
        write_manifest(made, manifest)
        compared, worst = _compare(torch_encoder, ExportedEncoder(made))
        if not worst >= SMALLEST_COSINE[precision]:
            raise EncoderError(
                f"{name}: the {backend} export in {precision} has cosine {worst:.6f} with torch's "
                f"vectors, expected at least {SMALLEST_COSINE[precision]}; not kept"
            )
        write_manifest(made, replace(manifest, worst_cosine=worst, checked_texts=compared))
        size = sum(file.stat().st_size for file in made.iterdir())
        _put(made, folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    seconds = time.monotonic() - started
    return ExportReport(
        folder, weights.identity, backend, precision, compared, worst, size, seconds
    )


def _export(
    name: str,
    weights: EncoderWeights,
    folder: Path,
    backend: Backend,
    precision: Precision,
    torch_encoder: SentenceTransformerEncoder,
) -> Manifest:
    """Write the model and the tokeniser; the manifest has still to be compared and written."""
    # Attention written out: as one fused call it would export with more nodes around it.
    model = TorchModel(name, weights, "cpu", {"attn_implementation": "eager"})
    text = _text_settings(name, model)
    tokenizer: Any = model.loaded().tokenizer
    (folder / TOKENIZER).write_text(tokenizer.backend_tokenizer.to_str(), encoding="utf-8")
    with quiet_export():
        try:
            _write_graph(model.loaded(), text, folder / MODEL)
            if precision == "int8":
                _quantise(folder / MODEL)
        except Exception as error:  # torch's exporter fails in as many ways as there are models
            reason = str(error).strip().splitlines() or [""]
            raise EncoderError(
                f"{name}: cannot be exported: {type(error).__name__}: {reason[0][:300]}"
            ) from error
    packages = (
        "torch",
        "transformers",
        "sentence-transformers",
        "onnx",
        "onnxscript",
        "tokenizers",
    )
    return Manifest(
        name=name,
        identity=weights.identity,
        dimension=torch_encoder.dimension,
        backend=backend,
        precision=precision,
        text=text,
        worst_cosine=0.0,
        checked_texts=1,
        probe=tuple(map(float, model.forward(model.read([PROBE]).features)[0])),
        versions={package: importlib.metadata.version(package) for package in packages},
        files={file: _sha256(folder / file) for file in (MODEL, TOKENIZER)},
    )


def _text_settings(name: str, model: TorchModel) -> TextSettings:
    loaded = model.loaded()
    tokenizer: Any = loaded.tokenizer
    if not getattr(tokenizer, "is_fast", False):
        raise EncoderError(
            f"{name}: cannot be exported: its tokenizer is not a fast one (tokenizer.json)"
        )
    window = loaded.max_seq_length
    if window is None or window > 1 << 20:
        raise EncoderError(f"{name}: cannot be exported: it does not say how many tokens it reads")
    if tokenizer.padding_side != "right":
        raise EncoderError(f"{name}: cannot be exported: it pads on the left")
    prompt = model.prompt() or ""
    if prompt and not all(getattr(module, "include_prompt", True) for module in loaded):
        raise EncoderError(f"{name}: cannot be exported: its pooling leaves the prompt out")
    unknown = set(model.read(["a"]).features) - {
        "input_ids", "attention_mask", "token_type_ids", "modality", "prompt_length",
    }  # fmt: skip
    if unknown:
        raise EncoderError(f"{name}: cannot be exported: it reads {', '.join(sorted(unknown))}")
    return TextSettings(window=int(window), prompt=prompt, pad_id=int(tokenizer.pad_token_id or 0))


def _write_graph(model: SentenceTransformer, text: TextSettings, path: Path) -> None:
    """Ids and mask (B, L) -> unit vectors (B, E), as ONNX with its weights inside."""
    import torch

    types = "token_type_ids" in model.tokenizer.model_input_names

    class Graph(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            features = {"input_ids": input_ids, "attention_mask": attention_mask}
            if types:
                features["token_type_ids"] = torch.zeros_like(input_ids)
            vectors = self.model(features)["sentence_embedding"]  # (B, E)
            return torch.nn.functional.normalize(vectors.float(), dim=1)

    length = max(3, min(16, text.window))
    ids = torch.full((2, length), text.pad_id, dtype=torch.int64)  # (2, L)
    mask = torch.ones_like(ids)
    mask[1, length // 2 :] = 0
    axes = {0: "batch", 1: "sequence"}
    with torch.no_grad():
        program = torch.onnx.export(
            Graph().eval(),
            (ids, mask),
            dynamo=True,
            opset_version=_OPSET,
            input_names=["input_ids", "attention_mask"],
            output_names=["sentence_embedding"],
            dynamic_shapes={"input_ids": axes, "attention_mask": axes},
            verbose=False,
        )
    assert program is not None
    program.save(path, external_data=False)


def _quantise(path: Path) -> None:
    """Matrix products in int8: weights by column, activations by the range of each product."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    wide = path.with_name("wide.onnx")
    path.rename(wide)
    quantize_dynamic(
        wide, path, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8
    )
    wide.unlink()


def _compare(
    torch_encoder: SentenceTransformerEncoder, exported: ExportedEncoder
) -> tuple[int, float]:
    """How many texts both embedded, alone and in a batch, and the least cosine."""
    texts = reference_texts()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a model of a small window does not read the longest whole
        expected = torch_encoder.encode(texts)  # (N, E)
        alone = np.concatenate([exported.encode([text]) for text in texts])  # (N, E)
        together = exported.encode(texts)
    cosines = [_cosines(expected, found) for found in (alone, together)]
    return len(texts), float(np.concatenate(cosines).min())


def reference_texts() -> Sequence[str]:
    """Texts of all kinds and lengths that an export is compared on."""
    words = "Let n be the number of ways to tile a floor; show that it grows with every step. "
    code = "def merge(a: list[int], b: list[int]) -> list[int]:\n    return sorted([*a, *b])\n\n"
    lengths = (10, 30, 60, 120, 250, 500, _LONGEST_CHECK)
    return [
        "",
        " ",
        "a",
        "What is the capital of France?",
        "  Two  spaces,\ta tab\nand a NEW line \r\n",
        "Ünïcödé — 漢字かな 한국어 العربية 🙂👩‍🔬 ﬁ \u200b e\u0301",
        "∀x∈ℝ: x² ≥ 0 ⇒ $\\sum_{i=1}^{n} x_i^2 \\ge 0$",
        "x1y2" * 60,
        "<s>[CLS] [SEP] <|endoftext|> </s> [MASK] <pad>",
        PROBE,
        code,
        code * 30,
        *(" ".join((words * (count // 16 + 1)).split()[:count]) for count in lengths),
    ]


def _cosines(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    a, b = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines: np.ndarray[Any, Any] = (a * b).sum(axis=1) / np.maximum(norms, 1e-12)
    return cosines


def _put(made: Path, folder: Path) -> None:
    """Move a finished export to its place, in the place of an older one."""
    made.chmod(0o755)
    old = made.with_name(f"{made.name}-old")
    try:
        if folder.exists():
            folder.rename(old)
        made.rename(folder)
    except OSError as error:
        if has_export(folder):
            return  # another process put the same export there in between
        raise EncoderError(f"{folder}: the export cannot be put there: {error}") from error
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def quiet_export() -> Iterator[None]:
    """Keep the exporter's notes on its own workings from standard error."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            Path(os.devnull).open("w") as nowhere,
            contextlib.redirect_stdout(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
