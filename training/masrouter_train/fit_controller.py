"""Train the cascade with Lightning: progress, logs, early stopping, exact resumption."""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from masrouter.candidates import PlanIndex
from masrouter.controller import Controller
from masrouter.errors import TrainingError
from masrouter.plan_space import plan_steps
from masrouter_train.config import TrainConfig
from masrouter_train.lessons import Lessons
from masrouter_train.module import CascadeModule
from masrouter_train.progress import Progress

LAST = "last.ckpt"


@dataclass(frozen=True)
class RunFolder:
    """Where a run writes its logs and resumable state."""

    path: Path
    resume: bool

    @property
    def last(self) -> Path:
        return self.path / LAST


def fit_controller(
    controller: Controller,
    lessons: Lessons,
    index: PlanIndex,
    config: TrainConfig,
    folder: RunFolder | None,
    progress: Progress,
) -> float:
    """Train in place and return the best held-out utility (mean over cost weights, scaled).

    The state after every epoch is kept in `folder`; resuming from it repeats the uninterrupted run
    bit by bit on CPU, because every draw is a function of the seed, the epoch and the batch.
    """
    order = torch.randperm(lessons.n, generator=torch.Generator().manual_seed(config.seed))
    held_out = max(1, round(config.controller.validation_share * lessons.n))
    module = CascadeModule(
        controller, lessons, index, order[held_out:], order[:held_out], config.controller,
        config.seed, _fingerprint(lessons, index, config),
    )  # fmt: skip
    resumed = folder is not None and folder.resume
    if folder is not None and resumed:
        _check_whole(folder.last)
    elif folder is not None and folder.last.exists():
        raise TrainingError(
            f"{folder.path}: holds an earlier run; resume it, or choose another folder"
        )
    callbacks: list[Callback] = [_Patience(config.controller.patience), *_checkpointing(folder)]
    if progress.console is not None:
        callbacks.append(RichProgressBar(console_kwargs={"stderr": True}))
    with _quiet():
        trainer = L.Trainer(
            max_epochs=config.controller.epochs,
            accelerator=config.accelerator,
            devices=config.devices,
            callbacks=callbacks,
            logger=_loggers(folder),
            enable_checkpointing=folder is not None,
            enable_progress_bar=progress.console is not None,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
            reload_dataloaders_every_n_epochs=1,
            gradient_clip_val=1.0,
        )
        trainer.fit(
            module,
            ckpt_path=str(folder.last) if folder is not None and resumed else None,
            weights_only=True if resumed else None,  # a checkpoint is never unpickled
        )
    if trainer.interrupted:
        raise KeyboardInterrupt
    controller.load_state_dict(module.best_state)
    controller.cpu()
    progress.say(f"cascade: held-out utility {module.best_utility:.4f}")
    return module.best_utility


class _Patience(EarlyStopping):
    """Stops when held-out utility no longer grows, and stays stopped when the run is resumed.

    Lightning keeps the count of epochs but not the decision, so a resumed run would train one more.
    """

    def __init__(self, patience: int) -> None:
        super().__init__("val/utility", mode="max", patience=patience)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """After the count was restored, before the first epoch."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True


def _fingerprint(lessons: Lessons, index: PlanIndex, config: TrainConfig) -> str:
    """sha256 over the settings that decide the outcome, the plans and the data."""
    settings = config.to_json()
    for name in ("accelerator", "devices", "threads"):
        settings.pop(name)
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for tensor in (
        torch.from_numpy(plan_steps(index)),
        lessons.cost_weights,
        lessons.embeddings,
        lessons.logged_score,
        lessons.logged_cost,
        lessons.drawn,
        lessons.propensity,
    ):
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _check_whole(path: Path) -> None:
    """TrainingError unless the state is there and its checksums hold (torch writes a zip file)."""
    if not path.is_file():
        raise TrainingError(f"{path.parent}: nothing to resume: {path.name} is not there")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # a damaged zip file fails in many ways
        damaged = f"{type(error).__name__}: {error}"
    if damaged is not None:
        raise TrainingError(f"{path}: is damaged ({damaged}); start again in another folder")


def _checkpointing(folder: RunFolder | None) -> list[Callback]:
    if folder is None:
        return []
    return [
        ModelCheckpoint(
            folder.path, filename=Path(LAST).stem, every_n_epochs=1, save_top_k=1,
            enable_version_counter=False, save_on_train_epoch_end=True,
        )
    ]  # fmt: skip


def _loggers(folder: RunFolder | None) -> Any:
    """Each start and each resumption logs in a new folder: version_0, version_1, ..."""
    if folder is None:
        return False
    try:
        return [
            CSVLogger(folder.path, name="csv"),
            TensorBoardLogger(folder.path, name="tensorboard"),
        ]
    except ModuleNotFoundError as error:
        raise TrainingError(
            f"a run folder needs tensorboard: pip install 'masrouter[train]' ({error})"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's hints about workers and hardware are not about this model's few parameters."""
    loggers = [logging.getLogger(n) for n in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
            # A batch of queries without a known cost teaches nothing and takes no step.
            warnings.filterwarnings("ignore", message=".*training_step. returned .None.*")
            warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
