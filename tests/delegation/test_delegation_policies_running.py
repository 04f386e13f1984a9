"""Tasks done by policies: one result for all of it, within the same books, time and episode."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.delegation.parent_samples import heard, one, run
from tests.delegation.policy_samples import (
    REFUSING,
    SETTINGS,
    TRANSLATOR,
    TWO_OF_THREE,
    WEATHER,
    agreeing,
    delegated,
    in_turn,
    parting,
    seen,
)
from tests.delegation.scripted import DOWN, PRICE, ScriptedModel
from tests.delegation.tool_samples import call, errors_in

from masrouter.delegation.delegator import Delegator, delegate_task, delegate_tasks
from masrouter.delegation.deliberation.agreement import Rule
from masrouter.delegation.episodes.credit import records
from masrouter.delegation.episodes.log import EpisodeLog, read_episodes
from masrouter.delegation.naming.settings import MOST_NAME, Settings
from masrouter.delegation.policies.specs import Deliberate
from masrouter.delegation.query import read_query
from masrouter.delegation.tasks import (
    Grading,
    Task,
    TaskEnded,
    TaskRouted,
    TaskStarted,
    TaskWorking,
)
from masrouter.execution import CallEnded, Ledger
from masrouter.llms.chat import ChatRequest
from masrouter.router import Router
from masrouter.types import Agent, Plan


class TestDeliberating:
    def test_an_answer_on_which_samples_agree_stands(self) -> None:
        llm = agreeing()
        (result,) = delegated(llm, Task("2 + 2?", model="thought", id="sum")).results
        assert (result.id, result.goal, result.asked) == ("sum", "2 + 2?", "thought")
        assert (result.answer, result.models, result.error) == ("Answer: 4", ("small",), None)
        assert result.plan == Plan("cot", (Agent(None, "small"),))
        assert result.run is not None
        assert result.usage.cost_usd == pytest.approx(llm.billed_usd)
        assert len(llm.requests) == 3
        assert result.policy is not None
        told = result.to_json()["policy"]
        assert (told["name"], told["kind"], told["outcome"]) == ("careful", "deliberate", "agreed")
        assert (told["how"], told["agreement"]) == ("3 of 3 agree", 1.0)
        saved = PRICE.cost_usd(20, 2) - llm.billed_usd
        assert told["saved_usd"] == pytest.approx(saved)
        json.dumps(result.to_json(), allow_nan=False)

    def test_else_the_strong_models_does_and_all_of_it_is_paid_for(self) -> None:
        llm = parting()
        (result,) = delegated(llm, Task("2 + 2?", model="careful")).results
        assert (result.answer, result.models) == ("Answer: 5", ("big",))
        assert result.plan == Plan("cot", (Agent(None, "big"),))
        assert result.usage.cost_usd == pytest.approx(llm.billed_usd)
        assert len(llm.requests) == 4
        assert result.policy is not None
        assert result.policy["how"] == result.policy["outcome"] == "delegated"
        assert result.policy["agreement"] == pytest.approx(1 / 3)

    def test_the_router_may_choose_the_strong_worker(
        self, router: Router, texts: list[str]
    ) -> None:
        models = {model for plan in router.plans for model in plan.models}
        llm = parting(**dict.fromkeys(models, "Answer: 5"))
        (result,) = delegated(llm, Task(texts[0], model="routed"), router=router).results
        assert result.error is None
        assert result.decision is not None
        assert result.plan == result.decision.plan
        assert set(result.models) <= models

    def test_what_lacks_information_is_asked_for_and_costs_nothing(self) -> None:
        llm = agreeing()
        (result,) = delegated(llm, Task("Summarise the report below.", model="careful")).results
        assert result.answer is None
        assert result.error is not None
        assert result.error.type == "missing_information"
        assert result.policy is not None
        assert result.error.asked == result.policy["question"]
        assert result.policy["how"] == f"asks: {result.policy['question']}"
        assert (llm.requests, result.usage.cost_usd, result.models) == ([], 0.0, ())

    def test_a_strong_worker_that_fails_fails_the_task_with_what_it_cost(self) -> None:
        llm = parting(big=DOWN)
        (result,) = delegated(llm, Task("2 + 2?", model="careful")).results
        assert result.error is not None
        assert result.error.type == "provider"
        assert result.answer is None
        assert result.models == ("small",)  # who answered, though no answer stands
        assert result.usage.cost_usd == pytest.approx(llm.billed_usd)

    def test_a_step_may_be_all_that_is_delegated(self) -> None:
        def cheap(request: ChatRequest) -> str:
            if "steps_so_far" in request.messages[-1].content:
                return "1. 2 + 3 = 5\n2. 5 * 4 = 20\nAnswer: 20"
            slip = next(slips)
            return f"1. 2 + 3 = 5\n2. 5 * 4 = {slip}\nAnswer: {slip}"

        slips = iter((24, 20, 25))
        llm = ScriptedModel({"small": cheap, "big": "2. 5 * 4 = 20"})
        rule = Rule(3, 0.6, at="step")
        settings = Settings(
            policies={"by-step": Deliberate(cheap="small", strong="big", rule=rule)}
        )
        (result,) = delegated(llm, Task("(2+3)*4?", model="by-step"), settings=settings).results
        assert result.error is None
        assert (result.answer or "").endswith("Answer: 20")
        assert result.models == ("small", "big")
        assert result.usage.cost_usd == pytest.approx(llm.billed_usd)
        assert result.policy is not None
        assert result.policy["how"].endswith("agree after step 2")


class TestIterating:
    def test_what_a_draft_lacks_is_asked_of_workers_and_of_the_subtasks_model(self) -> None:
        llm = ScriptedModel(
            {
                "small": [
                    "It depends.\nMissing: weather in Oslo\nMissing: number of seats",
                    "Stay inside.\nMissing: nothing",
                ],
                "big": "12 seats",
            }
        )
        (result,) = delegated(
            llm, Task("Plan it.", "For June.", model="researched"), workers=[WEATHER]
        ).results
        assert (result.answer, result.models) == ("Stay inside.", ("small",))
        assert result.usage.cost_usd == pytest.approx(llm.billed_usd + 0.25)
        assert result.policy is not None
        assert result.policy["how"] == "2 rounds, 2 found"
        assert [(r["goal"], r["models"]) for r in result.policy["requests"]] == [
            ("weather in Oslo", ["weather"]), ("number of seats", ["big"]),
        ]  # fmt: skip
        last = seen(llm, "small")[-1]
        assert all(found in last.context for found in ("For June.", "rain", "12 seats"))

    def test_what_is_lacking_is_told_in_short(self) -> None:
        lacking = "".join(f"\nMissing: {n} {'x' * 2000}" for n in range(500))
        llm = ScriptedModel({"small": f"A draft.{lacking}", "big": "unused"})
        (result,) = delegated(llm, Task("Do it.", model="researched")).results
        assert (result.answer, (result.policy or {})["how"]) == (
            "A draft.", "1 round, 0 found, lacks 500",
        )  # fmt: skip
        assert len(json.dumps(result.policy)) < 20_000

    def test_without_workers_no_encoder_is_loaded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def never() -> None:
            raise AssertionError("an encoder was loaded")

        monkeypatch.setattr("masrouter.delegation.delegator.load_encoder", never)
        llm = ScriptedModel({"small": "Done.\nMissing: nothing", "big": "unused"})
        result = delegate_task(Task("Do it.", model="researched"), llm=llm, settings=SETTINGS)
        assert (result.answer, result.policy and result.policy["how"]) == ("Done.", "1 round")


class TestInABatch:
    @pytest.mark.parametrize("policy", ["careful", "researched", "fitting"])
    def test_one_at_a_time_is_enough(self, policy: str) -> None:
        lacking = ["A.\nMissing: weather in Oslo", "B.\nMissing: nothing"]
        llm = ScriptedModel({"small": lacking * 9, "big": "Answer: 5"})
        goal = "Translate it and then write it down."
        batch = delegated(
            llm, *(Task(goal, "x", model=policy, id=f"t{n}") for n in range(3)),
            Task("after", model="big", needs=("t2",)),
            max_concurrency=1, workers=[TRANSLATOR, WEATHER], deadline_s=30,
        )  # fmt: skip
        assert not batch.failed

    @pytest.mark.parametrize("policy", ["careful", "researched", "fitting"])
    def test_the_longest_id_that_a_task_may_have_does_for_its_parts(self, policy: str) -> None:
        llm = ScriptedModel({"small": "Fine.\nMissing: nothing", "big": "unused"})
        (result,) = delegated(
            llm, Task("Translate it and then write it down.", "x", policy, "i" * MOST_NAME),
            workers=[TRANSLATOR],
        ).results  # fmt: skip
        assert (result.id, result.error) == ("i" * MOST_NAME, None)

    def test_needed_answers_reach_a_policys_models_and_its_own_reaches_others(self) -> None:
        llm = agreeing(first="twenty")
        batch = delegated(
            llm,
            Task("Count.", model="first", id="count"),
            Task("Add.", "In euros.", model="careful", id="sum", needs=("count",)),
            Task("Check.", model="big", needs=("sum",)),
        )
        assert not batch.failed
        for query in seen(llm, "small"):
            inner = read_query(f"{query.goal}\n\n{query.context}")
            assert (query.goal, inner.results) == ("Add.", {"count": "twenty"})
            assert query.context.startswith("In euros.\n\n")
        assert seen(llm, "big")[0].results == {"sum": "Answer: 4"}

    @pytest.mark.parametrize("policy", ["careful", "researched", "fitting"])
    def test_only_a_tasks_own_text_is_held_against_its_limit(self, policy: str) -> None:
        llm = agreeing(first="x" * 300)
        batch = delegated(
            llm,
            Task("Count.", model="first", id="count"),
            Task("a " * 50, model=policy, needs=("count",)),
            Task("a " * 51, model=policy),
            settings=replace(SETTINGS, max_goal_characters=100), workers=[TRANSLATOR],
        )  # fmt: skip
        assert [one.error and one.error.type for one in batch.results] == [None, None, "limit"]

    def test_a_worker_is_given_needed_answers_as_plain_text(self) -> None:
        batch = delegated(
            agreeing(first="hello"),
            Task("Say it.", model="first", id="said"),
            Task("Translate it.", "Once:", model="fitting", needs=("said",)),
            workers=[TRANSLATOR],
        )
        assert batch.results[1].answer == "<Once:\n\nhello>"

    def test_everything_that_happens_is_told_as_the_tasks_own(self) -> None:
        events: list[Any] = []
        delegated(parting(), Task("a", model="careful", id="t"), on_event=events.append)
        ids = {event.result.id if isinstance(event, TaskEnded) else event.id for event in events}
        assert ids == {"t"}
        routed, started, *working, ended = events
        assert isinstance(routed, TaskRouted)
        assert (routed.plan, routed.target.policy) == (None, "careful")
        assert isinstance(started, TaskStarted)
        calls = [e.event for e in working if isinstance(e, TaskWorking)]
        assert len(calls) == len(working)
        assert sum(isinstance(event, CallEnded) for event in calls) == 4
        assert isinstance(ended, TaskEnded)

    def test_all_of_it_stays_within_the_budget_of_the_batch(self) -> None:
        llm = parting()
        enough = PRICE.cost_usd(500, 8)  # for one call's worst cost, and little more
        ledger = Ledger()
        batch = delegated(
            llm, *(Task("a", model="careful", max_tokens=8) for _ in range(4)),
            budget_usd=enough, within=ledger,
        )  # fmt: skip
        assert ledger.spent_usd == pytest.approx(llm.billed_usd)
        assert ledger.spent_usd <= enough
        assert {result.error.type for result in batch.failed if result.error} == {"budget"}
        assert batch.usage.cost_usd == pytest.approx(llm.billed_usd)

    def test_time_is_over_for_all_of_it_at_once(self) -> None:
        llm = agreeing()
        llm.delays_s = {"small": 5.0, "big": 5.0}
        (result,) = delegated(llm, Task("a", model="careful"), deadline_s=0.05).results
        assert result.error is not None
        assert result.error.type == "deadline"

    def test_being_cancelled_cancels_what_it_handed_out(self) -> None:
        llm = agreeing()
        llm.delays_s = {"small": 30.0}

        async def cut_off() -> None:
            delegator = Delegator(llm, SETTINGS)
            work = asyncio.create_task(delegator.delegate_task(Task("a", model="careful")))
            while llm.in_flight < 3:
                await asyncio.sleep(0.001)
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work

        asyncio.run(cut_off())
        assert (llm.cancelled, llm.in_flight) == (3, 0)

    def test_auto_leaves_a_policy_what_it_is_going_to_call(
        self, router: Router, texts: list[str]
    ) -> None:
        models = sorted({model for plan in router.plans for model in plan.models})
        settings = Settings(
            policies={
                "mine": Deliberate(cheap=models[0], strong=models[-1], rule=TWO_OF_THREE),
                "routed": Deliberate(cheap=models[0], strong="auto", rule=TWO_OF_THREE),
            }
        )

        def committed(*others: str) -> float:
            llm = ScriptedModel(dict.fromkeys(models, "Answer: 4"))
            auto, *_ = delegated(
                llm, Task(texts[0], model="auto"), *(Task(texts[1], model=o) for o in others),
                settings=settings, router=router, budget_usd=10.0,
            ).results  # fmt: skip
            assert auto.decision is not None
            (said,) = [why for why in auto.decision.reasons if why.startswith("budget: ")]
            before, _, _ = said.partition(" of it committed")
            return float(before.split()[-1]) if "committed" in said else 0.0

        cheap, strong = committed(models[0]), committed(models[-1])
        assert committed() == 0.0 < cheap
        assert committed("mine") == pytest.approx(3 * cheap + strong, rel=1e-3)
        assert committed("routed") == pytest.approx(3 * cheap, rel=1e-3)


class TestGrades:
    @staticmethod
    def counting(graded: list[str]) -> Callable[[str], Grading]:
        def grade(answer: str) -> Grading:
            graded.append(answer)
            return Grading(float("5" in answer), "exact_match")

        return grade

    def test_only_the_answer_that_stands_is_graded(self) -> None:
        graded: list[str] = []
        task = Task("a", model="careful", grade=self.counting(graded))
        (result,) = delegated(parting(), task).results
        assert result.grading == Grading(1.0, "exact_match")
        assert graded == ["Answer: 5"]

    def test_what_is_logged_has_grades_of_its_own_and_none_is_given_twice(
        self, tmp_path: Path
    ) -> None:
        graded: list[str] = []
        log = EpisodeLog(tmp_path / "episodes.jsonl")
        task = Task("a", model="careful", grade=self.counting(graded))
        (result,) = delegated(parting(), task, episodes=log).results
        assert result.grading == Grading(1.0, "exact_match")
        assert sorted(graded) == [f"Answer: {n}" for n in (10, 11, 12, 5)]
        (episode,) = read_episodes(log.path).episodes
        scores = {node.id: node.grading and node.grading.score for node in episode.nodes}
        assert sorted(scores.values(), key=str) == [0.0, 0.0, 0.0, 1.0]
        assert scores[result.node or ""] == 1.0


class TestEpisodes:
    def test_the_parts_are_logged_and_the_whole_is_not_counted_again(self, tmp_path: Path) -> None:
        log = EpisodeLog(tmp_path / "episodes.jsonl")
        llm = parting(small=in_turn("1", "2", "3", "Fine.\nMissing: nothing"))
        batch = delegated(
            llm,
            Task("a", model="careful", id="one", kind="math"),
            Task("Translate it.", "x", model="fitting"),
            Task("b", model="researched", needs=("one",), grade=lambda _: Grading(0.5, "judge")),
            workers=[TRANSLATOR], episodes=log,
        )  # fmt: skip
        assert not batch.failed
        (episode,) = read_episodes(log.path).episodes
        rows = list(records(log.path))
        assert len(rows) == len(episode.nodes) == 6
        logged = sum(row.usage.cost_usd or 0.0 for row in rows)
        assert logged == pytest.approx(batch.usage.cost_usd)
        nodes = {node.id: node for node in episode.nodes}
        careful, fitting, researched = (nodes[result.node or ""] for result in batch.results)
        assert careful.plan == Plan("cot", (Agent(None, "big"),))
        assert careful.kind == "math"
        assert fitting.plan == Plan("io", (Agent(None, "translator"),))
        # A draft is not graded, but the answer that becomes of it is.
        assert researched.grading == Grading(0.5, "judge")
        lost = {node.id for node in episode.nodes if node.unused}
        assert len(lost) == 3

    def test_a_worker_that_failed_is_logged_beside_who_did_its_step(self, tmp_path: Path) -> None:
        log = EpisodeLog(tmp_path / "episodes.jsonl")
        goal = "Translate it, then write it down."
        task = Task(goal, "x", model="fitting", grade=lambda _: Grading(0.5, "judge"))
        (result,) = delegated(agreeing(), task, workers=[REFUSING], episodes=log).results
        rows = [(str(row.plan), row.score, row.error is None) for row in records(log.path)]
        assert rows == [
            ("io(translator)", None, False), ("cot(small)", None, True), ("cot(small)", 0.5, True),
        ]  # fmt: skip
        assert result.grading == Grading(0.5, "judge")

    def test_one_that_failed_before_anything_ran_is_logged_as_any_failure(
        self, tmp_path: Path
    ) -> None:
        log = EpisodeLog(tmp_path / "episodes.jsonl")
        (result,) = delegated(
            agreeing(), Task("Summarise the report below.", model="careful"), episodes=log
        ).results
        (episode,) = read_episodes(log.path).episodes
        (node,) = episode.nodes
        assert node.id == result.node
        assert (node.error or "").startswith("missing_information: ")
        assert list(records(log.path)) == []


class TestTools:
    def test_a_parent_hands_a_task_to_a_policy_and_is_told_how_it_went(self) -> None:
        llm = ScriptedModel(
            {"boss": [one("2 + 2?", model="careful"), "It is 4."], "small": "Answer: 4",
             "big": "Answer: 5"}
        )  # fmt: skip
        done = run(llm, settings=SETTINGS)
        assert done.answer == "It is 4."
        (told,) = heard(llm.requests_of("boss")[-1])
        assert (told["status"], told["summary"]) == ("done", "Answer: 4")
        assert told["policy"]["how"] == "3 of 3 agree"
        assert done.usage.cost_usd == pytest.approx(llm.billed_usd)

    def test_the_question_to_ask_reaches_a_model_as_an_error(self) -> None:
        to = Delegator(agreeing(), SETTINGS)
        goal = {"goal": "Write to {{name}} that we are late.", "model": "careful"}
        told = call("delegate_task", goal, to)
        assert errors_in(told) == ["missing_information"]
        assert told["policy"]["question"] in told["error"]["message"]

    def test_a_whole_batch_through_plain_functions(self) -> None:
        batch = delegate_tasks(
            [Task("a"), Task("b", model="big")], llm=agreeing(), settings=SETTINGS, model="careful"
        )
        assert [result.models for result in batch.results] == [("small",), ("big",)]
