"""The thin Lightning layer around the cascade; the cascade knows nothing of it."""

from __future__ import annotations

import copy
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from masrouter.candidates import PlanIndex
from masrouter.controller import Controller, Prepared
from masrouter.errors import TrainingError
from masrouter.logs import LogKind
from masrouter.plan_space import PlanTree
from masrouter_train import objectives
from masrouter_train.config import ControllerConfig
from masrouter_train.lessons import Lessons


class CascadeModule(L.LightningModule):
    """Optimises a Controller on Lessons and remembers its best held-out weights.

    Every random draw is a function of (seed, epoch, batch), so that a resumed run repeats an
    uninterrupted one bit by bit.
    """

    def __init__(
        self,
        controller: Controller,
        lessons: Lessons,
        index: PlanIndex,
        train: Tensor,
        validation: Tensor,
        config: ControllerConfig,
        seed: int,
        fingerprint: str,
    ) -> None:
        """`index`: the C plans of the lessons. `train`, `validation`: positions of queries in them.
        `fingerprint` of settings and data: a run of another one is not resumed."""
        super().__init__()
        self.controller = controller
        self.lessons = lessons
        self.index = index
        self.tree = PlanTree.build(index, controller.sizes)
        self.epoch_tree = self.tree
        self.train_queries = train
        self.validation_queries = validation
        self.config = config
        self.seed = seed
        self.fingerprint = fingerprint
        self.best_utility = -float("inf")
        self.best_state: dict[str, Tensor] = _copy_state(controller)

    def train_dataloader(self) -> DataLoader[Any]:
        """This epoch's order of queries, and of the seats where order means nothing.

        Loaders are rebuilt every epoch.
        """
        generator = self._generator(self.current_epoch, -1)
        order = torch.randperm(len(self.train_queries), generator=generator)
        shuffled = self.index.shuffled(self.controller.candidates.ordered, generator)
        tree = PlanTree.build(shuffled, self.controller.sizes)
        self.epoch_tree = tree.to(self.controller.position.device)
        return DataLoader(
            TensorDataset(self.train_queries[order]), batch_size=self.config.batch_size
        )

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(self.validation_queries), batch_size=1024)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor | None:
        queries = batch[0].cpu()
        generator = self._generator(self.current_epoch, batch_idx)
        nodes = len(self.lessons.cost_weights)
        node = torch.randint(nodes, (len(queries),), generator=generator)
        keep = self.lessons.available(queries, node).any(1)
        if not bool(keep.any()):
            return None  # Lightning then takes no step
        queries, node = queries[keep], node[keep]
        loss = self._loss(queries, node, generator)
        self.log("train/loss", loss.total, batch_size=len(queries), prog_bar=True)
        for name in ("distillation", "utility", "preference", "entropy"):
            self.log(f"train/{name}", getattr(loss, name), batch_size=len(queries))
        return loss.total

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Held-out utility that the cascade expects to get, averaged over cost weights.

        The expectation is over its own choices, not that of its likeliest one: samples and stage
        probabilities have to be good, too. Utilities are looked up on grids; elsewhere the critic's
        cross-fitted opinion stands in.
        """
        lessons = self.lessons
        queries = batch[0].cpu()
        prepared = self.controller.prepare()
        measure = lessons.utility if lessons.kind is LogKind.GRID else lessons.predicted
        total = torch.zeros(())
        for v in range(len(lessons.cost_weights)):
            node = torch.full((len(queries),), v)
            available = lessons.available(queries, node)
            rows = available.any(1)
            if not bool(rows.any()):
                continue
            log_p = self._log_p(queries[rows], node[rows], prepared, self.tree).cpu()
            p = objectives.restrict(log_p, available[rows]).exp()
            utility = torch.where(available[rows], measure(queries[rows], node[rows]), 0.0)
            total = total + ((p * utility).sum(1) / lessons.scale[v]).mean()
        self.log(
            "val/utility",
            total / len(lessons.cost_weights),
            batch_size=len(queries),
            prog_bar=True,
        )

    def on_validation_epoch_end(self) -> None:
        utility = float(self.trainer.callback_metrics["val/utility"])
        if utility > self.best_utility and not self.trainer.sanity_checking:
            self.best_utility = utility
            self.best_state = _copy_state(self.controller)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            self.controller.parameters(),
            lr=self.config.learning_rate,
            weight_decay=self.config.weight_decay,
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["best_utility"] = self.best_utility
        checkpoint["best_state"] = self.best_state
        checkpoint["fingerprint"] = self.fingerprint

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """TrainingError for the state of another run, before any of it is taken."""
        if checkpoint.get("fingerprint") != self.fingerprint:
            raise TrainingError(
                "the run folder holds a run with other logs, settings or seed; give the same ones, "
                "or start in another folder"
            )
        self.best_utility = checkpoint["best_utility"]
        self.best_state = checkpoint["best_state"]

    def _loss(
        self, queries: Tensor, node: Tensor, generator: torch.Generator
    ) -> objectives.CascadeLoss:
        lessons, config = self.lessons, self.config
        available = lessons.available(queries, node)
        predicted = lessons.predicted(queries, node)
        scale = lessons.scale[node]
        target = objectives.teacher(predicted, available, scale, config.temperature)
        log_p = self._log_p(queries, node, self.controller.prepare(), self.epoch_tree)
        here = [t.to(self.device) for t in (target, available, scale)]
        target, available, scale = here
        if lessons.kind is LogKind.GRID:
            shift = 1
            if self.tree.n_plans > 2:
                shift = int(torch.randint(1, self.tree.n_plans, (1,), generator=generator))
            return objectives.grid_loss(
                log_p,
                target,
                lessons.utility(queries, node).to(self.device),
                available,
                scale,
                ranking=config.ranking,
                entropy=config.entropy,
                shift=shift,
            )
        if lessons.kind is LogKind.RANDOMISED:
            drawn = lessons.drawn[queries]
            reward = lessons.utility(queries, node).gather(1, drawn.clamp_min(0)[:, None])[:, 0]
            drawn = torch.where(torch.isfinite(reward), drawn, -1)
            tensors = (
                predicted, drawn, torch.nan_to_num(reward), lessons.propensity[queries],
            )  # fmt: skip
            predicted, drawn, reward, propensity = (t.to(self.device) for t in tensors)
            return objectives.randomised_loss(
                log_p,
                target,
                predicted,
                available,
                scale,
                drawn,
                reward,
                propensity,
                advantage_temperature=config.advantage_temperature,
                weight_clip=config.weight_clip,
                entropy=config.entropy,
            )
        return objectives.observational_loss(log_p, target, available, entropy=config.entropy)

    def _log_p(self, queries: Tensor, node: Tensor, prepared: Prepared, tree: PlanTree) -> Tensor:
        lessons = self.lessons
        state = self.controller.encode(
            lessons.embeddings[queries].to(self.device),
            lessons.statistics[queries].to(self.device),
            lessons.cost_weights[node].to(self.device),
        )
        return self.controller.log_probabilities(state, prepared, tree)

    def on_fit_start(self) -> None:
        self.tree = self.tree.to(self.device)

    def _generator(self, epoch: int, batch: int) -> torch.Generator:
        mixed = (self.seed * 1_000_003 + epoch) * 1_000_003 + batch + 1
        return torch.Generator().manual_seed(mixed % (2**63 - 1))


def _copy_state(module: torch.nn.Module) -> dict[str, Tensor]:
    return {k: v.detach().cpu().clone() for k, v in copy.copy(module.state_dict()).items()}
