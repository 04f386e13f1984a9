"""A checkpoint on disk becomes the parts of a router: with its networks, or with an export of them.

Not here: files (`checkpoint`, `exported`), what they mean (`router_files`), exporting
(`exporting`). Nothing here imports torch but the networks' own branch.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from masrouter.checkpoint import LoadedCheckpoint
from masrouter.encoder import Encoder, load_encoder
from masrouter.encoder.export import missing_to_export
from masrouter.errors import CheckpointError, EncoderError
from masrouter.exported import ENCODER, ExportBackend, export_places, find_export, read_export
from masrouter.router_checks import refusing
from masrouter.router_files import state_from_checkpoint
from masrouter.router_settings import EncoderSettings
from masrouter.router_state import RouterState
from masrouter.scorer import Scorer

Backend = Literal["torch", "onnx", "openvino"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)


@dataclass(frozen=True)
class RouterParts:
    """What a router is made of."""

    state: RouterState
    encoder: Encoder
    scorer: Scorer


def torch_parts(loaded: LoadedCheckpoint, encoder: Encoder | None) -> RouterParts:
    """With the networks; `encoder` in place of the one that the checkpoint names."""
    where = str(loaded.path)
    if importlib.util.find_spec("torch") is None:
        raise CheckpointError(
            f"{where}: the torch backend needs torch: pip install 'masrouter[torch]'; a checkpoint "
            "that was exported (masrouter optimize) routes without: backend='onnx'"
        )
    state, settings = state_from_checkpoint(loaded.data, where, loaded=True)
    ready = _encoder(encoder, settings, where)
    with refusing(where):
        from masrouter.scorer_torch import TorchScorer

        return RouterParts(state, ready, TorchScorer(state))


def exported_parts(
    loaded: LoadedCheckpoint, backend: ExportBackend, encoder: Encoder | None
) -> RouterParts | None:
    """With the export of exactly this checkpoint; None where there is none.

    CheckpointError where it is damaged or does not fit the checkpoint.
    """
    folder = find_export(loaded.place, backend)
    if folder is None:
        return None
    where = str(loaded.path)
    state, settings = state_from_checkpoint(loaded.data, where, loaded=False)
    ready = _encoder(encoder, settings, where, backend, folder / ENCODER)
    with refusing(str(folder)):
        from masrouter.scorer_exported import ExportedScorer

        files = read_export(folder, loaded.id, backend)
        scorer = ExportedScorer(files, state, ready.dimension, str(folder))
    return RouterParts(state, ready, scorer)


def check_exportable(loaded: LoadedCheckpoint, backend: ExportBackend) -> None:
    """CheckpointError unless an export can be made here; it says where one can be, and how."""
    missing = missing_to_export()
    if missing:
        places = " or ".join(map(str, export_places(loaded.place, backend)))
        raise CheckpointError(
            f"{loaded.path}: was not exported for {backend} (looked in {places}), and exporting "
            f"needs {', '.join(missing)}. On a machine with pip install 'masrouter[export]' run "
            f"`masrouter optimize --checkpoint {loaded.path} --backend {backend}`, and copy the "
            "whole checkpoint folder here"
        )


def _encoder(
    given: Encoder | None,
    settings: EncoderSettings,
    where: str,
    backend: Backend = "torch",
    exported: Path | None = None,
) -> Encoder:
    """The encoder that was given or the one of that name; it must be the one of the training."""
    try:
        if given is not None:
            encoder = given
        elif backend == "torch":
            encoder = load_encoder(settings.name)
        else:
            identity = settings.identity
            encoder = load_encoder(
                settings.name, backend=backend, exported=exported, identity=identity
            )
    except EncoderError as error:
        raise CheckpointError(f"{where}: its encoder cannot be had: {error}") from error
    if (encoder.identity, encoder.dimension) != (settings.identity, settings.dimension):
        raise CheckpointError(
            f"{where}: was trained with encoder {settings.identity!r} of {settings.dimension} "
            f"dimensions, got {encoder.identity!r} of {encoder.dimension}; install or pass the "
            "same encoder"
        )
    return encoder
