"""One router for many logs: against the best single-agent plan of each file, on held-out queries.

    python -m tests.benchmarks.bench_mixture --logs FOLDER [--max-queries 1500] [FILE ...]

All files of known cost are trained on together, by cross-validation on queries (a query that two
files hold is held out of both). On each file the router chooses among what was logged there for the
query, at an operating point chosen inside the training queries, and is compared with the file's
best single-agent plan, chosen on the same training queries by accuracy alone. Prints Markdown.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from masrouter.encoder import Encoder, load_encoder
from masrouter.encoder.embedding_cache import EmbeddingCache
from masrouter.evaluation import metrics
from masrouter.evaluation.baselines import (
    BestFixedPlan,
    BestSingleModel,
    CheapFirst,
    MessageLength,
)
from masrouter.evaluation.crossval import split_queries
from masrouter.evaluation.learners import Embeddings, Learner
from masrouter.evaluation.operating_point import (
    Coin,
    Comparison,
    Curve,
    NestedValidation,
    Paired,
    Point,
    Realised,
    coin_at_equal_accuracy,
    coin_at_equal_cost,
    compare,
    fitted_cost,
    nested_cross_validate,
)
from masrouter.evaluation.predictors import NearestNeighbours
from masrouter.logs import read_logs
from masrouter.outcomes import Ints, Outcomes
from masrouter.types import Plan
from masrouter_train.config import TrainConfig
from masrouter_train.learner import RouterLearner

FILES = (
    "code_strategies", "humaneval_agents", "medical_models", "medical_strategies",
    "reasoning_scaffolds", "role_teams", "tool_turns", "weak_strong_models",
)  # fmt: skip
SINGLE = BestSingleModel().name
MIXED, ALONE = "masrouter, all files together", "masrouter, each file alone"
RULES = {"equal accuracy": coin_at_equal_accuracy, "equal cost": coin_at_equal_cost}
CELLS = (
    "query", "plan", "score", "cost", "prompt_tokens", "completion_tokens", "propensity", "runs",
)  # fmt: skip
READING = """
How to read this. The reference of each file is its best plan of one agent by accuracy alone, chosen
on the training queries; where a file holds only single calls that is its best model, and routing
there is choosing models. Where to run every other row was chosen inside the training queries, for
the file: on the hull of its inner cross-validated curve and the reference, a coin between two cost
weights (or one and the reference) that has the reference's accuracy at the lowest cost ("equal
accuracy"), or the highest accuracy at the reference's cost ("equal cost"). A row that finds nothing
better in training is the reference, 0 and 0. What was equal in training need not be equal on
held-out queries, so both differences are given: a saving is at equal accuracy, and a gain at equal
cost, only as far as the interval of the other column says so.
Intervals are 95 % paired bootstrap intervals over queries, of these choices on other queries; the
mean over files weighs each file the same, and its interval is about other queries of these files,
not about other files. "In hindsight" is read off the hull of the router's own held-out curve, where
its luckiest points count: it is no estimate.

MasRouter (arXiv 2502.11133) is cited for +3.51 points on average over routing among single models,
and 49 % less cost on HumanEval. It measured teams that it built and ran itself, with models of its
own pool, on MMLU, GSM8K, MATH, HumanEval and MBPP. Here nothing was run: choices are looked up
among strategies that others ran and logged, the reference is a fixed plan and not a trained router
of single models, and the files differ in models, prices and tasks. The two sets of numbers are not
comparable one to one.
"""


@dataclass(frozen=True)
class Part:
    """One file: its outcomes, and where its queries and plans are in the stack of all files."""

    name: str
    outcomes: Outcomes
    embeddings: Embeddings
    rows: Ints  # (n,) positions in the stack
    uncosted: float
    """Share of the logged cells whose cost is not known."""

    @property
    def priced(self) -> bool:
        """Whether a single-agent plan has a known cost: else there is accuracy alone to compare."""
        single = np.array([len(plan.agents) == 1 for plan in self.outcomes.plans])
        return bool(np.isfinite(self.outcomes.cost[single[self.outcomes.plan]]).any())


def read_part(path: Path, most: int, seed: int, encoder: Encoder, start: int) -> Part:
    """A file with at most so many queries, without the cells whose cost is unknown.

    Where no single-agent plan has a cost, all cells stay, for the comparison by accuracy alone.
    """
    outcomes = Outcomes.from_logs(read_logs(path))
    picked = np.random.default_rng(seed).permutation(outcomes.n_queries)[:most]
    outcomes = outcomes.queries_at(np.sort(picked))
    uncosted = float(np.isnan(outcomes.cost).mean())
    part = Part(path.stem, outcomes, np.empty((0, 0), np.float32), np.empty(0, np.int64), uncosted)
    if part.priced:
        keep = np.isfinite(outcomes.cost)
        outcomes = replace(outcomes, **{name: getattr(outcomes, name)[keep] for name in CELLS})
        outcomes = outcomes.queries_at(np.unique(outcomes.query))
    return replace(
        part,
        outcomes=outcomes,
        embeddings=encoder.encode(outcomes.queries),
        rows=np.arange(start, start + outcomes.n_queries),
    )


def stack(parts: Sequence[Outcomes]) -> Outcomes:
    """All queries of all parts one after the other, over the union of their plans.

    A query of two parts is there twice, under its one id, each time with the cells of one part.
    """
    plans: dict[Plan, int] = {}
    for part in parts:
        for plan in part.plans:
            plans.setdefault(plan, len(plans))
    starts = np.cumsum([0, *(part.n_queries for part in parts)])
    moved = []
    for part, start in zip(parts, starts[:-1], strict=True):
        column = np.array([plans[plan] for plan in part.plans])[part.plan]
        order = np.lexsort((column, part.query))
        cells = {name: getattr(part, name)[order] for name in CELLS}
        moved.append({**cells, "plan": column[order], "query": cells["query"] + start})
    joined: dict[str, Any] = {
        name: np.concatenate([cells[name] for cells in moved]) for name in CELLS
    }
    return replace(
        parts[0],
        query_ids=tuple(i for part in parts for i in part.query_ids),
        queries=tuple(text for part in parts for text in part.queries),
        datasets=tuple(name for part in parts for name in part.datasets),
        tasks=tuple(task for part in parts for task in part.tasks),
        plans=tuple(plans),
        why="a stack of grids",
        notes=(),
        **joined,
    )


def shared_cost_weights(parts: Sequence[Part], count: int) -> tuple[float, ...]:
    """0 and log-spaced ones that serve the dearest file and the cheapest."""
    medians = [float(np.median(part.outcomes.cost)) for part in parts if part.priced]
    low, high = 2.0 / max(medians) / 1000.0, 2.0 / min(medians) / 3.0
    return (0.0, *np.geomspace(low, high, count - 1).tolist())


@dataclass(frozen=True)
class Study:
    """Everything of one file, over seeds: realised outcomes by chooser and rule."""

    part: Part
    reference: Realised
    chosen: dict[tuple[str, str], Realised]  # (rule, chooser)
    curve: Curve  # held-out means of the router of all files

    def pair(self, rule: str, chooser: str) -> Paired:
        return Paired(self.part.outcomes.query_ids, self.chosen[rule, chooser], self.reference)


def study(
    parts: Sequence[Part], encoder: Encoder, *,
    folds: int, inner_folds: int, seed: int, weights: tuple[float, ...],
) -> list[Study]:  # fmt: skip
    everything = stack([part.outcomes for part in parts])
    embeddings = np.concatenate([part.embeddings for part in parts])
    fold = split_queries(everything.query_ids, folds, seed)
    mixed = nested_cross_validate(
        everything, embeddings, [RouterLearner(TrainConfig(), encoder, label=MIXED)],
        cost_weights=weights, inner_folds=inner_folds, seed=seed, fold=fold,
        progress=lambda what: print(f"seed {seed}: {what}", file=sys.stderr, flush=True),
    )  # fmt: skip
    own: list[Learner] = [
        BestSingleModel(),
        BestFixedPlan(),
        MessageLength(),
        CheapFirst(),
        NearestNeighbours(),
        RouterLearner(TrainConfig(), encoder, label=ALONE),
    ]
    results = []
    for part in parts:
        alone = nested_cross_validate(
            part.outcomes, part.embeddings, own if part.priced else own[:2],
            cost_weights=weights if part.priced else (0.0,),
            inner_folds=inner_folds, seed=seed, fold=fold[part.rows],
        )  # fmt: skip
        print(f"seed {seed}: {part.name} done", file=sys.stderr, flush=True)
        results.append(_study_part(part, alone, mixed, seed))
    return results


def _study_part(part: Part, alone: NestedValidation, mixed: NestedValidation, seed: int) -> Study:
    folds = range(len(mixed.inner))
    zero = np.zeros(len(folds), dtype=np.int64)
    reference = alone.at(SINGLE, zero)
    chosen: dict[tuple[str, str], Realised] = {}
    everybody: list[tuple[NestedValidation, str, Ints | None]] = [
        (alone, name, None)
        for name in alone.outer.learners[:-1]  # the oracle is last
    ]
    everybody.append((mixed, MIXED, part.rows))
    points = _reference_points(part, alone, seed) if part.priced else []
    for rule, coin in RULES.items():
        for nested, name, rows in everybody:
            coins = [Coin(0, 0, 1.0) for _ in folds]
            if part.priced:
                coins = [coin(nested.curve(name, k, rows), points[k]) for k in folds]
            chosen[rule, name] = nested.tossed(name, coins, reference, rows)
    mine = mixed.outer
    curve = Curve(
        mine.score(MIXED)[0][:, part.rows].mean(axis=1),
        mine.cost(MIXED)[0][:, part.rows].mean(axis=1),
    )
    return Study(part, reference, chosen, curve)


def _reference_points(part: Part, alone: NestedValidation, seed: int) -> list[Point]:
    """For each fold: the reference's inner cross-validated score, and what its plan costs."""
    points = []
    for k in range(len(alone.inner)):
        train = np.flatnonzero(alone.fold != k)
        cost = fitted_cost(
            part.outcomes.queries_at(train), part.embeddings[train], BestSingleModel(), seed=seed
        )
        points.append(Point(float(alone.curve(SINGLE, k).score[0]), cost))
    return points


def over_seeds(runs: Sequence[Study]) -> Study:
    def mean(values: Sequence[Realised]) -> Realised:
        return Realised(
            np.mean([value.score for value in values], axis=0),
            np.mean([value.cost for value in values], axis=0),
        )

    return Study(
        runs[0].part,
        mean([run.reference for run in runs]),
        {key: mean([run.chosen[key] for run in runs]) for key in runs[0].chosen},
        Curve(
            np.mean([run.curve.score for run in runs], axis=0),
            np.mean([run.curve.cost for run in runs], axis=0),
        ),
    )


def gained(result: Comparison) -> str:
    low, high = 100 * result.score_interval.low, 100 * result.score_interval.high
    return f"{100 * result.score_difference:+.2f} ({low:+.2f} to {high:+.2f})"


def saved(result: Comparison) -> str:
    if result.cost_saved is None or result.saved_interval is None:
        return "–"
    low, high = result.saved_interval.low, result.saved_interval.high
    return f"{result.cost_saved:+.1%} ({low:+.1%} to {high:+.1%})"


def logged_table(studies: Sequence[Study]) -> None:
    print(
        "| file | queries | plans | of one agent | models | topologies | cells without a cost | "
        "reference: accuracy | cost, US$ a query |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for one in studies:
        plans = one.part.outcomes.plans
        single = sum(len(plan.agents) == 1 for plan in plans)
        models = len({model for plan in plans for model in plan.models})
        topologies = len({plan.topology for plan in plans})
        cost = f"{one.reference.cost.mean():.6f}" if one.part.priced else "unknown"
        print(
            f"| {one.part.name} | {one.part.outcomes.n_queries} | {len(plans)} | {single} | "
            f"{models} | {topologies} | {one.part.uncosted:.1%} | "
            f"{one.reference.score.mean():.4f} | {cost} |"
        )


def hindsight(one: Study, rule: str) -> str:
    cost, score = one.curve.cost, one.curve.score
    anchors = metrics.Anchors(0.0, 0.0, one.reference.cost.mean(), one.reference.score.mean())
    if rule == "equal accuracy":
        value = metrics.cost_saved(cost, score, anchors)
        return "not reached" if value is None else f"{value:+.0%} saved"
    value = metrics.accuracy_gained(cost, score, anchors)
    return "not reached" if value is None else f"{100 * value:+.2f} points"


def router_table(studies: Sequence[Study], rule: str) -> None:
    print(f"#### At {rule}: {MIXED}\n")
    print("| file | accuracy gained, points | cost saved | in hindsight |")
    print("|---|---|---|---|")
    for one in studies:
        result = compare(one.pair(rule, MIXED))
        print(f"| {one.part.name} | {gained(result)} | {saved(result)} | {hindsight(one, rule)} |")
    result = compare(*(one.pair(rule, MIXED) for one in studies))
    print(f"| **mean of {len(studies)} files** | {gained(result)} | {saved(result)} | |\n")


def chooser_table(studies: Sequence[Study], rule: str) -> None:
    print(f"#### At {rule}: everybody, points gained / cost saved\n")
    names = [one.part.name for one in studies]
    print(f"| chooser | {' | '.join(names)} | mean: points gained | mean: cost saved |")
    print("|---|" + "---:|" * len(names) + "---|---|")
    choosers = [name for at, name in studies[0].chosen if at == rule]
    for chooser in choosers:
        cells = []
        for one in studies:
            result = compare(one.pair(rule, chooser), resamples=1)
            cells.append(f"{100 * result.score_difference:+.1f} / {result.cost_saved or 0:+.0%}")
        pooled = compare(*(one.pair(rule, chooser) for one in studies))
        label = f"{chooser}, operating point chosen likewise" if chooser == SINGLE else chooser
        print(f"| {label} | {' | '.join(cells)} | {gained(pooled)} | {saved(pooled)} |")
    print()


def accuracy_alone(studies: Sequence[Study]) -> None:
    for one in studies:
        if one.part.priced:
            continue
        fixed = compare(one.pair("equal accuracy", BestFixedPlan().name))
        result = compare(one.pair("equal accuracy", MIXED))
        print(
            f"`{one.part.name}`: no single-agent plan has a known cost, so this is accuracy alone, "
            f"teams of unknown and higher cost against one agent: the router gains "
            f"{gained(result)} points at cost weight 0, the file's best fixed plan {gained(fixed)}."
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=list(FILES), help="file stems")
    parser.add_argument("--logs", type=Path, required=True, help="folder of the log files")
    parser.add_argument("--max-queries", type=int, default=1500, help="of each file, at random")
    parser.add_argument("--sample-seed", type=int, default=0, help="which queries these are")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--inner-folds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=2, help="independent splits into folds")
    parser.add_argument("--cost-weights", type=int, default=17, help="how many, 0 among them")
    parser.add_argument("--encoder", default=TrainConfig().encoder)
    arguments = parser.parse_args()

    encoder = load_encoder(arguments.encoder, cache=EmbeddingCache())
    parts: list[Part] = []
    for name in arguments.names:
        start = sum(part.outcomes.n_queries for part in parts)
        path = arguments.logs / f"{name}.parquet"
        parts.append(read_part(path, arguments.max_queries, arguments.sample_seed, encoder, start))
        print(f"{name}: {parts[-1].outcomes.n_queries} queries", file=sys.stderr, flush=True)
    weights = shared_cost_weights(parts, arguments.cost_weights)
    runs = [
        study(
            parts, encoder, folds=arguments.folds, inner_folds=arguments.inner_folds,
            seed=seed, weights=weights,
        )
        for seed in range(arguments.seeds)
    ]  # fmt: skip
    studies = [over_seeds(of_part) for of_part in zip(*runs, strict=True)]
    priced = [one for one in studies if one.part.priced]
    print(
        f"### {len(parts)} files trained on together: {sum(len(p.rows) for p in parts)} queries "
        f"(at most {arguments.max_queries} a file, drawn with seed {arguments.sample_seed}), "
        f"{arguments.folds}-fold by query id, {arguments.seeds} seeds, {len(weights)} cost weights "
        f"from 0 to {weights[-1]:.4g}, encoder `{arguments.encoder}`\n"
    )
    logged_table(studies)
    print()
    for rule in RULES:
        router_table(priced, rule)
        chooser_table(priced, rule)
    accuracy_alone(studies)
    print(READING)
    return 0


if __name__ == "__main__":
    sys.exit(main())
