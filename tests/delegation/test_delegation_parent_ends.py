"""How a parent's run ends, and what is kept of it: books, events, the log of episodes."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from pathlib import Path

import pytest
from tests.delegation.parent_samples import (
    boss,
    calls,
    heard,
    one,
    run,
    several,
)
from tests.delegation.scripted import DOWN, PRICE, ScriptedModel

from masrouter.delegation.delegator import Delegator
from masrouter.delegation.episodes.log import EpisodeLog, read_episodes
from masrouter.delegation.naming.settings import Settings
from masrouter.delegation.parent import ParentRun, run_parent
from masrouter.delegation.tasks import (
    DelegationError,
    TaskEnded,
    TaskEvent,
    TaskRouted,
    TaskStarted,
    TaskWorking,
)
from masrouter.execution import Ledger
from masrouter.llms import (
    ChatRequest,
    Completion,
)
from masrouter.llms.simulated import SimulatedProvider, SimulatedTask

# Ends --------------------------------------------------------------------------------------------


def test_a_provider_that_fails_under_the_parent_leaves_what_was_done() -> None:
    done = run(boss(one(), DOWN))
    assert done.answer is None
    assert done.error is not None
    assert (done.error.type, done.error.retryable) == ("provider", True)
    assert [result.answer for result in done.results] == ["42"]


def test_a_client_that_breaks_ends_the_run_as_an_internal_error() -> None:
    done = run(boss(ValueError("secret")))
    assert done.error is not None
    assert done.error.type == "internal"
    assert "secret" not in done.error.message


def test_a_deadline_ends_workers_first_and_then_the_parent() -> None:
    llm = boss(one(), "done")
    llm.delays_s = {"tiny": 30}
    done = run(llm, deadline_s=0.2)
    assert done.error is not None
    assert (done.error.type, done.results[0].error and done.results[0].error.type) == (
        "deadline",
        "deadline",
    )


def test_cancelling_the_parent_cancels_its_workers() -> None:
    llm = boss(several({"goal": "Add up 1."}, {"goal": "Add up 2."}), "done")
    llm.delays_s = {"tiny": 30}

    async def scene() -> None:
        delegator = Delegator(llm, Settings(default="tiny"))
        work = asyncio.create_task(run_parent("What?", model="boss", delegator=delegator))
        while llm.in_flight < 2:
            await asyncio.sleep(0.001)
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work

    asyncio.run(scene())
    assert (llm.cancelled, llm.in_flight) == (2, 0)


# Books and records -------------------------------------------------------------------------------


def test_parent_and_workers_of_all_levels_share_one_ledger() -> None:
    def child(request: ChatRequest) -> Completion | str:
        return "summed" if heard(request) else several({"goal": "Add 1."}, {"goal": "Add 2."})

    llm = boss(
        calls(
            ("delegate_task", {"goal": "Sum.", "model": "mid", "may_delegate": True}),
            ("delegate_task", {"goal": "Add 3."}),
        ),
        "done",
        mid=child,
    )
    books = Ledger(1.0)
    done = run(llm, within=books, budget_usd=0.5)
    assert len(llm.requests) == 2 + 2 + 3
    assert books.spent_usd == pytest.approx(llm.billed_usd)
    assert done.usage.cost_usd == pytest.approx(llm.billed_usd)
    assert done.own_usage.cost_usd == pytest.approx(2 * PRICE.cost_usd(20, 1))
    assert (books.reserved_usd, done.charged_usd) == (0, 0)
    json.dumps(done.to_json(), allow_nan=False)


def test_an_unknown_price_under_a_budget_is_refused_before_anything_is_sent() -> None:
    llm = boss("done")
    llm.prices = {"boss": None}
    with pytest.raises(DelegationError) as refused:
        run(llm, budget_usd=1.0)
    assert refused.value.error.type == "unknown_price"
    assert llm.requests == []


def test_events_tell_every_task_apart() -> None:
    def child(request: ChatRequest) -> Completion | str:
        return "summed" if heard(request) else one()

    twice = calls(("delegate_task", {"goal": "A."}), ("delegate_task", {"goal": "B."}))
    llm = boss(twice, one(model="mid", may_delegate=True), "done", mid=child)
    events: list[TaskEvent] = []
    done = run(llm, on_event=events.append)
    ended = [event.result.id for event in events if isinstance(event, TaskEnded)]
    assert sorted(ended) == [
        "1.1/task-1",
        "1.2/task-1",
        "2.1/task-1",
        "2.1/task-1/1.1/task-1",
    ]
    for kind in (TaskRouted, TaskStarted):
        assert sorted(event.id for event in events if isinstance(event, kind)) == sorted(ended)
    assert {event.id for event in events if isinstance(event, TaskWorking)} == set(ended)
    assert {result.id for result in done.results} == {id for id in ended if id.count("/") == 1}


def test_a_listener_that_raises_ends_nothing() -> None:
    def bad(event: TaskEvent) -> None:
        raise RuntimeError("listener")

    async def scene() -> ParentRun:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        delegator = Delegator(boss(one(), "done"), Settings(default="tiny"))
        return await run_parent("What?", model="boss", delegator=delegator, on_event=bad)

    assert asyncio.run(scene()).answer == "done"


def test_the_log_of_episodes_holds_the_tree(tmp_path: Path) -> None:
    def child(request: ChatRequest) -> Completion | str:
        return "summed" if heard(request) else one("Add 1.")

    log = EpisodeLog(tmp_path / "episodes.jsonl")
    llm = boss(one("Sum.", model="mid", may_delegate=True), one("Add 2."), "done", mid=child)
    done = run(llm, episodes=log)
    (episode,) = read_episodes(log.path).episodes
    assert (episode.id, episode.goal) == (done.episode, "What is it?")
    top = episode.under(None)
    assert [node.query for node in top] == ["Sum.", "Add 2."]
    assert [node.query for node in episode.under(top[0].id)] == ["Add 1."]
    assert [result.node for result in done.results] == [node.id for node in top]


def test_the_parent_is_asked_the_question_with_its_context_and_offered_the_tools() -> None:
    llm = boss("done")
    run(llm, goal="What is it?", context="It is big.")
    (request,) = llm.requests
    assert [tool.name for tool in request.tools] == [
        "delegate_task",
        "delegate_tasks",
        "list_models",
    ]
    assert "may_delegate" in request.tools[0].parameters["properties"]
    question = request.messages[1].content
    assert "What is it?" in question
    assert "It is big." in question


def test_what_names_no_model_and_has_no_default_is_done_by_the_parents_own_model() -> None:
    llm = ScriptedModel({"boss": [one(), "worked", "done"]})
    done = run(llm, settings=Settings())
    assert (done.answer, done.results[0].answer) == ("done", "worked")
    assert done.results[0].source == "parent"
    assert llm.requests[1].tools == ()


def test_the_simulated_provider_as_a_parent_answers_in_text_and_hands_out_nothing() -> None:
    task = SimulatedTask("What is 2 + 2?", "math", 1.0, "4", ("5",))
    done = run(
        SimulatedProvider([task]), task.query, model="gpt-4o", settings=Settings(), budget_usd=1.0
    )
    assert done.answer is not None
    assert done.results == ()
