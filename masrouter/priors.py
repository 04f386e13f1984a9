"""How far off a description may be: measured on the names that training knew.

Each trained name is left out in turn, the effects of its plans are predicted from what they share
with the others, and what was missed is the prior deviation of a new name's own effect. So a router
whose models are predictable from price and description trusts a new one's description, and one
whose models are not leaves its intervals wide and lets the first probes speak.
Empirical Bayes, by block of query features (Efron 2010, chapter 1).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from masrouter.additions import name_columns
from masrouter.candidates import CandidateTable, PlanIndex
from masrouter.critic import Critic
from masrouter.features import STATISTICS
from masrouter.gate import Gate
from masrouter.tensor_layout import TARGETS

PLANS_READ = 256
NAMES_READ = 24
"""What is enough for a variance; more takes longer."""
SPREAD_COUNTS = 2.0
"""Names that the spread of the plans themselves counts for, beside those that were left out."""
RIDGE = 1e-2
"""Variance of a trained plan's effect around what training found, relative to a plan's own."""
LEAST_SHARE = 0.1
"""Of a name's variance per unit, at least this much is a plan's own: no two plans are one."""
LEAST_NOISE = 0.02
LOG_NOISE, LOG_NOISE_COUNTS = 0.25, 4.0
"""Variance of a logarithm around its prediction before any probe, and the probes it counts for."""


@dataclass(frozen=True)
class NewNames:
    """Names by stage that training did not know."""

    topologies: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


def prior_deviations(critic: Critic, gate: Gate, mean_phi: Tensor, new: NewNames) -> Tensor:
    """Of the entries of V (see `additions`), for each head, names and plans, and block of psi:
    (H, 2, BLOCKS).

    What is missed of a left-out name's plans, e_a = u' n(a) + v_a, has a part u of the name, alike
    in all its plans, and a part v_a of the plan. Variances by moments: products e_a e_b of two
    plans of a name know u alone, squares know both. The spread of all plans' effects counts as two
    more names, so that few names say little. A block that a head does not use has deviation 0.
    """
    runs = torch.from_numpy(gate.runs)[: len(critic.known)]
    busiest = runs.argsort(descending=True, stable=True)[:PLANS_READ]
    plans = critic.known.at(busiest.sort().values)
    z = critic.describe(plans)  # (P, G)
    effects = []
    for name in critic.heads:
        rows = critic.head(name).fold(z)[0].T.clone()  # (P, F)
        rows[:, 0] = rows @ mean_phi  # the constant of psi: the effect on the mean query
        effects.append(rows)
    effect = torch.cat(effects, 1)  # (P, H * F)
    spread = ((effect - effect.mean(0)).square() / z.square().sum(1, keepdim=True)).mean(0)
    own = critic.kernel.own
    # Sums over names of (moment, what it is per unit of variance): pairs know u, squares u and v.
    pairs, pair_weight = SPREAD_COUNTS * spread * own, SPREAD_COUNTS * own
    squares, names, name_weight = SPREAD_COUNTS * 2 * spread * own, SPREAD_COUNTS, pair_weight
    for hidden, like in _left_out(plans, critic, new):
        missed = effect[hidden] - _predicted(z, effect, hidden)  # (h, H * F)
        squares = squares + missed.square().mean(0)
        names += 1
        name_weight += float(like.diagonal().mean())
        several = len(hidden) * (len(hidden) - 1)
        if several:
            crossed = missed.sum(0).square() - missed.square().sum(0)
            pairs = pairs + crossed / several
            pair_weight += float(like.sum() - like.diagonal().sum()) / several
    of_name = (pairs / pair_weight).clamp_min(0)
    of_plan = (squares - of_name * name_weight) / (names * own)
    of_plan = torch.maximum(of_plan, LEAST_SHARE * of_name)
    variance = torch.stack([of_name, of_plan], 1).reshape(len(effects), -1, 2)  # (H, F, 2)
    domains = 1 + len(STATISTICS)
    text = domains + len(critic.query_features.domains)
    edges = (0, 1, domains, text, variance.shape[1])
    blocks = [
        variance[:, start:end].mean(1) if end > start else torch.zeros(len(effects), 2)
        for start, end in pairwise(edges)
    ]
    return torch.stack(blocks, 2).sqrt()


def cell_noise(critic: Critic, gate: Gate, residuals: Tensor, plan: Tensor) -> Tensor:
    """Variance of a cell of each head: (H,).

    Of scores it is that of a coin with the plan's mean, as the trained plans have it on average; of
    logarithms what the probes (residuals (n, 4), NaN unknown; plan (n,)) leave around their plan's
    mean, where four made-up cells speak before the first.
    """
    learned = slice(0, len(critic.known))
    mean, runs = (torch.from_numpy(part)[learned] for part in (gate.mean_score, gate.runs))
    scored = torch.isfinite(mean) & (runs > 0)
    coin = (mean * (1 - mean) * runs)[scored].sum() / runs[scored].sum()
    noise = [max(float(coin), LEAST_NOISE) if bool(scored.any()) else 0.25]
    for column in range(1, len(TARGETS)):
        values = residuals[:, column]
        left, free = LOG_NOISE * LOG_NOISE_COUNTS, LOG_NOISE_COUNTS
        for p in sorted(set(plan.tolist())):
            own = values[(plan == p) & torch.isfinite(values)]
            if len(own) > 1:
                left += float((own - own.mean()).square().sum())
                free += len(own) - 1
        noise.append(max(left / free, LEAST_NOISE))
    return torch.tensor(
        [noise[TARGETS.index(name)] if name in TARGETS else noise[0] for name in critic.heads]
    )


def _left_out(plans: PlanIndex, critic: Critic, new: NewNames) -> Iterator[tuple[Tensor, Tensor]]:
    """(plans to hide (h,), products of their columns of the name (h, h)) for each trained name of
    the stages that have new names; for each plan where no name is new."""
    candidates, weights = critic.candidates, critic.kernel
    found = 0
    for stage in ("topologies", "roles", "models"):
        if not getattr(new, stage):
            continue
        table: CandidateTable = getattr(candidates, stage)
        for name in table.names[: table.trained]:
            if not name:
                continue  # no role named
            columns = name_columns(plans, candidates, weights, **{stage: (name,)})
            hidden = columns.any(1)
            if not bool(hidden.any()) or bool(hidden.all()) or found >= NAMES_READ:
                continue
            found += 1
            at = hidden.nonzero()[:, 0]
            yield at, columns[at] @ columns[at].T
    if not any((new.topologies, new.roles, new.models)) and len(plans) > 1:
        for at in torch.arange(min(len(plans), NAMES_READ)):
            yield at[None], torch.zeros(1, 1)


def _predicted(z: Tensor, effect: Tensor, hidden: Tensor) -> Tensor:
    """Effects of the hidden plans, given those of the others: (h, H * F).

    The mean of a Gaussian process with covariance z z'; a hidden name's own columns are zero in all
    plans that are left, so that only what is shared and described speaks.
    """
    kept = torch.ones(len(z), dtype=torch.bool)
    kept[hidden] = False
    x, y = z[kept].double(), effect[kept].double()
    mean = y.mean(0)
    covariance = x @ x.T
    covariance += RIDGE * torch.eye(len(x), dtype=torch.float64)
    weights = torch.linalg.solve(covariance, y - mean)
    predicted: Tensor = mean + z[hidden].double() @ x.T @ weights
    return predicted.float()
