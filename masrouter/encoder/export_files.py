"""The folder of an exported encoder: model, tokeniser and a manifest that vouches for them.

    FOLDER/manifest.json     what was exported, how it was checked, the sha256 of the other two
    FOLDER/model.onnx        ids and mask (B, L) -> unit vectors (B, E); ONNX's own operators alone
    FOLDER/tokenizer.json    of the package `tokenizers`

An export may come from a stranger. Sizes are bounded, each file is read once and what was hashed is
what is used, nothing outside the folder is named, and a graph cannot loop. What hashes cannot say
is whether the numbers are the model's: the manifest keeps the vector that torch gave `PROBE`, and
loading compares. Not here: making an export (`export`), running it (`exported`).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

from masrouter.encoder.embedding_cache import cache_folder
from masrouter.encoder.onnx_file import check_onnx
from masrouter.errors import EncoderError

Backend = Literal["onnx", "openvino"]
Precision = Literal["fp32", "bf16", "int8"]

FORMAT = 1
MANIFEST, MODEL, TOKENIZER = "manifest.json", "model.onnx", "tokenizer.json"
PRECISIONS: Mapping[Backend, tuple[Precision, ...]] = {
    "onnx": ("fp32", "int8"),
    "openvino": ("bf16", "fp32"),
}
"""Of each backend, the default first: the fastest that left 99.5 % of decisions as they were."""
SMALLEST_COSINE: Mapping[Precision, float] = {"fp32": 0.99999, "bf16": 0.9995, "int8": 0.95}
"""Cosine with torch's vector below which an export is refused."""
PROBE = "Prove that the sum of two even numbers is even, then write a test of it in Python."
_MOST_BYTES = {MANIFEST: 1 << 20, MODEL: (2 << 30) - 1, TOKENIZER: 64 << 20}
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class TextSettings:
    """How texts become ids."""

    window: int
    """Tokens that the model reads at most, special ones included."""
    prompt: str
    """What stands before each text."""
    pad_id: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an export says of itself."""

    name: str
    """As the encoder was asked for: `all-MiniLM-L6-v2`."""
    identity: str
    """Of the weights: `all-MiniLM-L6-v2@53aa51172d142c89`."""
    dimension: int
    backend: Backend
    precision: Precision
    text: TextSettings
    worst_cosine: float
    """Least cosine between a vector of the export and torch's, over `checked_texts` texts."""
    checked_texts: int
    probe: tuple[float, ...]
    """Torch's vector (E,) of `PROBE`, cut at the window."""
    versions: Mapping[str, str]
    """Of the packages that made it."""
    files: Mapping[str, str]
    """The sha256 of each other file."""


@dataclass(frozen=True, slots=True)
class ExportedFiles:
    """A verified export, read into memory."""

    manifest: Manifest
    model: bytes
    tokenizer: str


def export_folder(identity: str, backend: Backend, precision: Precision) -> Path:
    """Where the user's cache keeps an export of the weights `identity`."""
    readable = re.sub(r"[^\w.@-]", "_", identity)[:80]
    digest = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return cache_folder() / "exports" / f"{readable}-{digest}-{backend}-{precision}-v{FORMAT}"


def has_export(folder: Path) -> bool:
    """Whether `folder` is meant as an export, right or wrong."""
    return (folder / MANIFEST).is_file()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest` beside the files that it vouches for."""
    text = json.dumps({"format": FORMAT, **asdict(manifest)}, indent=1, allow_nan=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of `folder`, each field checked; EncoderError where one is wrong."""
    path = folder / MANIFEST
    try:
        value = json.loads(
            _bytes(path).decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_once
        )
    except (ValueError, RecursionError) as error:
        raise EncoderError(f"{path}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise EncoderError(f"{path}: expected an object")
    if value.get("format") != FORMAT:
        raise EncoderError(
            f"{path}: format: expected {FORMAT}, got {value.get('format')!r}; export it again"
        )
    return _Checked(value, path).manifest()


def read_export(folder: Path) -> ExportedFiles:
    """All files of `folder`; EncoderError where one is missing, damaged or not allowed."""
    manifest = read_manifest(folder)
    contents = {}
    for name, digest in manifest.files.items():
        contents[name] = _bytes(folder / name)
        found = hashlib.sha256(contents[name]).hexdigest()
        if found != digest:
            raise EncoderError(
                f"{folder / name}: damaged: expected sha256 {digest}, found {found}; "
                f"delete {folder} and export again"
            )
    check_onnx(contents[MODEL], str(folder / MODEL))
    try:
        tokenizer = contents[TOKENIZER].decode("utf-8")
    except UnicodeDecodeError as error:
        raise EncoderError(f"{folder / TOKENIZER}: not UTF-8: {error}") from error
    return ExportedFiles(manifest, contents[MODEL], tokenizer)


def _bytes(path: Path) -> bytes:
    most = _MOST_BYTES[path.name]
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise EncoderError(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) > most:
        raise EncoderError(f"{path}: larger than {most:,} bytes")
    return content


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _once(items: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(items)) < len(items):
        raise ValueError("a key appears twice")
    return dict(items)


class _Checked:
    """The fields of a manifest, one at a time."""

    def __init__(self, value: dict[str, Any], path: Path) -> None:
        self._value = value
        self._path = path
        self._keys(value, {"format", *(field.name for field in fields(Manifest))}, "")

    def manifest(self) -> Manifest:
        value = self._value
        backend = value["backend"]
        if backend not in PRECISIONS:
            self._wrong("backend", f"one of {', '.join(PRECISIONS)}")
        if value["precision"] not in PRECISIONS[backend]:
            self._wrong("precision", f"one of {', '.join(PRECISIONS[backend])}")
        for key in ("name", "identity"):
            if not isinstance(value[key], str) or not 0 < len(value[key]) <= 1000:
                self._wrong(key, "a name")
        dimension = self._integer(value["dimension"], "dimension", 1, 1 << 16)
        probe = value["probe"]
        if not isinstance(probe, list) or len(probe) != dimension or not all(map(_finite, probe)):
            self._wrong("probe", f"{dimension} numbers")
        if not _finite(value["worst_cosine"]) or abs(value["worst_cosine"]) > 1.001:
            self._wrong("worst_cosine", "a cosine")
        for key in ("versions", "files"):
            texts = value[key]
            if not isinstance(texts, dict) or not all(isinstance(v, str) for v in texts.values()):
                self._wrong(key, "texts by name")
        if set(value["files"]) != {MODEL, TOKENIZER}:
            self._wrong("files", f"{MODEL} and {TOKENIZER}")
        return Manifest(
            name=value["name"],
            identity=value["identity"],
            dimension=dimension,
            backend=backend,
            precision=value["precision"],
            text=self._text(value["text"]),
            worst_cosine=float(value["worst_cosine"]),
            checked_texts=self._integer(value["checked_texts"], "checked_texts", 1, 1 << 20),
            probe=tuple(map(float, probe)),
            versions=value["versions"],
            files=value["files"],
        )

    def _text(self, value: Any) -> TextSettings:
        if not isinstance(value, dict):
            self._wrong("text", "an object")
        self._keys(value, {field.name for field in fields(TextSettings)}, "text.")
        if not isinstance(value["prompt"], str) or len(value["prompt"]) > 100_000:
            self._wrong("text", "a prompt")
        return TextSettings(
            window=self._integer(value["window"], "text.window", 1, 1 << 20),
            prompt=value["prompt"],
            pad_id=self._integer(value["pad_id"], "text.pad_id", 0, 1 << 31),
        )

    def _integer(self, value: Any, where: str, least: int, most: int) -> int:
        if type(value) is not int or not least <= value <= most:
            raise EncoderError(f"{self._path}: {where}: expected {least} to {most:,}")
        return value

    def _keys(self, value: dict[str, Any], wanted: set[str], where: str) -> None:
        if set(value) != wanted:
            odd = ", ".join(sorted(where + key[:40] for key in set(value) ^ wanted))
            raise EncoderError(f"{self._path}: missing or unknown fields: {odd}")

    def _wrong(self, key: str, expected: str) -> NoReturn:
        raise EncoderError(f"{self._path}: {key}: expected {expected}")


def _finite(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
