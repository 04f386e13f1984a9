"""What benchmarks of delegation share: graders that are asked many times, and tables of ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from masrouter.answers import answer_key
from masrouter.cli_deliberating import told
from masrouter.delegation.calibration.compared import Against, Compared
from masrouter.delegation.tasks import Grade, Grading
from masrouter.problems import Problem
from masrouter.sandbox import Sandbox


def grader(problem: Problem, sandbox: Sandbox) -> Grade:
    """The problem's grader; answers that say the same are judged once."""
    known: dict[str, Grading] = {}

    def grade(answer: str) -> Grading:
        key = answer_key(answer)
        if key not in known:
            judged = problem.grader.grade(answer, sandbox)
            known[key] = Grading(judged.score, judged.source)
        return known[key]

    return grade


def print_compared(
    rows: Sequence[Compared],
    against: Sequence[Against],
    *,
    unit: str,
    shares: Mapping[str, str],
    chosen: str,
) -> None:
    """Ways of working as Markdown.

    unit: what a cost is of. shares: by column, a row's field. chosen: what the differences are of.
    """
    columns = ["accuracy", f"US$ a {unit}", *shares, f"{chosen}: accuracy more", "cost saved"]
    print(f"| | {' | '.join(columns)} |")
    print(f"|---|---|---|{'---:|' * len(shares)}---|---|")
    beside = {one.name: (told(one.score, "+.3f"), told(one.cost_saved, ".1%")) for one in against}
    for row in rows:
        cells = [
            row.name, told(row.score, ".3f"), told(row.cost_usd, ".6f"),
            *(f"{getattr(row, share):.1%}" for share in shares.values()),
            *beside.get(row.name, ("", "")),
        ]  # fmt: skip
        print(f"| {' | '.join(cells)} |")
