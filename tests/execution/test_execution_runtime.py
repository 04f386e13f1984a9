"""Running a plan: money across attempts, time, many calls at once, events, odd clients."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.topologies.scripted import (
    PLANS,
    PRICE,
    Failing,
    Scripted,
    agreeing,
    disagreeing,
    forever,
    plan,
    reply,
    seat_of,
)

from masrouter.catalog import Catalog
from masrouter.errors import CallError, ConfigError, ExecutionError, PlanError
from masrouter.execution import (
    CallEnded,
    CallStarted,
    Event,
    RunEnded,
    TeamNote,
    TextArrived,
    aexecute,
    execute,
)
from masrouter.llms import ChatRequest, Completion, Meter, Price
from masrouter.topologies import ExampleReport, MaxTokens
from masrouter.topologies.debate import Debate
from masrouter.topologies.team import Team, call_seed
from masrouter.types import Run, Usage

QUERY = "2 + 2?"
ONE = plan("io", None)
THREE = plan("self_consistency", None, None, None)


class Client:
    """A ChatModel made of one function, for clients that do odd things with their meter."""

    def __init__(self, act: Callable[[Meter], Completion]) -> None:
        self._act = act

    def price(self, model: str) -> Price | None:
        return PRICE

    async def complete(
        self,
        request: ChatRequest,
        *,
        timeout_s: float | None = None,
        meter: Meter | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Completion:
        assert meter is not None
        return self._act(meter)


def completion(text: str = "4") -> Completion:
    return Completion(text, Usage(10, 5, 0.001), "m1")


def test_sixty_four_calls_are_under_way_at_once() -> None:
    catalog = Catalog.default()
    wide = replace(catalog.topologies["self_consistency"], max_agents=64)
    catalog = replace(catalog, topologies={**catalog.topologies, "self_consistency": wide})
    team = plan("self_consistency", *[None] * 64)

    async def together() -> Run:
        all_here = asyncio.Event()

        async def say(request: ChatRequest) -> str:
            if llm.under_way == 64:
                all_here.set()
            await all_here.wait()
            return agreeing(request)

        llm = Scripted(say)
        return await aexecute(
            team, QUERY, llm=llm, catalog=catalog, max_concurrency=64, deadline_s=30
        )

    assert len(asyncio.run(together()).calls) == 64


def test_retries_are_paid_for_and_an_unknown_one_makes_the_cost_unknown() -> None:
    def third_time(meter: Meter) -> Completion:
        meter.reserve()
        meter.release()
        meter.reserve()
        meter.settle(None)
        meter.reserve()
        meter.settle(Usage(10, 5, 0.001))
        return completion()

    run = execute(ONE, QUERY, llm=Client(third_time))
    assert run.calls[0].attempts == 3
    assert run.usage == Usage(None, None, None)
    worst = PRICE.cost_usd(5 * 10**3, 2048)
    assert 0 < run.reserved_usd < worst


def test_a_retry_that_no_longer_fits_is_not_sent() -> None:
    sent: list[int] = []

    def again_and_again(meter: Meter) -> Completion:
        while True:
            meter.reserve()
            sent.append(1)
            meter.settle(None)

    with pytest.raises(ExecutionError, match=r"io\(m1\): budget: agent 1 .*may cost") as error:
        execute(ONE, QUERY, llm=Client(again_and_again), budget_usd=0.012)
    run = error.value.run
    assert len(sent) == run.calls[0].attempts == 2
    assert run.reserved_usd <= 0.012
    assert run.usage.cost_usd is None


def test_a_client_that_ignores_its_meter_is_counted_and_refused_under_a_budget() -> None:
    run = execute(ONE, QUERY, llm=Client(lambda meter: completion()))
    assert (run.usage, run.calls[0].attempts) == (Usage(10, 5, 0.001), 1)
    with pytest.raises(
        ExecutionError, match=r"budget: .*answered without asking the meter"
    ) as error:
        execute(ONE, QUERY, llm=Client(lambda meter: completion()), budget_usd=1)
    assert error.value.run.usage.cost_usd == 0.001


def test_a_fault_of_a_client_keeps_the_trace() -> None:
    def broken(meter: Meter) -> Completion:
        meter.reserve()
        raise KeyError("choices")

    with pytest.raises(ExecutionError, match="KeyError: 'choices'") as error:
        execute(THREE, QUERY, llm=Client(broken))
    assert isinstance(error.value.__cause__, KeyError)
    run = error.value.run
    assert run.error == "KeyError: 'choices'"
    assert len(run.calls) == 3
    assert run.reserved_usd > 0


def test_a_completion_without_text_is_a_failure_that_was_paid_for() -> None:
    with pytest.raises(ExecutionError, match=r"team: agent 1 .*without text") as error:
        execute(ONE, QUERY, llm=Scripted(lambda request: " \n"))
    (call,) = error.value.run.calls
    assert (call.reply, call.attempts) == (None, 1)
    assert (call.error or "").startswith("empty: ")
    assert call.usage.cost_usd


def test_members_that_the_deadline_cuts_off_are_missed_and_the_others_vote() -> None:
    def say(request: ChatRequest) -> object:
        return forever(request) if seat_of(request) == 0 else agreeing(request)

    run = execute(THREE, QUERY, llm=Scripted(say), deadline_s=0.3)  # type: ignore[arg-type]
    assert (run.answer, run.missing) == ("By m2.\nAnswer: 4", (0,))
    assert run.usage.cost_usd is None
    assert run.agent_usage[1].cost_usd
    assert run.reserved_usd > 0


def test_a_timeout_that_the_client_tells_at_the_deadline_is_the_deadline() -> None:
    class Obedient(Scripted):
        async def complete(self, request: ChatRequest, **options: object) -> Completion:
            await asyncio.sleep(float(str(options["timeout_s"])) - 0.01)
            raise CallError("too slow", kind="timeout", model=request.model)

    with pytest.raises(ExecutionError, match="deadline: "):
        execute(ONE, QUERY, llm=Obedient(agreeing), deadline_s=0.3)
    with pytest.raises(ExecutionError, match=r"team: .*a stall"):
        execute(ONE, QUERY, llm=Scripted(_stalled), deadline_s=60)


def _stalled(request: ChatRequest) -> str:
    raise CallError("a stall", kind="timeout", model=request.model)


def test_waiting_for_a_turn_counts_against_the_deadline() -> None:
    with pytest.raises(ExecutionError, match="deadline: ") as error:
        execute(THREE, QUERY, llm=Scripted(forever), deadline_s=0.05, max_concurrency=1)
    assert sorted(call.attempts for call in error.value.run.calls) == [0, 0, 1]


class Sleepless:
    """Shown examples that never come to an end."""

    async def report(self, query: str, answer: str) -> ExampleReport | None:
        await asyncio.Event().wait()
        return None


def test_examples_that_do_not_end_are_cut_off_and_the_draft_stands() -> None:
    run = execute(
        plan("reflection", None), QUERY, llm=Scripted(agreeing), examples=Sleepless(),
        deadline_s=0.3,
    )  # fmt: skip
    assert (run.answer, run.missing) == ("By m1.\nAnswer: 4", (0,))


class Stubborn:
    """A topology of a user's that waits for something else than calls."""

    name = "io"
    version = 1

    def check(self, plan: object) -> None: ...

    async def answer(self, team: Team) -> str:
        await asyncio.Event().wait()
        return ""


class Numeric(Stubborn):
    async def answer(self, team: Team) -> str:
        return 4  # type: ignore[return-value]


class Repeating(Stubborn):
    async def answer(self, team: Team) -> str:
        await team.ask(0, "a", step="answer")
        return (await team.ask(0, "b", step="answer")).text


@pytest.mark.parametrize(
    ("shape", "error"),
    [
        (Stubborn(), "deadline: the run's 0.05 s are over"),
        (Numeric(), "TypeError: topology 'io' answered 4 where text was expected"),
        (Repeating(), "ValueError: agent 1 was asked at step 'answer' before"),
    ],
)
def test_a_topology_that_misbehaves_ends_with_its_trace(shape: Stubborn, error: str) -> None:
    with pytest.raises(ExecutionError) as caught:
        execute(ONE, QUERY, llm=Scripted(agreeing), topology=shape, deadline_s=0.05)
    assert caught.value.run.error == error


def test_other_settings_of_a_topology_are_taken_under_its_own_name_only() -> None:
    llm = Scripted(disagreeing)
    execute(PLANS["debate"], QUERY, llm=llm, topology=Debate(rounds=1))
    assert len(llm.requests) == 6
    with pytest.raises(
        PlanError, match="its topology is 'io', and the topology given is called 'debate'"
    ):
        execute(ONE, QUERY, llm=llm, topology=Debate())


def test_calls_that_wait_for_room_in_the_budget_are_sent_one_after_another() -> None:
    async def say(request: ChatRequest) -> str:
        await asyncio.sleep(0)
        return agreeing(request)

    # A call may cost 0.0053 and does cost some 0.0002: two at once would not fit.
    llm = Scripted(say)
    run = execute(THREE, QUERY, llm=llm, budget_usd=0.008)
    assert (run.missing, llm.most_under_way) == ((), 1)
    assert (run.usage.cost_usd or 1) < 0.008


def test_caps_of_tokens_go_by_what_is_asked_for() -> None:
    def caps(max_tokens: MaxTokens | int | None) -> list[int]:
        llm = Scripted(disagreeing)
        execute(PLANS["chain"], QUERY, llm=llm, max_tokens=max_tokens)
        return [request.max_tokens for request in llm.requests]

    assert caps(None) == [768, 2048, 1024, 2048]
    assert caps(900) == [768, 900, 900, 900]
    assert caps(4096) == [768, 4096, 1024, 4096]
    assert caps(MaxTokens(answer=5, critique=6, plan=7)) == [7, 5, 6, 5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"query": " "}, "query: expected a text, got ' '"),
        ({"deadline_s": 0}, "deadline_s: expected seconds > 0, or None for no limit, got 0"),
        ({"deadline_s": float("nan")}, "deadline_s: expected seconds"),
        ({"max_concurrency": 0}, "max_concurrency: expected a number >= 1, got 0"),
        ({"max_tokens": 0}, "max_tokens: answer: expected a number of tokens >= 1, got 0"),
        ({"max_tokens": True}, "max_tokens: answer: expected a number"),
        ({"max_tokens": 100.0}, "max_tokens: expected a number or MaxTokens, got 100.0"),
        ({"budget_usd": -1}, "budget_usd: expected US dollars >= 0, or None for no limit"),
    ],
)
def test_a_bad_setting_is_refused_before_anything_is_sent(
    options: dict[str, object], message: str
) -> None:
    llm = Scripted(agreeing)
    query = options.pop("query", QUERY)
    with pytest.raises(ConfigError, match=message):
        execute(ONE, query, llm=llm, **options)  # type: ignore[arg-type]
    assert llm.requests == []


def test_seeds_differ_by_run_agent_and_step_and_are_the_same_everywhere() -> None:
    assert call_seed(0, 0, "answer") == 760911340
    assert len({call_seed(s, a, t) for s in (0, 1) for a in (0, 1) for t in ("x", "y")}) == 8


def test_execute_inside_an_event_loop_says_what_to_use() -> None:
    async def inside() -> None:
        execute(ONE, QUERY, llm=Scripted(agreeing))

    with pytest.raises(ConfigError, match="use `await aexecute"):
        asyncio.run(inside())


def test_an_interrupt_stops_execute_and_its_calls() -> None:
    async def interrupted(request: ChatRequest) -> str:
        if seat_of(request) == 2:
            signal.raise_signal(signal.SIGINT)
        return await forever(request)

    llm = Scripted(interrupted)
    # Where the tests run in a shell's background, SIGINT is ignored until somebody listens to it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            execute(THREE, QUERY, llm=llm)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (len(llm.requests), llm.under_way) == (3, 0)


def test_events_tell_the_run_as_it_happens() -> None:
    async def say(request: ChatRequest) -> str:
        await asyncio.sleep(0)
        return disagreeing(request)

    events: list[Event] = []
    run = execute(PLANS["panel"], QUERY, llm=Scripted(say), on_event=events.append)
    assert [type(e) for e in events[:3]] == [CallStarted] * 3
    assert [e.call for e in events if isinstance(e, CallEnded)] == list(run.calls)
    assert tuple(e.text for e in events if isinstance(e, TeamNote)) == run.notes
    assert events[-1] == RunEnded(run)
    assert not any(isinstance(e, TextArrived) for e in events)
    started = [e for e in events if isinstance(e, CallStarted)]
    assert {(e.agent, e.step, e.model) for e in started} == {
        (c.agent, c.step, c.model) for c in run.calls
    }


def test_a_run_that_fails_ends_with_its_event_too() -> None:
    events: list[Event] = []
    with pytest.raises(ExecutionError) as error:
        execute(ONE, QUERY, llm=Scripted(Failing(0)), on_event=events.append)
    assert events[-1] == RunEnded(error.value.run)


@pytest.mark.parametrize("kind", [CallStarted, TextArrived, CallEnded, TeamNote, RunEnded])
def test_a_listener_that_raises_costs_nothing_but_its_events(kind: type[Event]) -> None:
    told: list[dict[str, object]] = []
    seen: list[Event] = []

    def listener(event: Event) -> None:
        seen.append(event)
        if isinstance(event, kind):
            raise ZeroDivisionError("a bar of no length")

    async def listened() -> Run:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        return await aexecute(
            THREE, QUERY, llm=Scripted(agreeing), on_event=listener, stream_text=True, budget_usd=1
        )

    run = asyncio.run(listened())
    quiet = execute(THREE, QUERY, llm=Scripted(agreeing))
    assert (run.answer, run.usage) == (quiet.answer, quiet.usage)
    assert run.reserved_usd == 0
    assert isinstance(seen[-1], kind)
    assert [type(context["exception"]) for context in told] == [ZeroDivisionError]
    if kind is not RunEnded:
        why = f"on_event raised ZeroDivisionError at {kind.__name__}: a bar of no length; "
        assert run.notes[-1].startswith(why)


def test_runs_side_by_side_in_one_loop_keep_their_books_apart() -> None:
    async def both() -> list[Run]:
        llm = Scripted(lambda request: reply(request, "4"))
        return await asyncio.gather(
            *(aexecute(THREE, QUERY, llm=llm, seed=seed, budget_usd=0.1) for seed in range(5))
        )

    runs = asyncio.run(both())
    assert len({run.usage for run in runs}) == 1
    assert all(len(run.calls) == 3 for run in runs)


class NoAnswer:
    name, version = "io", 1

    def check(self, plan: object) -> None: ...


class Plain(NoAnswer):
    def answer(self, team: object) -> str:
        return "42"


@pytest.mark.parametrize("given", ["io", NoAnswer(), Plain(), Plain])
def test_what_is_no_topology_is_refused_with_what_one_is(given: object) -> None:
    llm = Scripted(agreeing)
    with pytest.raises(PlanError, match=r"expected an object with .*async answer\(team\)"):
        execute(ONE, QUERY, llm=llm, topology=given)  # type: ignore[arg-type]
    assert llm.requests == []
