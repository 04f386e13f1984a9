"""An encoder from its name, and the one that needs no model.

Importing this module loads no model library and touches no network; making an encoder finds and
verifies its weights; a torch model itself is loaded when a text has to be embedded.
"""

from __future__ import annotations

import functools
import hashlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from masrouter.encoder.embedding_cache import EmbeddingCache, FloatArray
from masrouter.encoder.export import export_encoder, missing_to_export
from masrouter.encoder.export_files import (
    PRECISIONS,
    Backend,
    Precision,
    export_folder,
    has_export,
    read_manifest,
)
from masrouter.encoder.exported import ExportedEncoder
from masrouter.encoder.sentence_transformer import SentenceTransformerEncoder
from masrouter.encoder.weights import DEFAULT_ENCODER, find_weights
from masrouter.encoder.windows import normalised, readable
from masrouter.errors import EncoderError


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
        texts = readable(texts)
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)  # (N, E)
        for row, text in enumerate(texts):
            for word in re.findall(r"\w+", text.lower()):
                padded = f" {word} "
                trigrams = (padded[i : i + 3] for i in range(len(padded) - 2))
                for feature in (f"word:{word}", *(f"tri:{trigram}" for trigram in trigrams)):
                    number = _feature_hash(feature)
                    sign = 1.0 if number & 1 else -1.0
                    vectors[row, (number >> 1) % self.dimension] += sign
        return normalised(vectors)


def load_encoder(
    name: str | Path = DEFAULT_ENCODER,
    *,
    backend: Literal["torch", "onnx", "openvino"] = "torch",
    precision: Precision | None = None,
    exported: Path | None = None,
    identity: str | None = None,
    threads: int | None = None,
    device: str | None = None,
    batch_size: int = 32,
    cache: EmbeddingCache | None = None,
    max_windows: int = 64,
    revision: str | None = None,
) -> Encoder:
    """The encoder called `name`: `hashing-64` and the like, or a sentence-transformers model.

    Hashing needs none of the options. The backends onnx and openvino run an export of the model on
    the CPU, with its identity, and without torch where there is an export already: in `exported`,
    else in the user's cache. Where neither has one it is made now, with torch, into the cache.

    Measured with all-MiniLM-L6-v2 on one core of an Intel Xeon with AMX, a query of 60 tokens, and
    decisions on 2,000 logged queries by 3 routers at 4 cost weights each (at worst;
    `tests/benchmarks/bench_encoder_backends.py`): onnx fp32 takes 1/1.5 of the time of
    `SentenceTransformer.encode` and changes no decision; onnx int8 1/3.4, and changes 2.8 %;
    openvino bf16 1/3.4, and 0.2 %; openvino fp32 1/1.6, and none.

    Args:
        precision: of the matrix products. onnx: fp32, or int8, which moves decisions. openvino:
            bf16, which runs as fp32 on a CPU that has no bf16, or fp32. None: the first named.
        exported: folder to look for an export in first.
        identity: what `Encoder.identity` must be. With it the weights need not be here to find an
            export of them.
        threads: cores that one forward uses; None: all. Of onnx and openvino.
        device: a torch device; None picks the best one present. Of torch.
        batch_size, cache, max_windows, revision: see `SentenceTransformerEncoder`.

    Raises:
        EncoderError: the model is missing, damaged, unreadable or not the one of `identity`; or
            there is no export of it and none can be made here.
    """
    hashing = re.fullmatch(r"hashing-(\d{1,6})(?:-v1)?", str(name))
    encoder: HashingEncoder | SentenceTransformerEncoder | ExportedEncoder
    if hashing:
        encoder = HashingEncoder(int(hashing[1]))
    elif backend == "torch":
        for option, value in (("precision", precision), ("threads", threads)):
            if value is not None:
                raise EncoderError(
                    f"encoder: {option} is of the backends onnx and openvino; torch computes in "
                    "fp32, on as many threads as torch.set_num_threads says"
                )
        encoder = SentenceTransformerEncoder(
            name,
            device=device,
            batch_size=batch_size,
            cache=cache,
            max_windows=max_windows,
            revision=revision,
        )
    elif backend in PRECISIONS:
        if device not in (None, "cpu"):
            raise EncoderError(f"encoder: the {backend} backend runs on the CPU, not on {device!r}")
        encoder = ExportedEncoder(
            _find_export(str(name), backend, precision, exported, identity, revision),
            threads=threads,
            batch_size=batch_size,
            cache=cache,
            max_windows=max_windows,
        )
    else:
        raise EncoderError(f"backend: expected torch, onnx or openvino, got {backend!r}")
    if identity is not None and encoder.identity != identity:
        raise EncoderError(f"{name}: expected encoder {identity!r}, found {encoder.identity!r}")
    return encoder


def _find_export(
    name: str,
    backend: Backend,
    precision: Precision | None,
    exported: Path | None,
    identity: str | None,
    revision: str | None,
) -> Path:
    """The folder of the export of `name`; made now where there is none."""
    if exported is not None and has_export(exported):
        manifest = read_manifest(exported)
        if manifest.backend != backend:
            raise EncoderError(f"{exported}: an export for {manifest.backend}, not for {backend}")
        if identity is None and manifest.name != name:
            raise EncoderError(f"{exported}: an export of {manifest.name!r}, not of {name!r}")
        if precision in (None, manifest.precision):
            return exported
    precision = precision or PRECISIONS[backend][0]
    if identity is None:
        weights = find_weights(name, revision).identity
    else:
        weights = identity.partition("+windows")[0]
    folder = export_folder(weights, backend, precision)
    if has_export(folder):
        return folder
    if missing := missing_to_export():
        looked = folder if exported is None else f"{exported} and {folder}"
        raise EncoderError(
            f"{name}: there is no {backend} export of it in {looked}, and making one needs "
            f"{', '.join(missing)}. On a machine with pip install 'masrouter[export]' run "
            f"masrouter.encoder.export.export_encoder({name!r}, FOLDER, backend={backend!r}) and "
            "copy FOLDER to one of these places"
        )
    print(f"Exporting {name} for {backend} ({precision}) to {folder} ...", file=sys.stderr)
    report = export_encoder(name, folder, backend=backend, precision=precision, revision=revision)
    print(
        f"Exported in {report.seconds:.0f} s; {report.texts} texts have a cosine of at least "
        f"{report.worst_cosine:.6f} with torch's vectors",
        file=sys.stderr,
    )
    return folder


@functools.lru_cache(maxsize=1 << 16)
def _feature_hash(feature: str) -> int:
    digest = hashlib.blake2b(feature.encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "little")
