"""Running tasks both ways: what is asked, what is kept, and what stops it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.delegation.scripted import DOWN, Said, ScriptedModel

from masrouter.delegation.calibration.collecting import Label, collect_samples
from masrouter.delegation.calibration.replaying import replay
from masrouter.delegation.calibration.sampled import SampledQuery
from masrouter.delegation.delegator import Delegator
from masrouter.delegation.deliberation.agreement import Rule
from masrouter.delegation.deliberation.stepwise import NEXT_STEP, WORK_IN_STEPS
from masrouter.delegation.query import read_query
from masrouter.delegation.tasks import DelegationError, Grading, Task, TaskResult
from masrouter.errors import CallError, ConfigError, EvaluationError
from masrouter.llms.chat import ChatRequest


def graded(answer: str) -> Grading:
    return Grading(float(answer == "Answer: 4"), "exact_match")


def test_samples_are_collected_through_a_delegator_and_graded() -> None:
    def say(request: ChatRequest) -> Said:
        return DOWN if "broken" in request.messages[-1].content else "Answer: 4"

    llm = ScriptedModel({"small": say, "big": "Answer: 5"})
    tasks = [Task("Add.", id="a", kind="math", grade=graded), Task("broken", id="b", grade=graded)]
    failed: list[TaskResult] = []
    one, other = asyncio.run(
        collect_samples(
            tasks, cheap="small", strong="big", delegator=Delegator(llm), samples=3,
            on_failure=failed.append,
        )
    )  # fmt: skip
    assert sorted(result.id for result in failed) == ["b-sample-1", "b-sample-2", "b-sample-3"]
    assert (one.query_id, one.query, one.task) == ("a", "Add.", "math")
    assert [(s.text, s.score) for s in one.samples] == [("Answer: 4", 1.0)] * 3
    assert one.strong.score == 0.0
    assert all(sample.cost_usd for sample in one.samples)
    assert [(s.text, s.score) for s in other.samples] == [("", 0.0)] * 3
    assert len({request.seed for request in llm.requests}) == 8


def test_what_was_paid_for_is_kept_where_the_money_runs_out() -> None:
    llm = ScriptedModel({"small": "Answer: 4", "big": "Answer: 4"})
    tasks = [Task(f"Add {n}.", id=str(n), max_tokens=4, grade=graded) for n in range(30)]
    kept: list[SampledQuery] = []

    def collect(budget_usd: float | None) -> tuple[SampledQuery, ...]:
        kept.clear()
        delegator = Delegator(llm)
        return asyncio.run(
            collect_samples(
                tasks, cheap="small", strong="big", delegator=delegator, samples=2,
                budget_usd=budget_usd, max_concurrency=2, on_query=kept.append,
            )
        )  # fmt: skip

    whole = collect(None)
    assert tuple(kept) == whole
    cost = sum(s.cost_usd or 0.0 for one in whole for s in (*one.samples, one.strong))
    with pytest.raises(DelegationError, match="budget"):
        collect(0.5 * cost)
    assert 3 < len(kept) < 30
    assert set(kept) <= set(whole)


def test_collecting_stops_where_a_name_leads_nowhere_or_nobody_can_grade() -> None:
    delegator = Delegator(ScriptedModel({"small": "Answer: 4"}))
    task = Task("Add.", id="a", grade=graded)

    def collect(*tasks: Task, strong: str = "small") -> None:
        asyncio.run(collect_samples(tasks, cheap="small", strong=strong, delegator=delegator))

    with pytest.raises(DelegationError, match="big"):
        collect(task, strong="big")
    with pytest.raises(ConfigError, match="an id of its own"):
        collect(task, task)
    with pytest.raises(ConfigError, match="needs a grader"):
        collect(Task("Add.", id="a"))
    with pytest.raises(ConfigError, match="gave no grade"):
        collect(Task("Add.", id="a", grade=lambda answer: None))


RIGHT = "1. 14 * 3 = 42\n2. 42 - 17 = 25\nAnswer: 25"
SLIP = "1. 3 * 14 = 42\n2. 42 + 17 = 59\nAnswer: 59"
LOST = "1. 14 + 3 = 17\n2. 17 - 17 = 0\nAnswer: 0"


def right(answer: str) -> Grading:
    return Grading(float(answer.endswith("Answer: 25")), "exact_match")


def stepping(*stepped: Said, step: Said, behind: Said) -> ScriptedModel:
    """Plain samples say what is right; those in steps come one by one, and then those behind."""
    left = list(stepped)

    def cheap(request: ChatRequest) -> Said:
        query = read_query(request.messages[-1].content)
        if WORK_IN_STEPS not in query.goal:
            return "Answer: 25"
        return behind if "steps_so_far" in query.context else left.pop(0)

    def strong(request: ChatRequest) -> Said:
        return step if NEXT_STEP in request.messages[-1].content else "Answer: 25"

    return ScriptedModel({"small": cheap, "big": strong})


def collected(llm: ScriptedModel, **options: Any) -> SampledQuery:
    task = Task("How many?", context="14 times 3.", id="a", grade=right)
    work = collect_samples([task], cheap="small", strong="big", delegator=Delegator(llm), **options)
    return asyncio.run(work)[0]


def test_behind_every_step_that_a_rule_may_hand_over_there_is_what_it_would_ask_for() -> None:
    llm = stepping(RIGHT, SLIP, LOST, step="42 - 17 = 25", behind=RIGHT)
    found = collected(llm, samples=3, steps=True)
    assert [sample.text for sample in found.samples] == ["Answer: 25"] * 3
    assert [sample.text for sample in found.stepped] == [RIGHT, SLIP, LOST]
    assert [sample.score for sample in found.stepped] == [1.0, 0.0, 0.0]
    # All three part at the first step; two of three go on to the second.
    partings = {parting.steps: parting for parting in found.partings}
    assert set(partings) == {(), ("14 * 3 = 42",)}
    # Nobody's first step is the strong model's, so that three new samples may be wanted; at the
    # second one's is.
    assert len(partings[()].samples) == 3
    second = partings[("14 * 3 = 42",)]
    assert (second.step.text, len(second.samples)) == ("42 - 17 = 25", 2)
    assert all(sample.score == 1.0 and sample.cost_usd for sample in second.samples)
    assert found.context == "14 times 3."
    assert len({request.seed for request in llm.requests}) == len(llm.requests) == 3 + 1 + 3 + 2 + 5
    with pytest.raises(EvaluationError, match="wants 4 samples, and query 'a' has 3"):
        replay([found], Rule(4, at="step"))


@pytest.mark.parametrize("step", ["", DOWN])
def test_a_step_that_does_not_come_has_nothing_behind_it(step: Said) -> None:
    failed: list[TaskResult] = []
    llm = stepping(RIGHT, SLIP, step=step, behind=RIGHT)
    found = collected(llm, samples=2, steps=True, on_failure=failed.append)
    (parting,) = found.partings
    assert (parting.step.text, parting.samples) == ("", ())
    assert [result.id for result in failed] == ["a-parting-1-step"]
    assert replay([found], Rule(2, at="step")).score.tolist() == [1.0]


def test_samples_that_agree_or_show_no_steps_have_no_parting() -> None:
    for samples in ((RIGHT, RIGHT), ("Answer: 4", "Answer: 5"), ("Answer: 4", RIGHT)):
        found = collected(stepping(*samples, step=RIGHT, behind=RIGHT), samples=2, steps=True)
        assert [sample.text for sample in found.stepped] == list(samples)
        assert found.partings == ()
    plain = collected(stepping(step=RIGHT, behind=RIGHT), samples=2)
    assert (plain.stepped, plain.partings) == ((), ())


def test_what_a_task_lacks_is_asked_of_the_cheap_model_and_labelled_by_hand() -> None:
    def say(request: ChatRequest) -> Said:
        asked = "Missing:" in request.messages[-1].content
        return "Missing: the year" if asked else "Answer: 25"

    llm = ScriptedModel({"small": say, "big": "Answer: 25"})
    labels = {"a": Label(lacks=True, group="a-whole")}
    found = collected(llm, samples=2, check=True, labels=labels)
    assert found.check is not None
    assert found.check.named
    assert found.check.cost_usd
    assert (found.lacks, found.group) == (True, "a-whole")
    unasked = collected(llm, samples=2)
    assert (unasked.check, unasked.lacks, unasked.group) == (None, None, None)
    with pytest.raises(ConfigError, match="labels: no task has the id 'b'"):
        collected(llm, labels={"b": Label()})


def test_a_check_that_is_refused_stops_the_collecting() -> None:
    def say(request: ChatRequest) -> Said:
        asked = "Missing:" in request.messages[-1].content
        return CallError("no money", kind="unauthorized", model="small") if asked else "Answer: 25"

    llm = ScriptedModel({"small": say, "big": "Answer: 25"})
    failed: list[TaskResult] = []
    found = collected(llm, samples=2, check=True, on_failure=failed.append)
    assert [result.id for result in failed] == ["a-missing"]
    assert found.check is not None
    assert not found.check.named
    with pytest.raises(DelegationError, match="budget"):
        collected(llm, samples=2, check=True, budget_usd=1e-9)
