"""The lines that agents end with, as they are really written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masrouter.topologies.endings import (
    read_delegations,
    read_draft,
    read_subtasks,
    read_verdict,
)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("All is well.\nVerdict: stands", "stands"),
        ("**Verdict: Wrong.**", "wrong"),
        ("**Verdict:** stands\n\n", "stands"),
        ("Verdict: wrong\nOn second thought:\n> verdict : STANDS", "stands"),
        ("## Verdict: `wrong`", "wrong"),
        ("The verdict: stands on weak feet", None),
        ("Verdict: standstill", None),
        ("Verdict:", None),
        ("", None),
    ],
)
def test_a_verdict_is_the_last_line_that_gives_one(text: str, verdict: str | None) -> None:
    assert read_verdict(text) == verdict


@pytest.mark.parametrize(
    ("text", "answer", "missing", "stated"),
    [
        ("Answer: 4\nMissing: nothing", "Answer: 4", (), True),
        ("Answer: 4\n\nmissing: None.\n\n", "Answer: 4", (), True),
        ("A\nMissing: x\n\n* Missing: y", "A", ("x", "y"), True),
        ("A\nMissing: x\nMissing: nothing", "A", ("x",), True),
        ("Missing: x is what I looked for.\nA", "Missing: x is what I looked for.\nA", (), False),
        ("A", "A", (), False),
        ("Missing: all", "Missing: all", ("all",), True),
    ],
)
def test_a_draft_is_parted_from_what_it_lacks(
    text: str, answer: str, missing: tuple[str, ...], stated: bool
) -> None:
    draft = read_draft(text)
    assert (draft.answer, draft.missing, draft.stated) == (answer, missing, stated)


@pytest.mark.parametrize(
    ("text", "subtasks"),
    [
        ("Subtask 1: a\nSubtask 2: b", ("a", "b")),
        ("Here:\n**Subtask 1:** a\nand c\n\n**Subtask 2**: b", ("a\nand c", "b")),
        ("### Subtask 1: a\n### Subtask 2.\nb", ("a", "b")),
        ("Subtask 1:\nSubtask 2: b", ("b",)),
        ("1. a\n2. b", ()),
    ],
)
def test_subtasks_are_read_with_the_lines_that_follow(text: str, subtasks: tuple[str, ...]) -> None:
    assert read_subtasks(text) == subtasks


@pytest.mark.parametrize(
    ("text", "before", "parts"),
    [
        ("So far 3.\nDelegate to agent 2: a\nb\n- **Delegate to agent 3:** c", "So far 3.",
         ((1, "a\nb"), (2, "c"))),
        ("delegate to agent 12: a\nDelegate to agent 2:\n", "", ((11, "a"),)),
        ("I would delegate to agent 2: no.", "I would delegate to agent 2: no.", ()),
        ("Answer: 4", "Answer: 4", ()),
        ("It says:\n> Delegate to agent 2: a", "It says:\n> Delegate to agent 2: a", ()),
        ("```\nx = 1\nDelegate to agent 2: a\n```", "```\nx = 1\nDelegate to agent 2: a\n```", ()),
        ("So:\n```\nDelegate to agent 2: a\nDelegate to agent 3: b", "So:\n```",
         ((1, "a"), (2, "b"))),
        ("I need no\n`Delegate to agent 2: ...`", "I need no\n`Delegate to agent 2: ...`", ()),
        ("~~~\ncode\n~~~\nDelegate to agent 2: a", "~~~\ncode\n~~~", ((1, "a"),)),
    ],
)  # fmt: skip
def test_what_a_lead_hands_out_is_read_line_by_line(
    text: str, before: str, parts: tuple[tuple[int, str], ...]
) -> None:
    found = read_delegations(text)
    assert (found.before, found.parts) == (before, parts)


@given(st.text(st.sampled_from("Missing:Verdict Subtask1 wrong*\n-#"), max_size=200))
def test_whatever_is_written_is_read(text: str) -> None:
    read_verdict(text)
    assert read_draft(text).answer in text
    assert all(task for task in read_subtasks(text))
    assert all(part for _, part in read_delegations(text).parts)


def test_reading_takes_time_in_proportion_to_length() -> None:
    for text in ("*" * 300_000, "\n" * 300_000, "Missing:\n" * 30_000, "Subtask 1:\n" * 20_000,
                 "Delegate to agent 1:\n" * 10_000):  # fmt: skip
        read_verdict(text)
        read_draft(text)
        read_subtasks(text)
        read_delegations(text)
