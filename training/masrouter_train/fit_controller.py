"""Train the cascade with Lightning: progress, logs, early stopping, exact resumption."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from masrouter.controller import Controller
from masrouter.errors import TrainingError
from masrouter.plan_space import PlanTree
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
    tree: PlanTree,
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
        controller, lessons, tree, order[held_out:], order[:held_out], config.controller,
        config.seed,
    )  # fmt: skip
    if folder is not None and folder.resume and not folder.last.is_file():
        raise TrainingError(f"{folder.path}: nothing to resume: {LAST} is not there")
    if folder is not None and not folder.resume and folder.last.exists():
        raise TrainingError(
            f"{folder.path}: holds an earlier run; resume it, or choose another folder"
        )
    shown = progress.console is not None
    with _quiet():
        trainer = L.Trainer(
            max_epochs=config.controller.epochs,
            accelerator=config.accelerator,
            devices=config.devices,
            callbacks=_callbacks(config, folder),
            logger=_loggers(folder),
            enable_checkpointing=folder is not None,
            enable_progress_bar=shown,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
            reload_dataloaders_every_n_epochs=1,
            gradient_clip_val=1.0,
        )
        resume_from = str(folder.last) if folder is not None and folder.resume else None
        trainer.fit(module, ckpt_path=resume_from, weights_only=True if resume_from else None)
    if trainer.interrupted:
        raise KeyboardInterrupt
    controller.load_state_dict(module.best_state)
    controller.cpu()
    progress.say(
        f"cascade: {trainer.current_epoch} epochs, held-out utility {module.best_utility:.4f}"
    )
    return module.best_utility


def _callbacks(config: TrainConfig, folder: RunFolder | None) -> list[Callback]:
    callbacks: list[Callback] = [
        EarlyStopping("val/utility", mode="max", patience=config.controller.patience)
    ]
    if folder is not None:
        callbacks.append(
            ModelCheckpoint(
                folder.path, filename=Path(LAST).stem, every_n_epochs=1, save_top_k=1,
                enable_version_counter=False, save_on_train_epoch_end=True,
            )  # fmt: skip
        )
    return callbacks


def _loggers(folder: RunFolder | None) -> Any:
    if folder is None:
        return False
    return [
        CSVLogger(folder.path, name="csv", version=""),
        TensorBoardLogger(folder.path, name="tensorboard", version=""),
    ]


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
            warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
