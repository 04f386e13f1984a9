"""What each topology asks whom, what it decides, and when it stops."""

from __future__ import annotations

import pytest
from tests.topologies.scripted import (
    SHEEP,
    Failing,
    agreeing,
    broken,
    disagreeing,
    instruction,
    named,
    plan,
    reply,
    run,
    says,
    seat_of,
    sections,
    steps,
)

from masrouter.errors import ConfigError, ExecutionError
from masrouter.llms import ChatRequest
from masrouter.topologies import ExampleReport
from masrouter.topologies.debate import Debate
from masrouter.topologies.delegate import Delegate
from masrouter.topologies.escalate import Escalate
from masrouter.topologies.full_graph import FullGraph
from masrouter.topologies.iterate import Iterate
from masrouter.topologies.reflection import Reflection


class Examples:
    """Shown examples that an answer passes where it holds a word."""

    def __init__(self, word: str) -> None:
        self.word = word
        self.asked: list[tuple[str, str]] = []

    async def report(self, query: str, answer: str) -> ExampleReport | None:
        self.asked.append((query, answer))
        return ExampleReport(self.word in answer, f"looked for {self.word}")


class NoExamples:
    async def report(self, query: str, answer: str) -> ExampleReport | None:
        return None


def test_io_gives_no_advice_on_how_to_think_and_cot_does() -> None:
    for name, thinks in (("io", False), ("cot", True)):
        done, (request,) = run(name, agreeing)
        assert ("step by step" in request.messages[1].content) == thinks
        assert done.answer == "By m1.\nAnswer: 4"
        assert done.notes == ()


def test_a_seat_without_a_role_is_an_assistant() -> None:
    _, (request,) = run("io", agreeing)
    assert request.messages[0].content.startswith("You answer the question that you are given")
    _, (request,) = run("cot", agreeing)
    assert request.messages[0].content.startswith("You are a mathematician.")


def test_self_consistency_takes_the_most_frequent_answer_and_samples_warmly() -> None:
    done, requests = run("self_consistency", says("5", "4", "4.0"))
    assert done.answer == "By m2.\nAnswer: 4"
    assert done.notes == ("vote: 2 of 3 for the answer; agents 2 and 3 agree; agent 1 differs",)
    assert {request.temperature for request in requests} == {0.7}
    done, _ = run("self_consistency", says("5", "4", "3"))
    assert done.answer == "By m1.\nAnswer: 5"


def test_self_consistency_needs_half_of_its_seats() -> None:
    lost = {0, 1}

    def say(request: ChatRequest) -> str:
        return broken(request) if seat_of(request) in lost else agreeing(request)

    team = plan("self_consistency", None, None, None, None)
    done, _ = run("", say, plan=team)
    assert (done.missing, done.answer) == ((0, 1), "By m3.\nAnswer: 4")
    lost.add(3)
    with pytest.raises(ExecutionError, match="3 of 4 calls failed, and 2 must succeed"):
        run("", say, plan=team)


def test_a_chain_hands_on_plans_answers_and_critiques_and_the_last_answers() -> None:
    done, requests = run("chain", says("0", "5", "0", "4"))
    assert done.answer == "By m4.\nAnswer: 4"
    assert steps(done) == [(0, "plan"), (1, "answer"), (2, "critique"), (3, "answer")]
    handed = [[(s.name, dict(s.attributes)) for s in sections(request)[1:]] for request in requests]
    planned = ("plan", {"from": "agent 1", "role": "planner"})
    answered = ("answer", {"from": "agent 2", "role": "mathematician"})
    judged = ("critique", {"from": "agent 3", "role": "critic"})
    assert handed == [[], [planned], [answered], [answered, judged]]
    assert named(requests[3], "answer")[0].text == "By m2.\nAnswer: 5"
    assert "Verdict: wrong" in named(requests[3], "critique")[0].text
    assert [r.max_tokens for r in requests] == [768, 2048, 1024, 2048]


def test_a_critic_with_nothing_to_criticise_answers() -> None:
    done, requests = run("chain", agreeing, plan=plan("chain", "critic", "planner"))
    assert [step for _, step in steps(done)] == ["answer", "answer"]
    assert "Verdict" not in requests[0].messages[1].content


def test_where_the_last_of_a_chain_fails_the_latest_answer_stands() -> None:
    done, _ = run("chain", Failing(3, says("0", "5", "0", "4")))  # type: ignore[arg-type]
    assert done.answer == "By m2.\nAnswer: 5"
    assert done.notes[-1] == "the answer of agent 2 stands, as the last agent failed"
    with pytest.raises(ExecutionError, match=r"no agent of the chain answered: agent 2 .* is down"):
        run("", Failing(1, agreeing), plan=plan("chain", "planner", "coder"))


def test_all_of_a_full_graph_read_all_others_and_themselves() -> None:
    done, requests = run("full_graph", says("4", "5", "5"))
    first, second = requests[:3], requests[3:]
    assert all(named(request, "answer") == [] for request in first)
    for request in second:
        seen = named(request, "answer")
        others = [f"agent {i}" for i in (1, 2, 3) if i != seat_of(request) + 1]
        assert [s.attributes["from"] for s in seen] == ["you", *others]
        assert seen[0].text.startswith(f"By {request.model}.")
    assert done.answer == "By m2.\nAnswer: 5"
    done, requests = run("full_graph", agreeing)
    assert len(requests) == 3
    done, requests = run("full_graph", disagreeing, topology=FullGraph(rounds=4))
    assert len(requests) == 12


def test_a_debate_without_opposing_positions_is_none() -> None:
    done, requests = run("debate", agreeing)
    assert len(requests) == 3
    assert done.notes == ("no debate: agents 1, 2 and 3 agree",)


def test_a_debate_ends_with_consensus() -> None:
    def say(request: ChatRequest) -> str:
        conceded = seat_of(request) == 0 or bool(named(request, "answer"))
        return reply(request, "4" if conceded else "5")

    done, requests = run("debate", say)
    assert len(requests) == 6
    assert done.answer == "By m1.\nAnswer: 4"
    assert done.notes == ("round 1: agents 1, 2 and 3 agree", "consensus after round 1")
    assert "Defend your answer" in instruction(requests[-1])
    assert "concede" in instruction(requests[-1])


def test_a_tied_debate_goes_to_the_earlier_position() -> None:
    def say(request: ChatRequest) -> str:
        swapped = "round 2" if len(named(request, "answer")) else ""
        answers = ("5", "4") if swapped else ("4", "5")
        return reply(request, answers[seat_of(request)])

    done, requests = run("", say, plan=plan("debate", None, None))
    assert len(requests) == 6
    # After the swap seat 1 holds 5, but 4 was the position that was taken first.
    assert done.answer == "By m2.\nAnswer: 4"
    done, requests = run("", say, plan=plan("debate", None, None), topology=Debate(rounds=1))
    assert len(requests) == 4


def test_a_debater_that_falls_silent_keeps_its_position() -> None:
    def say(request: ChatRequest) -> str:
        if seat_of(request) == 1 and named(request, "answer"):
            return broken(request)
        return reply(request, ("4", "5", "5")[seat_of(request)])

    done, _ = run("debate", say)
    assert (done.answer, done.missing) == ("By m2.\nAnswer: 5", (1,))


def test_reflection_revises_what_the_critics_find_wrong() -> None:
    done, requests = run("reflection", disagreeing, topology=Reflection(rounds=1))
    assert sorted(steps(done)) == [
        (0, "draft"), (0, "revision 1"), (1, "critique 1"), (2, "critique 1"),
    ]  # fmt: skip
    revision = requests[-1]
    assert [(s.name, s.attributes.get("from")) for s in sections(revision)] == [
        ("question", None), ("answer", "you"), ("critique", "agent 2"), ("critique", "agent 3"),
    ]  # fmt: skip
    assert named(requests[1], "answer")[0].attributes["from"] == "agent 1"
    assert done.notes == ("round 1: found wrong by agents 2 and 3",)
    assert done.answer == reply(revision)


def test_reflection_stops_when_the_answer_stands() -> None:
    def say(request: ChatRequest) -> str:
        return "Good.\nVerdict: stands." if "Verdict:" in instruction(request) else reply(request)

    done, requests = run("reflection", say)
    assert len(requests) == 3
    assert done.answer == reply(requests[0])
    assert done.notes == ("round 1: the critique says that the answer stands",)


def test_one_agent_alone_criticises_itself() -> None:
    done, requests = run("", disagreeing, plan=plan("reflection", "coder"))
    assert len(done.calls) == 5
    assert named(requests[1], "answer")[0].attributes["from"] == "you"
    assert named(requests[2], "critique")[0].attributes["from"] == "you"


def test_reflection_sees_the_shown_examples_and_goes_on_while_they_fail() -> None:
    def say(request: ChatRequest) -> str:
        if "Verdict:" in instruction(request):
            return "Verdict: stands"
        return "good" if named(request, "test_report") else "bad"

    examples = Examples("good")
    done, requests = run("reflection", say, examples=examples)
    assert done.answer == "good"
    assert examples.asked == [(SHEEP, "bad"), (SHEEP, "good")]
    assert [s.text for s in named(requests[1], "test_report")] == ["looked for good"]
    assert done.notes[0] == "round 1: a shown example fails"
    assert len(requests) == 6
    done, requests = run("reflection", say, examples=NoExamples())
    assert (done.answer, len(requests)) == ("bad", 3)


def test_a_revision_that_breaks_a_shown_example_is_not_taken() -> None:
    def say(request: ChatRequest) -> str:
        if "Verdict:" in instruction(request):
            return "Verdict: wrong"
        return "bad" if named(request, "critique") else "good"

    done, _ = run("reflection", say, examples=Examples("good"))
    assert done.answer == "good"
    assert done.notes[-1] == "round 1: the revision breaks a shown example and is not taken"


def test_a_draft_stands_without_critics() -> None:
    def say(request: ChatRequest) -> str:
        return broken(request) if seat_of(request) else reply(request, "4")

    done, requests = run("reflection", say)
    assert (done.answer, done.missing, len(requests)) == ("By m1.\nAnswer: 4", (1, 2), 3)


def test_a_panels_judge_is_told_who_agrees() -> None:
    done, requests = run("panel", says("5", "4", "5", "4"))
    assert done.answer == "By m4.\nAnswer: 4"
    judge = requests[-1]
    assert (judge.model, len(requests)) == ("m4", 4)
    assert "\n\nAgents 1 and 3 agree; agent 2 differs.\n\n" in judge.messages[1].content
    assert [s.attributes["role"] for s in named(judge, "answer")] == [
        "mathematician", "coder", "scientist",
    ]  # fmt: skip


def test_a_panel_that_agrees_needs_no_judge() -> None:
    done, requests = run("panel", agreeing)
    assert (len(requests), done.answer) == (3, "By m1.\nAnswer: 4")
    assert done.notes[-1] == "no judge: all answers are the same"


def test_in_a_panel_of_two_the_judge_answers_too() -> None:
    _, requests = run("", says("4", "5"), plan=plan("panel", None, "judge"))
    assert [r.model for r in requests] == ["m1", "m2", "m2"]
    assert [s.attributes["from"] for s in named(requests[2], "answer")] == ["agent 1", "you"]


def test_a_panel_without_its_judge_votes() -> None:
    done, _ = run("panel", Failing(3, says("5", "4", "4", "")))  # type: ignore[arg-type]
    assert (done.answer, done.missing) == ("By m2.\nAnswer: 4", (3,))
    assert done.notes[-1] == "the judge failed: vote, 2 of 3 for the answer"


def test_escalate_takes_the_cheap_answer_on_which_all_samples_agree() -> None:
    done, requests = run("escalate", agreeing)
    assert [r.model for r in requests] == ["m1"] * 3
    assert {r.temperature for r in requests} == {0.7}
    assert len({r.seed for r in requests}) == 3
    assert done.notes == ("agent 1: 3 of 3 samples agree, accepted",)


def test_escalate_asks_the_stronger_where_samples_disagree() -> None:
    done, requests = run("escalate", disagreeing)
    assert [r.model for r in requests] == ["m1"] * 3 + ["m2"] * 3 + ["m3"]
    assert done.answer == reply(requests[-1])
    assert all(named(r, "answer") == [] for r in requests)


def test_how_many_samples_must_agree_is_a_setting() -> None:
    texts = iter("454")

    def say(request: ChatRequest) -> str:
        return reply(request, next(texts))

    done, requests = run("escalate", say, topology=Escalate(agreement=2))
    assert (done.answer, len(requests)) == ("By m1.\nAnswer: 4", 3)


def test_escalate_takes_code_that_passes_what_is_shown_and_no_other() -> None:
    done, requests = run("escalate", disagreeing, examples=Examples("m2"))
    assert [r.model for r in requests] == ["m1"] * 3 + ["m2"] * 3
    assert done.notes == (
        "agent 1: 0 of 3 samples pass the shown examples, not enough",
        "agent 2: 3 of 3 samples pass the shown examples, accepted",
    )


def test_where_the_strongest_fails_the_best_earlier_answer_stands() -> None:
    done, _ = run("escalate", Failing(2))
    assert (done.answer or "").startswith("By m2.")
    assert done.missing == (2,)


def test_iterate_fills_what_is_missing_until_nothing_is() -> None:
    def say(request: ChatRequest) -> str:
        if not named(request, "answer"):
            return "Draft.\nAnswer: 4\n\nMissing: the unit\n- **Missing:** a reason\n"
        return "Better.\nAnswer: 4 sheep\nMissing: Nothing."

    done, requests = run("iterate", say)
    assert [r.model for r in requests] == ["m1", "m2"]
    assert done.answer == "Better.\nAnswer: 4 sheep"
    (shown,) = named(requests[1], "answer")
    assert shown.text == "Draft.\nAnswer: 4"
    assert [s.text for s in named(requests[1], "missing")] == ["the unit\na reason"]
    assert done.notes == ("round 1: 2 named as missing", "round 2: taken, nothing is missing")


def test_iterate_ends_with_its_rounds_and_gives_everybody_a_turn() -> None:
    done, requests = run("iterate", disagreeing)
    assert [r.model for r in requests] == ["m1", "m2", "m1"]
    assert "Missing" not in (done.answer or "Missing")
    team = plan("iterate", None, None, None, None)
    assert len(run("", disagreeing, plan=team, topology=Iterate(rounds=1))[1]) == 4


def test_iterate_takes_code_that_passes_what_is_shown() -> None:
    def say(request: ChatRequest) -> str:
        fixed = bool(named(request, "test_report"))
        return "good\nMissing: a comment" if fixed else "bad\nMissing: nothing"

    examples = Examples("good")
    done, requests = run("iterate", say, examples=examples)
    assert (done.answer, len(requests)) == ("good", 2)
    assert examples.asked == [(SHEEP, "bad"), (SHEEP, "good")]
    assert done.notes == (
        "round 1: a shown example fails", "round 2: taken, the shown examples pass",
    )  # fmt: skip


def test_a_turn_that_fails_is_taken_by_the_next() -> None:
    done, requests = run("iterate", Failing(0))
    assert [r.model for r in requests] == ["m1", "m2", "m1"]
    assert (done.answer or "").startswith("By m2.")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Debate(rounds=0), "debate: rounds: expected a number >= 1, got 0"),
        (lambda: Escalate(agreement=4), "escalate: agreement: expected a number from 2 to 3"),
        (lambda: Delegate(rounds=0), "delegate: rounds: expected a number >= 1, got 0"),
        (lambda: Iterate(rounds=True), "iterate: rounds: expected a number >= 1, got True"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ConfigError, match=message):
        make()
