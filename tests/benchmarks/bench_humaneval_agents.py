"""Routing among logged code strategies: choose on one half of the runs, score on the other.

    python -m tests.benchmarks.bench_humaneval_agents --logs FOLDER [--halves 10] [--folds 5]

`humaneval_agents.parquet` holds 164 problems, most strategies run 5 times on each. Runs are split
in two at random; learners are fitted on one half of the runs of the training problems, choose for
the held-out problems, and are scored on the other half of the runs there. The cost weight of each
learner is chosen inside the training problems, on the first half: the cheapest whose inner
cross-validated accuracy is not below the best fixed plan's. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from masrouter.encoder import load_encoder
from masrouter.encoder.embedding_cache import EmbeddingCache
from masrouter.evaluation import metrics
from masrouter.evaluation.baselines import (
    BEST_FIXED,
    ORACLE,
    BestFixedPlan,
    CheapestPlan,
    CheapFirst,
    MessageLength,
)
from masrouter.evaluation.crossval import cross_validate
from masrouter.evaluation.learners import Embeddings, Learner
from masrouter.evaluation.operating_point import (
    Comparison,
    NestedValidation,
    Paired,
    Realised,
    cheapest_at_accuracy,
    compare,
    nested_cross_validate,
)
from masrouter.evaluation.predictors import NearestNeighbours, Ridge
from masrouter.evaluation.split_runs import RunHalves, split_runs
from masrouter.logs import Logs, read_logs
from masrouter.outcomes import Floats, Outcomes
from masrouter.types import Interval
from masrouter_train.config import TrainConfig
from masrouter_train.learner import ROUTER, RouterLearner

STRATEGIES = {
    "simple": "single call",
    "simple_incr_temp": "warming",
    "simple_repeat": "retry",
    "simple_boosting": "escalation",
    "ldb": "debugger",
}
"""What the source calls its topologies ("AI Agents That Matter", arXiv 2407.01502)."""
LIKEWISE = "best fixed plan, cost weight chosen likewise"
CEILING = "repeatable ceiling, the cheapest of equals"
CEILING_BEST = "repeatable ceiling, of equals the best overall"
LUCK = "oracle, scored on the runs it was chosen by"
READING = """
How to read this. Each problem's value is its mean over the random halves; intervals are 95 %
paired bootstrap intervals over the problems, of these choices on other problems: what another
training set would have taught is not in them. "Cost saved" is 1 - cost / the reference's cost. A
saving is at no loss of accuracy only as far as the interval of the accuracy difference says so: one
that reaches below 0 leaves a loss possible, of up to its lower end. The reference is the best fixed
plan by accuracy alone. The last column compares with the best fixed plan whose cost weight was
chosen by the same rule: what routing by the text adds to taking a cheaper plan for all problems.
"In hindsight" is read off the curve on the scored runs themselves, where its luckiest point counts:
it is no estimate of what anybody would have saved. The ceiling has seen the very same problem under
every plan, which no router has; of plans that are equally good there it takes the cheapest, or the
one of the best mean over all problems. The oracle is what it would be without splitting the runs.
Escalation at run time (run the cheap plan, look at its answer, pay for both if it fails) cannot be
replayed from logs without intermediate answers: the logged strategies of that kind are in the
third table, as what they are, plans that were run. In the second table (accuracy and cost saved
against the reference, at every cost weight) and in the third nothing was chosen on training data:
the best of many rows is partly luck, and the intervals are not corrected for that.
"""


@dataclass(frozen=True)
class HalfResult:
    """One random split of the runs; everything by name, (N,) in the order of the problems."""

    chosen: dict[str, Realised]
    everywhere: dict[str, tuple[Floats, Floats]]  # (W, N) score and cost at each cost weight
    weights: dict[str, list[float]]  # chosen cost weights, one a fold
    unreached: dict[str, int]  # folds where no cost weight kept the accuracy
    outcomes: Outcomes  # the half that scores


def cost_weights(outcomes: Outcomes, count: int) -> tuple[float, ...]:
    """0 and log-spaced ones: from where cost hardly matters to where it outweighs most scores."""
    top = 2.0 / float(np.median(outcomes.cost))
    return (0.0, *np.geomspace(top / 3000.0, top / 3.0, count - 1).tolist())


def costed(halves: RunHalves) -> RunHalves:
    """Only the plans whose cost is known on every problem in both halves."""
    known = [np.isfinite(half.dense("cost")).all(axis=0) for half in (halves.choose, halves.score)]
    return halves.plans_at(np.flatnonzero(known[0] & known[1]))


def study(
    halves: RunHalves, embeddings: Embeddings, learners: Sequence[Learner],
    *, folds: int, inner_folds: int, weights: tuple[float, ...], seed: int,
) -> HalfResult:  # fmt: skip
    nested = nested_cross_validate(
        halves.choose, embeddings, learners,
        cost_weights=weights, folds=folds, inner_folds=inner_folds, seed=seed,
    )  # fmt: skip
    scored = halves.score_choices(nested.outer)
    alone = np.zeros(folds, dtype=np.int64)  # cost weight 0
    chosen = {
        BEST_FIXED: nested.at(BEST_FIXED, alone, scored),
        CEILING: nested.at(ORACLE, alone, scored),
        CEILING_BEST: best_overall_of_equals(halves),
        LUCK: nested.at(ORACLE, alone),
    }
    everywhere, picked, unreached = {}, {}, {}
    for learner in nested.outer.learners:
        if learner == ORACLE:
            continue
        name = LIKEWISE if learner == BEST_FIXED else learner
        at, unreached[name] = operating_points(nested, learner, folds)
        chosen[name] = nested.at(learner, at, scored)
        picked[name] = [weights[i] for i in at]
        everywhere[name] = (scored.score(learner)[0], scored.cost(learner)[0])
    return HalfResult(chosen, everywhere, picked, unreached, halves.score)


def best_overall_of_equals(halves: RunHalves) -> Realised:
    """The best plan of each problem on the first half, ties to the best mean, on the second."""
    score = halves.choose.dense("score")  # (N, P)
    best = np.isclose(score, score.max(axis=1, keepdims=True))
    plan = np.where(best, score.mean(axis=0), -np.inf).argmax(axis=1)
    rows = np.arange(len(plan))
    return Realised(halves.score.dense("score")[rows, plan], halves.score.dense("cost")[rows, plan])


def operating_points(nested: NestedValidation, learner: str, folds: int) -> tuple[np.ndarray, int]:
    """Positions of the cost weights (F,), and in how many folds none kept the accuracy."""
    at, unreached = np.zeros(folds, dtype=np.int64), 0
    for fold in range(folds):
        curve, fixed = nested.curve(learner, fold), nested.curve(BEST_FIXED, fold)
        at[fold] = cheapest_at_accuracy(curve, fixed.score[0])
        unreached += bool(curve.score[at[fold]] < fixed.score[0] - 1e-12)
    return at, unreached


def over_halves(results: Sequence[HalfResult], name: str) -> Realised:
    return Realised(
        np.mean([result.chosen[name].score for result in results], axis=0),
        np.mean([result.chosen[name].cost for result in results], axis=0),
    )


def hindsight(results: Sequence[HalfResult], name: str, reference: Realised) -> str:
    if name not in results[0].everywhere:
        return "–"
    score, cost = np.mean([result.everywhere[name] for result in results], axis=(0, 3))  # (W,)
    anchors = metrics.Anchors(0.0, 0.0, reference.cost.mean(), reference.score.mean())
    saved = metrics.cost_saved(cost, score, anchors)
    return "not reached" if saved is None else f"{saved:+.0%}"


def percent(value: float | None, interval: Interval | None) -> str:
    if value is None or interval is None:
        return "–"
    return f"{value:+.1%} ({interval.low:+.1%} to {interval.high:+.1%})"


def points(result: Comparison) -> str:
    low, high = result.score_interval.low, result.score_interval.high
    return f"{result.score_difference:+.4f} ({low:+.4f} to {high:+.4f})"


def routing_table(results: Sequence[HalfResult], learners: Sequence[str]) -> None:
    ids = results[0].outcomes.query_ids
    reference, likewise = over_halves(results, BEST_FIXED), over_halves(results, LIKEWISE)
    print(
        "| chooser | accuracy | cost, US$ a problem | accuracy less the best fixed plan's | "
        "cost saved | cost saved, in hindsight | folds where no cost weight kept the accuracy | "
        "cost saved against the fixed plan chosen likewise |"
    )
    print("|---|---:|---:|---|---|---:|---:|---|")
    for name in (BEST_FIXED, LIKEWISE, *learners, CEILING, CEILING_BEST, LUCK):
        mine = over_halves(results, name)
        result = compare(Paired(ids, mine, reference))
        extra = compare(Paired(ids, mine, likewise))
        same = name == BEST_FIXED
        folds = sum(r.unreached.get(name, 0) for r in results)
        of = sum(len(r.weights.get(name, ())) for r in results)
        print(
            f"| {name} | {result.score:.4f} | {result.cost:.5f} | "
            f"{'reference' if same else points(result)} | "
            f"{'reference' if same else percent(result.cost_saved, result.saved_interval)} | "
            f"{hindsight(results, name, reference)} | {f'{folds} of {of}' if of else '–'} | "
            f"{'–' if name == LIKEWISE else percent(extra.cost_saved, extra.saved_interval)} |"
        )


def weight_table(results: Sequence[HalfResult], weights: Sequence[float]) -> None:
    ids, reference = results[0].outcomes.query_ids, over_halves(results, BEST_FIXED)
    names = (LIKEWISE, ROUTER)
    titles = ("best fixed plan of the weight", ROUTER)
    print(f"| cost weight | {' | | '.join(titles)} | | {ROUTER}'s utility less the fixed plan's |")
    print("|---:|---|---|---|---|---|")
    for w, weight in enumerate(weights):
        cells, utility = [], []
        for name in names:
            score, cost = (
                np.mean([result.everywhere[name][i][w] for result in results], axis=0)
                for i in (0, 1)
            )
            result = compare(Paired(ids, Realised(score, cost), reference))
            cells += [points(result), percent(result.cost_saved, result.saved_interval)]
            utility.append(metrics.utility(score, cost, weight))
        difference = utility[1] - utility[0]
        interval = metrics.paired_bootstrap(difference)
        print(
            f"| {weight:.3g} | {' | '.join(cells)} | {difference.mean():+.4f} "
            f"({interval.low:+.4f} to {interval.high:+.4f}) |"
        )


def strategy_table(results: Sequence[HalfResult]) -> None:
    outcomes = results[0].outcomes
    reference = over_halves(results, BEST_FIXED)
    score = np.mean([result.outcomes.dense("score") for result in results], axis=0)  # (N, P)
    cost = np.mean([result.outcomes.dense("cost") for result in results], axis=0)
    print(
        "| logged strategy, for every problem | kind | accuracy | cost, US$ a problem | "
        "accuracy less the best fixed plan's | cost saved |"
    )
    print("|---|---|---:|---:|---|---|")
    for i in np.argsort(-score.mean(axis=0), kind="stable"):
        plan = outcomes.plans[i]
        result = compare(Paired(outcomes.query_ids, Realised(score[:, i], cost[:, i]), reference))
        print(
            f"| `{plan}` | {STRATEGIES.get(plan.topology, plan.topology)} | {result.score:.4f} | "
            f"{result.cost:.5f} | {points(result)} | "
            f"{percent(result.cost_saved, result.saved_interval)} |"
        )


def accuracy_alone(splits: Sequence[RunHalves], embeddings: Embeddings, folds: int) -> None:
    """Every plan with repeated runs, whatever is known of its cost."""
    scores: dict[str, list[Floats]] = {BEST_FIXED: [], ORACLE: []}
    for number, halves in enumerate(splits):
        cv = halves.score_choices(
            cross_validate(
                halves.choose, embeddings, [BestFixedPlan()],
                folds=folds, seeds=(number,), cost_weights=(0.0,),
            )
        )  # fmt: skip
        for name, values in scores.items():
            values.append(cv.score(name)[0, 0])
    fixed, ceiling = (np.mean(scores[name], axis=0) for name in (BEST_FIXED, ORACLE))
    unknown = np.full(len(fixed), np.nan)
    result = compare(
        Paired(splits[0].score.query_ids, Realised(ceiling, unknown), Realised(fixed, unknown))
    )
    print(
        f"All {splits[0].score.n_plans} plans, those of unknown cost too, by accuracy alone: best "
        f"fixed plan {fixed.mean():.4f}, {CEILING} {result.score:.4f}, difference "
        f"{points(result)}."
    )


def same_queries(splits: Sequence[RunHalves]) -> None:
    if any(half.score.query_ids != splits[0].score.query_ids for half in splits) or any(
        half.score.plans != splits[0].score.plans for half in splits
    ):
        raise SystemExit("the halves differ in their problems or plans: raise --min-runs")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--logs", type=Path, required=True, help="folder of the log files")
    parser.add_argument("--file", default="humaneval_agents.parquet")
    parser.add_argument("--halves", type=int, default=10, help="random splits of the runs")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--inner-folds", type=int, default=4)
    parser.add_argument("--cost-weights", type=int, default=13, help="how many, 0 among them")
    parser.add_argument("--min-runs", type=int, default=4, help="plans with fewer are left out")
    parser.add_argument("--encoder", default=TrainConfig().encoder)
    arguments = parser.parse_args()

    logs: Logs = read_logs(arguments.logs / arguments.file)
    encoder = load_encoder(arguments.encoder, cache=EmbeddingCache())
    splits = [
        split_runs(logs, seed=number, min_runs=arguments.min_runs)
        for number in range(arguments.halves)
    ]
    same_queries(splits)
    with_costs = [costed(halves) for halves in splits]
    same_queries(with_costs)
    outcomes = with_costs[0].choose
    embeddings = encoder.encode(outcomes.queries)
    weights = cost_weights(outcomes, arguments.cost_weights)
    learners: list[Learner] = [
        BestFixedPlan(),
        CheapestPlan(),
        MessageLength(),
        CheapFirst(),
        NearestNeighbours(),
        Ridge(),
        RouterLearner(TrainConfig(), encoder),
    ]
    results = []
    for number, halves in enumerate(with_costs):
        results.append(
            study(
                halves, embeddings, learners,
                folds=arguments.folds, inner_folds=arguments.inner_folds,
                weights=weights, seed=number,
            )
        )  # fmt: skip
        print(f"half split {number + 1} of {len(with_costs)} done", file=sys.stderr, flush=True)

    print(
        f"### {arguments.file}: {outcomes.n_queries} problems, {outcomes.n_plans} plans of known "
        f"cost, {arguments.folds}-fold by problem, {arguments.halves} random halves of the runs, "
        f"{len(weights)} cost weights from 0 to {weights[-1]:.3g}, encoder `{arguments.encoder}`\n"
    )
    for note in dict.fromkeys(note for halves in splits for note in halves.notes):
        print(f"- {note}")
    left = [plan for plan in splits[0].score.plans if plan not in outcomes.plans]
    print(
        f"- without a cost on every problem, and so only in the comparison by accuracy alone: "
        f"{'; '.join(str(plan) for plan in left) or 'none'}\n"
    )
    routing_table(results, [learner.name for learner in learners[1:]])
    print()
    weight_table(results, weights)
    print()
    strategy_table(results)
    print()
    accuracy_alone(splits, embeddings, arguments.folds)
    print(f"\nMost used cost weights: {_most_used(results)}")
    print(READING)
    return 0


def _most_used(results: Sequence[HalfResult]) -> str:
    told = []
    for name in results[0].weights:
        used = [weight for result in results for weight in result.weights[name]]
        values, counts = np.unique(used, return_counts=True)
        told.append(f"{name} {values[np.argmax(counts)]:.3g} ({counts.max()} of {len(used)})")
    return "; ".join(told)


if __name__ == "__main__":
    sys.exit(main())
