"""Teams with a lead that hands out parts of the work: orchestrate and delegate."""

from __future__ import annotations

from tests.topologies.scripted import (
    PLANS,
    Failing,
    disagreeing,
    instruction,
    named,
    plan,
    reply,
    run,
)

from masrouter.errors import CallError
from masrouter.llms import ChatRequest
from masrouter.topologies.delegate import Delegate
from masrouter.topologies.orchestrate import Orchestrate


def test_an_orchestra_works_on_subtasks_on_its_own_models_and_the_lead_joins() -> None:
    done, requests = run("orchestrate", disagreeing)
    split, *work, join = requests
    assert "at most 2 subtasks" in instruction(split)
    assert [(r.model, named(r, "subtask")[0].text) for r in work] == [
        ("m2", "add the ones"), ("m3", "add the tens"),
    ]  # fmt: skip
    assert (join.model, join.max_tokens) == ("m1", 2048)
    assert [(s.attributes["from"], s.attributes["subtask"]) for s in named(join, "result")] == [
        ("agent 2", "1"), ("agent 3", "2"),
    ]  # fmt: skip
    assert named(join, "plan")[0].text == "Subtask 1: add the ones\nSubtask 2: add the tens"
    assert done.answer == reply(join)


def test_a_lone_worker_does_several_subtasks_and_too_many_are_cut() -> None:
    def say(request: ChatRequest) -> str:
        many = "\n".join(f"- **Subtask {i}:** part {i}\n  more of {i}" for i in range(1, 9))
        return many if "Subtask 1:" in instruction(request) else reply(request)

    done, requests = run("", say, plan=plan("orchestrate", None, None))
    tasks = [named(r, "subtask")[0].text for r in requests[1:-1]]
    assert tasks == ["part 1\n  more of 1", "part 2\n  more of 2"]
    assert done.notes == ("the lead named 8 subtasks, of which 2 are done",)
    team = plan("orchestrate", *[None] * 8)
    done, requests = run("", say, plan=team, topology=Orchestrate(most_subtasks=3))
    assert len(requests) == 5


def test_a_lead_that_names_no_subtask_has_all_workers_answer_the_whole() -> None:
    def say(request: ChatRequest) -> str:
        return "I would rather not." if "Subtask 1:" in instruction(request) else reply(request)

    done, requests = run("orchestrate", say)
    assert [named(r, "subtask")[0].text for r in requests[1:-1]] == 2 * [
        "Answer the whole question."
    ]
    assert done.notes[0].startswith("the lead named no subtask")


def test_the_lead_is_told_which_subtask_was_not_done() -> None:
    done, requests = run("orchestrate", Failing(2))
    assert "Subtask 2 was not done; do it yourself." in requests[-1].messages[1].content
    assert done.missing == (2,)


def test_a_lead_that_delegates_reads_the_results_and_may_delegate_again() -> None:
    done, requests = run("delegate", disagreeing)
    first, *rest = requests
    assert named(first, "agents")[0].text == "agent 2: coder\nagent 3: mathematician"
    assert [r.model for r in rest] == ["m2", "m3", "m1", "m2", "m3", "m1"]
    assert [named(r, "subtask")[0].text for r in rest[:2]] == ["add the ones", "and the tens"]
    assert named(rest[0], "plan") == [], "a worker sees its part and the question alone"
    assert [(s.attributes["from"], s.attributes["subtask"]) for s in named(rest[-1], "result")] == [
        ("agent 2", "1"), ("agent 3", "2"), ("agent 2", "3"), ("agent 3", "4"),
    ]  # fmt: skip
    assert "Delegate to" not in instruction(rest[-1])
    assert done.answer == reply(rest[-1])
    assert done.notes[-1] == "the lead answers after 4 delegated parts"


def test_a_lead_that_needs_nobody_answers_at_once() -> None:
    done, requests = run("delegate", lambda request: "By m1.\nAnswer: 4")
    assert (len(requests), done.answer) == (1, "By m1.\nAnswer: 4")
    assert done.notes == ("the lead answers after 0 delegated parts",)


def test_a_lead_is_told_what_was_not_done_and_why() -> None:
    def say(request: ChatRequest) -> str:
        if request.model == "m2":
            raise CallError("m2 is down", kind="server_error", model="m2")
        if named(request, "plan"):
            return "Answer: 4"
        return "".join(f"Delegate to agent {n}: part {n}\n" for n in (1, 2, 3, 3, 9))

    done, requests = run("", say, plan=PLANS["delegate"], topology=Delegate(most_subtasks=2))
    told = requests[-1].messages[1].content
    assert "Subtask 1 was not done: there is no agent 1 to ask." in told
    assert "Subtask 2 was not done: agent 2 failed." in told
    assert "Subtask 4 was not done: it is one too many at once." in told
    assert "Subtask 5 was not done: there is no agent 9 to ask." in told
    assert [s.attributes["subtask"] for s in named(requests[-1], "result")] == ["3"]
    assert (done.answer, done.missing) == ("Answer: 4", (1,))
