"""Everything a router knows: what deciding needs, and its networks where they are loaded.

Arrays are NumPy's and nothing here imports torch. Not here: the networks themselves (`networks`),
the way into a checkpoint and back (`router_files`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import numpy as np

from masrouter.catalog import Catalog
from masrouter.errors import MasRouterError, RoutingError
from masrouter.evidence import EvidenceStore
from masrouter.gate import Floats32, Gate
from masrouter.plan_steps import StageNames
from masrouter.types import Plan

if TYPE_CHECKING:
    from masrouter.additions import Addition
    from masrouter.candidates import Candidates
    from masrouter.controller import Controller
    from masrouter.critic import Critic


@dataclass(frozen=True)
class Added:
    """One step after training, as it is told to people."""

    title: str
    """What was added, such as `model gpt-5`; empty for plans without a profile of their own."""
    plans: int
    probes: int
    """Outcomes of probe runs that it was given."""


class Networks(Protocol):
    """The networks of a router, and what is known of them without running any."""

    @property
    def domains(self) -> tuple[str, ...]:
        """Kinds of query that were told apart in training; none where there was only one."""

    @property
    def heads(self) -> tuple[str, ...]:
        """Score heads of the critic by name."""

    @property
    def names(self) -> StageNames:
        """What each stage of a plan chooses from."""

    @property
    def added(self) -> tuple[Added, ...]:
        """What came after training, in order: its plans are the last ones."""

    @property
    def candidates(self) -> Candidates: ...

    @property
    def critic(self) -> Critic: ...

    @property
    def controller(self) -> Controller: ...

    @property
    def additions(self) -> tuple[Addition, ...]: ...


@dataclass(frozen=True)
class UnloadedNetworks:
    """Networks that stay on disk: something exported from them routes (`scorer_exported`)."""

    domains: tuple[str, ...]
    heads: tuple[str, ...]
    names: StageNames
    added: tuple[Added, ...]

    @property
    def candidates(self) -> Candidates:
        self._missing()

    @property
    def critic(self) -> Critic:
        self._missing()

    @property
    def controller(self) -> Controller:
        self._missing()

    @property
    def additions(self) -> tuple[Addition, ...]:
        self._missing()

    def _missing(self) -> NoReturn:
        raise RoutingError(
            "this router was loaded without its networks; to save, extend or train it, load it "
            "with backend='torch' (needs: pip install 'masrouter[torch]')"
        )


@dataclass(frozen=True)
class RouterState:
    """The parts of a trained router. C plans; the first of them are those of the logs."""

    plans: tuple[Plan, ...]
    networks: Networks
    gate: Gate
    evidence: EvidenceStore
    catalog: Catalog
    """Today's descriptions and prices."""
    trained_catalog: Catalog
    """Those of the day of training: predicted costs are billed at these."""
    calibration: tuple[tuple[float, float], ...]
    """Slope and intercept for each score head, on the logit scale (Platt 1999)."""
    default_cost_weight: float
    cascade_trained: bool
    encoder_name: str
    training: Mapping[str, Any]
    """Settings, kind of logs, versions: for the record."""
    metrics: Mapping[str, Any]
    """What was measured on held-out queries while training."""

    @property
    def candidates(self) -> Candidates:
        """RoutingError, as for each network, where they are not loaded."""
        return self.networks.candidates

    @property
    def critic(self) -> Critic:
        return self.networks.critic

    @property
    def controller(self) -> Controller:
        return self.networks.controller

    @property
    def additions(self) -> tuple[Addition, ...]:
        return self.networks.additions

    def calibrate(self, score: Floats32, head: int) -> Floats32:
        """Probability that a predicted score stands for; monotone, so no ranking changes."""
        slope, intercept = self.calibration[max(head, 0)]
        clipped = score.clip(0.005, 0.995)
        with np.errstate(over="ignore"):  # exp of a large number: a probability of zero
            odds = np.exp(-(slope * np.log(clipped / (1 - clipped)) + intercept))
        calibrated: Floats32 = 1 / (1 + odds)
        return calibrated

    def with_catalog(self, catalog: Catalog) -> RouterState:
        """With other prices. Names that it lacks keep their old entries."""
        return replace(self, catalog=self.trained_catalog.extended_with(catalog))

    @property
    def learned(self) -> int:
        """How many of the plans training knew; those that were added follow them."""
        return len(self.plans) - sum(added.plans for added in self.networks.added)

    def added_with(self, plan: int) -> Added | None:
        """What brought the plan at this position; None for a plan of the training logs."""
        start = self.learned
        for added in self.networks.added:
            if start <= plan < start + added.plans:
                return added
            start += added.plans
        return None

    def price_ratio(self) -> Floats32:
        """(C,) today's price of each plan over its price when it was trained.

        Agents are taken to share a run's tokens equally. 1 where either price is unknown: then the
        billed costs of the logs stand.
        """
        ratios = []
        for plan in self.plans:
            now, then = 0.0, 0.0
            for agent in plan.agents:
                today, before = (
                    _blended(self.catalog, agent.model),
                    _blended(self.trained_catalog, agent.model),
                )
                if today is None or before is None:
                    now = then = 0.0
                    break
                now, then = now + today, then + before
            ratios.append(now / then if then > 0 else 1.0)
        return np.array(ratios, dtype=np.float32)

    def prices(self) -> Floats32:
        """(2, C) today's US dollars per million prompt and completion tokens, mean over agents; NaN
        where a price is unknown."""
        prices = np.full((2, len(self.plans)), np.nan, dtype=np.float32)
        for i, plan in enumerate(self.plans):
            entries = [_entry(self.catalog, agent.model) for agent in plan.agents]
            if all(e is not None and None not in e for e in entries):
                prices[:, i] = np.array(entries, dtype=np.float32).mean(0)
        return prices


def _entry(catalog: Catalog, model: str) -> tuple[float | None, float | None] | None:
    try:
        entry = catalog.resolve_model(model)
    except MasRouterError:
        return None
    return entry.input_usd_per_mtok, entry.output_usd_per_mtok


def _blended(catalog: Catalog, model: str) -> float | None:
    """USD per million tokens at three prompt tokens to one completion token."""
    entry = _entry(catalog, model)
    if entry is None or entry[0] is None or entry[1] is None:
        return None
    return 0.75 * entry[0] + 0.25 * entry[1]
