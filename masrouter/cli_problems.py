"""`masrouter problems`: what a problem set holds, and whether its answers are what they claim."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from masrouter.errors import ProblemError
from masrouter.problems import CodeTests, Problem, read_problems

if TYPE_CHECKING:
    from masrouter.sandbox import Sandbox

app = typer.Typer(
    name="problems",
    help="Look at problem sets, and check their answers and graders.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Paths = Annotated[
    list[Path],
    typer.Argument(
        metavar="PATH...",
        help="Problem files (.jsonl, .jsonl.gz) or folders of them.",
        show_default=False,
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON to stdout, and nothing else there.")
]


@app.command()
def show(paths: Paths, as_json: AsJson = False) -> None:
    """Count a set's problems by dataset, task and difficulty.

    Examples:

        masrouter problems show data/problems/

        masrouter problems show HumanEval.jsonl.gz --json
    """
    problems = read_problems(*paths)
    counts = Counter((p.dataset, p.task, p.difficulty) for p in problems)
    if as_json:
        rows = [
            {"dataset": dataset, "task": task, "difficulty": difficulty, "problems": number}
            for (dataset, task, difficulty), number in sorted(counts.items(), key=str)
        ]
        _print_json({"problems": len(problems), "counts": rows})
        return
    levels = sorted({level for _, _, level in counts if level is not None})
    ungraded = any(level is None for _, _, level in counts)
    columns = [*levels, *([None] if ungraded else [])]
    table = Table(box=None, pad_edge=False)
    for name in ("dataset", "task"):
        table.add_column(name)
    for name in ("problems", *("ungraded" if c is None else f"grade {c}" for c in columns)):
        table.add_column(name, justify="right")
    for dataset, task in sorted({(d, t) for d, t, _ in counts}):
        cells = [counts[dataset, task, level] for level in columns]
        table.add_row(escape(dataset), task, f"{sum(cells):,}", *(f"{cell:,}" for cell in cells))
    Console(highlight=False).print(table)


@app.command()
def check(
    paths: Paths,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Answers graded at a time.")] = 2,
    as_json: AsJson = False,
) -> None:
    """Grade every answer that a set calls right or wrong; exit code 1 where a grader disagrees.

    Programs run in the sandbox. A question that stands twice is a fault too: the same text in the
    training and the test part of a split would leak.

    Examples:

        masrouter problems check data/problems/

        masrouter problems check HumanEval.jsonl.gz --jobs 4 --json
    """
    problems = read_problems(*paths)
    faults = list(_doubled(problems))
    with _sandbox(problems) as sandbox, ThreadPoolExecutor(jobs) as pool:
        graded = pool.map(lambda problem: list(_disagreements(problem, sandbox)), problems)
        console = Console(stderr=True)
        for found in track(
            graded, "grading", total=len(problems), console=console, transient=True,
            disable=not console.is_terminal,
        ):  # fmt: skip
            faults += found
    answers = sum(1 + len(problem.wrong) for problem in problems)
    if as_json:
        _print_json({"problems": len(problems), "answers": answers, "faults": faults})
    else:
        verdict = "[red]faults[/red]" if faults else "[green]ok[/green]"
        Console(highlight=False).print(
            f"{verdict}: {len(faults)} faults in {len(problems):,} problems, {answers:,} answers"
        )
    for fault in faults:
        Console(stderr=True, highlight=False).print(
            fault, style="yellow", markup=False, soft_wrap=True
        )
    if faults:
        raise typer.Exit(1)


def _sandbox(problems: Sequence[Problem]) -> Sandbox | nullcontext[None]:
    """A sandbox where there is code to run, so that other sets need none."""
    if not any(isinstance(problem.grader, CodeTests) for problem in problems):
        return nullcontext()
    from masrouter.sandbox import Sandbox

    return Sandbox()


def _disagreements(problem: Problem, sandbox: Sandbox | None) -> Iterator[str]:
    where = f"{problem.source}: {problem.problem_id}"
    try:
        grade = problem.grader.grade(problem.reference, sandbox)
        if grade.score != 1:
            yield f"{where}: the right answer is graded wrong: {grade.detail}"
        for index, answer in enumerate(problem.wrong):
            if problem.grader.grade(answer, sandbox).score != 0:
                yield f"{where}: wrong answer {index + 1} is graded right"
    except ProblemError as error:
        yield f"{where}: cannot be graded: {error}"


def _doubled(problems: Sequence[Problem]) -> Iterator[str]:
    first: dict[str, Problem] = {}
    for problem in problems:
        text = " ".join(problem.query.split())
        other = first.setdefault(text, problem)
        if other is not problem:
            yield (
                f"{problem.source}: {problem.problem_id}: asks the same as "
                f"{other.problem_id} ({other.source})"
            )


def _print_json(data: object) -> None:
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False))
