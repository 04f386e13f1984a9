"""What a task lacks: by its text, and by one cheap call."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.delegation.lacking import WRITTEN
from tests.delegation.ordinary_goals import LACKING, WHOLE
from tests.delegation.scripted import DOWN, ScriptedModel

from masrouter.delegation.calibration.gaps import some_gaps
from masrouter.delegation.calibration.missing_labels import (
    LabelledGoal,
    count_signals,
    weights_of,
)
from masrouter.delegation.delegator import Delegator
from masrouter.delegation.deliberation.missing import MissingCheck, MissingRule, check_missing
from masrouter.delegation.deliberation.signals import missing_signals
from masrouter.delegation.query import read_query
from masrouter.delegation.tasks import Task
from masrouter.errors import ConfigError
from masrouter.problems import read_problems

DATA = Path(__file__).resolve().parents[2] / "data" / "problems"


@pytest.mark.parametrize(
    ("goal", "kind"),
    [
        ("Write to {{customer_name}} about the parcel.", "placeholder"),
        ("Pay <your landlord> the rent.", "placeholder"),
        ("Fix the bug in the code above.", "reference"),
        ("Summarise the attached report.", "reference"),
        ("Sort the following numbers.", "reference"),
        ("Translate it into Dutch.", "reference"),
        ("Shorten this article to a paragraph.", "reference"),
        ("Which of the following is a prime number?", "options"),
        ("How many of her candles are left?", "pronoun"),
        ("Then the rest is sold. How much is it?", "middle"),
        ("How many eggs are left over in the last box?", "quantity"),
        ("def total(prices: list[float]) -> float:", "bare"),
    ],
)
def test_a_gap_that_shows_in_the_text_is_seen(goal: str, kind: str) -> None:
    assert kind in {signal.kind for signal in missing_signals(goal)}


@pytest.mark.parametrize("goal", [one.goal for one in WRITTEN if one.lacks and not one.context])
def test_a_context_takes_away_every_doubt_but_places_left_to_be_filled(goal: str) -> None:
    kinds = {signal.kind for signal in missing_signals(goal, "Everything is here.")}
    assert kinds <= {"placeholder"}


@pytest.mark.parametrize(
    "goal",
    [
        "Summarise the following text: The sea is deep and cold, and few have seen its floor.",
        "Fix this code:\n```python\ndef f(x): return x +\n```",
        "The rain fell on the hills all day. Summarise the above in one word.",
        "A string is attached to a ring. How does the ring move when it is pulled?",
        "Which of these is a prime?\nA) 4\nB) 5\nC) 6",
        "A gardener has 96 seedlings and puts 8 in each tray. How many trays does she fill?",
        'def inc(x: int) -> int:\n    """Return x plus one, for any whole number."""\n',
    ],
)
def test_a_task_with_all_it_needs_is_let_alone(goal: str) -> None:
    assert missing_signals(goal) == ()


@pytest.mark.parametrize(
    "goal",
    [
        "Fix the bug in this code:\n\ndef add(a, b):\n    return a - b",
        "What does this code do? for i in range(10): print(i**2)",
        "Convert the following CSV to JSON:\nname,age\nAnn,31",
        "Translate this sentence into French - I would like a coffee, please.",
        "Explain the code of Hammurabi.",
        "Explain the file system hierarchy of Linux.",
        "Summarise the report of the 9/11 Commission.",
        "What happens to my data when I delete an account?",
        "Summarise this page: https://example.com/a",
        "Convert the file in data/prices.csv to JSON.",
        "Write a component whose button increments a counter shown below it.",
        "Show the above-average temperatures of Europe in July.",
        "How far is the Sun from the Earth?",
        "How old is the universe?",
        "What was the total cost of the Apollo programme?",
        "If she saves $50 a week, how long will it take Maria to save $1,000?",
        "Is it true that they drive on the left in Japan?",
        "His Dark Materials: who wrote it?",
        "Instead of sugar, what can I use in a cake?",
        "Next Friday is a holiday in Germany. Which one?",
        "Explain the difference between mean and median, and when to use which of them.",
        "Select the best laptop for programming under 1000 euros.",
        "Write a letter template with placeholders like {{name}} and {{date}}.",
        "What does 'TBD' mean in a schedule?",
        "He perdido mi llave. ¿Qué hago?",
    ],
)
def test_an_ordinary_goal_is_not_asked_about(goal: str) -> None:
    assert missing_signals(goal) == ()


def test_ordinary_goals_are_told_from_those_that_lack_something() -> None:
    rule = MissingRule()

    def asked(goals: tuple[str, ...]) -> list[str]:
        return [g for g in goals if rule.asks(signal.kind for signal in missing_signals(g))]

    assert asked(WHOLE) == []
    assert len(asked(LACKING)) >= 0.8 * len(LACKING)


def test_whole_problems_of_the_project_are_hardly_ever_asked_about() -> None:
    rule = MissingRule()
    asked = [
        problem.problem_id
        for problem in read_problems(DATA)
        if rule.asks(signal.kind for signal in missing_signals(problem.query))
    ]
    assert len(asked) <= 3


def test_a_weight_is_the_smoothed_share_of_tasks_that_do_lack_something() -> None:
    tasks = [LabelledGoal("def f(x):", True) for _ in range(8)]
    tasks += [LabelledGoal(f"Say {{{{name}}}} {n}.", lacks=n % 2 == 0) for n in range(10)]
    tasks += [LabelledGoal(f"Count to {n}.", lacks=False, named=n < 3) for n in range(10)]
    counts = count_signals([task.kinds() for task in tasks], [task.lacks for task in tasks])
    shown = {one.kind: (one.lacking, one.whole) for one in counts if one.found}
    assert shown == {"placeholder": (5, 5), "bare": (8, 0), "model": (0, 3)}
    weights = weights_of(counts)
    assert (weights["bare"], weights["placeholder"], weights["model"]) == (9 / 10, 6 / 12, 1 / 5)
    # Of the others nothing is known here.
    usual = {**MissingRule().weights, **weights}
    assert weights == usual


def test_the_weights_in_use_are_those_counted_on_the_labelled_tasks() -> None:
    problems = read_problems(DATA)
    cut = some_gaps(problems, 0.3)
    tasks = [LabelledGoal(problem.query, False) for problem in problems]
    tasks += [LabelledGoal(gap.query, True) for gap in cut.values()] + list(WRITTEN)
    counts = count_signals([task.kinds() for task in tasks], [task.lacks for task in tasks])
    counted = {one.kind: round(one.weight, 2) for one in counts if one.found}
    used = dict(MissingRule().weights)
    said = used.pop("model")  # what simulated models say is counted by the benchmark alone
    assert counted == used
    assert MissingRule().threshold < said < 0.7


def test_signals_that_are_found_together_count_more_than_each_alone() -> None:
    rule = MissingRule({"bare": 0.5, "middle": 0.6}, 0.8)
    assert rule.score(["bare", "middle", "bare"]) == pytest.approx(0.8)
    assert rule.asks(["bare", "middle"])
    assert not rule.asks(["middle"])
    assert not rule.asks(["pronoun"])


def check(goal: str, *replies: Any, **options: Any) -> tuple[MissingCheck, ScriptedModel]:
    llm = ScriptedModel({"small": list(replies)})
    options.setdefault("model", "small" if replies else None)
    found = asyncio.run(check_missing(Task(goal), delegator=Delegator(llm), **options))
    return found, llm


def test_where_the_text_says_enough_nobody_is_called() -> None:
    found, llm = check("Summarise the attached report.", "Missing: nothing")
    assert found.missing
    assert found.stated is None
    assert llm.requests == []
    assert found.error is not None
    assert found.error.type == "missing_information"
    assert found.error.asked == found.question


def test_the_cheap_model_sees_task_and_context_and_its_last_lines_are_asked_for() -> None:
    said = "It depends.\n**Missing: the size of the room**\nMissing: the paint's price"
    llm = ScriptedModel({"small": said})
    task = Task("What will the paint cost?", context="Two coats.")
    found = asyncio.run(check_missing(task, delegator=Delegator(llm), model="small"))
    assert found.question == "Please say: the size of the room. Please say: the paint's price."
    (request,) = llm.requests
    query = read_query(request.messages[-1].content)
    assert "Do not do the task" in query.goal
    assert "What will the paint cost?" in query.context
    assert "Two coats." in query.context
    assert request.max_tokens == 256


@pytest.mark.parametrize(
    ("reply", "stated"), [("Missing: nothing", True), ("All is there.", False), (DOWN, False)]
)
def test_a_model_that_names_nothing_stops_nothing(reply: Any, stated: bool) -> None:
    found, _ = check("Name a bird.", reply)
    assert not found.missing
    assert found.stated is stated
    assert found.question is None
    assert found.error is None
    assert found.result is not None


@pytest.mark.parametrize(
    ("weights", "threshold", "goal"),
    [
        ({"placeholder": 0.9, "model": 0.9}, 0.8, "Pay {{name}} the rent."),  # the text tells all
        ({"placeholder": 0.3, "model": 0.6}, 0.9, "Pay {{name}} the rent."),  # nothing could tell
        ({"placeholder": 0.3}, 0.5, "Pay the rent."),  # the word counts for nothing
    ],
)
def test_a_model_whose_word_could_not_tip_the_rule_is_not_paid(
    weights: Any, threshold: float, goal: str
) -> None:
    llm = ScriptedModel({"small": "Missing: everything"})
    rule = MissingRule(weights, threshold)
    found = asyncio.run(
        check_missing(Task(goal), delegator=Delegator(llm), model="small", rule=rule)
    )
    assert llm.requests == []
    assert found.stated is None


def test_for_a_log_the_model_is_asked_whatever_the_text_shows() -> None:
    for said, missing in (("Missing: nothing", False), ("Missing: the name", True)):
        llm = ScriptedModel({"small": said})
        found = asyncio.run(
            check_missing(
                Task("Pay {{name}} the rent."),
                delegator=Delegator(llm),
                model="small",
                rule=MissingRule.by_model_alone(),
            )
        )
        assert (found.missing, len(llm.requests)) == (missing, 1)


def test_a_model_needs_somebody_to_ask_it_through() -> None:
    with pytest.raises(ConfigError, match="needs a delegator"):
        asyncio.run(check_missing(Task("Name a bird."), model="small"))


@pytest.mark.parametrize(
    ("weights", "threshold", "why"),
    [
        ({"hunch": 0.5}, 0.5, "no signal 'hunch'"),
        ({"bare": 1.5}, 0.5, r"expected \[0, 1\]"),
        ({}, 0, r"expected \(0, 1\]"),
    ],
)
def test_rules_that_cannot_be_are_refused(weights: Any, threshold: float, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        MissingRule(weights, threshold)


@given(st.text(max_size=300), st.text(max_size=20))
def test_any_text_can_be_looked_at(goal: str, context: str) -> None:
    for signal in missing_signals(goal, context):
        assert signal.question
