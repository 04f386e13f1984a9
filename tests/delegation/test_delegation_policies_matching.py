"""The policy of matching: who does which step, and who does it after a worker that fails."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from tests.delegation.policy_samples import (
    MATCHING,
    REFUSING,
    SETTINGS,
    TRANSLATOR,
    WEATHER,
    Words,
    agreeing,
    delegated,
    seen,
    slowly,
)
from tests.delegation.scripted import DOWN, ScriptedModel

from masrouter.delegation.delegator import Delegator
from masrouter.delegation.naming.settings import Settings
from masrouter.delegation.policies.specs import Match
from masrouter.delegation.query import read_query
from masrouter.delegation.tasks import Task
from masrouter.router import Router


class TestMatching:
    def test_each_step_goes_to_the_worker_that_fits_and_the_others_to_the_model(self) -> None:
        llm = ScriptedModel({"small": "a poem of it"})
        goal = "Translate the text and then write a poem about it."
        (result,) = delegated(
            llm, Task(goal, "hello", model="fitting", max_tokens=9, id="job"),
            workers=[TRANSLATOR, WEATHER],
        ).results  # fmt: skip
        assert (result.answer, result.models) == ("a poem of it", ("small",))
        assert result.usage.cost_usd == pytest.approx(llm.billed_usd + 0.5)
        assert result.policy is not None
        assert result.policy["how"] == "translator -> small"
        assert [step["asked"] for step in result.policy["steps"]] == ["translator", "small"]
        (query,) = seen(llm, "small")
        assert query.results == {"job-step-1": "<hello>"}
        assert llm.requests[0].max_tokens == 9

    def test_a_task_that_no_worker_fits_stays_whole(self) -> None:
        llm = agreeing()
        (result,) = delegated(
            llm, Task("Add up.", "1, 2", model="fitting"), workers=[TRANSLATOR]
        ).results
        assert (result.answer, result.models) == ("Answer: 4", ("small",))
        assert [(q.goal, q.context) for q in seen(llm, "small")] == [("Add up.", "1, 2")]

    def test_a_step_that_fails_fails_the_task_where_nobody_else_may_do_it(self) -> None:
        llm = agreeing()
        (result,) = delegated(
            llm, Task("Translate it and then write it down.", "a", model="strict"),
            workers=[REFUSING],
        ).results  # fmt: skip
        assert result.error is not None
        assert (result.error.type, result.answer) == ("worker", None)
        assert "no paper" in result.error.message
        assert (llm.requests, (result.policy or {})["outcome"]) == ([], "failed")

    @pytest.mark.parametrize("goal", ["Translate this.", "Translate this:\n\nhello there"])
    def test_after_a_worker_that_fails_the_model_does_the_task_as_it_was_given(
        self, goal: str
    ) -> None:
        llm = agreeing()
        (result,) = delegated(
            llm, Task(goal, "For Bo.", model="fitting", kind="letters"), workers=[REFUSING]
        ).results
        assert (result.error, result.answer, result.models) == (None, "Answer: 4", ("small",))
        assert [(q.goal, q.context) for q in seen(llm, "small")] == [(goal, "For Bo.")]
        assert result.usage.cost_usd == pytest.approx(llm.billed_usd)
        told = result.to_json()["policy"]
        assert (told["outcome"], told["how"]) == ("fell_back", "small after translator failed")
        (step,) = told["steps"]
        assert (step["asked"], step["instead_of"]["worker"]) == ("small", "translator")
        assert step["instead_of"]["cost_usd"] == 0.0
        assert "OSError: no paper" in step["instead_of"]["error"]

    def test_a_chain_goes_on_after_each_worker_that_fails(self) -> None:
        llm = ScriptedModel({"small": ["hallo", "a poem of it", "sunny"]})
        dry = replace(WEATHER, run=REFUSING.run)
        (result,) = delegated(
            llm,
            Task(
                "Translate it, then write a poem about it, and then check the weather there:\n\n"
                "hello", "For Bo.", model="fitting", id="job",
            ),
            workers=[REFUSING, dry],
        ).results  # fmt: skip
        assert (result.error, result.answer) == (None, "sunny")
        first, poem, last = seen(llm, "small")
        assert (first.goal, first.context) == ("Translate it", "For Bo.\n\nhello")
        assert (poem.goal, poem.results) == ("write a poem about it", {"job-step-1": "hallo"})
        assert last.goal == "check the weather there"
        assert read_query(f"x\n\n{last.context}").results == {"job-step-2": "a poem of it"}
        assert result.policy is not None
        assert result.policy["how"] == (
            "small after translator failed -> small -> small after weather failed"
        )
        assert [step["instead_of"] is None for step in result.policy["steps"]] == [
            False, True, False,
        ]  # fmt: skip

    def test_after_a_long_text_a_step_falls_back_as_well(self) -> None:
        long = replace(TRANSLATOR, run=lambda _: "x" * 200_000)
        broken = replace(WEATHER, run=REFUSING.run)
        (result,) = delegated(
            agreeing(),
            Task("Translate it and then compare it with the weather report.", "a", model="fitting"),
            workers=[long, broken],
        ).results
        assert (result.error, result.answer) == (None, "Answer: 4")

    def test_a_worker_that_fails_is_not_asked_again_by_another_name(self) -> None:
        asked: list[str] = []

        def refuse(text: str) -> str:
            asked.append(text)
            raise OSError

        settings = Settings(
            aliases={"own": "translator"},
            policies={"mine": Match(otherwise="own", matching=MATCHING)},
        )
        (result,) = delegated(
            agreeing(), Task("Translate it.", model="mine"), settings=settings,
            workers=[replace(REFUSING, run=refuse)],
        ).results  # fmt: skip
        assert result.error is not None
        assert (result.error.type, len(asked)) == ("worker", 1)

    def test_a_long_goal_is_told_in_short(self) -> None:
        goal = "Translate " + "x" * 90_000
        (result,) = delegated(agreeing(), Task(goal, model="fitting"), workers=[TRANSLATOR]).results
        assert result.answer == f"<{goal}>"
        assert len(json.dumps(result.policy)) < 2000

    def test_what_a_worker_did_before_is_kept_and_paid_for_once(self) -> None:
        llm = ScriptedModel({"small": "sunny"})
        dry = replace(WEATHER, run=REFUSING.run, usd_per_call=0.0)
        (result,) = delegated(
            llm, Task("Translate it, then check the weather there.", "hello", model="fitting"),
            workers=[TRANSLATOR, dry],
        ).results  # fmt: skip
        assert result.usage.cost_usd == pytest.approx(0.5 + llm.billed_usd)
        (query,) = seen(llm, "small")
        assert "<hello>" in query.context

    def test_a_model_that_fails_too_fails_the_task_and_is_asked_once(self) -> None:
        llm = ScriptedModel({"small": DOWN})
        (result,) = delegated(
            llm, Task("Translate it.", "x", model="fitting"), workers=[REFUSING]
        ).results
        assert result.error is not None
        assert result.error.type == "provider"
        assert result.policy is not None
        assert result.policy["outcome"] == "failed"
        assert result.policy["how"] == "small after translator failed"
        assert len(seen(llm, "small")) == len(llm.requests) == 1

    def test_what_the_worker_is_not_to_blame_for_is_tried_by_nobody_else(self) -> None:
        llm = agreeing()
        (dear,) = delegated(
            llm, Task("Translate it.", "x", model="fitting"), workers=[TRANSLATOR], budget_usd=0.1
        ).results
        slow = replace(TRANSLATOR, run=slowly)
        (late,) = delegated(
            llm, Task("Translate it.", "x", model="fitting"), workers=[slow], deadline_s=0.05
        ).results
        dry = replace(WEATHER, run=REFUSING.run)
        (same,) = delegated(llm, Task("The weather?", model="only"), workers=[dry]).results
        types = [one.error and one.error.type for one in (dear, late, same)]
        assert types == ["budget", "deadline", "worker"]
        assert llm.requests == []

    def test_the_encoder_is_the_routers_or_loaded_once(
        self, router: Router, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        loaded: list[Words] = []

        def load() -> Words:
            loaded.append(Words())
            return loaded[-1]

        monkeypatch.setattr("masrouter.delegation.delegator.load_encoder", load)
        assert Delegator(agreeing(), router=router).encoder().identity == router.encoder.identity
        delegator = Delegator(agreeing(), SETTINGS, workers=[TRANSLATOR])
        assert loaded == []
        tasks = [Task("Translate it.", "x", model="fitting") for _ in range(3)]
        assert not asyncio.run(delegator.delegate_tasks(tasks)).failed
        assert len(loaded) == 1

    def test_an_encoder_that_the_rule_is_not_for_is_said(self) -> None:
        settings = Settings(policies={"fitting": Match(otherwise="small")})
        (result,) = delegated(
            agreeing(), Task("a", model="fitting"), settings=settings, workers=[WEATHER]
        ).results
        assert result.error is not None
        assert "'words'" in result.error.message
        assert (result.policy or {})["outcome"] == "failed"
