"""Streaming a run: its events as they happen, and what leaving early does."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from tests.topologies.scripted import Failing, Scripted, agreeing, forever, plan

from masrouter.errors import BudgetError, ExecutionError
from masrouter.execution import CallStarted, Event, RunEnded, TextArrived, stream

QUERY = "2 + 2?"
ONE = plan("io", None)
THREE = plan("self_consistency", None, None, None)


def test_a_stream_gives_the_text_of_replies_and_the_run() -> None:
    async def streamed() -> list[Event]:
        return [event async for event in stream(ONE, QUERY, llm=Scripted(agreeing))]

    events = asyncio.run(streamed())
    last = events[-1]
    assert isinstance(last, RunEnded)
    texts = [event.text for event in events if isinstance(event, TextArrived)]
    assert len(texts) > 1
    assert " ".join(texts) == last.run.answer == "By m1.\nAnswer: 4"


def test_a_stream_raises_what_the_run_raises_after_its_last_event() -> None:
    events: list[Event] = []

    async def streamed(llm: Scripted, budget_usd: float | None = None) -> None:
        async for event in stream(ONE, QUERY, llm=llm, budget_usd=budget_usd):
            events.append(event)

    with pytest.raises(ExecutionError, match="m1 is down"):
        asyncio.run(streamed(Scripted(Failing(0))))
    assert isinstance(events.pop(), RunEnded)
    events.clear()
    with pytest.raises(BudgetError, match="no price is known for 'm1'"):
        asyncio.run(streamed(Scripted(agreeing, price=None), budget_usd=1))
    assert events == []


def test_leaving_a_stream_cancels_the_run() -> None:
    llm = Scripted(forever)

    async def left() -> int:
        async with contextlib.aclosing(stream(THREE, QUERY, llm=llm)) as events:  # type: ignore[type-var]
            async for event in events:
                assert isinstance(event, CallStarted)
                break
        return len(asyncio.all_tasks())

    assert asyncio.run(left()) == 1
    assert llm.under_way == 0
