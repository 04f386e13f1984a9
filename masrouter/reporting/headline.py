"""What an evaluation comes to, in words that its intervals support and no others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from masrouter.evaluation.baselines import BEST_FIXED, ORACLE, default_baselines
from masrouter.evaluation.summary import Evaluation, LearnerResult
from masrouter.reporting.number_formats import dollars, fixed, percent, signed, spread
from masrouter.types import Interval

Verdict = Literal["better", "not told apart", "worse"]


@dataclass(frozen=True)
class Headline:
    """The first thing that a reader sees."""

    verdict: Verdict
    """Of the mean difference in utility to the best fixed plan."""
    lead: str
    details: tuple[str, ...]


def judged_learner(evaluation: Evaluation, subject: str | None = None) -> LearnerResult:
    """The learner that a report is about: the one named, else the best that is no baseline.

    Where there are only baselines, the best of them that is not the best fixed plan.
    """
    if subject is not None:
        return evaluation.learner(subject)
    baselines = {learner.name for learner in default_baselines()} | {ORACLE}
    own = [result for result in evaluation.learners if result.name not in baselines]
    others = [r for r in evaluation.learners if r.name not in (ORACLE, BEST_FIXED)]
    return (own or others or [evaluation.learner(BEST_FIXED)])[0]


def headline(evaluation: Evaluation, result: LearnerResult) -> Headline:
    """Verdict, lead and details for one learner."""
    name, interval = result.name, result.interval
    verdict: Verdict = (
        "better" if interval.low > 0 else "worse" if interval.high < 0 else "not told apart"
    )
    beats = {
        "better": f"{name} beats the best fixed plan",
        "not told apart": f"{name} does not beat the best fixed plan",
        "worse": f"{name} does worse than the best fixed plan",
    }[verdict]
    gain = (
        f"{beats}: over the cost weights judged its mean utility is {signed(result.difference)} "
        f"a query beside it (95 % interval {spread(interval)})."
    )
    if verdict == "not told apart":
        gain = gain[:-1] + "; the difference may be chance."
    saving = _saving(evaluation, result)
    if saving is None:
        lead = f"On {evaluation.queries} held-out queries {gain}"
        return Headline(verdict, lead, tuple(_equal_accuracy(evaluation, result)))
    lead = f"On {evaluation.curve_queries} held-out queries {saving}"
    return Headline(verdict, lead, (f"In utility {gain}", *_beyond_fixed(evaluation, result)))


def _saving(evaluation: Evaluation, result: LearnerResult) -> str | None:
    """Cost saved at equal accuracy, where its interval excludes none."""
    frontier, anchors = result.frontier, evaluation.anchors
    if frontier is None or anchors is None or result.cost_saved is None:
        return None
    interval = frontier.cost_saved
    if interval is None or not interval.low > 0:
        return None
    return (
        f"{result.name} would have got the best fixed plan's accuracy (mean score "
        f"{fixed(anchors.strong_score)}) at {percent(1 - result.cost_saved)} of its cost (95 % "
        f"interval {spread(_rest(interval), percent)})."
    )


def _beyond_fixed(evaluation: Evaluation, result: LearnerResult) -> list[str]:
    """How much of a saving a cheaper fixed plan would have brought too."""
    fixed_saved = evaluation.learner(BEST_FIXED).cost_saved
    frontier = result.frontier
    if fixed_saved is None or frontier is None:
        return []
    line = (
        "Without reading a query, by the best fixed plans of other cost weights, the same accuracy "
        f"costs {percent(1 - fixed_saved)} of it"
    )
    beyond = frontier.cost_saved_beyond_fixed
    if beyond is None:
        return [line + "."]
    points = f"{spread(beyond, lambda v: signed(None if v is None else 100 * v, 0))} points"
    if beyond.low > 0:
        return [f"{line}: reading it saves more (95 % interval of the difference {points})."]
    if beyond.high < 0:
        return [f"{line}: that saves more than reading it (95 % interval {points})."]
    return [f"{line}; the difference may be chance (95 % interval {points})."]


def _equal_accuracy(evaluation: Evaluation, result: LearnerResult) -> list[str]:
    anchors, frontier = evaluation.anchors, result.frontier
    if anchors is None or frontier is None:
        return ["These logs know too few costs to say what equal accuracy would have cost."]
    if result.cost_saved is None:
        return [
            f"At no cost weight does it reach the best fixed plan's accuracy (mean score "
            f"{fixed(anchors.strong_score)} at {dollars(anchors.strong_cost)} a query)."
        ]
    if frontier.cost_saved is None:
        return [
            "What equal accuracy costs cannot be told: when the queries are drawn anew, it is "
            f"reached in {percent(frontier.cost_saved_share)} of the draws only."
        ]
    return [
        f"A saving at equal accuracy is not established: {percent(result.cost_saved)} (95 % "
        f"interval {spread(frontier.cost_saved, percent)})."
    ]


def _rest(saved: Interval) -> Interval:
    """Share saved to share paid."""
    return Interval(1.0 - saved.high, 1.0 - saved.low)
