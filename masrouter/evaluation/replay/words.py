"""A replay in words and cells: the same sections for the terminal, Markdown and the page.

Not here: any number that is not already in the Replay, nor how a section looks (`report`).
"""

from __future__ import annotations

from dataclasses import dataclass

from masrouter.evaluation.replay import numbers
from masrouter.evaluation.replay.telling import Told, tell
from masrouter.evaluation.replay.types import (
    Agreement,
    Comparison,
    FirstChoices,
    Measured,
    Paired,
    Part,
    Replay,
    Sensitivity,
    Side,
)

MOST_CHOICES = 12


@dataclass(frozen=True)
class Section:
    """A heading, sentences, and perhaps a table."""

    title: str
    lines: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    texts: int = 1
    """Columns of text at the left; the others are numbers."""


@dataclass(frozen=True)
class Words:
    """A whole replay."""

    title: str
    about: str
    verdict: str
    answer: tuple[str, ...]
    """What a hurried reader should take along."""
    cautions: tuple[str, ...]
    sections: tuple[Section, ...]
    savings: tuple[Told, ...]
    harms: tuple[Told, ...]
    notes: tuple[str, ...]


def words(replay: Replay) -> Words:
    """Tell it."""
    worth = (
        f"cost weight {replay.cost_weight:.4g} (a whole unit of score is worth "
        f"${1 / replay.cost_weight:.4g})"
        if replay.cost_weight
        else "cost weight 0 (only the score counts)"
    )
    given = ", ".join(
        f"{name}={value!r}"
        for name, value in replay.options.items()
        if name not in ("cost_weight", "willingness_to_pay")
    )
    synthetic = " [synthetic data]" if replay.synthetic else ""
    level = replay.verdict.level
    sections = [_against(comparison, replay) for comparison in replay.comparisons]
    if not replay.comparisons:
        sections.append(_logged(replay.logged))
    if replay.agreement is not None:
        sections.append(_agreement(replay.agreement))
    if replay.sensitivity is not None:
        sections.append(_sensitivity(replay.sensitivity, replay.logged))
    if replay.first_choices:
        sections.append(_first_choices(replay.first_choices))
    sections += [
        _parts("By domain", f"Domains are {replay.domains}.", "domain", replay.by_domain, replay),
        _parts("Over time", f"Spans are {replay.times}.", "span", replay.over_time, replay)
        if replay.over_time
        else Section("Over time", (f"Not shown: {replay.times}.",)),
        _choices(replay),
    ]
    return Words(
        title=f"Replay of {replay.kind} logs{synthetic}",
        about=(
            f"{replay.runs:,} runs of {replay.logged_plans:,} plans on {replay.queries:,} queries; "
            f"router {replay.checkpoint or 'in memory'} with {replay.router_plans:,} plans; {worth}"
            + (f"; within {given}" if given else "")
        ),
        verdict=f"{level}: {replay.verdict.reasons[0]}" if replay.verdict.reasons else level,
        answer=_answer(replay),
        cautions=replay.cautions,
        sections=tuple(sections),
        savings=tuple(tell(case, "saving") for case in replay.savings),
        harms=tuple(tell(case, "harm") for case in replay.harms),
        notes=replay.notes,
    )


def _answer(replay: Replay) -> tuple[str, ...]:
    """What would it have saved, and what would it have broken?"""
    verdict = replay.verdict
    if replay.comparisons:
        out = _measured_answer(replay, replay.comparisons[0])
    else:
        out = [
            "Not identified: these logs cannot say what the router would have saved or broken. "
            + _got(replay.logged)
        ]
    if replay.agreement is not None:
        out.append(
            f"The router would have taken the logged plan on "
            f"{numbers.share(replay.agreement.share)} of {replay.agreement.runs:,} runs: those "
            "outcomes are real."
        )
    if replay.sensitivity is not None:
        ends = replay.sensitivity.worst_case
        out.append(
            f"Whatever lies behind the logged choices, its mean score on these runs is between "
            f"{ends.low:.3f} and {ends.high:.3f}; no narrower range holds without an assumption."
        )
    out += [reason[0].upper() + reason[1:] + "." for reason in verdict.reasons[1:]]
    if verdict.probe:
        out.append(f"To find out: {verdict.probe}.")
    return tuple(out)


def _measured_answer(replay: Replay, first: Comparison) -> list[str]:
    routed = sum(choice.queries for choice in replay.choices)
    if first.same == routed:
        return [
            f"On all of {routed:,} queries the router would have taken {first.reference}: nothing "
            "saved, and nothing broken."
        ]
    sure = {"looked up": "Looked up", "identified": "Estimated", "weak": "Weakly supported"}
    out = [
        f"{sure.get(replay.verdict.level, 'Not identified')}: instead of {first.reference} the "
        f"router would have {_paid(first)} and {_scored(first.score)}."
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


def _paid(comparison: Comparison) -> str:
    saved = comparison.saved
    if saved is None or comparison.cost is None:
        return "paid an unknown amount (costs are not known on both sides)"
    how = "less" if saved.value >= 0 else "more"
    ends = ""
    if saved.interval is not None:
        low, high = saved.interval.low, saved.interval.high
        if saved.value < 0:
            low, high = -high, -low
        ends = f" (95 %: {low:.0%} to {high:.0%})"
    change = abs(comparison.cost.difference.value)
    return (
        f"paid {abs(saved.value):.0%} {how}{ends}, {numbers.usd_of_1000(change)} {how} for 1,000 "
        "queries,"
    )


def _scored(score: Paired | None) -> str:
    if score is None:
        return "scored what nobody knows"
    change = score.difference
    ends = ""
    if change.interval is not None:
        ends = f" (95 %: {change.interval.low:+.3f} to {change.interval.high:+.3f})"
    return f"scored {change.value:+.3f}{ends}"


def _got(side: Side) -> str:
    got = "an unknown score"
    if side.score is not None:
        got = f"a mean score of {numbers.mean_score(side.score)}"
    paid = "an unknown cost" if side.cost is None else f"{numbers.usd(side.cost.value)} a run"
    return f"The logged policy got {got} for {paid}."


def _against(comparison: Comparison, replay: Replay) -> Section:
    rows: list[tuple[str, ...]] = []
    left_out: list[str] = []
    for name, pair, mean, change in (
        ("score", comparison.score, numbers.mean_score, numbers.score_change),
        ("cost of 1,000", comparison.cost, numbers.mean_cost, numbers.cost_change),
        ("utility", comparison.utility, numbers.mean_score, numbers.score_change),
    ):
        if pair is None:
            if name != "utility":
                left_out.append(f"The {name} is not known on both sides of any query.")
            continue
        queries = f"{pair.difference.queries:,}"
        rows.append(
            (name, mean(pair.reference), mean(pair.router), change(pair.difference), queries)
        )
        if pair.left_out:
            left_out.append(
                f"{name}: {pair.left_out:,} queries are left out, since one side's is not known."
            )
    if comparison.saved is not None:
        saved = comparison.saved
        rows.append(("cost saved", "", "", numbers.share(saved), f"{saved.queries:,}"))
    router = "estimated" if replay.kind == "randomised" else "router"
    header = ("", "reference", router, "difference [95 %]", "queries")
    return Section(f"Against {comparison.reference}", tuple(left_out), header, tuple(rows))


def _logged(side: Side) -> Section:
    rows = [
        (name, mean(value), "" if value is None else f"{value.queries:,}")
        for name, value, mean in (
            ("score", side.score, numbers.mean_score),
            ("cost of 1,000 runs", side.cost, numbers.mean_cost),
            ("utility", side.utility, numbers.mean_score),
        )
        if value is not None or name != "utility"
    ]
    header = ("", "mean [95 %]", "queries")
    return Section("What the logged policy got and paid", (), header, tuple(rows))


def _agreement(found: Agreement) -> Section:
    agreed = round(found.share.value * found.runs)
    differ, judged = f"{found.runs - agreed:,}", f"{found.predicted_runs:,}"
    rows = (
        (
            "the same plan (real)",
            f"{agreed:,}",
            numbers.mean_score(found.agreed.score),
            numbers.mean_cost(found.agreed.cost),
        ),
        (
            "another plan: the logged one (real)",
            differ,
            numbers.mean_score(found.disagreed.score),
            numbers.mean_cost(found.disagreed.cost),
        ),
        (
            "  the logged one, PREDICTED",
            judged,
            numbers.score(found.predicted_logged_score),
            numbers.usd_of_1000(found.predicted_logged_cost),
        ),
        (
            "  the router's, PREDICTED",
            judged,
            numbers.score(found.predicted_score),
            numbers.usd_of_1000(found.predicted_cost),
        ),
    )
    lines = [
        "Real rows were measured. Predicted rows are what the router's critic believes; it learned "
        "from logs of whatever kind it was trained on, and nothing here confirms it."
    ]
    if found.supported is not None:
        lines.append(
            f"Where they differ, the router's plan ran on other, similar queries of these logs in "
            f"{found.supported:.0%} of the runs; in the rest there is no support in your logs."
        )
    header = ("the router would have taken", "runs", "score [95 %]", "cost of 1,000 [95 %]")
    return Section("Where the router agrees with the logs", tuple(lines), header, rows)


def _first_choices(found: tuple[FirstChoices, ...]) -> Section:
    rows = [
        (
            first.up_to,
            first.level,
            numbers.score_change(first.score),
            numbers.cost_change(first.cost),
        )
        for first in found
    ]
    line = (
        "The rest of each plan is left to the logging policy: another question than what the "
        "router's whole plans would get, but one with more runs behind it. Differences to the "
        "logged policy."
    )
    header = ("the router's, up to", "verdict", "score [95 %]", "cost of 1,000 [95 %]")
    title = "If only the router's first choices were taken"
    return Section(title, (line,), header, tuple(rows), texts=2)


def _sensitivity(found: Sensitivity, logged: Side) -> Section:
    rows = [
        (
            f"change the odds of a logged plan by at most {gamma.gamma:g}",
            numbers.reach(gamma.score),
            numbers.reach(gamma.with_chance),
        )
        for gamma in found.gammas
        if found.covered > 0
    ]
    rows.append(
        (
            "do anything: unseen outcomes are 0 or 1",
            numbers.reach(found.worst_case),
            numbers.reach(found.worst_case_with_chance),
        )
    )
    lines = ["These are ranges and not estimates; nothing says where inside them the truth lies."]
    if logged.score is not None:
        lines.append(f"The logged policy scored {numbers.mean_score(logged.score)}.")
    lines.append(
        "A limit on hidden causes narrows nothing where a plan was seen too rarely in a domain: "
        f"it applies to {found.covered:.0%} of the runs, the others count as 0 or 1."
    )
    if found.tolerated is not None and found.tolerated > 0:
        lines.append(
            "Where they differ, the critic predicts the router's plans to score "
            f"{found.tolerated:.3f} more than the logged ones really did: if it overrates them by "
            "more than that on average, they would have scored lower."
        )
    elif found.tolerated is not None:
        lines.append(
            "Where they differ, even the critic predicts the router's plans to score "
            f"{-found.tolerated:.3f} less than the logged ones really did."
        )
    header = ("if hidden causes", "router's mean score", "with chance (95 %)")
    return Section("How much could be hidden", tuple(lines), header, tuple(rows))


def _parts(title: str, line: str, what: str, parts: tuple[Part, ...], replay: Replay) -> Section:
    if replay.kind == "observational":
        return _observed_parts(title, line, what, parts)
    grid = replay.kind == "grid"
    units, state, saved = (
        ("queries", "no support", "saved [95 %]") if grid else ("runs", "verdict", "saved")
    )
    header = (what, units, state, "score", "router", "difference [95 %]", "cost/1,000", saved)
    lines, rows = [line], []
    for part in parts:
        found = part.comparison
        pair = None if found is None else found.score
        rows.append(
            (
                part.name,
                f"{part.queries if grid else part.runs:,}",
                f"{part.no_support:,}" if grid else part.level,
                _value(part.logged.score if pair is None else pair.reference),
                _value(None if pair is None else pair.router),
                numbers.score_change(None if pair is None else pair.difference),
                _cost(part.logged),
                numbers.share(None if found is None else found.saved),
            )
        )
        if found is None:
            lines.append(f"{part.name}: not identified: {part.why}.")
    return Section(title, tuple(lines), header, tuple(rows))


def _observed_parts(title: str, line: str, what: str, parts: tuple[Part, ...]) -> Section:
    header = (what, "runs", "logged score", "cost/1,000", "same plan [95 %]", "worst case")
    rows = [
        (
            part.name,
            f"{part.runs:,}",
            _value(part.logged.score),
            _cost(part.logged),
            numbers.share(part.agreement),
            numbers.reach(part.score_bounds),
        )
        for part in parts
    ]
    lines = line, "The last column is what the router's mean score cannot leave, not an estimate."
    return Section(title, lines, header, tuple(rows))


def _value(measured: Measured | None) -> str:
    return numbers.score(None if measured is None else measured.value)


def _cost(side: Side) -> str:
    return numbers.usd_of_1000(None if side.cost is None else side.cost.value)


def _choices(replay: Replay) -> Section:
    rows = [
        (
            choice.plan,
            f"{choice.queries:,}",
            f"{choice.share:.1%}",
            f"{choice.logged_runs:,}" if choice.logged_runs else "none",
            f"{choice.no_support:,}",
        )
        for choice in replay.choices[:MOST_CHOICES]
    ]
    rest = replay.choices[MOST_CHOICES:]
    if rest:
        rows.append(
            (
                f"({len(rest)} more)",
                f"{sum(choice.queries for choice in rest):,}",
                f"{sum(choice.share for choice in rest):.1%}",
                f"{sum(choice.logged_runs for choice in rest):,}",
                f"{sum(choice.no_support for choice in rest):,}",
            )
        )
    never = [choice for choice in replay.choices if not choice.logged_runs]
    lines: tuple[str, ...] = ()
    if never:
        part = sum(choice.share for choice in never)
        lines = (
            f"{len(never)} of these {len(replay.choices)} plans, taken on {part:.0%} of the "
            "queries, were never run: no support in your logs.",
        )
    header = ("plan", "queries", "share", "logged runs", "without support")
    return Section("Plans that the router takes", lines, header, tuple(rows))
