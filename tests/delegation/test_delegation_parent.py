"""A parent model with tools: led by errors, kept within limits, and brought to an end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.delegation.parent_samples import (
    JSON,
    boss,
    calls,
    errors,
    heard,
    one,
    run,
    several,
    turns_of,
)
from tests.delegation.scripted import DOWN, Reply, ScriptedModel
from tests.llms.faulty_server import Exchange, FaultyServer, answer, completion

from masrouter.delegation.delegator import Delegator
from masrouter.delegation.naming.settings import Settings
from masrouter.delegation.parent import ParentLimits, ParentRun, run_parent
from masrouter.delegation.tasks import (
    DelegationError,
    Task,
)
from masrouter.errors import ConfigError
from masrouter.execution import Ledger
from masrouter.llms import (
    ChatRequest,
    Completion,
    ModelOptions,
    OpenAICompatible,
    Price,
    Providers,
    RetryPolicy,
)
from masrouter.types import Agent, Plan, Usage

# A model that reads ------------------------------------------------------------------------------


def next_call(body: Mapping[str, Any]) -> JSON | str:
    """What a parent says that knows nothing but what its last error tells it.

    It begins with a colon behind the provider, then takes the nearest name but misspells it, then
    asks for more money than there is, then for more tokens than the money is good for.
    """
    said = [m for m in body["messages"] if m["role"] == "assistant"]
    if not said:
        return {"goal": "What is 6 times 7?", "model": "fast:tiny"}
    before: JSON = json.loads(said[-1]["tool_calls"][0]["function"]["arguments"])
    error = json.loads(body["messages"][-1]["content"])["error"]
    if error is None:
        return f"The worker says: {json.loads(body['messages'][-1]['content'])['summary']}"
    if error["type"] == "unknown_model" and error["nearest"]:
        nearest = error["nearest"][0]
        if before["model"] == "fast:tiny":
            return {**before, "model": nearest[:-1]}
        return {**before, "model": nearest, "budget_usd": 1000}
    if error["type"] == "budget" and "budget_usd" in before and error["nearest"]:
        left = float(error["nearest"][0])
        rest = {key: value for key, value in before.items() if key != "budget_usd"}
        return {**rest, "max_tokens": 5_000_000} if left > 0.01 else "There is no money."
    if error["type"] == "budget" and "fewer tokens" in error["message"]:
        return {**before, "max_tokens": 100}
    return f"I give up: {error}"


async def reads_errors(exchange: Exchange) -> None:
    said = next_call(exchange.received.body)
    exchange.bill(30)
    counted = {"completion_tokens": 30, "total_tokens": 50}
    if isinstance(said, str):
        await exchange.respond(200, completion(said, "boss-1", more_usage=counted))
        return
    function = {"name": "delegate_task", "arguments": json.dumps(said)}
    tool_calls = [{"type": "function", "function": function}]  # it gives no id, as some do
    data = completion(
        None, "boss-1", tool_calls=tool_calls, finish_reason="tool_calls", more_usage=counted
    )
    await exchange.respond(200, data)


def provider(server: FaultyServer, name: str, model: str) -> OpenAICompatible:
    priced = ModelOptions(price=Price(1.0, 2.0, "provider file"))
    return OpenAICompatible(
        server.base_url, name=name, models={model: priced}, retry=RetryPolicy(tries=1)
    )


def test_a_parent_that_uses_the_tools_badly_is_led_to_a_correct_call_by_the_errors_alone() -> None:
    with (
        FaultyServer(otherwise=reads_errors) as above,
        FaultyServer(otherwise=answer("42")) as below,
    ):
        llm = Providers(provider(above, "house", "boss"), provider(below, "fast", "tiny"))

        async def scene() -> ParentRun:
            async with llm:
                delegator = Delegator(llm)
                return await run_parent(
                    "What is 6 times 7?", model="house/boss", delegator=delegator, budget_usd=0.5
                )

        done = asyncio.run(scene())
        asked = [json.loads(turn.calls[0].arguments) for turn in done.turns if turn.calls]
        assert [call.body["model"] for call in below.calls] == ["tiny"]
    assert done.answer == "The worker says: 42"
    assert [error and error["type"] for error in errors(done)] == [
        "unknown_model",
        "unknown_model",
        "budget",
        "budget",
        None,
    ]
    assert [call["model"] for call in asked] == ["fast:tiny", "fast/tin", *["fast/tiny"] * 3]
    colon, _, money, tokens, _ = errors(done)
    assert colon is not None
    assert "fast/tiny" in colon["message"]
    assert money is not None
    assert "1000 US$ were asked for" in money["message"]
    assert tokens is not None
    assert "allow the call fewer tokens" in tokens["message"]
    # Both models' providers billed what the books say, and it stayed below the budget.
    assert done.usage.cost_usd == pytest.approx(above.billed_usd + below.billed_usd)
    assert done.models == ("boss-1",)


# Limits ------------------------------------------------------------------------------------------


def test_the_limit_on_the_number_of_tasks_is_an_error_that_says_how_many_are_left() -> None:
    def as_told(request: ChatRequest) -> Completion | str:
        (told,) = heard(request)
        if told["error"]["type"] != "limit":
            return "not told"
        return several(*[{"goal": f"Add up {n}."} for n in range(int(told["error"]["nearest"][0]))])

    def at_the_end(request: ChatRequest) -> str:
        (told,) = heard(request)
        return f"{told['error']['type']}: {told['error']['message']}"

    three = several(*[{"goal": f"Add up {n}."} for n in range(3)])
    llm = boss(three, as_told, one(), at_the_end)
    done = run(llm, limits=ParentLimits(max_tasks=2))
    assert done.answer is not None
    assert done.answer.startswith("limit: 1 tasks, and of 2 for the whole question 0 are left")
    assert "answer with what you have" in done.answer
    assert [result.answer for result in done.results] == ["42", "42"]
    assert len(llm.requests_of("tiny")) == 2
    assert [turn.answers[0]["tasks_left"] for turn in done.turns[:-1]] == [2, 0, 0]


def test_tasks_for_which_nothing_was_sent_do_not_count() -> None:
    llm = boss(one(model="tinny"), one(model="tinny"), one(model="tiny"), "done")
    done = run(llm, limits=ParentLimits(max_tasks=1))
    assert [result.answer for result in done.results] == [None, None, "42"]
    assert done.answer == "done"


def test_a_worker_may_be_a_parent_itself_down_to_the_limit_of_depth() -> None:
    def child(request: ChatRequest) -> Completion | str:
        if not request.tools:
            return "I have no tools"
        told = heard(request)
        if not told:
            return replace(one("Add up the rows.", may_delegate=True), model="mid")
        error = told[0]["error"]
        if error is not None and "leave may_delegate out" in error["message"]:
            return replace(one("Add up the rows."), model="mid")
        return f"{told[0]['summary']}, as my worker says"

    llm = boss(one("Add up all.", model="mid", may_delegate=True), "All in all 42.", mid=child)
    done = run(llm)
    assert done.answer == "All in all 42."
    (result,) = done.results
    assert (result.id, result.answer, result.models) == (
        "1.1/task-1",
        "42, as my worker says",
        ("mid",),
    )
    below = done.below["1.1/task-1"]
    too_deep, fine = errors(below)
    assert too_deep is not None
    assert (too_deep["type"], too_deep["nearest"]) == ("limit", ["2"])
    assert fine is None
    assert [inner.id for inner in below.results] == ["1.1/task-1/2.1/task-1"]
    assert len(llm.requests_of("mid")) == 3


def test_the_settings_may_allow_less_depth_than_the_limits() -> None:
    llm = boss(one(may_delegate=True, model="boss"), "done")
    done = run(llm, settings=Settings(max_depth=1), limits=ParentLimits(max_depth=5))
    (error,) = errors(done)
    assert error is not None
    assert "parent 1 of at most 1" in error["message"]


def test_parents_below_share_the_number_of_tasks() -> None:
    def child(request: ChatRequest) -> Completion | str:
        told = heard(request)
        return f"{told[0]['error']['type']}, {told[0]['tasks_left']} left" if told else one()

    llm = boss(one(model="mid", may_delegate=True), "done", mid=child)
    done = run(llm, limits=ParentLimits(max_tasks=1))
    assert done.results[0].answer == "limit, 0 left"
    assert done.turns[0].answers[0]["tasks_left"] == 0
    assert llm.requests_of("tiny") == []


def test_money_that_is_gone_is_an_error_that_the_parent_can_still_pay_to_read() -> None:
    def spends(request: ChatRequest) -> Completion | str:
        told = heard(request)
        if told and told[0]["error"]:
            return f"{told[0]['error']['type']}, {told[0]['budget_left_usd']:.2f} left"
        return one(max_tokens=100_000)

    # A worker that takes 0.2 US$ for its 100,000 tokens, as often as the parent likes.
    llm = ScriptedModel({"boss": spends, "tiny": Completion("x", Usage(20, 100_000, 0.2), "tiny")})
    # Three of them would fit, but not with what the parent needs to read about the third.
    done = run(llm, budget_usd=0.605)
    assert done.error is None
    assert done.answer == "budget, 0.19 left"
    assert len(llm.requests_of("tiny")) == 2
    assert done.usage.cost_usd == pytest.approx(llm.billed_usd)
    assert llm.billed_usd <= 0.605


def test_a_budget_too_small_for_the_parent_itself_ends_the_run_before_anything_is_sent() -> None:
    llm = boss("done")
    done = run(llm, budget_usd=0.001)
    assert (done.answer, llm.requests) == (None, [])
    assert done.error is not None
    assert done.error.type == "budget"
    assert "the parent's next turn" in done.error.message


def test_long_answers_are_cut_where_the_money_would_not_do_for_reading_them() -> None:
    def told(request: ChatRequest) -> str:
        return str(max(len(m.content) for m in request.messages if m.speaker == "tool"))

    free = Completion("é" * 1900, Usage(20, 10, 0.0), "tiny")
    tasks = several(*[{"goal": f"Add up {n}.", "max_tokens": 1} for n in range(16)])
    rich = run(boss(tasks, told, small=free))
    poor = run(boss(tasks, told, small=free), budget_usd=0.045)
    assert int(rich.answer or 0) > 30_000
    assert poor.error is None
    assert int(poor.answer or 0) < 9_000


def test_a_parent_that_never_stops_is_cut_off_with_what_it_has() -> None:
    def never(request: ChatRequest) -> Completion:
        return calls(("delegate_task", {"goal": "Again."}), text=f"turn {turns_of(request) + 1}")

    llm = boss(never)
    done = run(llm, limits=ParentLimits(max_turns=5))
    assert done.answer is None
    assert done.error is not None
    assert (done.error.type, done.error.asked) == ("limit", "5")
    assert [result.answer for result in done.results] == ["42"] * 4
    assert done.said == "turn 5"
    assert len(llm.requests_of("boss")) == len(done.turns) == 5
    assert [turn.answers[0]["turns_left"] for turn in done.turns[:-1]] == [4, 3, 2, 1]
    assert done.turns[-1].answers == ()


def test_calls_beyond_the_most_of_a_turn_are_told_so_and_not_done() -> None:
    llm = boss(calls(*[("delegate_task", {"goal": "Add up."})] * 5), "done")
    done = run(llm, limits=ParentLimits(max_calls=3))
    assert [error and error["type"] for error in errors(done)] == [None] * 3 + ["limit"] * 2
    assert len(llm.requests_of("tiny")) == 3


def test_calls_beyond_the_most_of_a_turn_take_no_money_from_the_others() -> None:
    prices = {"boss": Price(1, 1, "test"), "tiny": Price(0.1, 0.1, "test")}
    many = calls(*[("delegate_task", {"goal": f"part {n}"}) for n in range(64)])
    done = run(boss(many, "done", prices=prices), budget_usd=0.09)
    assert [error and error["type"] for error in errors(done)] == [None] * 16 + ["limit"] * 48
    assert done.answer == "done"


def test_the_calls_of_a_turn_are_done_at_the_same_time_and_told_in_their_order() -> None:
    said = calls(*[("delegate_task", {"goal": f"Say {n}."}) for n in range(4)])

    def echo(request: ChatRequest) -> str:
        return f"heard {request.messages[-1].content.count('Say 2.')}"

    llm = ScriptedModel({"boss": [said, "done"], "tiny": echo})
    llm.gather = 1
    llm.delays_s = {"tiny": 0.05}
    done = run(llm)
    assert llm.peak == 4
    told = [told["summary"] for told in done.turns[0].answers]
    assert told == ["heard 0", "heard 0", "heard 1", "heard 0"]


# Bad calls ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "why"),
    [
        ("delegate_tsk", {"goal": "x"}, "there is no tool 'delegate_tsk'"),
        ("delegate_task", '{"goal": ', "not JSON"),
        ("delegate_task", "[]", "expected an object"),
        ("delegate_task", "{}", "goal: is required"),
        ("delegate_task", {"goal": "x", "may_delegate": "yes"}, "may_delegate: expected true"),
        ("delegate_task", {"goal": "x", "modle": "tiny"}, "did you mean 'model'"),
        ("delegate_tasks", {"tasks": [], "may_delegate": True}, "there is no such key"),
        ("delegate_task", {"goal": "x", "may_delegate": True, "model": "auto"}, "no router"),
        ("delegate_task", {"goal": "x", "may_delegate": True, "model": "team"}, "one chat model"),
    ],
)
def test_a_call_that_cannot_be_meant_is_an_error_that_the_parent_reads(
    name: str, arguments: JSON | str, why: str
) -> None:
    team = Plan("debate", (Agent(None, "tiny"), Agent(None, "tiny")))
    llm = boss(calls((name, arguments)), lambda request: str(heard(request)[0]["error"]))
    done = run(llm, settings=Settings(default="tiny", plans={"team": team}))
    assert done.answer is not None
    assert why.casefold() in done.answer.casefold()
    assert llm.requests_of("tiny") == []


def test_a_call_that_was_cut_off_says_so() -> None:
    llm = boss(calls(("delegate_task", '{"goal": "Ad'), finish="length"), "done")
    (told,) = run(llm).turns[0].answers
    assert told["error"]["type"] == "invalid_task"
    assert "cut off at its most tokens" in told["note"]


def test_every_call_is_answered_once_and_in_order_however_bad() -> None:
    llm = boss(calls(("x", "{}"), ("list_models", {}), ("delegate_task", "")), "done")
    assert run(llm).answer == "done"
    spoken = llm.requests_of("boss")[-1].messages
    assert [m.speaker for m in spoken] == ["system", "user", "assistant", "tool", "tool", "tool"]
    assert [m.tool_call_id for m in spoken[3:]] == [call.id for call in spoken[2].tool_calls]
    assert "tiny" in spoken[4].content


@pytest.mark.parametrize("name", ["auto", "team", "nobody"])
def test_a_parent_that_is_no_chat_model_is_refused_before_anything_is_sent(name: str) -> None:
    team = Plan("debate", (Agent(None, "tiny"), Agent(None, "tiny")))
    llm = boss("done")
    with pytest.raises(DelegationError):
        run(llm, model=name, settings=Settings(plans={"team": team}))
    with pytest.raises(DelegationError):
        run(llm, goal=" ")
    assert llm.requests == []


@pytest.mark.parametrize("change", [{"max_turns": 0}, {"max_depth": True}, {"max_calls": None}])
def test_limits_are_whole_numbers_from_1(change: Any) -> None:
    with pytest.raises(ConfigError, match="expected a whole number >= 1"):
        ParentLimits(**change)


# Any parent --------------------------------------------------------------------------------------

MODELS = st.sampled_from(["tiny", "tinny", "boss", "boss:tiny", "auto", "", "small", "down"])
TASK = st.fixed_dictionaries(
    {"goal": st.sampled_from(["Add up.", "", "Summarise the above."])},
    optional={
        "model": MODELS,
        "max_tokens": st.sampled_from([1, 100, 10**9, -1, 1.5]),
        "budget_usd": st.sampled_from([0, 0.001, 5, -1, "much"]),
        "may_delegate": st.booleans(),
    },
)
BATCH = st.fixed_dictionaries(
    {
        "tasks": st.lists(
            TASK.map(lambda task: {k: v for k, v in task.items() if k in Task.__slots__}),
            max_size=4,
        )
    },
    optional={"model": MODELS},
)
CALL: st.SearchStrategy[tuple[str, JSON | str]] = st.one_of(
    st.tuples(st.just("delegate_task"), TASK),
    st.tuples(st.just("delegate_tasks"), BATCH),
    st.tuples(st.just("list_models"), st.just({})),
    st.tuples(st.text(max_size=8), st.text(max_size=8)),
)
SAID = st.one_of(
    st.lists(CALL, min_size=1, max_size=4).map(lambda made: calls(*made)),
    st.lists(CALL, min_size=1, max_size=4).map(lambda made: calls(*made)),
    st.just("An answer."),
    st.just(DOWN),
)


@settings(max_examples=40, deadline=None)
@given(
    script=st.lists(SAID, min_size=1, max_size=6),
    budget_usd=st.none() | st.sampled_from([0.0, 0.03, 0.08, 0.5]),
    limits=st.builds(
        ParentLimits,
        max_turns=st.integers(1, 5),
        max_tasks=st.integers(1, 6),
        max_depth=st.integers(1, 2),
        max_calls=st.integers(1, 3),
    ),
)
def test_any_parent_comes_to_an_end_within_its_limits(
    script: Sequence[Reply], budget_usd: float | None, limits: ParentLimits
) -> None:
    def endless(request: ChatRequest) -> Any:
        return script[turns_of(request) % len(script)]

    llm = ScriptedModel({"boss": endless, "tiny": "42", "down": DOWN})
    books = Ledger(budget_usd)
    done = run(llm, within=books, limits=limits)
    assert (done.answer is None) != (done.error is None)
    assert len(done.turns) <= limits.max_turns
    sent = [result for result in done.results if result.run is not None]
    below = [inner for child in done.below.values() for inner in child.results if inner.run]
    most = limits.max_tasks or 0
    assert len(sent) + len(below) + len(done.below) <= most
    assert all(child.below == {} for child in done.below.values())
    for turn in done.turns:
        assert len(turn.answers) in (0, len(turn.calls))
        for told in turn.answers:
            json.dumps(told, allow_nan=False)
    assert done.usage.cost_usd == pytest.approx(llm.billed_usd)
    assert books.reserved_usd == 0
    assert books.within_budget
