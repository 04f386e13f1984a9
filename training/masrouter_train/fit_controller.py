"""Train the cascade with Lightning: progress, logs, early stopping, exact resumption."""

from __future__ import annotations

import hashlib
import json
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
    fingerprint = _fingerprint(lessons, config)
    module = CascadeModule(
        controller, lessons, tree, order[held_out:], order[:held_out], config.controller,
        config.seed, fingerprint,
    )  # fmt: skip
    resume_from: Path | None = None
    if folder is not None and folder.resume:
        resume_from = folder.last
        epoch = _check_resumable(folder.last, fingerprint)
    elif folder is not None and folder.last.exists():
        raise TrainingError(
            f"{folder.path}: holds an earlier run; resume it, or choose another folder"
        )
    with _quiet():
        stopping = EarlyStopping("val/utility", mode="max", patience=config.controller.patience)
        trainer = L.Trainer(
            max_epochs=config.controller.epochs,
            accelerator=config.accelerator,
            devices=config.devices,
            callbacks=[stopping, *_checkpointing(folder)],
            logger=_loggers(folder, 0 if resume_from is None else epoch),
            enable_checkpointing=folder is not None,
            enable_progress_bar=progress.console is not None,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
            reload_dataloaders_every_n_epochs=1,
            gradient_clip_val=1.0,
        )
        if resume_from is not None and _had_stopped(resume_from, config):
            # Lightning would train one more epoch: the decision to stop is not in its state.
            state = torch.load(resume_from, weights_only=True)
            module.on_load_checkpoint(state)
        else:
            trainer.fit(
                module,
                ckpt_path=None if resume_from is None else str(resume_from),
                weights_only=None if resume_from is None else True,
            )
    if trainer.interrupted:
        raise KeyboardInterrupt
    controller.load_state_dict(module.best_state)
    controller.cpu()
    progress.say(f"cascade: held-out utility {module.best_utility:.4f}")
    return module.best_utility


def _fingerprint(lessons: Lessons, config: TrainConfig) -> str:
    """sha256 over the settings that decide the outcome and the data."""
    settings = config.to_json()
    for name in ("accelerator", "devices", "threads"):
        settings.pop(name)
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for tensor in (lessons.embeddings, lessons.logged_score, lessons.logged_cost, lessons.drawn):
        digest.update(torch.nan_to_num(tensor).contiguous().numpy().tobytes())
    return digest.hexdigest()


def _check_resumable(path: Path, fingerprint: str) -> int:
    """The epoch that the run in `path` had reached; TrainingError if it cannot be continued."""
    if not path.is_file():
        raise TrainingError(f"{path.parent}: nothing to resume: {path.name} is not there")
    try:
        state = torch.load(path, weights_only=True)
        epoch, found = int(state["epoch"]), state["fingerprint"]
    except Exception as error:
        raise TrainingError(
            f"{path}: is damaged ({type(error).__name__}); start again in another folder"
        ) from error
    if found != fingerprint:
        raise TrainingError(
            f"{path.parent}: holds a run with other logs, settings or seed; give the same ones, or "
            "start in another folder"
        )
    return epoch


def _had_stopped(path: Path, config: TrainConfig) -> bool:
    """Whether the run had come to its end, by early stopping or by its last epoch."""
    state = torch.load(path, weights_only=True)
    waits = [
        callback["wait_count"]
        for callback in state["callbacks"].values()
        if isinstance(callback, dict) and "wait_count" in callback
    ]
    stopped = any(wait >= config.controller.patience for wait in waits)
    return stopped or int(state["epoch"]) + 1 >= config.controller.epochs


def _checkpointing(folder: RunFolder | None) -> list[Callback]:
    if folder is None:
        return []
    return [
        ModelCheckpoint(
            folder.path, filename=Path(LAST).stem, every_n_epochs=1, save_top_k=1,
            enable_version_counter=False, save_on_train_epoch_end=True,
        )
    ]  # fmt: skip


def _loggers(folder: RunFolder | None, resumed_after: int) -> Any:
    """Each resumption logs in a folder of its own: the loggers empty the one they are given."""
    if folder is None:
        return False
    version = "from-start" if not resumed_after else f"resumed-after-epoch-{resumed_after}"
    return [
        CSVLogger(folder.path, name="csv", version=version),
        TensorBoardLogger(folder.path, name="tensorboard", version=version),
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
