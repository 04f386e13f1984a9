"""Run learners on held-out queries: fit, ask, check and remember what they chose.

Not here: how queries are split and what is made of the choices (`crossval`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from masrouter.errors import EvaluationError
from masrouter.evaluation.baselines import ORACLE
from masrouter.evaluation.learners import (
    Chooser,
    Embeddings,
    Learner,
    NotApplicable,
    PredictsDomains,
    PredictsScores,
    Queries,
    Remarks,
)
from masrouter.evaluation.unit_store import UnitKey, UnitResult, UnitStore
from masrouter.outcomes import Bools, Floats, Ints, Outcomes

Progress = Callable[[int, int, str], None]
"""Called with (units done, units in all, what was done) after every unit."""


Names = NDArray[np.str_]


@dataclass(frozen=True)
class Split:
    """Positions of training and test queries, and the plans that training must not see."""

    left_out: str  # a dataset or a model; "" for plain folds
    seed: int
    fold: int
    train: Ints
    test: Ints
    hidden: Bools  # (P,)


@dataclass(frozen=True)
class Choices:
    """What was chosen: L learners (the oracle last), S seeds, W cost weights, N queries."""

    learners: tuple[str, ...]  # (L,)
    chosen: Ints  # (L, S, W, N); -1 where the query cannot be evaluated
    expected: Floats  # (L, S, W, N); NaN where no score was expected aloud
    notes: tuple[str, ...]
    domains: dict[str, Names]
    """By learner that predicts them, (S, N); empty where none was predicted."""


@dataclass
class HeldOutRun:
    outcomes: Outcomes
    embeddings: Embeddings
    learners: tuple[Learner, ...]
    cost_weights: tuple[float, ...]
    store: UnitStore
    progress: Progress | None
    splits_in_all: int
    done: int = 0

    def validate(self, splits: Sequence[Split], seeds: tuple[int, ...]) -> Choices:
        shape = (len(self.learners), len(seeds), len(self.cost_weights), self.outcomes.n_queries)
        chosen = np.full(shape, -1, dtype=np.int64)
        expected = np.full(shape, np.nan)
        utilities = [self.outcomes.utility(weight) for weight in self.cost_weights]  # W x (N, P)
        notes = list(self.outcomes.notes)
        left_out: dict[str, str] = {}
        domains: dict[str, NDArray[np.object_]] = {}
        unseen = np.zeros(len(self.cost_weights), dtype=np.int64)
        for split in splits:
            train, x = _training(self.outcomes, self.embeddings, split)
            seed_index = seeds.index(split.seed)
            for w, weight in enumerate(self.cost_weights):
                known = np.isfinite(utilities[w][split.test])
                seen = np.isfinite(train.utility(weight)).any(axis=0)
                unseen[w] += int((known.any(axis=1) & ~(known & seen).any(axis=1)).sum())
            for i, learner in enumerate(self.learners):
                result = self._unit(learner, split, train, x, utilities)
                notes += [note for note in result.notes if note not in notes]
                if result.not_applicable is not None:
                    left_out.setdefault(learner.name, result.not_applicable)
                chosen[i, seed_index, :, split.test] = result.chosen.T
                expected[i, seed_index, :, split.test] = result.expected.T
                if result.domains is not None:
                    nothing = np.full((len(seeds), shape[-1]), "", dtype=np.object_)
                    told = domains.setdefault(learner.name, nothing)
                    told[seed_index, split.test] = result.domains
        for w, weight in enumerate(self.cost_weights):
            empty = int((~np.isfinite(utilities[w]).any(axis=1)).sum())
            if empty:
                notes.append(
                    f"cost weight {weight:.4g}: {empty} of {self.outcomes.n_queries} queries have "
                    "no plan of known score and cost; they are left out there"
                )
            if unseen[w]:
                notes.append(
                    f"cost weight {weight:.4g}: {unseen[w]} test queries (over all seeds) have no "
                    "plan that training saw; the baselines take their first one"
                )
        notes += [f"left out: {why}" for why in left_out.values()]
        kept = [i for i, learner in enumerate(self.learners) if learner.name not in left_out]
        best = self._oracle(utilities)  # (W, N)
        oracle = np.broadcast_to(best, (1, *shape[1:]))
        return Choices(
            learners=(*(self.learners[i].name for i in kept), ORACLE),
            chosen=np.concatenate([chosen[kept], oracle]),
            expected=np.concatenate([expected[kept], np.full((1, *shape[1:]), np.nan)]),
            notes=tuple(notes),
            domains={
                name: told.astype(np.str_) for name, told in domains.items() if name not in left_out
            },
        )

    def _unit(
        self,
        learner: Learner,
        split: Split,
        train: Outcomes,
        x: Embeddings,
        utilities: list[Floats],
    ) -> UnitResult:
        key = UnitKey(split.left_out, split.seed, split.fold, learner.name)
        result = self.store.get(key)
        if result is None:
            try:
                chooser = learner.fit(train, x, cost_weights=self.cost_weights, seed=split.seed)
            except NotApplicable as error:
                shape = (len(self.cost_weights), len(split.test))
                result = UnitResult(
                    np.full(shape, -1, np.int64), np.full(shape, np.nan), (), str(error)
                )
            else:
                result = self._ask(learner.name, chooser, split.test, utilities)
            self.store.put(key, result)
        elif (
            result.chosen.shape != (len(self.cost_weights), len(split.test))
            or not ((result.chosen >= -1) & (result.chosen < self.outcomes.n_plans)).all()
        ):
            raise EvaluationError(f"the checkpoint file holds damaged choices for {key}; delete it")
        self.done += 1
        if self.progress is not None:
            what = " ".join(filter(None, [split.left_out, f"seed {split.seed} fold {split.fold}"]))
            self.progress(
                self.done, self.splits_in_all * len(self.learners), f"{what}: {learner.name}"
            )
        return result

    def _ask(self, name: str, chooser: Chooser, test: Ints, utilities: list[Floats]) -> UnitResult:
        chosen = np.full((len(self.cost_weights), len(test)), -1, dtype=np.int64)
        expected = np.full(chosen.shape, np.nan)
        queries = self._queries(test)
        scores = chooser.expected_scores(queries) if isinstance(chooser, PredictsScores) else None
        for w, weight in enumerate(self.cost_weights):
            available = np.isfinite(utilities[w][test])  # (n, P)
            rows = np.flatnonzero(available.any(axis=1))
            if len(rows) == 0:
                continue
            choice = np.asarray(chooser.choose(self._queries(test[rows]), weight, available[rows]))
            _check_choice(
                name, choice, available[rows], [self.outcomes.query_ids[i] for i in test[rows]]
            )
            chosen[w, rows] = choice
            if scores is not None:
                expected[w, rows] = scores[rows, choice]
        return UnitResult(
            chosen,
            expected,
            chooser.notes if isinstance(chooser, Remarks) else (),
            domains=self._domains(name, chooser, queries),
        )

    def _domains(self, name: str, chooser: Chooser, queries: Queries) -> tuple[str, ...] | None:
        if not isinstance(chooser, PredictsDomains):
            return None
        domains = chooser.predicted_domains(queries)
        if domains is not None and len(domains) != len(queries):
            raise EvaluationError(
                f"{name}: expected {len(queries)} predicted domains, got {len(domains)}"
            )
        return domains

    def _queries(self, index: Ints) -> Queries:
        texts = tuple(self.outcomes.queries[i] for i in index)
        return Queries(texts, np.asarray(self.embeddings[index], np.float32))

    def _oracle(self, utilities: list[Floats]) -> Ints:
        """The plan of the highest realised utility, the cheapest of equals, (W, N)."""
        cost = np.nan_to_num(self.outcomes.dense("cost"), nan=np.inf)
        chosen = []
        for realised in utilities:
            known = np.isfinite(realised)
            best = np.where(known, realised, -np.inf).max(axis=1, keepdims=True)
            tied = known & (realised == best)
            # Among equals the lowest cost, an unknown one last; argmin needs a finite tie-break.
            rank = np.where(tied, np.minimum(cost, np.finfo(np.float64).max), np.inf)
            chosen.append(np.where(known.any(axis=1), np.argmin(rank, axis=1), -1))
        return np.stack(chosen).astype(np.int64)


def _training(
    outcomes: Outcomes, embeddings: Embeddings, split: Split
) -> tuple[Outcomes, Embeddings]:
    """The training queries, without the hidden plans' cells and without queries left with none."""
    train = outcomes.queries_at(split.train)
    keep = ~split.hidden[train.plan]
    train = replace(
        train,
        query=train.query[keep],
        plan=train.plan[keep],
        score=train.score[keep],
        cost=train.cost[keep],
        prompt_tokens=train.prompt_tokens[keep],
        completion_tokens=train.completion_tokens[keep],
        propensity=train.propensity[keep],
        runs=train.runs[keep],
    )
    filled = np.unique(train.query)
    if len(filled) == 0:
        raise EvaluationError(
            f"fold {split.fold} (seed {split.seed}): no training cell is left "
            f"without {split.left_out!r}"
        )
    return train.queries_at(filled), np.asarray(embeddings[split.train[filled]], np.float32)


def _check_choice(name: str, choice: Ints, available: Bools, query_ids: Sequence[str]) -> None:
    n, plans = available.shape
    if choice.shape != (n,) or not np.issubdtype(choice.dtype, np.integer):
        raise EvaluationError(
            f"{name}: expected ({n},) plan indices, got {choice.shape} of {choice.dtype}"
        )
    inside = (choice >= 0) & (choice < plans)
    bad = ~inside | ~available[np.arange(n), np.where(inside, choice, 0)]
    if bad.any():
        first = int(np.argmax(bad))
        raise EvaluationError(
            f"{name}: chose plan {int(choice[first])} for query {query_ids[first]!r}, "
            "which is not available there"
        )
