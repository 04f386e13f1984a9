"""One disagreement in words.

Not here: which ones are worth reading (`disagreements`), how it looks (`report`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from masrouter.evaluation.replay import numbers
from masrouter.evaluation.replay.types import Disagreement


@dataclass(frozen=True)
class Told:
    """One disagreement as it is told."""

    head: str
    query: str
    lines: tuple[tuple[str, str], ...]
    """(what, words)."""


def tell(found: Disagreement, by: Literal["saving", "harm"]) -> Told:
    """One of the biggest savings, or harms."""
    scored = _sure(found.found_score is not None and found.logged_score is not None)
    paid = _sure(found.found_cost_usd is not None)
    if by == "saving":
        head = f"saves {numbers.usd(found.saving_usd)} ({paid})"
        if found.harm:
            head += f", score {-found.harm:+.2f}{'' if scored == paid else f' ({scored})'}"
    else:
        head = f"loses {found.harm or 0:.2f} score ({scored})"
        if found.saving_usd is not None:
            how = "saves" if found.saving_usd >= 0 else "costs"
            head += f", {how} {numbers.usd(abs(found.saving_usd))}"
            head += "" if scored == paid else f" ({paid})"
    lines = [
        (
            "logged",
            f"{found.logged_plan}  {_outcome(found.logged_score, found.logged_cost_usd)}",
        ),
        (
            "router",
            f"{found.router_plan}  expected to score {found.expected_score:.2f} for "
            f"{numbers.usd(found.expected_cost_usd)}",
        ),
    ]
    if found.found_score is not None or found.found_cost_usd is not None:
        really = _outcome(found.found_score, found.found_cost_usd)
        lines.append(("", f"really {really} on this query"))
    lines += [("why", found.why), ("support", found.support)]
    return Told(f"{head}  [{found.domain}] {found.query_id}", found.query, tuple(lines))


def _sure(looked_up: bool) -> str:
    return "found" if looked_up else "predicted"


def _outcome(score: float | None, cost: float | None) -> str:
    got = "scored nothing known" if score is None else f"scored {score:.2f}"
    return f"{got} for {'an unknown cost' if cost is None else numbers.usd(cost)}"
