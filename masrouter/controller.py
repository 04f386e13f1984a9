"""The cascade: which team, one choice after another.

    pi(a | x, lambda) = pi(topology) pi(count | topology) prod_j pi(role_j | ...) pi(model_j | ...)

Each factor is a softmax over candidates that are allowed after what was chosen before, and its
logits see all of that: the state starts as the query and the cost weight, and every choice is added
to it. Candidates are their descriptions and numbers plus a learned residual, so that a new one has
logits at once. Source: MasRouter, Yue et al., ACL 2025 (arXiv 2502.11133), section 4: the action
space and the order of the cascade; the count is a categorical here, and no stage is skipped.

Not here: learning (`masrouter_train`), and the critic that re-ranks what this proposes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor, nn

from masrouter.candidates import Candidates
from masrouter.features import STATISTICS
from masrouter.plan_space import PlanTree
from masrouter.plan_steps import stage_name

LAMBDA_FEATURES = 8


@dataclass(frozen=True)
class Prepared:
    """Candidates as the cascade reads them, computed once while weights stay."""

    keys: dict[str, Tensor]  # stage -> (D, C), so that logits are hidden @ keys + bias
    bias: dict[str, Tensor]  # stage -> (C,)
    writes: tuple[Tensor, ...]  # by depth: what each choice adds to the state, (C, D)

    @cached_property
    def all_writes(self) -> Tensor:
        """Those of every depth, one after the other: (sum of C, D)."""
        return torch.cat(self.writes)

    @cached_property
    def starts(self) -> Tensor:
        """Where each depth starts in `all_writes`: (depths,)."""
        before = accumulate((len(write) for write in self.writes[:-1]), initial=0)
        return torch.tensor(list(before), device=self.writes[0].device)


class _Stage(nn.Module):
    """Candidates of one stage -> embeddings; state -> logits; choice -> change of state."""

    def __init__(self, inputs: int, candidates: int, width: int) -> None:
        super().__init__()
        self.describe = nn.Linear(inputs, width)
        self.residual = nn.Parameter(torch.zeros(candidates, width))
        self.hidden = nn.Linear(width, width)
        self.read = nn.Linear(width, width)
        self.write = nn.Linear(width, width)

    def embed(self, vectors: Tensor) -> Tensor:
        """(C, V) -> (C, D); candidates beyond the trained ones have no residual."""
        embedded: Tensor = self.describe(vectors)
        known = len(self.residual)
        return torch.cat([embedded[:known] + self.residual, embedded[known:]])


class Controller(nn.Module):
    """Cascade pi(a | x, lambda) over the plans of a tree.

    Shapes: B queries, E embedding, S statistics, T topologies, K agents at most, R roles, M models,
    D width, P plans, U nodes of a level.
    """

    count_vectors: Tensor  # (K, 2)
    centres: Tensor  # (LAMBDA_FEATURES - 1,)

    def __init__(
        self, dimension: int, candidates: Candidates, reference_cost: float, width: int = 64
    ) -> None:
        """`reference_cost`: a typical cost of a run in US dollars; makes the cost weight a pure
        number."""
        super().__init__()
        self.width = width
        self.reference_cost = reference_cost
        self.query = nn.Linear(dimension + len(STATISTICS), width)
        self.trade_off = nn.Linear(LAMBDA_FEATURES, width)
        self.mix = nn.Linear(width, width)
        # Not by torch: on the meta device its functions import a compiler, which takes seconds.
        counts = [[math.log(n), 1 / n] for n in range(1, candidates.max_agents + 1)]
        self.register_buffer("count_vectors", torch.tensor(counts))
        self.register_buffer("centres", torch.linspace(-2, 5, LAMBDA_FEATURES - 1))
        tables = (candidates.topologies, candidates.roles, candidates.models)
        topology, role, model = (
            _Stage(table.vectors.shape[1], table.trained, width) for table in tables
        )
        count = _Stage(2, candidates.max_agents, width)
        self.stages = nn.ModuleDict(
            {"topology": topology, "count": count, "role": role, "model": model}
        )
        self.position = nn.Parameter(torch.zeros(2 + 2 * candidates.max_agents, width))
        self.candidates = candidates

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Number of topologies, counts, roles and models."""
        c = self.candidates
        return (
            len(c.topologies.names),
            c.max_agents,
            len(c.roles.names),
            len(c.models.names),
        )

    def prepare(self) -> Prepared:
        """Embed every candidate and multiply out what does not depend on the query."""
        c = self.candidates
        vectors = {
            "topology": c.topologies.vectors,
            "count": self.count_vectors,
            "role": c.roles.vectors,
            "model": c.models.vectors,
        }
        keys, bias, embedded = {}, {}, {}
        for name, rows in vectors.items():
            stage = self._stage(name)
            embedded[name] = stage.embed(rows.to(self.position.device))  # (C, D)
            scaled = embedded[name] / math.sqrt(self.width)
            keys[name] = (scaled @ stage.read.weight).T
            bias[name] = scaled @ stage.read.bias
        writes = tuple(
            torch.tanh(self._stage(name).write(embedded[name]) + self.position[depth])
            for depth, name in enumerate(map(stage_name, range(len(self.position))))
        )
        return Prepared(keys, bias, writes)

    def _stage(self, name: str) -> _Stage:
        stage = self.stages[name]
        assert isinstance(stage, _Stage)
        return stage

    def encode(self, embeddings: Tensor, statistics: Tensor, cost_weight: Tensor) -> Tensor:
        """The state before the first choice: (B, E), standardised (B, S), (B,) -> (B, D)."""
        t = torch.log10(cost_weight * self.reference_cost + 1e-3) + 2  # (B,)
        bumps = torch.exp(-((t[:, None] - self.centres) ** 2))  # (B, 7)
        trade_off = self.trade_off(torch.cat([t[:, None] / 3, bumps], 1))
        query = self.query(torch.cat([3 * embeddings, statistics / 3], 1))
        state: Tensor = self.mix(torch.relu(query + trade_off))
        return state

    def _logits(self, depth: int, state: Tensor, prepared: Prepared) -> Tensor:
        """(..., D) -> (..., C): one hidden layer of the state against every candidate."""
        name = stage_name(depth)
        hidden = torch.relu(self._stage(name).hidden(state))
        return hidden @ prepared.keys[name] + prepared.bias[name]

    def stage_log_probabilities(self, state: Tensor, prepared: Prepared, tree: PlanTree) -> Tensor:
        """Log-probability of every choice of every plan: (B, D) -> (B, P, L), 0 after its end.

        Their sum over L is log pi(a | x, lambda), and those of a tree's plans sum to one. Every
        prefix is visited once, whatever the number of plans that share it.
        """
        parts = []
        states = state[:, None, :]  # (B, U=1, D)
        for depth, level in enumerate(tree.levels):
            if depth:
                states = states[:, level.parent] + prepared.writes[depth - 1][level.choice]
            if level.forced:
                parts.append(state.new_zeros(1, 1).expand(len(state), tree.n_plans))
                continue
            logits = self._logits(depth, states, prepared)  # (B, U, C)
            log_p = logits.masked_fill(~level.mask, -math.inf).log_softmax(2)
            taken = log_p[:, level.plan_node, level.plan_choice.clamp_min(0)]  # (B, P)
            parts.append(torch.where(level.plan_choice >= 0, taken, 0.0))
        return torch.stack(parts, 2)

    def path_logits(
        self, state: Tensor, prepared: Prepared, steps: Tensor, depths: Sequence[int]
    ) -> tuple[Tensor, ...]:
        """Logits of stages along one path a query: (B, D), steps (B, L) -> (B, C) for each depth.

        Where the choices are known, every state is, so that each kind of stage is one product.
        Steps after a path's end (-1) may be anything.
        """
        taken = steps.clamp_min(0)
        written = prepared.all_writes[(taken + prepared.starts[: taken.shape[1]])[:, :-1]]
        states = torch.cat([state[:, None], written], 1).cumsum(1)  # (B, L, D) before each choice
        kinds: dict[str, list[int]] = {}
        for depth in depths:
            kinds.setdefault(stage_name(depth), []).append(depth)
        found: dict[int, Tensor] = {}
        for mine in kinds.values():
            logits = self._logits(mine[0], states[:, mine], prepared)  # (B, d, C)
            found |= {depth: logits[:, i] for i, depth in enumerate(mine)}
        return tuple(found[depth] for depth in depths)

    def log_probabilities(self, state: Tensor, prepared: Prepared, tree: PlanTree) -> Tensor:
        """log pi(a | x, lambda) of every plan of the tree: (B, D) -> (B, P)."""
        return self.stage_log_probabilities(state, prepared, tree).sum(2)

    @torch.no_grad()
    def greedy(self, state: Tensor, prepared: Prepared, tree: PlanTree) -> Tensor:
        """The likeliest choice at every stage: (B, D) -> (B, L) choices, -1 after the end.

        One pass over the stages for the whole batch; no loop over queries.
        """
        node = torch.zeros(len(state), dtype=torch.long, device=state.device)
        steps = []
        for depth, level in enumerate(tree.levels):
            if level.forced:
                choice = level.only[node]
            else:
                logits = self._logits(depth, state, prepared)  # (B, C)
                choice = (logits + level.penalty[node]).argmax(1)
            steps.append(choice)
            if depth + 1 < len(tree.levels):
                node = level.child[node, choice]
                state = state + prepared.writes[depth][choice]
        return _ended(torch.stack(steps, 1))


def _ended(steps: Tensor) -> Tensor:
    """Blank what lies beyond each plan's count (choice c of the count means c + 1 agents)."""
    length = 2 + 2 * (steps[:, 1:2] + 1)
    return torch.where(torch.arange(steps.shape[1], device=steps.device) < length, steps, -1)
