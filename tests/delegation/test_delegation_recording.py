"""What a batch leaves in the log of episodes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.delegation.scripted import DOWN, PROMPT_TOKENS, ScriptedModel

from masrouter.delegation.delegator import Delegator
from masrouter.delegation.episodes.credit import records
from masrouter.delegation.episodes.log import Episode, EpisodeLog, read_episodes
from masrouter.delegation.query import task_query
from masrouter.delegation.tasks import Batch, Grading, Task
from masrouter.errors import LogError
from masrouter.llms.chat import ChatRequest
from masrouter.router import Router
from masrouter.types import Agent, Plan


def right(answer: str) -> Grading:
    return Grading(float(answer == "4"), "exact_match")


@pytest.fixture
def log(tmp_path: Path) -> EpisodeLog:
    return EpisodeLog(tmp_path / "episodes.jsonl")


def delegated(
    log: EpisodeLog, *tasks: Task, episode: Episode | None = None, under: str | None = None
) -> Batch:
    llm = ScriptedModel({"up": "4", "down": DOWN})
    return asyncio.run(
        Delegator(llm, episodes=log).delegate_tasks(tasks, episode=episode, under=under)
    )


def test_every_result_is_logged_whatever_became_of_it(log: EpisodeLog) -> None:
    batch = delegated(
        log,
        Task("2 + 2?", model="up", id="a", grade=right, kind="math"),
        Task("and?", "so far", model="down", id="b"),
        Task("who?", model="nobody", id="c"),
        Task("then?", model="up", id="d", needs=("a",)),
    )
    (episode,) = read_episodes(log.path).episodes
    assert batch.episode == episode.id
    assert episode.goal == "2 + 2?\n\nand?\n\nwho?\n\nthen?"
    assert episode.grading is None
    nodes = {node.id: node for node in episode.nodes}
    done, down, unknown, last = (nodes[result.node or ""] for result in batch.results)
    assert done.plan == Plan("cot", (Agent(None, "up"),))
    assert (done.grading, done.kind, done.models) == (Grading(1.0, "exact_match"), "math", ("up",))
    assert done.usage == batch.results[0].usage
    assert done.usage.prompt_tokens == PROMPT_TOKENS
    assert down.query == task_query("and?", "so far")
    assert (down.error or "").startswith("provider: ")
    assert unknown.plan is None
    assert (unknown.error or "").startswith("unknown_model: ")
    assert last.query == task_query("then?", "", {"a": "4"})
    assert {node.under for node in episode.nodes} == {None}


def test_what_is_logged_is_a_log_of_schema_1(log: EpisodeLog) -> None:
    delegated(log, Task("2 + 2?", model="up", grade=right), Task("and?", model="down"))
    by_query = {record.query: record for record in records(log.path)}
    assert by_query["2 + 2?"].score == 1.0
    assert by_query["2 + 2?"].score_source == "exact_match"
    assert by_query["and?"].score is None
    assert "provider" in (by_query["and?"].error or "")


def test_the_routers_decision_is_logged_with_the_plan_that_it_knows(
    log: EpisodeLog, router: Router, texts: list[str]
) -> None:
    llm = ScriptedModel({model: "4" for plan in router.plans for model in plan.models})
    delegator = Delegator(llm, router=router, episodes=log)
    asyncio.run(delegator.delegate_task(Task(texts[0], model="auto"), cost_weight=5.0))
    ((node,),) = (episode.nodes for episode in read_episodes(log.path).episodes)
    decision = router.route(texts[0], cost_weight=5.0)
    assert node.plan == decision.plan
    assert node.decision is not None
    assert (node.decision.cost_weight, node.decision.propensity) == (5.0, decision.propensity)
    assert (node.asked, node.asked_by) == ("auto", "task")


def test_batches_of_one_episode_stand_where_they_belong_under_names_of_their_own(
    log: EpisodeLog,
) -> None:
    episode = log.open("the whole job")
    first = delegated(log, Task("a", model="up"), episode=episode)
    node = first.results[0].node
    second = delegated(log, Task("b", model="up"), episode=episode, under=node)
    third = delegated(log, Task("c", model="up"), episode=episode, under=node)
    (read,) = read_episodes(log.path).episodes
    assert [child.query for child in read.under(None)] == ["a"]
    assert [child.query for child in read.under(node)] == ["b", "c"]
    assert len({batch.results[0].node for batch in (first, second, third)}) == 3


def test_each_call_without_an_episode_is_one_of_its_own(log: EpisodeLog) -> None:
    batches = [delegated(log, Task("a", model="up")) for _ in range(2)]
    read = read_episodes(log.path).episodes
    assert [episode.id for episode in read] == [batch.episode for batch in batches]
    assert len({episode.id for episode in read}) == 2


@pytest.mark.parametrize(
    "ids", [("a", "a"), ("two\nlines", "task-1"), ("x" * 199 + "1", "x" * 199 + "2")]
)
def test_results_are_all_logged_whatever_their_ids(log: EpisodeLog, ids: tuple[str, ...]) -> None:
    batch = delegated(log, *(Task(f"of {id}", model="up", id=id) for id in ids))
    (episode,) = read_episodes(log.path).episodes
    assert {node.id for node in episode.nodes} == {result.node for result in batch.results}
    assert {node.query for node in episode.nodes} == {f"of {id}" for id in ids}


def test_a_faulty_task_that_is_too_large_to_be_logged_fails_nobody_else(log: EpisodeLog) -> None:
    large = Task("x" * (17 << 20), model="up", kind="\ud800")
    failed, done = delegated(log, large, Task("2 + 2?", model="up")).results
    assert failed.error is not None
    assert failed.node is not None
    assert done.answer == "4"
    assert len(read_episodes(log.path).episodes[0].nodes) == 2


def test_answers_outlive_a_log_that_cannot_be_written_any_more(log: EpisodeLog) -> None:
    told: list[object] = []

    def spoil(request: ChatRequest) -> str:
        log.path.unlink()
        log.path.mkdir()
        return "4"

    async def work() -> Batch:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
        delegator = Delegator(ScriptedModel({"up": spoil}), episodes=log)
        return await delegator.delegate_tasks([Task("a", model="up")])

    (result,) = asyncio.run(work()).results
    assert (result.answer, result.error, result.node) == ("4", None, None)
    assert [type(error) for error in told] == [LogError]


def test_a_log_that_cannot_be_written_at_all_is_said_before_anything_is_sent(
    tmp_path: Path,
) -> None:
    llm = ScriptedModel({"up": "4"})
    delegator = Delegator(llm, episodes=EpisodeLog(tmp_path))
    with pytest.raises(LogError, match="cannot be written"):
        asyncio.run(delegator.delegate_task("a", model="up"))
    assert llm.requests == []
