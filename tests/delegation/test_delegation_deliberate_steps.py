"""Where samples in steps part, the strong model takes that step and the cheap one goes on."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.delegation.scripted import DOWN, PRICE, Said, ScriptedModel

from masrouter.delegation.delegator import Delegator
from masrouter.delegation.deliberation.agreement import Rule
from masrouter.delegation.deliberation.deliberating import Deliberation, deliberate
from masrouter.delegation.deliberation.stepwise import NEXT_STEP, WORK_IN_STEPS
from masrouter.delegation.episodes.credit import credit
from masrouter.delegation.episodes.log import EpisodeLog, read_episodes
from masrouter.delegation.query import TaskQuery, read_query
from masrouter.delegation.tasks import Grading, Task
from masrouter.llms.chat import ChatRequest
from masrouter.sections import read_sections
from masrouter.topologies.team import ExampleReport

AT_STEP = Rule(3, 1.0, at="step")
RIGHT = "1. 14 * 3 = 42\n2. 42 - 17 = 25\nAnswer: 25"
SLIP = "1. 3 * 14 = 42\n2. 42 + 17 = 59\nAnswer: 59"
LOST = "1. 14 + 3 = 17\n2. 17 - 17 = 0\nAnswer: 0"
GOAL = "How many are left?"


def asked(request: ChatRequest) -> TaskQuery:
    return read_query(request.messages[-1].content)


def done_of(query: TaskQuery) -> list[str]:
    """The settled steps that a request shows."""
    found = [part.text for part in read_sections(query.context) if part.name == "steps_so_far"]
    return found[0].split("\n") if found else []


def model(
    small: list[Said], *, step: Said = "2. 42 - 17 = 25", behind: tuple[Said, ...] = (RIGHT,),
    whole: Said = "Answer: 7", **options: Any,
) -> ScriptedModel:  # fmt: skip
    """small: samples of the first round; behind: of the second, the last of which stays."""
    first, second = list(small), list(behind)

    def cheap(request: ChatRequest) -> Said:
        if not done_of(asked(request)):
            return first.pop(0)
        return second.pop(0) if len(second) > 1 else second[0]

    def strong(request: ChatRequest) -> Said:
        return step if NEXT_STEP in asked(request).goal else whole

    return ScriptedModel({"small": cheap, "big": strong}, **options)


def run(llm: ScriptedModel, task: Task | str = GOAL, **options: Any) -> Deliberation:
    options = {"delegator": Delegator(llm), "rule": AT_STEP, **options}
    return asyncio.run(deliberate(task, cheap="small", strong="big", **options))


def test_samples_are_asked_for_in_numbered_steps_and_agreeing_ones_need_nobody() -> None:
    llm = model([RIGHT, RIGHT, RIGHT])
    found = run(llm)
    assert (found.outcome, found.answer, found.handed) == ("agreed", RIGHT, ())
    assert llm.requests_of("big") == []
    assert {asked(request).goal for request in llm.requests} == {f"{GOAL}\n\n{WORK_IN_STEPS}"}


def test_the_step_at_which_samples_part_is_the_strong_models_and_the_cheap_one_goes_on() -> None:
    llm = model([RIGHT, SLIP, RIGHT])
    found = run(llm, Task(GOAL, context="There were 14 times 3."))
    assert (found.outcome, found.answer, found.strong) == ("agreed", RIGHT, None)
    assert [(step.number, step.text) for step in found.handed] == [(2, "42 - 17 = 25")]
    (handed,) = (asked(request) for request in llm.requests_of("big"))
    assert handed.goal == f"{GOAL}\n\n{NEXT_STEP}"
    assert handed.context.startswith("There were 14 times 3.")
    assert done_of(handed) == ["1. 14 * 3 = 42"]
    # The two that said the same stay as votes, and one new sample takes the place of the third.
    assert len(found.samples) == 4
    new = asked(llm.requests_of("small")[-1])
    assert new.goal == f"{GOAL}\n\n{WORK_IN_STEPS}"
    assert done_of(new) == ["1. 14 * 3 = 42", "2. 42 - 17 = 25"]
    assert found.verdict is not None
    assert found.verdict.reason.endswith("step 2 is the strong worker's")
    assert found.usage.cost_usd == pytest.approx(llm.billed_usd)


def test_samples_that_took_another_step_there_have_no_vote_any_more() -> None:
    """Two of three agree on the wrong number; the strong model's step leaves neither of them."""
    llm = model([SLIP, LOST, SLIP], behind=(RIGHT, RIGHT, RIGHT))
    found = run(llm, rule=AT_STEP)
    assert (found.outcome, found.answer, len(found.samples)) == ("agreed", RIGHT, 6)
    first = run(model([RIGHT, LOST, "1. 5 + 5 = 10"], step="14 * 3 = 42", behind=(SLIP, RIGHT)))
    assert [(step.number, step.text) for step in first.handed] == [(1, "14 * 3 = 42")]
    assert (first.outcome, first.answer) == ("delegated", "Answer: 7")


def test_where_they_still_part_behind_the_step_the_whole_task_is_delegated() -> None:
    llm = model([RIGHT, SLIP, RIGHT], behind=(LOST,))
    found = run(llm)
    assert (found.outcome, found.answer, len(found.handed)) == ("delegated", "Answer: 7", 1)
    step, whole = (asked(request) for request in llm.requests_of("big"))
    assert NEXT_STEP in step.goal
    assert whole == TaskQuery(GOAL)
    assert found.usage.cost_usd == pytest.approx(llm.billed_usd)
    assert found.strong is not None
    # Always asking would have cost the last call alone.
    assert found.strong_usd == found.strong.usage.cost_usd
    assert found.saved_usd == pytest.approx((found.strong_usd or 0) - llm.billed_usd)


@pytest.mark.parametrize(
    "samples",
    [
        ["Answer: 1", "Answer: 2", "Answer: 3"],  # no steps at all
        [RIGHT, "Answer: 2", "Answer: 3"],  # steps in too few
        ["1. 6 * 7 = 42\nAnswer: 1", "1. 6 * 7 = 42\nAnswer: 2", "1. 6 * 7 = 42\nAnswer: 3"],
    ],
)
def test_where_there_is_no_step_to_hand_over_the_whole_task_is(samples: list[Said]) -> None:
    llm = model(samples)
    found = run(llm)
    assert (found.outcome, found.answer, found.handed) == ("delegated", "Answer: 7", ())
    assert len(llm.requests) == 4


@pytest.mark.parametrize("step", ["", "```python\nx = 25\n```", DOWN])
def test_where_no_step_comes_back_the_whole_task_is_delegated(step: Said) -> None:
    found = run(model([RIGHT, SLIP, RIGHT], step=step))
    assert (found.outcome, found.answer, len(found.samples)) == ("delegated", "Answer: 7", 3)
    assert [(one.number, one.text) for one in found.handed] == [(2, None)]
    down = run(model([RIGHT, SLIP, RIGHT], step=step, whole=DOWN))
    assert (down.outcome, down.answer) == ("failed", None)
    assert down.error is not None
    assert down.error.type == "provider"


def test_asking_one_after_the_other_stops_behind_the_step_too() -> None:
    rule = Rule(5, 0.6, stop_early=True, at="step")
    llm = model([RIGHT, SLIP, LOST, SLIP, LOST], behind=(RIGHT, RIGHT, DOWN))
    found = run(llm, rule=rule)
    # One vote stays, and two new ones are enough.
    assert (found.outcome, found.answer, len(found.samples)) == ("agreed", RIGHT, 7)
    llm = model([RIGHT, SLIP, RIGHT, SLIP, LOST], behind=(RIGHT, DOWN))
    found = run(llm, rule=rule)
    assert (found.outcome, found.answer, len(found.samples)) == ("agreed", RIGHT, 6)
    llm = model([RIGHT, SLIP, RIGHT, SLIP, LOST], behind=(DOWN,))
    found = run(llm, rule=rule)
    assert (found.outcome, len(found.samples)) == ("delegated", 5 + 3)


def test_how_alike_steps_must_be_decides_where_they_part_and_who_stays() -> None:
    samples: list[Said] = [
        "1. The red box holds apples\n2. Tom eats them all\nAnswer: none",
        "1. The red box holds green apples\n2. Tom keeps them all\nAnswer: some",
    ]
    lenient = model(samples, step="Tom eats all of them", behind=("Answer: none",))
    found = run(lenient, rule=Rule(2, at="step", alike=0.7))
    assert [one.number for one in found.handed] == [2]
    assert (found.outcome, len(found.samples)) == ("agreed", 3)
    strict = model(samples, step="The red box holds apples", behind=("Answer: none",))
    found = run(strict, rule=Rule(2, at="step", alike=0.9))
    assert [one.number for one in found.handed] == [1]
    assert (found.outcome, found.answer, len(found.samples)) == ("agreed", samples[0], 3)


def test_examples_that_pass_count_behind_the_step_as_before_it() -> None:
    class Examples:
        async def report(self, query: str, answer: str) -> ExampleReport | None:
            assert query == GOAL
            return ExampleReport("25" in answer.rpartition("Answer")[2], "")

    found = run(model([RIGHT, SLIP, SLIP]), examples=Examples(), rule=Rule(3, 1.0, at="step"))
    assert (found.outcome, found.answer) == ("agreed", RIGHT)


def test_one_budget_and_one_deadline_hold_for_every_round() -> None:
    llm = model([RIGHT, SLIP, RIGHT], prices={"big": PRICE})
    whole = PRICE.cost_usd(4000, 100)
    found = run(llm, Task(GOAL, max_tokens=100), budget_usd=whole / 4)
    assert found.usage.cost_usd is not None
    assert found.usage.cost_usd <= whole / 4
    late = run(model([RIGHT, SLIP, RIGHT], delays_s={"big": 30.0}), deadline_s=0.3)
    assert late.error is not None
    assert late.error.type == "deadline"


def test_being_cancelled_cancels_the_samples_behind_the_step() -> None:
    llm = model([SLIP, LOST, SLIP])
    slow = ScriptedModel(llm.replies)

    async def main() -> None:
        work = asyncio.create_task(
            deliberate(GOAL, cheap="small", strong="big", rule=AT_STEP, delegator=Delegator(slow))
        )
        while not slow.requests_of("big"):
            await asyncio.sleep(0)
        slow.delays_s = {"small": 30.0}
        while slow.in_flight < 3:
            await asyncio.sleep(0)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    asyncio.run(main())
    assert (slow.in_flight, slow.cancelled) == (0, 3)


def test_a_parent_is_told_which_steps_were_handed_over() -> None:
    told = json.loads(json.dumps(run(model([RIGHT, SLIP, RIGHT])).to_json(), allow_nan=False))
    assert told["handed_steps"] == [{"number": 2, "text": "42 - 17 = 25"}]
    assert (told["outcome"], told["parted_at_step"]) == ("agreed", 2)
    assert told["models"] == ["small", "big"]
    whole = run(model([RIGHT, SLIP, RIGHT], behind=(LOST,))).to_json()
    assert (whole["outcome"], whole["models"]) == ("delegated", ["big"])
    nothing = run(model([RIGHT, SLIP, RIGHT], step="```\n```")).to_json()
    assert nothing["handed_steps"] == [{"number": 2, "text": None}]


def test_a_score_reaches_the_step_an_answer_stands_on_and_no_sample_that_was_dropped(
    tmp_path: Path,
) -> None:
    log = EpisodeLog(tmp_path / "episodes.jsonl")

    slipped: list[str] = []

    def credited(task: Task, **script: Any) -> list[tuple[str, float | None]]:
        delegator = Delegator(model([RIGHT, SLIP, RIGHT], **script), episodes=log)
        done = run(model([]), task, delegator=delegator)
        assert done.episode is not None
        # Samples run at once: which of them gets the second reply is not settled.
        slipped[:] = [sample.id for sample in done.samples if sample.answer == SLIP]
        log.finish(done.episode, Grading(1.0, "human"))
        episode = read_episodes(log.path).episodes[-1]
        return sorted(
            (node.id.rsplit("/", 1)[-1], credit(episode, node).score) for node in episode.nodes
        )

    agreed = credited(Task(GOAL))
    assert len(slipped) == 1
    assert [name for name, score in agreed if score is None] == slipped
    assert ("step", 1.0) in agreed
    whole = credited(Task(GOAL), behind=(LOST,))
    assert [(name, score) for name, score in whole if score is not None] == [("strong", 1.0)]
    # A step is no answer: the task's own grader does not judge it.
    graded = credited(
        Task(GOAL, grade=lambda answer: Grading(float("25" in answer), "exact_match"))
    )
    assert ("step", 1.0) in graded
