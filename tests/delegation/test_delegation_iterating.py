"""Drafts that say what they lack, and rounds that bring it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.delegation.scripted import DOWN, Said, ScriptedModel

from masrouter.delegation.delegator import Delegator
from masrouter.delegation.deliberation.iterating import END, Iteration, by_description, iterate
from masrouter.delegation.episodes.log import EpisodeLog, read_episodes
from masrouter.delegation.query import read_query
from masrouter.delegation.tasks import Task
from masrouter.delegation.workers.matching import MatchingRule
from masrouter.delegation.workers.worker import Worker
from masrouter.encoder import load_encoder
from masrouter.errors import ConfigError
from masrouter.llms.chat import ChatRequest

LACKING = "The tower is old.\nMissing: the height of the tower\nMissing: its architect"
WHOLE = "The tower is old, 48 metres high and by Pisano.\nMissing: nothing"


def drafts(*texts: Said, **others: Any) -> ScriptedModel:
    """`writer` gives one text a round; the last stays."""
    left = list(texts)

    def say(request: ChatRequest) -> Said:
        return left.pop(0) if len(left) > 1 else left[0]

    return ScriptedModel({"writer": say, "helper": "48 metres", **others})


def run(llm: ScriptedModel, **more: Any) -> Iteration:
    options: dict[str, Any] = {
        "delegator": Delegator(llm), "model": "writer", "subtask": "helper", **more,
    }  # fmt: skip
    return asyncio.run(iterate(options.pop("task", "Describe the tower."), **options))


def queries(llm: ScriptedModel, name: str) -> list[Any]:
    return [read_query(request.messages[-1].content) for request in llm.requests_of(name)]


def test_what_a_draft_lacks_is_asked_for_and_the_next_draft_has_it() -> None:
    llm = drafts(LACKING, WHOLE)
    found = run(llm)
    assert (found.stopped, found.missing, found.error) == ("done", (), None)
    assert found.answer == "The tower is old, 48 metres high and by Pisano."
    assert [request.goal for request in found.rounds[0].requests] == [
        "the height of the tower",
        "its architect",
    ]
    first, second = queries(llm, "writer")
    assert first.goal == second.goal == f"Describe the tower.\n\n{END}"
    assert first.context == ""
    assert "48 metres" in second.context
    assert 'request="its architect"' in second.context
    asked = queries(llm, "helper")[0]
    assert asked.goal == "the height of the tower"
    assert "Describe the tower." in asked.context
    assert "The tower is old." in asked.context
    assert found.usage.cost_usd == pytest.approx(llm.billed_usd)


def test_a_worker_that_fits_by_its_description_is_given_the_request_alone() -> None:
    met: list[str] = []

    def look_up(text: str) -> str:
        met.append(text)
        return "48 metres, says the register"

    worker = Worker(
        name="register",
        description="Finds the height of a tower",
        run=look_up,
        usd_per_call=0.0,
    )
    llm = drafts(LACKING, WHOLE)
    delegator = Delegator(llm, workers=[worker])
    rule = MatchingRule(0.2, 0.25, "hashing-64-v1")
    find = by_description([worker], load_encoder("hashing-64"), rule=rule)
    found = run(llm, delegator=delegator, find=find)
    assert met == ["the height of the tower"]
    first, second = found.rounds[0].requests
    assert first.models == ("register",)
    assert second.models == ("helper",)
    assert "says the register" in queries(llm, "writer")[1].context


def test_what_a_worker_refuses_is_asked_of_the_model_for_the_rest() -> None:
    def refuse(text: str) -> str:
        raise LookupError("no such tower")

    worker = Worker(
        name="register", description="Finds the height of a tower", run=refuse, usd_per_call=0.0
    )
    rule = MatchingRule(0.2, 0.25, "hashing-64-v1")
    find = by_description([worker], load_encoder("hashing-64"), rule=rule)
    llm = drafts(LACKING, WHOLE)
    found = run(llm, delegator=Delegator(llm, workers=[worker]), find=find, task=Task("T", id="t"))
    refused, other, again = found.rounds[0].requests
    assert refused.error is not None
    assert refused.error.type == "worker"
    assert other.goal == "its architect"
    assert (again.goal, again.models) == (refused.goal, ("helper",))
    assert again.id == f"{refused.id}-again"
    assert "48 metres" in queries(llm, "writer")[1].context
    nobody = drafts(LACKING, WHOLE)
    alone = run(nobody, delegator=Delegator(nobody, workers=[worker]), find=find, subtask=None)
    assert (alone.stopped, len(alone.rounds[0].requests)) == ("not_found", 1)


@pytest.mark.parametrize(
    ("takes", "met"),
    [
        ("goal", "the height of the tower"),
        ("material", "the height of the tower"),
        ("all", "the height of the tower\n\nDescribe the tower."),
    ],
)
def test_a_worker_that_is_asked_for_everything_is_no_model_that_is_told_the_purpose(
    takes: Any, met: str
) -> None:
    seen: list[str] = []

    def look_up(text: str) -> str:
        seen.append(text)
        return "48 metres"

    worker = Worker(
        name="register", description="Looks up", run=look_up, usd_per_call=0.0, takes=takes
    )
    llm = drafts("T.\nMissing: the height of the tower", WHOLE)
    task = Task("Describe the tower.", "It stands in Pisa.")
    delegator = Delegator(llm, workers=[worker])
    run(llm, delegator=delegator, task=task, subtask="register", ahead="register")
    goal, asked = seen
    assert asked == met
    whole = "Describe the tower.\n\nIt stands in Pisa."
    assert goal == (whole if takes == "all" else "Describe the tower.")


def test_a_look_up_ahead_is_in_the_first_draft() -> None:
    llm = drafts(LACKING, WHOLE, register="The tower is by Pisano.")
    found = run(
        llm, ahead="register", task=Task("Describe the tower.", "It stands in Pisa.", id="t")
    )
    (asked,) = queries(llm, "register")
    assert (asked.goal, asked.context) == ("Describe the tower.", "It stands in Pisa.")
    first, second = queries(llm, "writer")
    assert "The tower is by Pisano." in first.context
    assert "The tower is by Pisano." in second.context
    assert found.ahead is not None
    assert found.ahead.id == "t-ahead"
    assert found.usage.cost_usd == pytest.approx(llm.billed_usd)


def test_a_look_up_ahead_that_fails_leaves_the_draft_as_it_would_be() -> None:
    llm = drafts(WHOLE, register=DOWN)
    found = run(llm, ahead="register")
    assert (found.stopped, found.answer is None) == ("done", False)
    assert queries(llm, "writer")[0].context == ""
    assert found.ahead is not None
    assert found.ahead.error is not None


def test_nobody_is_asked_where_no_worker_fits_and_no_model_is_named() -> None:
    llm = drafts(LACKING)
    found = run(llm, subtask=None, find=lambda asked: [None] * len(asked))
    assert found.stopped == "not_found"
    assert found.missing == ("the height of the tower", "its architect")
    assert found.answer == "The tower is old."
    assert llm.requests_of("helper") == []


@pytest.mark.parametrize(
    ("texts", "stopped", "rounds"),
    [
        ((LACKING,), "repeated", 2),
        (("A tower.",), "unstated", 1),
        (tuple(f"T.\nMissing: part {n}" for n in range(9)), "rounds", 3),
        ((LACKING, DOWN), "failed", 2),
    ],
)
def test_rounds_end_in_every_case(texts: tuple[Said, ...], stopped: str, rounds: int) -> None:
    found = run(drafts(*texts))
    assert (found.stopped, len(found.rounds)) == (stopped, rounds)
    assert found.answer is not None
    assert found.error is None


def test_the_last_round_asks_for_nothing_that_no_draft_would_get() -> None:
    llm = drafts(*(f"T.\nMissing: part {n}" for n in range(9)))
    run(llm, rounds=2)
    assert [query.goal for query in queries(llm, "helper")] == ["part 0"]


def test_requests_are_bounded_and_none_is_made_twice() -> None:
    lines = [f"Missing: part {n}" for n in range(9)] + ["Missing: Part 0.", "Missing: " + "x" * 600]
    llm = drafts("T.\n" + "\n".join(lines), WHOLE)
    found = run(llm, requests=3)
    assert [request.goal for request in found.rounds[0].requests] == ["part 0", "part 1", "part 2"]


def test_a_request_that_fails_leaves_a_gap_and_nothing_else() -> None:
    def say(request: ChatRequest) -> Said:
        return DOWN if "architect" in request.messages[-1].content.split("<")[1] else "48 metres"

    llm = drafts(LACKING, WHOLE, helper=say)
    found = run(llm)
    assert found.stopped == "done"
    first, second = found.rounds[0].requests
    assert first.error is None
    assert second.error is not None
    assert "its architect" not in queries(llm, "writer")[1].context
    down = drafts(LACKING, helper=DOWN)
    assert run(down).stopped == "not_found"


def test_without_any_draft_there_is_an_error() -> None:
    found = run(drafts(DOWN))
    assert (found.answer, found.stopped) == (None, "failed")
    assert found.error is not None
    assert found.error.type == "provider"


def test_one_budget_holds_for_drafts_and_requests_together() -> None:
    llm = drafts(LACKING, WHOLE)
    found = run(llm, task=Task("Describe.", max_tokens=50), budget_usd=0.002)
    assert found.usage.cost_usd is not None
    assert found.usage.cost_usd <= 0.002
    broke = run(drafts(LACKING), budget_usd=1e-9)
    assert broke.error is not None
    assert broke.error.type == "budget"


def test_all_of_it_is_one_episode(tmp_path: Path) -> None:
    llm = drafts(LACKING, WHOLE)
    log = EpisodeLog(tmp_path / "episodes.jsonl")
    found = run(llm, delegator=Delegator(llm, episodes=log), task=Task("Describe it.", id="t"))
    (episode,) = read_episodes(log.path).episodes
    assert episode.id == found.episode
    assert len(episode.nodes) == 4


def test_rounds_and_requests_below_one_are_refused() -> None:
    with pytest.raises(ConfigError, match="iterate: rounds"):
        run(drafts(LACKING), rounds=0)
    with pytest.raises(ConfigError, match="iterate: requests"):
        run(drafts(LACKING), requests=0)
