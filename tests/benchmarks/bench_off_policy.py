"""Off-policy estimates where the truth is known: coverage, error, and what is refused.

    python tests/benchmarks/bench_off_policy.py [--draws 400] [--synthetic-draws 100]

Each draw is a fresh log. Two worlds, both invented: a tabular one (`tests/off_policy_world.py`, 4
and 64 plans) and the synthetic world of masrouter_train (20 plans, texts, hashing encoder). Prints
Markdown tables of how many of 100 intervals cover the truth (with its binomial standard error) and
of the root mean squared error of the utility, by estimator. Exits 1 where an estimator covers in
fewer than 93 or more than 97 of 100 draws beyond chance (two standard errors), where DR's error is
above IPS's, or where a logging policy without support gets an estimate.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.off_policy_world import Logging, OffPolicyWorld

from masrouter.encoder import load_encoder
from masrouter.encoder.embedding_cache import EmbeddingCache
from masrouter.evaluation.off_policy.policy_value import PolicyValue, estimate_policy
from masrouter.evaluation.off_policy.rounds import LoggedRounds
from masrouter_train.synthetic import SyntheticWorld

COST_WEIGHT = 20.0
RESAMPLES = 400
NAMES = ("guess (direct method)", "ips", "snips", "dr", "switch-dr", "stagewise-dr")


@dataclass
class Tally:
    """Results of many draws of one setting; the truth may differ by draw."""

    title: str
    covered: dict[str, list[bool]] = field(default_factory=dict)
    errors: dict[str, list[float]] = field(default_factory=dict)
    levels: Counter[str] = field(default_factory=Counter)
    sizes: list[float] = field(default_factory=list)

    def add(self, value: PolicyValue, truth: float) -> None:
        self.levels[value.verdict.level] += 1
        self.sizes.append(value.verdict.effective_sample_size or 0.0)
        if value.estimates:
            self.errors.setdefault(NAMES[0], []).append(value.guess.utility - truth)
        for name, estimate in value.estimates.items():
            self.covered.setdefault(name, []).append(truth in estimate.utility.interval)
            self.errors.setdefault(name, []).append(estimate.utility.value - truth)

    def rmse(self, name: str) -> float:
        return float(np.sqrt(np.mean(np.square(self.errors[name]))))

    def missed(self) -> list[str]:
        """What is not as it must be."""
        out = []
        for name, hits in self.covered.items():
            share, slack = float(np.mean(hits)), 2 * sqrt(0.95 * 0.05 / len(hits))
            if not 0.93 - slack <= share <= 0.97 + slack:
                out.append(f"{self.title}: {name} covers in {share:.1%}")
        if self.covered and self.rmse("dr") >= self.rmse("ips"):
            out.append(f"{self.title}: DR's error is not below IPS's")
        return out


def tabular(
    draws: int, *, few: bool, queries: int, logging: Logging, easy: bool = False, per_query: int = 1
) -> Tally:
    """Draws of the tabular world; one world, so one truth."""
    world = OffPolicyWorld(few=few, easy=easy)
    truth = world.truth(COST_WEIGHT)[2]
    repeated = f" x {per_query} draws" if per_query > 1 else ""
    name = f"{len(world.plans)} plans{', easy' if easy else ''}, {logging}, {queries:,}{repeated}"
    tally = Tally(name)
    for seed in range(draws):
        drawn = world.draw(queries, seed, logging, draws=per_query)
        value = estimate_policy(
            drawn.rounds,
            drawn.chosen,
            embeddings=drawn.embeddings,
            cost_weight=COST_WEIGHT,
            resamples=RESAMPLES,
        )
        tally.add(value, truth)
    return tally


def synthetic(draws: int, policy: str, queries: int) -> Tally:
    """Draws of the synthetic world; the target is the best plan of each text."""
    world = SyntheticWorld(0)
    weight = world.middle_cost_weight()
    encoder = load_encoder("hashing-64", cache=EmbeddingCache())
    many = world.sample_queries(20_000, seed=10**6)
    truth = world.value(many, world.best_text_policy(many, weight), weight)
    tally = Tally(f"synthetic world, 20 plans, {policy}, {queries:,}")
    for seed in range(draws):
        rounds = LoggedRounds.from_logs(world.randomised_logs(queries, seed, policy=policy))  # type: ignore[arg-type]
        asked = world.sample_queries(queries, seed)
        best = dict(zip(asked.ids, world.best_text_policy(asked, weight).tolist(), strict=True))
        value = estimate_policy(
            rounds,
            [world.plans[best[query]] for query in rounds.query_ids],
            embeddings=encoder.encode(rounds.texts),
            cost_weight=weight,
            resamples=RESAMPLES,
        )
        tally.add(value, truth)
    return tally


def table(tallies: list[Tally], cell: Callable[[Tally, str], str]) -> str:
    lines = [
        "| logs | effective queries | identified / weak / not | " + " | ".join(NAMES) + " |",
        "|---|---|---|" + "---|" * len(NAMES),
    ]
    for t in tallies:
        levels = " / ".join(str(t.levels[k]) for k in ("identified", "weak", "not identified"))
        cells = " | ".join(cell(t, name) for name in NAMES)
        lines.append(f"| {t.title} | {np.mean(t.sizes):.0f} | {levels} | {cells} |")
    return "\n".join(lines)


def coverage(tally: Tally, name: str) -> str:
    hits = tally.covered.get(name)
    if not hits:
        return "-"
    share = float(np.mean(hits))
    return f"{100 * share:.1f} ± {100 * sqrt(share * (1 - share) / len(hits)):.1f}"


def error(tally: Tally, name: str) -> str:
    return f"{tally.rmse(name):.4f}" if name in tally.errors else "-"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--synthetic-draws", type=int, default=100)
    arguments = parser.parse_args()
    draws = arguments.draws
    full = [
        tabular(draws, few=True, queries=400, logging="uniform"),
        tabular(draws, few=True, queries=400, logging="epsilon"),
        tabular(draws, few=True, queries=100, logging="uniform", per_query=4),
        tabular(draws, few=True, queries=1500, logging="uniform", easy=True),
        tabular(draws, few=False, queries=5000, logging="uniform"),
        tabular(draws, few=False, queries=1250, logging="uniform", per_query=4),
        tabular(draws, few=False, queries=8000, logging="epsilon"),
        synthetic(arguments.synthetic_draws, "uniform", 2000),
        synthetic(arguments.synthetic_draws, "epsilon", 2000),
    ]
    print(f"Intervals that cover the truth, of 100 ({draws} draws; synthetic world: "
          f"{arguments.synthetic_draws})\n\n{table(full, coverage)}\n")  # fmt: skip
    print(f"Root mean squared error of the utility\n\n{table(full, error)}\n")
    scarce = [
        tabular(draws // 4, few=few, queries=queries, logging=logging)
        for few, queries, logging in (
            (True, 600, "one topology missing"),
            (True, 600, "one task fixed"),
            (False, 5000, "one topology missing"),
            (False, 5000, "one task fixed"),
            (False, 200, "uniform"),
        )
    ]
    print(f"Without support, or next to none: verdicts\n\n{table(scarce, coverage)}\n")
    missed = [fault for tally in full for fault in tally.missed()]
    missed += [
        f"{t.title}: {t.levels['identified']} of {sum(t.levels.values())} called identified"
        for t in scarce
        if t.levels["identified"]
    ]
    missed += [
        f"{t.title}: not refused in {t.levels['weak']} of {sum(t.levels.values())}"
        for t in scarce[:4]
        if t.levels["weak"]
    ]
    for fault in missed:
        print(f"missed: {fault}")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
