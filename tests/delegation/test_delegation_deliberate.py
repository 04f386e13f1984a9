"""The cheap model a few times, and the strong one only where its samples disagree."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.delegation.scripted import DOWN, PRICE, PROMPT_TOKENS, Said, ScriptedModel

from masrouter.delegation.delegator import Delegator
from masrouter.delegation.deliberation.agreement import Rule
from masrouter.delegation.deliberation.deliberating import Deliberation, deliberate
from masrouter.delegation.deliberation.missing import MissingRule
from masrouter.delegation.episodes.credit import credit
from masrouter.delegation.episodes.log import EpisodeLog, read_episodes
from masrouter.delegation.tasks import Grading, Task, TaskEnded
from masrouter.errors import ConfigError, LogError, MasRouterError
from masrouter.llms.chat import ChatRequest
from masrouter.topologies.team import ExampleReport

STEPS = "1. 14 * 3 = 42\n2. 42 - 17 = 25\nAnswer: 25"
SLIP = "1. 3 * 14 = 42\n2. 42 + 17 = 59\nAnswer: 59"
ALL = Rule(3, 1.0)


def run(
    model: ScriptedModel, task: Task | str = "How many are left?", **options: Any
) -> Deliberation:
    options = {"delegator": Delegator(model), "rule": ALL, **options}
    return asyncio.run(deliberate(task, cheap="small", strong="big", **options))


def model(*small: Said, big: Said = "Answer: 25", **options: Any) -> ScriptedModel:
    """Calls that are in flight at once get one reply each; the last reply stays."""
    left = list(small)

    def say(request: ChatRequest) -> Said:
        return left.pop(0) if len(left) > 1 else left[0]

    return ScriptedModel({"small": say, "big": big}, **options)


def test_where_all_samples_agree_the_strong_model_is_never_called() -> None:
    llm = model("Answer: 4")
    found = run(llm)
    assert (found.outcome, found.answer, found.error) == ("agreed", "Answer: 4", None)
    assert len(llm.requests_of("small")) == 3
    assert llm.requests_of("big") == []
    assert found.usage.cost_usd == pytest.approx(llm.billed_usd)
    # What it saved is reckoned for the prompt as sent and an answer as long as the samples'.
    assert found.strong_usd == pytest.approx(PRICE.cost_usd(PROMPT_TOKENS, len("Answer: 4") // 4))
    assert found.saved_usd == pytest.approx(found.strong_usd - llm.billed_usd)


def test_where_they_disagree_the_strong_model_answers_the_whole_task() -> None:
    llm = model(STEPS, SLIP, "Answer: 25", big="Answer: 7")
    found = run(llm)
    assert (found.outcome, found.answer) == ("delegated", "Answer: 7")
    assert found.verdict is not None
    assert (found.verdict.votes, found.verdict.answer) == (2, STEPS)
    (asked,) = llm.requests_of("big")
    assert "42" not in asked.messages[-1].content
    assert found.strong is not None
    assert found.saved_usd == pytest.approx(
        -sum(sample.usage.cost_usd or 0 for sample in found.samples)
    )
    assert found.usage.cost_usd == pytest.approx(llm.billed_usd)


def test_two_of_three_are_enough_where_no_rule_is_given() -> None:
    llm = model(STEPS, SLIP, "Answer: 25")
    found = run(llm, rule=None)
    assert (found.outcome, len(found.samples)) == ("agreed", 3)


def test_asking_one_after_the_other_stops_as_soon_as_nothing_can_change() -> None:
    early = Rule(samples=5, threshold=0.6, stop_early=True)
    agreeing = model("Answer: 4")
    assert len(run(agreeing, rule=early).samples) == 3
    late = model("Answer: 4", "Answer: 5", "Answer: 4", "Answer: 4")
    found = run(late, rule=early)
    assert (found.outcome, len(found.samples)) == ("agreed", 4)
    hopeless = model("Answer: 1", "Answer: 2", "Answer: 3", "Answer: 4", "Answer: 5")
    found = run(hopeless, rule=early)
    assert found.outcome == "delegated"
    assert len(run(model("Answer: 1", "Answer: 2"), rule=Rule(3, 1.0, True)).samples) == 3


def test_every_sample_is_asked_with_a_seed_of_its_own() -> None:
    llm = model("Answer: 4")
    run(llm, seed=3)
    seeds = [request.seed for request in llm.requests]
    assert len(set(seeds)) == 3
    again = model("Answer: 4")
    run(again, seed=3)
    assert sorted(map(str, seeds)) == sorted(str(request.seed) for request in again.requests)


def test_a_sample_that_fails_agrees_with_none() -> None:
    llm = model("Answer: 4", DOWN, "Answer: 4")
    assert run(llm, rule=Rule(3, 1.0)).outcome == "delegated"
    llm = model("Answer: 4", DOWN, "Answer: 4")
    assert run(llm, rule=Rule(3, 2 / 3)).outcome == "agreed"


def test_samples_that_failed_are_not_told_as_disagreement() -> None:
    verdict = run(model(DOWN, STEPS, DOWN), rule=Rule(3)).verdict
    assert verdict is not None
    assert verdict.reason.startswith("2 of 3 samples failed (the first: ")
    assert "the provider is down" in verdict.reason
    assert verdict.reason.endswith("); 1 of 3 samples agree, 2 must")
    verdict = run(model(STEPS, DOWN, SLIP), rule=Rule(3)).verdict
    assert verdict is not None
    assert verdict.reason.endswith("; 1 of 3 samples agree, 2 must; they part at step 2")
    verdict = run(model("Answer: 4")).verdict
    assert verdict is not None
    assert verdict.reason == "3 of 3 samples agree, 3 must"


def test_where_the_strong_model_fails_the_samples_answer_does_not_pass_for_its_own() -> None:
    found = run(model(STEPS, SLIP, STEPS, big=DOWN))
    assert (found.outcome, found.answer) == ("failed", None)
    assert found.error is not None
    assert found.error.type == "provider"
    assert found.verdict is not None
    assert found.verdict.answer == STEPS


@pytest.mark.parametrize("names", [("small", "bog"), ("smoll", "big")])
def test_a_name_that_leads_nowhere_is_an_error_before_anything_is_spent(
    names: tuple[str, str],
) -> None:
    llm = model("Answer: 4")
    found = asyncio.run(
        deliberate("Add.", cheap=names[0], strong=names[1], delegator=Delegator(llm))
    )
    assert found.outcome == "failed"
    assert found.error is not None
    assert found.error.type == "unknown_model"
    assert found.error.nearest
    assert llm.requests == []


def test_a_task_that_names_its_own_model_is_an_error() -> None:
    found = run(model("Answer: 4"), Task("Add.", model="big"))
    assert found.error is not None
    assert found.error.type == "invalid_task"
    assert "leave the task's model out" in found.error.message


def test_one_budget_holds_for_samples_and_strong_model_together() -> None:
    llm = model("Answer: 1", "Answer: 2", "Answer: 3", prices={"big": PRICE})
    one_call = PRICE.cost_usd(4000, 100)
    found = run(llm, Task("Add.", max_tokens=100), budget_usd=one_call / 4)
    assert found.usage.cost_usd is not None
    assert found.usage.cost_usd <= one_call / 4
    broke = run(model("Answer: 1", "Answer: 2"), Task("Add.", max_tokens=100), budget_usd=1e-9)
    assert broke.error is not None
    assert broke.error.type == "budget"


def test_one_deadline_holds_for_all_of_it() -> None:
    llm = model("Answer: 1", "Answer: 2", "Answer: 3", delays_s={"big": 30.0})
    found = run(llm, deadline_s=0.3)
    assert found.outcome == "failed"
    assert found.error is not None
    assert found.error.type == "deadline"
    assert found.latency_s < 10


def test_a_task_that_lacks_something_is_asked_about_and_costs_nothing() -> None:
    llm = model("Answer: 4")
    found = run(llm, "Translate the attached letter.", missing=MissingRule())
    assert found.outcome == "asked"
    assert found.question == "Please give what 'the attached letter' refers to."
    assert found.error is not None
    assert found.error.type == "missing_information"
    assert llm.requests == []
    assert found.usage.cost_usd == 0.0


def test_the_cheap_model_may_be_asked_what_is_missing_before_it_is_sampled() -> None:
    llm = model("Missing: the name of the ship")
    found = run(llm, "When did the ship sink?", missing=MissingRule(), ask_missing=True)
    assert found.outcome == "asked"
    assert found.question == "Please say: the name of the ship."
    assert len(llm.requests) == 1
    assert found.usage.cost_usd == pytest.approx(llm.billed_usd)
    with pytest.raises(ConfigError, match="ask_missing needs `missing`"):
        run(llm, ask_missing=True)


@pytest.mark.parametrize("bad", [{"deadline_s": -1}, {"seed": "x"}, {"cost_weight": -1.0}])
def test_options_that_cannot_be_meant_are_refused_before_anything_is_sent(bad: Any) -> None:
    llm = model("Answer: 4")
    with pytest.raises(MasRouterError, match="|".join(bad)):
        run(llm, **bad)
    assert llm.requests == []


def test_a_parent_is_told_in_json_what_was_decided_and_what_it_took() -> None:
    told = json.loads(json.dumps(run(model(STEPS, SLIP, STEPS)).to_json(), allow_nan=False))
    assert (told["outcome"], told["summary"], told["models"]) == (
        "delegated",
        "Answer: 25",
        ["big"],
    )
    assert told["parted_at_step"] == 2
    assert told["agreement"] == pytest.approx(2 / 3)
    agreed = run(model("Answer: 4")).to_json()
    assert (agreed["models"], agreed["error"]) == (["small"], None)
    assert agreed["saved_usd"] == pytest.approx(agreed["strong_usd"] - agreed["usage"]["cost_usd"])


def test_being_cancelled_cancels_every_sample() -> None:
    llm = model("Answer: 4", delays_s={"small": 30.0})

    async def main() -> None:
        work = asyncio.create_task(
            deliberate("Add.", cheap="small", strong="big", delegator=Delegator(llm))
        )
        while llm.in_flight < 3:
            await asyncio.sleep(0.001)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    asyncio.run(main())
    assert (llm.in_flight, llm.cancelled) == (0, 3)


def test_examples_that_pass_count_in_place_of_agreement() -> None:
    class Examples:
        async def report(self, query: str, answer: str) -> ExampleReport | None:
            return ExampleReport("good" in answer, "")

    llm = model("good one", "good two", "bad")
    found = run(llm, examples=Examples(), rule=Rule(3, 2 / 3))
    assert (found.outcome, found.answer) == ("agreed", "good one")
    worse = model("bad", "bad", "bad", big="good")
    assert run(worse, examples=Examples(), rule=Rule(3, 2 / 3)).outcome == "delegated"


def test_all_parts_are_one_episode_and_tell_their_events(tmp_path: Path) -> None:
    llm = model("Answer: 1", "Answer: 2", "Answer: 3")
    delegator = Delegator(llm, episodes=EpisodeLog(tmp_path / "episodes.jsonl"))
    ended: list[str] = []

    def note(event: object) -> None:
        if isinstance(event, TaskEnded):
            ended.append(event.result.id)

    def grade(answer: str) -> Grading:
        return Grading(float(answer == "Answer: 25"), "exact_match")

    task = Task("Add.", id="sum", grade=grade)
    found = run(llm, task, delegator=delegator, on_event=note)
    assert sorted(ended) == ["sum-sample-1", "sum-sample-2", "sum-sample-3", "sum-strong"]
    (episode,) = read_episodes(tmp_path / "episodes.jsonl").episodes
    assert episode.id == found.episode
    assert scores(episode.nodes) == [0.0, 0.0, 0.0, 1.0]


def test_a_final_score_reaches_only_whose_answer_it_was(tmp_path: Path) -> None:
    log = EpisodeLog(tmp_path / "episodes.jsonl")

    def credited(rule: Rule, *small: Said) -> list[tuple[str, float | None]]:
        delegator = Delegator(model(*small, big="Answer: 25"), episodes=log)
        options: dict[str, Any] = {"cheap": "small", "strong": "big", "delegator": delegator}
        done = asyncio.run(deliberate("How many?", rule=rule, **options))
        assert done.episode is not None
        log.finish(done.episode, Grading(1.0, "human"))
        episode = read_episodes(log.path).episodes[-1]
        return sorted(
            (node.id.rsplit("/", 1)[-1], credit(episode, node).score) for node in episode.nodes
        )

    assert credited(ALL, "Answer: 1", "Answer: 2", "Answer: 3") == [
        ("sample-1", None), ("sample-2", None), ("sample-3", None), ("strong", 1.0),
    ]  # fmt: skip
    outvoted = credited(Rule(threshold=0.6), "Answer: 25", "Answer: 2", "Answer: 25")
    assert sorted(score is None for _, score in outvoted) == [False, False, True]


def test_an_answer_is_not_lost_where_what_was_unused_cannot_be_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = EpisodeLog(tmp_path / "episodes.jsonl")
    delegator = Delegator(model("Answer: 1", "Answer: 2", "Answer: 3"), episodes=log)
    told: list[BaseException] = []

    def full(episode: object, node: str) -> None:
        raise LogError("the disk is full")

    monkeypatch.setattr(log, "set_aside", full)

    async def work() -> Deliberation:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
        return await deliberate("How many?", cheap="small", strong="big", delegator=delegator)

    done = asyncio.run(work())
    assert (done.outcome, done.answer) == ("delegated", "Answer: 25")
    assert [str(error) for error in told] == ["the disk is full"]


def scores(nodes: Sequence[Any]) -> list[float]:
    return sorted(node.grading.score for node in nodes)


def test_a_final_score_is_none_of_samples_whose_deliberation_was_cancelled(tmp_path: Path) -> None:
    log = EpisodeLog(tmp_path / "episodes.jsonl")
    llm = model("Answer: 4", "Answer: 5", "Answer: 6", delays_s={"big": 30.0})
    delegator = Delegator(llm, episodes=log)

    async def main() -> None:
        work = asyncio.create_task(
            deliberate("Add.", cheap="small", strong="big", rule=ALL, delegator=delegator)
        )
        while not llm.requests_of("big"):
            await asyncio.sleep(0.001)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    asyncio.run(main())
    (episode,) = read_episodes(log.path).episodes
    log.finish(episode.id, Grading(1.0, "human"))
    (episode,) = read_episodes(log.path).episodes
    assert len(episode.nodes) >= 3
    assert [credit(episode, node).score for node in episode.nodes] == [None] * len(episode.nodes)
