"""A router's networks as torch modules, and how a checkpoint's tensors become them.

Not here: running them for a router (`scorer_torch`), teaching them (`masrouter_train`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import Module

from masrouter.additions import Addition
from masrouter.candidates import Candidates, KernelWeights
from masrouter.checkpoint import TensorSpec, check_tensors
from masrouter.controller import Controller
from masrouter.critic import Critic, FoldedCritic
from masrouter.plan_steps import StageNames
from masrouter.query_features import QueryFeatures
from masrouter.router_checks import candidate_tensors
from masrouter.router_settings import Written
from masrouter.router_state import Added, Networks
from masrouter.types import Plan


@dataclass(frozen=True)
class TrainedNetworks:
    """The networks of a router, and what it was given after training; see
    `router_state.Networks`."""

    candidates: Candidates
    critic: Critic
    controller: Controller
    additions: tuple[Addition, ...] = ()

    @property
    def domains(self) -> tuple[str, ...]:
        return self.critic.query_features.domains

    @property
    def heads(self) -> tuple[str, ...]:
        return tuple(scales.name for scales in self.critic.score_scales)

    @property
    def names(self) -> StageNames:
        return self.candidates.names

    @property
    def added(self) -> tuple[Added, ...]:
        return tuple(Added(a.title, a.plans, len(a.phi)) for a in self.additions)


def fold(networks: Networks, plans: Sequence[Plan]) -> FoldedCritic:
    """The critic for these plans, of which those of the additions are the last."""
    index = networks.candidates.index_plans(plans)
    position = torch.arange(len(plans))
    position[len(plans) - sum(added.plans for added in networks.added) :] = -1
    return FoldedCritic(networks.critic, index, position, networks.additions)


@dataclass(frozen=True)
class NetworkDraft:
    """Networks on the meta device: nothing is allocated before the shapes are checked."""

    written: Written
    candidates: Candidates
    critic: Critic
    controller: Controller

    @classmethod
    def of(cls, written: Written) -> NetworkDraft:
        """CheckpointError where the tensors of the candidates are not as they should be."""
        place = f"{written.where}: model.safetensors"
        section, dimension = written.section("candidates"), written.encoder.dimension
        own = {k: v for k, v in written.data.tensors.items() if k.startswith("candidates.")}
        check_tensors(own, candidate_tensors(section, dimension), where=place)
        candidates = Candidates.from_state(section.data, own)
        settings = written.critic
        known = candidates.index_plans(written.plans[: written.learned])
        with torch.device("meta"):
            critic = Critic(
                QueryFeatures(dimension, settings.domains),
                candidates,
                known,
                score_scales=settings.score_scales,
                log_heads=settings.log_heads,
                members=settings.members,
                kernel=KernelWeights(**settings.kernel),
            )
            controller = Controller(dimension, candidates, written.reference_cost, written.width)
        return cls(written, candidates, critic, controller)

    @property
    def spec(self) -> TensorSpec:
        """The tensors of critic and cascade."""
        return {
            prefix + name: (tuple(tensor.shape), np.dtype(str(tensor.dtype).split(".")[1]))
            for prefix, module in self._modules.items()
            for name, tensor in module.state_dict().items()
        }

    def filled(self) -> TrainedNetworks:
        """With the weights of the checkpoint."""
        tensors = self.written.data.tensors
        for prefix, module in self._modules.items():
            own = {
                name.removeprefix(prefix): torch.from_numpy(value)
                for name, value in tensors.items()
                if name.startswith(prefix)
            }
            module.load_state_dict(own, assign=True)
            module.requires_grad_(False).eval()
        return TrainedNetworks(
            self.candidates,
            self.critic,
            self.controller,
            tuple(
                Addition.from_state(entry.data, tensors, i)
                for i, entry in enumerate(self.written.additions)
            ),
        )

    @property
    def _modules(self) -> Mapping[str, Module]:
        return {"critic.": self.critic, "controller.": self.controller}
