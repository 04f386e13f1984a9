"""The checkpoint on disk: written whole or not at all, read only if every byte is as it was.

    config.json  model.safetensors  catalog.yaml  calibration.json  metrics.json
    README.md          model card
    manifest.json      format version, sha256 and size of each file above

This module knows files, not what they mean: what the tensors and settings stand for is the
router's business. A checkpoint may come from a stranger, so nothing here runs code (no pickle) and
nothing is used before it is checked.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from masrouter.checkpoint_files import (
    json_from_bytes,
    json_to_bytes,
    tensors_from_bytes,
    tensors_to_bytes,
    text_from_bytes,
    text_to_bytes,
)
from masrouter.checkpoint_folder import (
    check_file,
    entry_of,
    put_in_place,
    read_file,
    sync_folder,
    write_file,
)
from masrouter.errors import CheckpointError

TensorSpec: TypeAlias = Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]
"""What a model expects: name -> (shape, dtype)."""

FORMAT = "masrouter-checkpoint"
VERSION = 1
MANIFEST = "manifest.json"
EXPORT_BACKENDS = ("onnx", "openvino")
EXPORTED = "exported"
"""Folder beside the files that holds what was exported from them (`exported`); not part of the
checkpoint, and gone where it is replaced."""
_MIB = 1 << 20
_MAX_BYTES = {  # also the list of files, in the order in which they are read
    "config.json": 16 * _MIB,
    "model.safetensors": 2048 * _MIB,
    "catalog.yaml": 16 * _MIB,
    "calibration.json": 16 * _MIB,
    "metrics.json": 16 * _MIB,
    "README.md": 16 * _MIB,
}
_MAX_MANIFEST_BYTES = 64 * 1024
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class CheckpointData:
    """Everything that a checkpoint holds."""

    config: dict[str, Any]
    """JSON: what builds the router, its model and its encoder again."""
    tensors: dict[str, NDArray[Any]]
    catalog_yaml: str
    calibration: dict[str, Any]
    metrics: dict[str, Any]
    model_card: str
    """Markdown."""


@dataclass(frozen=True)
class CheckpointPlace:
    """Which checkpoint, and where it lies."""

    id: str
    path: Path
    from_hub: bool
    """In the cache of the Hugging Face hub: not a place to write to."""


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A checkpoint as it was read."""

    data: CheckpointData
    id: str
    """First 16 hex digits of the sha256 of the manifest: equal content, equal id."""
    path: Path
    from_hub: bool = False

    @property
    def place(self) -> CheckpointPlace:
        return CheckpointPlace(self.id, self.path, self.from_hub)


def write_checkpoint(folder: Path | str, data: CheckpointData) -> str:
    """Write `data` to `folder` and return the checkpoint's id.

    All is written beside the folder, synced, and renamed into place; a run killed at any moment
    leaves no half-written checkpoint. The bytes depend on `data` alone: no time, no path, no order
    of keys. An existing checkpoint is replaced; any other folder that is not empty is left alone.

    Raises:
        CheckpointError: `data` cannot be stored as it is (a NaN, an object that is not JSON), or
            `folder` holds something that is not a checkpoint, or it cannot be written.
    """
    target = Path(folder).expanduser().resolve()
    contents = _contents(data, target)
    manifest = _manifest_bytes(contents)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.new")
    try:
        _check_replaceable(target)
        temporary.mkdir(parents=True)
        for name, content in {**contents, MANIFEST: manifest}.items():
            write_file(temporary / name, content)
        sync_folder(temporary)
        put_in_place(temporary, target)
    except OSError as error:
        raise CheckpointError(f"{target}: cannot be written: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return _id(manifest)


def read_checkpoint(
    source: Path | str,
    *,
    expect: TensorSpec | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
) -> LoadedCheckpoint:
    """Read and check the checkpoint in the folder `source`, or of that id on the hub.

    A `Path`, an existing folder, and anything that looks like a path is never looked up on the
    hub; `org/name` is, unless a local folder `org` exists. Checked, in this order: the files, their
    sizes, the manifest, the hashes, the JSON, the header of the tensors, the tensors' values and,
    with `expect`, their names, shapes and dtypes.

    Args:
        source: a folder, or `org/name` of a model repository on the Hugging Face hub.
        expect: the tensors that must be there, no more and no fewer.
        revision: branch, tag or commit on the hub.
        local_files_only: take a hub checkpoint only from the local cache.

    Raises:
        CheckpointError: there is no checkpoint, or a check failed; the message says which.
    """
    if _is_hub_id(source):
        folder, from_hub = _download(str(source), revision, local_files_only), True
    else:
        folder, from_hub = Path(source).expanduser(), False
        if revision is not None:
            raise CheckpointError(f"{folder}: a local folder has no revision {revision!r}")
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder")
    limits = {MANIFEST: _MAX_MANIFEST_BYTES, **_MAX_BYTES}
    for name in limits:
        check_file(folder, name, limits[name], links_allowed=from_hub)
    manifest = read_file(folder / MANIFEST, _MAX_MANIFEST_BYTES)
    entries = _read_manifest(manifest, folder / MANIFEST)
    contents = {}
    for name, limit in _MAX_BYTES.items():
        contents[name] = read_file(folder / name, limit)
        if entry_of(contents[name]) != entries[name]:
            raise CheckpointError(
                f"{folder / name}: damaged or changed: the manifest says {entries[name]}, "
                f"found {entry_of(contents[name])}"
            )
    if _manifest_bytes(contents) != manifest:
        raise CheckpointError(f"{folder / MANIFEST}: damaged or changed: not written by masrouter")
    data = CheckpointData(
        config=json_from_bytes(contents["config.json"], folder / "config.json"),
        tensors=tensors_from_bytes(contents["model.safetensors"], folder / "model.safetensors"),
        catalog_yaml=text_from_bytes(contents["catalog.yaml"], folder / "catalog.yaml"),
        calibration=json_from_bytes(contents["calibration.json"], folder / "calibration.json"),
        metrics=json_from_bytes(contents["metrics.json"], folder / "metrics.json"),
        model_card=text_from_bytes(contents["README.md"], folder / "README.md"),
    )
    if expect is not None:
        check_tensors(data.tensors, expect, where=folder / "model.safetensors")
    return LoadedCheckpoint(data, _id(manifest), folder, from_hub)


def check_tensors(
    tensors: Mapping[str, NDArray[Any]],
    expected: TensorSpec,
    *,
    where: Path | str = "model.safetensors",
) -> None:
    """Raise CheckpointError, naming each tensor, unless `tensors` are exactly the expected ones."""
    wrong = [f"{name}: missing" for name in expected if name not in tensors]
    wrong += [f"{name}: not expected" for name in tensors if name not in expected]
    for name, (shape, dtype) in expected.items():
        tensor = tensors.get(name)
        if tensor is not None and (tensor.shape, tensor.dtype) != (tuple(shape), dtype):
            wrong.append(
                f"{name}: expected {dtype} {tuple(shape)}, found {tensor.dtype} {tensor.shape}"
            )
    if wrong:
        raise CheckpointError(f"{where}: {'; '.join(wrong)}")


def _contents(data: CheckpointData, target: Path) -> dict[str, bytes]:
    """The bytes of each file, checked as a reader will check them."""
    contents = {
        "config.json": json_to_bytes(data.config, target / "config.json"),
        "model.safetensors": tensors_to_bytes(data.tensors, target / "model.safetensors"),
        "catalog.yaml": text_to_bytes(data.catalog_yaml, target / "catalog.yaml"),
        "calibration.json": json_to_bytes(data.calibration, target / "calibration.json"),
        "metrics.json": json_to_bytes(data.metrics, target / "metrics.json"),
        "README.md": text_to_bytes(data.model_card, target / "README.md"),
    }
    for name, content in contents.items():
        if len(content) > _MAX_BYTES[name]:
            raise CheckpointError(
                f"{target / name}: {len(content):,} bytes; at most {_MAX_BYTES[name]:,} are allowed"
            )
    return contents


def _check_replaceable(target: Path) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise CheckpointError(f"{target}: is a file; choose another folder")
    names = {path.name for path in target.iterdir()}
    if not names:
        return
    manifest = target / MANIFEST
    if not manifest.is_file() or f'"{FORMAT}"'.encode() not in read_file(
        manifest, _MAX_MANIFEST_BYTES
    ):
        raise CheckpointError(f"{target}: holds something else than a checkpoint; choose another")
    others = sorted(names - {MANIFEST, EXPORTED, *_MAX_BYTES})
    if (exported := target / EXPORTED).is_dir():
        names = {path.name for path in exported.iterdir() if not path.name.startswith(".")}
        others += [f"{EXPORTED}/{name}" for name in sorted(names - set(EXPORT_BACKENDS))]
    if others:
        raise CheckpointError(
            f"{target}: a checkpoint stands there with files of yours ({', '.join(others)}); "
            "move them, or choose another folder"
        )


def _is_hub_id(source: Path | str) -> bool:
    if isinstance(source, Path) or not _HUB_ID.fullmatch(source) or Path(source).exists():
        return False
    # `checkpoints/mine` with a typo must not fetch a stranger's repository of that name.
    return not Path(source.split("/")[0]).exists()


def _download(repository: str, revision: str | None, local_files_only: bool) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            repository,
            revision=revision,
            local_files_only=local_files_only,
            allow_patterns=[MANIFEST, *_MAX_BYTES],
        )
    except Exception as error:  # no network, no such repository, no access: each its own class
        raise CheckpointError(
            f"{repository}: no such folder here, and not to be had from the Hugging Face hub "
            f"({type(error).__name__}: {error})"
        ) from error
    return Path(folder)


def _manifest_bytes(contents: Mapping[str, bytes]) -> bytes:
    files = {name: entry_of(content) for name, content in contents.items()}
    return json_to_bytes({"format": FORMAT, "version": VERSION, "files": files}, Path(MANIFEST))


def _id(manifest: bytes) -> str:
    return hashlib.sha256(manifest).hexdigest()[:16]


def _read_manifest(content: bytes, path: Path) -> dict[str, Any]:
    """The manifest's entry of each file."""
    manifest = json_from_bytes(content, path)
    if manifest.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: format: expected {FORMAT!r}, got {manifest.get('format')!r}"
        )
    version = manifest.get("version")
    if type(version) is not int or version < 1:
        raise CheckpointError(f"{path}: version: expected a positive integer, got {version!r}")
    if version > VERSION:
        raise CheckpointError(
            f"{path}: version {version} is later than this masrouter reads ({VERSION}); "
            "upgrade masrouter"
        )
    files = manifest.get("files")
    if not isinstance(files, dict) or set(files) != set(_MAX_BYTES):
        raise CheckpointError(f"{path}: files: expected exactly {', '.join(_MAX_BYTES)}")
    return files
