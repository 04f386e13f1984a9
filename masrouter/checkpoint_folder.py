"""Files of a folder that is put in place whole, and read within bounds.

What checkpoints and what was exported from them have in common on disk: both may come from a
stranger, and neither may be left half-written.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
from pathlib import Path
from typing import Any

from masrouter.errors import CheckpointError


def write_file(path: Path, content: bytes) -> None:
    """Written and synced."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def put_in_place(new: Path, target: Path) -> None:
    """Put `new` at `target`; in between, a folder that is replaced has a name with a dot."""
    old = target.with_name(f".{target.name}.{secrets.token_hex(4)}.old")
    if target.exists():
        target.rename(old)
    try:
        new.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    sync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Make what was renamed in it last."""
    if os.name == "nt":
        return  # Windows cannot open a folder
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_file(folder: Path, name: str, limit: int, *, links_allowed: bool) -> None:
    """CheckpointError unless there is a regular file of at most `limit` bytes."""
    path = folder / name
    if path.is_symlink() and not links_allowed:
        # The hub's cache is made of links into its own blobs; anywhere else they could lead out.
        raise CheckpointError(f"{path}: is a link; a checkpoint folder must hold the files itself")
    try:
        status = path.stat()
    except OSError as error:
        why = "missing" if isinstance(error, FileNotFoundError) else str(error)
        raise CheckpointError(f"{path}: {why}") from error
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError(f"{path}: not a regular file")
    size = status.st_size
    if size > limit:
        raise CheckpointError(f"{path}: {size:,} bytes; at most {limit:,} are allowed")


def read_file(path: Path, limit: int) -> bytes:
    """Its content; CheckpointError where it cannot be read or is larger than `limit`."""
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    if len(content) > limit:
        raise CheckpointError(f"{path}: more than {limit:,} bytes")
    return content


def entry_of(content: bytes) -> dict[str, Any]:
    """What a manifest says of a file."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
