"""The examples run as their docstrings say, and all of them let one plan file answer."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(path.stem for path in EXAMPLES.glob("with_*.py"))
ROUTED = [name for name in SCRIPTS if name != "with_langgraph"]
"""Those that load the shipped router and its text encoder, which takes most of their time."""

ANSWER = (
    "the team: panel(mathematician@gpt-4o-mini, calculator@llama-3.1-70b-instruct, judge@gpt-4o)\n"
    "in 3 calls: Answer: 6\n"
)
"""What the stand-ins' team says to the examples' question, whoever makes its calls."""


def output_of(name: str, folder: Path) -> str:
    """What an example prints, run from another folder, where a warning is an error."""
    script = EXAMPLES / f"{name}.py"
    run = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=folder, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_graph_of_a_plan_runs_and_shows_its_seats(tmp_path: Path) -> None:
    output = output_of("with_langgraph", tmp_path)
    seats = [
        "agent 1 mathematician@gpt-4o-mini",
        "agent 2 calculator@llama-3.1-70b-instruct",
        "agent 3 judge@gpt-4o",
    ]
    assert output.startswith("nodes: ")
    for seat in seats:
        assert seat in output.splitlines()[0]
        assert f"ended: {seat}\n" in output
    assert output.endswith(ANSWER)


@pytest.mark.slow
@pytest.mark.parametrize("name", ROUTED)
def test_the_example_routes_the_question_and_lets_the_team_answer(
    name: str, tmp_path: Path
) -> None:
    output = output_of(name, tmp_path)
    assert re.match(r"routed to \S+: a score of 0\.\d\d is expected\nit says: ", output), output
    assert output.endswith(ANSWER)


@pytest.mark.slow
def test_a_document_is_translated_and_then_summarised(tmp_path: Path) -> None:
    steps, first, second = output_of("translate_then_summarise", tmp_path).split("\n\nstep-")
    assert steps.splitlines() == [
        "step-1: 'translate this technical document' fits translator",
        "step-2: 'summarise it' fits summariser",
    ]
    assert first.startswith("1 by translator, 0.0 US$:\ndie rote Pumpe heizt die Leitung .")
    assert second.startswith("2 by summariser, 0.0 US$:\n(part 1 of ")


def test_the_readme_lists_every_file_and_its_extra() -> None:
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w.]+)` \| (?:`([\w-]+)`)? ?\|", listed, re.MULTILINE)
    files = {path.name for path in EXAMPLES.iterdir() if path.is_file()} - {"README.md"}
    assert {file for file, _ in rows} == files
    for file, extra in rows:
        if file.startswith("with_"):
            text = (EXAMPLES / file).read_text(encoding="utf-8")
            assert f"pip install 'masrouter[{extra}]'\n    python examples/{file}\n" in text
