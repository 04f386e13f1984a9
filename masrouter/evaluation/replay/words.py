"""A replay in words and cells: the same sections for the terminal, Markdown and the page.

Not here: any number that is not already in the Replay, nor how a section looks (`report`).
"""

from __future__ import annotations

from dataclasses import dataclass

from masrouter.evaluation.replay import numbers
from masrouter.evaluation.replay.answer import answer
from masrouter.evaluation.replay.telling import Told, tell
from masrouter.evaluation.replay.types import (
    Agreement,
    Comparison,
    FirstChoices,
    Measured,
    Part,
    Replay,
    Sensitivity,
    Side,
    Tally,
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
class Cases:
    """Queries worth reading, under a heading."""

    title: str
    line: str
    """On how many queries it cannot be told; empty where it always can."""
    cases: tuple[Told, ...]


@dataclass(frozen=True)
class Words:
    """A whole replay."""

    title: str
    about: str
    verdict: str
    answer: tuple[str, ...]
    """What a hurried reader should take along: the first line is the answer itself."""
    cautions: tuple[str, ...]
    sections: tuple[Section, ...]
    savings: Cases
    harms: Cases
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
        answer=answer(replay),
        cautions=replay.cautions,
        sections=tuple(sections),
        savings=_cases(
            "Biggest savings",
            "what it would save cannot be told, since a cost is not known",
            replay.saving,
            replay,
            tuple(tell(case, "saving") for case in replay.savings),
        ),
        harms=_cases(
            "Biggest harms",
            "what it would lose can neither be looked up nor predicted: the scores are not there, "
            "and the router does not know the logged plan",
            replay.harm,
            replay,
            tuple(tell(case, "harm") for case in replay.harms),
        ),
        notes=(f"read as {replay.kind} logs: {replay.why}", *replay.notes),
    )


def _cases(title: str, why: str, tally: Tally, replay: Replay, told: tuple[Told, ...]) -> Cases:
    if len(told) < tally.found:
        title += f" ({len(told):,} of {tally.found:,})"
    line = ""
    if tally.unknown:
        line = (
            f"On {tally.unknown:,} of {replay.disagreements:,} queries where the plans differ, "
            f"{why}."
        )
    elif not tally.found:
        line = "None."
    return Cases(title, line, told)


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
        f"it applies to {found.covered:.0%} of the runs, the others count as 0 or 1. Hidden is all "
        "that tells queries of a domain apart, what their texts say included."
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
    lines, rows = [f"{line} Score and cost are those of {replay.reference}."], []
    for part in parts:
        found = part.comparison
        pair = None if found is None else found.score
        paid = None if found is None else found.cost
        rows.append(
            (
                part.name,
                f"{part.queries if grid else part.runs:,}",
                f"{part.no_support:,}" if grid else part.level,
                _value(part.logged.score if pair is None else pair.reference),
                _value(None if pair is None else pair.router),
                numbers.score_change(None if pair is None else pair.difference),
                _cost(part.logged.cost if paid is None else paid.reference),
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
            _cost(part.logged.cost),
            numbers.share(part.agreement),
            numbers.reach(part.score_bounds),
        )
        for part in parts
    ]
    lines = line, "The last column is what the router's mean score cannot leave, not an estimate."
    return Section(title, lines, header, tuple(rows))


def _value(measured: Measured | None) -> str:
    return numbers.score(None if measured is None else measured.value)


def _cost(measured: Measured | None) -> str:
    return numbers.usd_of_1000(None if measured is None else measured.value)


def _choices(replay: Replay) -> Section:
    rows: list[tuple[str, ...]] = [
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
    header: tuple[str, ...] = ("plan", "queries", "share", "logged runs", "without support")
    if replay.kind != "grid":  # a run elsewhere is some support, and how much is in no one number
        header, rows = header[:-1], [row[:-1] for row in rows]
    return Section("Plans that the router takes", lines, header, tuple(rows))
