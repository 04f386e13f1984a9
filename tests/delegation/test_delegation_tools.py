"""Calls of the tools: they do what they say, and none that a model writes can break them."""

from __future__ import annotations

import asyncio
import json
import math
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.delegation.scripted import DOWN, ScriptedModel
from tests.delegation.tool_samples import MODELS, call, delegator, errors_in, model

from masrouter.delegation.delegator import Delegator
from masrouter.delegation.episodes.log import EpisodeLog
from masrouter.delegation.tasks import TaskEnded
from masrouter.delegation.tools.calling import TOOLS, call_tool, failed
from masrouter.delegation.tools.schemas import MOST_CHARACTERS
from masrouter.execution.ledger import Ledger


class TestCalls:
    def test_a_task_gives_its_answer_its_cost_and_who_answered(self) -> None:
        llm = model()
        answer = call("delegate_task", {"goal": "Name a river.", "model": "small"}, delegator(llm))
        assert answer["status"] == "done"
        assert answer["error"] is None
        assert answer["summary"] == "answer of synthetic-small"
        assert answer["models"] == ["synthetic-small"]
        assert answer["usage"]["cost_usd"] == pytest.approx(llm.billed_usd)
        assert not failed(answer)

    def test_a_worker_sees_goal_and_context_alone(self) -> None:
        llm = model()
        call(
            "delegate_task",
            {"goal": "Count the words.", "context": "one two", "model": "small"},
            delegator(llm),
        )
        (request,) = llm.requests
        sent = request.messages[-1].content
        assert "Count the words." in sent
        assert "one two" in sent

    def test_results_stand_in_the_order_of_the_tasks_and_faults_are_their_own(self) -> None:
        answer = call(
            "delegate_tasks",
            {
                "tasks": [
                    {"goal": "Name a river.", "model": "large"},
                    {"goal": "Name a lake.", "model": "openrouter:gpt-4o"},
                    {"goal": "Name a sea.", "modle": "small"},
                    {"goal": "Name a hill.", "id": "hill"},
                    {"goal": "Summarise the above."},
                    {"goal": 7, "id": "seven"},
                    {"goal": "Say it in French.", "needs": ["seven"]},
                    {"goal": "Is it high?", "needs": ["hill"]},
                ],
                "model": "small",
            },
        )
        found = answer["results"]
        assert [one["id"] for one in found] == [
            "task-1", "task-2", "task-3", "hill", "task-5", "seven", "task-7", "task-8",
        ]  # fmt: skip
        assert [one["error"] and one["error"]["type"] for one in found] == [
            None, "unknown_model", "invalid_task", None, "missing_information", "invalid_task",
            "needs", None,
        ]  # fmt: skip
        assert "'model'" in found[2]["error"]["message"]
        assert "tasks[5].goal" in found[5]["error"]["message"]
        assert found[0]["models"] == ["synthetic-large"]
        assert not failed(answer)

    def test_a_provider_that_is_down_fails_its_own_task(self) -> None:
        llm = model(**{"synthetic-small": DOWN})
        tasks = [{"goal": "a", "model": "small"}, {"goal": "b", "model": "large"}]
        answer = call("delegate_tasks", {"tasks": tasks}, delegator(llm))
        assert errors_in(answer) == ["provider"]
        assert answer["results"][1]["summary"] == "answer of synthetic-large"

    def test_a_batch_of_failures_has_failed(self) -> None:
        tasks = [{"goal": "a", "model": "none-such"}, {"goal": "b", "model": "nor-this"}]
        assert failed(call("delegate_tasks", {"tasks": tasks}))

    def test_what_nobody_can_mean_reaches_no_model(self) -> None:
        llm = model()
        answer = call("delegate_tasks", {"tasks": [{"goal": "See above."}]}, delegator(llm))
        assert errors_in(answer) == ["missing_information"]
        assert llm.requests == []

    def test_answers_that_are_no_text_can_still_be_told(self) -> None:
        llm = model(**{"synthetic-small": "half \ud800 of a pair"})
        answer = call("delegate_task", {"goal": "a", "model": "small"}, delegator(llm))
        assert answer["summary"] == "half ? of a pair"

    def test_events_and_the_parents_model_are_passed_on(self) -> None:
        seen: list[object] = []
        answer = call(
            "delegate_task", {"goal": "a"}, parent_model="synthetic-medium", on_event=seen.append
        )
        assert answer["asked_by"] == "parent"
        assert isinstance(seen[-1], TaskEnded)

    def test_a_call_that_is_cancelled_cancels_its_work(self) -> None:
        llm = ScriptedModel({"slow": "late"}, delays_s={"slow": 60})

        async def run() -> None:
            work = asyncio.create_task(
                call_tool(delegator(llm), "delegate_task", {"goal": "a", "model": "slow"})
            )
            while not llm.in_flight:
                await asyncio.sleep(0.001)
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work

        asyncio.run(run())
        assert llm.cancelled == 1
        assert llm.in_flight == 0


class TestBudgets:
    def test_a_model_that_asks_for_more_than_it_may_is_told_how_much_it_may(self) -> None:
        asked = {"goal": "a", "model": "small", "budget_usd": 5}
        answer = call("delegate_task", asked, budget_usd=0.25)
        assert answer["error"]["type"] == "budget"
        assert "0.25" in answer["error"]["message"]
        again = {**asked, "budget_usd": float(answer["error"]["nearest"][0])}
        assert call("delegate_task", again, budget_usd=0.25)["status"] == "done"

    def test_what_it_is_told_that_it_may_spend_is_never_more_than_it_may(self) -> None:
        books = Ledger(0.1234565999)
        asked = {"goal": "a", "model": "small", "budget_usd": 5}
        told = call("delegate_task", asked, within=books)["error"]["nearest"][0]
        again = call("delegate_task", {**asked, "budget_usd": float(told)}, within=books)
        assert again["status"] == "done"

    def test_calls_share_the_books_and_hear_what_is_left(self) -> None:
        llm = model()
        books = Ledger(0.5)
        to = delegator(llm)
        first = call("delegate_task", {"goal": "a", "model": "small"}, to, within=books)
        second = call("delegate_task", {"goal": "b", "model": "small"}, to, within=books)
        assert books.spent_usd == pytest.approx(llm.billed_usd)
        assert 0.5 > first["budget_left_usd"] > second["budget_left_usd"]
        assert second["budget_left_usd"] == books.left_usd

    def test_what_does_not_fit_is_an_error_and_costs_nothing(self) -> None:
        llm = model()
        answer = call("delegate_task", {"goal": "a", "model": "large", "budget_usd": 1e-9},
                      delegator(llm))  # fmt: skip
        assert answer["error"]["type"] == "budget"
        assert llm.requests == []


GOAL = '"goal": "Name a river.", "model": "small"'
BAD = {
    "unknown tool": ("delegate", "{}", "there is no tool"),
    "no JSON": ("delegate_task", "goal: do it", "not JSON"),
    "cut off": ("delegate_task", '{"goal": "a', "not JSON"),
    "nothing": ("delegate_task", "", "goal: is required"),
    "a list": ("delegate_task", "[1]", "expected an object"),
    "a string": ("delegate_tasks", '"{}"', "expected an object"),
    "null": ("delegate_task", "null", "expected an object"),
    "NaN": ("delegate_task", f'{{{GOAL}, "budget_usd": NaN}}', "NaN"),
    "infinite": ("delegate_task", f'{{{GOAL}, "budget_usd": 1e999}}', "budget_usd"),
    "negative": ("delegate_task", f'{{{GOAL}, "budget_usd": -1}}', "expected 0 to 1000000"),
    "absurd": ("delegate_task", f'{{{GOAL}, "budget_usd": 1e20}}', "expected 0 to 1000000"),
    "huge integer": ("delegate_task", f'{{{GOAL}, "max_tokens": {"9" * 5000}}}', "not JSON"),
    "half a token": ("delegate_task", f'{{{GOAL}, "max_tokens": 1.5}}', "a whole number"),
    "true tokens": ("delegate_task", f'{{{GOAL}, "max_tokens": true}}', "a whole number"),
    "a key twice": ("delegate_task", f'{{{GOAL}, "goal": "b"}}', "twice"),
    "unknown key": ("delegate_task", f'{{{GOAL}, "modell": "small"}}', "did you mean 'model'"),
    "empty goal": ("delegate_task", '{"goal": ""}', "goal: expected a text"),
    "blank goal": ("delegate_task", '{"goal": " ", "model": "small"}', "goal"),
    "number as goal": ("delegate_task", '{"goal": 7}', "goal: expected a string, got 7"),
    "no goal": ("delegate_task", '{"goal": null}', "goal: expected a string, got null"),
    "half a pair": ("delegate_task", '{"goal": "\\ud800"}', "surrogate"),
    "deep": ("delegate_task", '{"goal": ' + "[" * 200_000, "not JSON|nested too deeply"),
    "no tasks": ("delegate_tasks", '{"tasks": []}', "at least 1"),
    "tasks as text": ("delegate_tasks", '{"tasks": "[]"}', "tasks: expected a list"),
    "tasks as object": ("delegate_tasks", '{"tasks": {"goal": "a"}}', "tasks: expected a list"),
    "needs as text": ("delegate_tasks", f'{{"tasks": [{{{GOAL}, "needs": "a"}}]}}', "needs"),
    "text as task": ("delegate_tasks", '{"tasks": ["a"]}', "tasks\\[0\\]: expected an object"),
    "unknown kind": ("list_models", '{"kind": "gpt"}', "one of model, worker, plan, policy, auto"),
}


class TestBadCalls:
    @pytest.mark.parametrize(("name", "arguments", "why"), BAD.values(), ids=BAD.keys())
    def test_is_an_error_that_says_why(self, name: str, arguments: str, why: str) -> None:
        llm = model()
        answer = call(name, arguments, delegator(llm))
        errors = [one["error"] for one in answer.get("results", [answer])]
        assert [one["type"] for one in errors] == ["invalid_task"]
        assert re.search(why, errors[0]["message"]), errors[0]["message"]
        assert len(json.dumps(answer)) < 2000
        assert llm.requests == []

    @pytest.mark.parametrize("key", ["goal", "context", "model"])
    def test_a_million_characters_are_an_error_and_not_repeated(self, key: str) -> None:
        llm = model()
        asked = {"goal": "a", "model": "small", key: "x" * 1_000_000}
        answer = call("delegate_task", asked, delegator(llm))
        assert errors_in(answer)
        assert llm.requests == []
        assert len(json.dumps(answer)) < 5000

    def test_an_id_of_a_million_characters_is_its_tasks_fault(self) -> None:
        tasks = [{"goal": "a", "id": "x" * 1_000_000}, {"goal": "b"}]
        answer = call("delegate_tasks", {"tasks": tasks, "model": "small"})
        assert [one["error"] is None for one in answer["results"]] == [False, True]

    def test_arguments_beyond_the_limit_are_not_parsed(self) -> None:
        answer = call("delegate_task", '{"goal": "' + "x" * MOST_CHARACTERS + '"}')
        assert answer["error"]["type"] == "limit"

    @pytest.mark.parametrize("value", [math.nan, {1, 2}, object(), b"a"])
    def test_an_object_that_is_no_json_is_an_error(self, value: object) -> None:
        answer = call("delegate_task", {"goal": "a", "budget_usd": value})
        assert answer["error"]["type"] == "invalid_task"

    def test_nulls_and_whole_floats_are_taken_as_models_mean_them(self) -> None:
        asked = '{"goal": "a", "model": "small", "context": null, "max_tokens": 64.0}'
        assert call("delegate_task", asked)["status"] == "done"
        assert call("list_models", "")["total"] == len(MODELS)

    def test_a_fault_of_the_program_is_told_without_its_text(self) -> None:
        class Broken(ScriptedModel):
            @property
            def models(self) -> tuple[str, ...]:
                raise RuntimeError("secret")

        answer = call("list_models", {}, delegator(Broken({})))
        assert answer["error"]["type"] == "internal"
        assert "RuntimeError" in answer["error"]["message"]
        assert "secret" not in json.dumps(answer)

    def test_a_fault_of_settings_or_logs_is_told_without_the_paths_of_this_machine(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        to = Delegator(model(), episodes=EpisodeLog(tmp_path))
        answer = call("delegate_task", {"goal": "a", "model": "small"}, to)
        assert answer["error"]["type"] == "internal"
        assert str(tmp_path) not in json.dumps(answer)
        assert str(tmp_path) in caplog.text  # whoever runs the tools is told

    @settings(max_examples=50, deadline=None)
    @given(
        name=st.sampled_from([tool.name for tool in TOOLS]),
        arguments=st.text(max_size=60)
        | st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["goal", "tasks", "model", "x"]), inner)
            ),
            max_leaves=8,
        ).map(json.dumps),
    )
    def test_nothing_that_a_model_writes_raises(self, name: str, arguments: str) -> None:
        answer = call(name, arguments, delegator(ScriptedModel({})))
        assert "error" in answer or "results" in answer or "models" in answer
