"""The answer in sentences: what would the router have saved, and what would it have broken?

Not here: the tables behind it (`words`).
"""

from __future__ import annotations

from masrouter.evaluation.replay import numbers
from masrouter.evaluation.replay.types import Comparison, Paired, Replay
from masrouter.types import Interval

SURE = {"looked up": "Looked up", "identified": "Estimated", "weak": "Weakly supported"}


def answer(replay: Replay) -> tuple[str, ...]:
    """The answer first, then what to know of it."""
    verdict = replay.verdict
    first = replay.comparisons[0] if replay.comparisons else None
    if first is None or (first.score is None and first.cost is None):
        out = [
            "Not identified: these logs cannot say what the router would have saved or broken. "
            + _got(replay)
        ]
    else:
        out = _measured(replay, first)
    if replay.agreement is not None:
        out.append(_agreed(replay.agreement.share.value, replay))
    if replay.sensitivity is not None:
        ends = replay.sensitivity.worst_case
        out.append(
            f"Whatever lies behind the logged choices, its mean score on these runs is between "
            f"{ends.low:.3f} and {ends.high:.3f}; no narrower range holds without an assumption."
        )
    out += [reason[0].upper() + reason[1:] + "." for reason in verdict.reasons[1:]]
    if verdict.probe:
        out.append(f"To find out: {verdict.probe}.")
    if replay.kind != "grid":
        out.append("Here a round is a logged run, and the target is the router.")
    return tuple(out)


def _agreed(share: float, replay: Replay) -> str:
    assert replay.agreement is not None
    runs = f"{replay.agreement.runs:,} runs"
    if share == 0:
        return f"The router would have taken the logged plan on none of {runs}."
    return (
        f"The router would have taken the logged plan on {numbers.share(replay.agreement.share)} "
        f"of {runs}: those outcomes are real."
    )


def _measured(replay: Replay, first: Comparison) -> list[str]:
    routed = sum(choice.queries for choice in replay.choices)
    if first.same == routed:
        return [
            f"On all of {routed:,} queries the router would have taken {first.reference}: nothing "
            "saved, and nothing broken."
        ]
    each = "runs" if replay.kind == "randomised" else "queries"
    out = [
        f"{SURE.get(replay.verdict.level, 'Not identified')}: instead of {first.reference} the "
        f"router would have {_paid(first, each)} and {_scored(first.score)}."
    ]
    if first.worse is not None and first.better is not None and first.score is not None:
        same = ""
        if first.same is not None:
            same = f"; {first.same:,} of {routed:,} would have had the same plan anyway"
        out.append(
            f"It would have broken {first.worse:,} queries (lower score) and mended "
            f"{first.better:,} (higher score) of {first.score.difference.queries:,}{same}. "
            "Where a plan ran once on a query, some of both is luck."
        )
    ends = first.score_bounds
    if ends is not None and ends.low < ends.high:
        out.append(
            f"Counting what nobody ran as 0 or as 1, the router's mean score lies between "
            f"{ends.low:.3f} and {ends.high:.3f}."
        )
    return out


def _paid(comparison: Comparison, each: str) -> str:
    """`paid 26% less (95 %: 22% to 30%), $0.130 less for 1,000 queries,`."""
    cost, saved = comparison.cost, comparison.saved
    if cost is None:
        return "paid an unknown amount (costs are not known on both sides)"
    known = ""
    if cost.left_out:
        known = f" on the {cost.difference.queries:,} queries where both costs are known"
    change = cost.difference
    if change.value == 0:
        return f"paid the same{known}"
    how = "less" if change.value < 0 else "more"
    share = f"paid {abs(saved.value):.0%} {how}" if saved is not None else "paid"
    amount = f"{numbers.usd_of_1000(abs(change.value))} {how}"
    if saved is not None and saved.interval is not None:
        ends = saved.interval if saved.value >= 0 else _negative(saved.interval)
        share += f" (95 %: {ends.low:.0%} to {ends.high:.0%}{_chance(ends)})"
    elif change.interval is not None:
        ends = change.interval if change.value > 0 else _negative(change.interval)
        low, high = numbers.usd_of_1000(ends.low), numbers.usd_of_1000(ends.high)
        amount += f" (95 %: {low} to {high}{_chance(ends)})"
    comma = "," if saved is not None else ""
    return f"{share}{comma} {amount} for 1,000 {each}{known},"


def _scored(score: Paired | None) -> str:
    if score is None:
        return "scored what nobody knows"
    ends = score.difference.interval
    told = ""
    if ends is not None:
        told = f" (95 %: {ends.low:+.3f} to {ends.high:+.3f}{_chance(ends)})"
    return f"scored {score.difference.value:+.3f}{told}"


def _chance(ends: Interval) -> str:
    return "; may be chance" if ends.low <= 0 <= ends.high else ""


def _negative(ends: Interval) -> Interval:
    return Interval(-ends.high, -ends.low)


def _got(replay: Replay) -> str:
    side = replay.logged
    got = "an unknown score"
    if side.score is not None:
        got = f"a mean score of {numbers.mean_score(side.score)}"
    paid = "an unknown cost" if side.cost is None else f"{numbers.usd(side.cost.value)} a run"
    who = "The logged policy" if replay.kind != "grid" else replay.reference
    return f"{who} got {got} for {paid}."
