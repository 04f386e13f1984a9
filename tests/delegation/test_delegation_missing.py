"""What a task lacks: by its text, and by one cheap call."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.delegation.lacking import WRITTEN, lacking_goals
from tests.delegation.ordinary_goals import LACKING, WHOLE
from tests.delegation.scripted import DOWN, ScriptedModel

from masrouter.delegation.delegator import Delegator
from masrouter.delegation.deliberation.missing import MissingCheck, MissingRule, check_missing
from masrouter.delegation.deliberation.missing_labels import LabelledGoal, calibrate_missing
from masrouter.delegation.deliberation.signals import missing_signals
from masrouter.delegation.query import read_query
from masrouter.delegation.tasks import Task
from masrouter.errors import ConfigError, EvaluationError
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


def test_the_weights_in_use_are_those_measured_on_the_labelled_goals() -> None:
    goals = [*lacking_goals(read_problems(DATA)), *WRITTEN]
    found = calibrate_missing(goals, resamples=200)
    measured = {kind: round(weight, 2) for kind, weight in found.rule.weights.items()}
    used = MissingRule()
    assert {**measured, "model": 1.0} == dict(used.weights)
    assert used.threshold == found.rule.threshold
    assert found.precision.interval.low > 0.9
    assert 0.3 < found.recall.mean < 0.5


def test_a_weight_is_the_smoothed_share_of_goals_that_do_lack_something() -> None:
    bare = [LabelledGoal("def f(x):", True) for _ in range(8)]
    filled = [LabelledGoal(f"Say {{{{name}}}} {n}.", lacks=n % 2 == 0) for n in range(10)]
    whole = [LabelledGoal(f"Count to {n}.", lacks=False) for n in range(10)]
    found = calibrate_missing([*bare, *filled, *whole], precision=0.75, folds=2, resamples=50)
    assert found.rule.weights == {"bare": 9 / 10, "placeholder": 6 / 12}
    assert found.rule.threshold == 0.75
    counts = {one.kind: (one.lacking, one.whole) for one in found.signals if one.found}
    assert counts == {"placeholder": (5, 5), "bare": (8, 0)}
    assert found.precision.mean == 1.0
    assert found.recall.mean == pytest.approx(8 / 13)
    assert found.to_json()["signals"] == {"placeholder": [5, 5], "bare": [8, 0]}


def test_a_model_that_names_gaps_is_measured_where_its_word_is_labelled() -> None:
    goals = [LabelledGoal(f"Count to {n}.", lacks=n % 2 == 0, named=n % 2 == 0) for n in range(20)]
    found = calibrate_missing(goals, folds=2, resamples=50)
    assert found.rule.weights == {"model": 11 / 12}
    assert found.recall.mean == 1.0


@pytest.mark.parametrize(
    ("goals", "options", "why"),
    [
        ([LabelledGoal("a", True)] * 5, {}, "20 goals or more"),
        ([LabelledGoal("a", True)] * 30, {}, "some nothing"),
        ([LabelledGoal("a", n > 9) for n in range(30)], {"precision": 0.0}, "precision"),
        ([LabelledGoal("a", n > 9) for n in range(30)], {"folds": 31}, "folds"),
    ],
)
def test_labels_that_tell_nothing_are_refused(
    goals: list[LabelledGoal], options: dict[str, Any], why: str
) -> None:
    with pytest.raises(EvaluationError, match=why):
        calibrate_missing(goals, **options)


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
