"""What was exported from a checkpoint, on disk: found, checked, and put in place whole.

    CHECKPOINT/exported/onnx/manifest.json    the checkpoint's id; sha256 and size of each graph
                             *.onnx           the networks as graphs; see `scorer_exported`
                             encoder/         the encoder; see `encoder_export_files`

Everything else that routing needs is read from the checkpoint itself, so an export belongs to one
checkpoint id and is refused beside any other. Where the checkpoint's folder is not to be written
to, exports lie in the user's cache under the id. They may come from a stranger: sizes are bounded,
what is hashed is what is used, and a graph holds nothing but ONNX's own operators.
Not here: making graphs (`exporting`), running them (`scorer_exported`).
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from masrouter.checkpoint import EXPORTED, CheckpointPlace
from masrouter.checkpoint_files import json_from_bytes, json_to_bytes
from masrouter.checkpoint_folder import (
    check_file,
    entry_of,
    put_in_place,
    read_file,
    sync_folder,
    write_file,
)
from masrouter.encoder.embedding_cache import cache_folder
from masrouter.encoder.onnx_file import check_onnx
from masrouter.errors import CheckpointError, EncoderError
from masrouter.router_checks import Fields

ExportBackend = Literal["onnx", "openvino"]
BACKENDS: tuple[ExportBackend, ...] = get_args(ExportBackend)
FORMAT, VERSION = "masrouter-export", 1
MANIFEST, ENCODER = "manifest.json", "encoder"
KEYS = ("format", "version", "backend", "checkpoint", "rows", "checked", "versions", "files")
MOST_GRAPHS = 66
MOST_BYTES = 1 << 30
MOST_ROWS = 1 << 20
_MAX_MANIFEST_BYTES = 1 << 18
_GRAPH_NAME = re.compile(r"(read|paths|score_\d{1,2})\.onnx")


@dataclass(frozen=True)
class ExportFiles:
    """The graphs of one checkpoint's networks."""

    checkpoint: str
    """Id of the checkpoint that they were made from."""
    backend: ExportBackend
    rows: int
    """Queries that a graph may be given at once."""
    graphs: Mapping[str, bytes]
    """ONNX files by name: read, score_0 and so on, paths."""
    checked: Mapping[str, Any]
    """How they were compared with torch, for the record."""
    versions: Mapping[str, Any]
    """Of the packages that made them."""


class StaleExportError(CheckpointError):
    """An export of another checkpoint: it has to be made again."""


def export_places(place: CheckpointPlace, backend: ExportBackend) -> tuple[Path, ...]:
    """Where an export of this checkpoint may lie, in the order in which it is looked for."""
    cached = cache_folder() / EXPORTED / place.id / backend
    if place.from_hub:
        return (cached,)
    return place.path / EXPORTED / backend, cached


def place_for_export(place: CheckpointPlace, backend: ExportBackend) -> Path:
    """The first of them that can be written to."""
    *beside, cached = export_places(place, backend)
    return beside[0] if beside and os.access(place.path, os.W_OK) else cached


def find_export(place: CheckpointPlace, backend: ExportBackend) -> Path | None:
    """The export of exactly this checkpoint; None where there is none, or only of others.

    CheckpointError where one is damaged: it says which, and nothing is made in its place.
    """
    for folder in export_places(place, backend):
        if not (folder / MANIFEST).exists():
            continue
        if _manifest(folder).data["checkpoint"] == place.id:
            return folder
    return None


def read_export(folder: Path, checkpoint: str, backend: ExportBackend) -> ExportFiles:
    """Read and check the graphs in `folder`.

    Raises:
        StaleExportError: they were made from another checkpoint.
        CheckpointError: a check failed; the message says which.
    """
    manifest = _manifest(folder)
    if manifest.data["checkpoint"] != checkpoint:
        raise StaleExportError(
            f"{folder}: was exported from checkpoint {manifest.data['checkpoint']}, this one is "
            f"{checkpoint}; export it again: masrouter optimize"
        )
    if manifest.data["backend"] != backend:
        raise CheckpointError(
            f"{folder}: an export for {manifest.data['backend']!r}, not for {backend!r}"
        )
    graphs = {}
    for name, entry in manifest.data["files"].items():
        check_file(folder, name, MOST_BYTES, links_allowed=False)
        content = read_file(folder / name, MOST_BYTES)
        if entry_of(content) != entry:
            raise CheckpointError(
                f"{folder / name}: damaged or changed: the manifest says {entry}, found "
                f"{entry_of(content)}; delete {folder} and export again"
            )
        try:
            check_onnx(content, str(folder / name))
        except EncoderError as error:
            raise CheckpointError(str(error)) from error
        graphs[name.removesuffix(".onnx")] = content
    return ExportFiles(
        checkpoint,
        backend,
        manifest.integer("rows", 1, MOST_ROWS),
        graphs,
        manifest.data["checked"],
        manifest.data["versions"],
    )


def new_folder(target: Path) -> Path:
    """An empty folder beside `target`, to be filled and handed to `write_export`."""
    made = target.with_name(f".{target.name}.{secrets.token_hex(4)}.new")
    try:
        made.mkdir(parents=True)
    except OSError as error:
        raise CheckpointError(f"{target}: cannot be written: {error}") from error
    return made


def write_export(made: Path, files: ExportFiles) -> None:
    """Write graphs and manifest into a folder of `new_folder`."""
    contents = {f"{name}.onnx": content for name, content in files.graphs.items()}
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "backend": files.backend,
        "checkpoint": files.checkpoint,
        "rows": files.rows,
        "checked": dict(files.checked),
        "versions": dict(files.versions),
        "files": {name: entry_of(content) for name, content in contents.items()},
    }
    try:
        for name, content in contents.items():
            write_file(made / name, content)
        write_file(made / MANIFEST, json_to_bytes(manifest, made / MANIFEST))
        sync_folder(made)
    except OSError as error:
        raise CheckpointError(f"{made}: cannot be written: {error}") from error


def put_export(made: Path, target: Path) -> None:
    """Move a finished export to its place; an older one is replaced, anything else is left."""
    if target.exists() and any(target.iterdir()) and not (target / MANIFEST).is_file():
        raise CheckpointError(f"{target}: holds something else than an export; choose another")
    try:
        put_in_place(made, target)
    except OSError as error:
        if (target / MANIFEST).is_file():
            return  # another process put the same there in between
        raise CheckpointError(f"{target}: cannot be written: {error}") from error


def drop_folder(made: Path) -> None:
    """Forget a folder of `new_folder` that was not put in place."""
    shutil.rmtree(made, ignore_errors=True)


def _manifest(folder: Path) -> Fields:
    path = folder / MANIFEST
    check_file(folder, MANIFEST, _MAX_MANIFEST_BYTES, links_allowed=False)
    data = json_from_bytes(read_file(path, _MAX_MANIFEST_BYTES), path)
    if data.get("format") != FORMAT or data.get("version") != VERSION:
        raise CheckpointError(
            f"{path}: expected {FORMAT} {VERSION}, got {data.get('format')!r} "
            f"{data.get('version')!r}; delete {folder} and export again"
        )
    fields = Fields.of(data, str(path), KEYS)
    for key in ("checkpoint", "backend"):
        fields.text(key)
    files = data["files"]
    if (
        not isinstance(files, dict)
        or not 0 < len(files) <= MOST_GRAPHS
        or not all(_GRAPH_NAME.fullmatch(name) for name in files)
    ):
        raise CheckpointError(f"{path}: files: expected read.onnx, score_0.onnx and the like")
    for key in ("checked", "versions"):
        if not isinstance(data[key], dict):
            raise CheckpointError(f"{path}: {key}: expected an object")
    return fields
