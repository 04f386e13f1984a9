"""A team's answer as server-sent events, in OpenAI's chunks.

Where the answer is one call's reply, and there is none without it, its text goes out as it arrives:
io, cot and the join of orchestrate. Any other team may still turn its calls' texts down (a vote, a
revision that is not taken, a judge that fails), so that its answer goes out when it is decided, and
comments keep the connection alive until then. No text goes out that is not part of the answer.

The answer of the request begins with the first thing to tell, or after two seconds: what fails at
once fails with a status, what fails later ends the stream with an error. Events wait for a slow
client in a bounded number, as pieces of one call's text are joined while they wait.

With `events`, what the team does is told as chunks without choices, under `masrouter`:

    decision      the decision, as `/v1/decision` tells it
    call_started  agent, step, model, role, started_s
    text          agent, step, text: a piece of a call's reply
    call_ended    agent, step, model, role, reply, prompt_tokens, completion_tokens, cost_usd,
                  started_s, latency_s, attempts, finish_reason, error
    note          text: what the topology decided
    run_ended     cost_usd, reserved_usd, tokens, latency_s, agents, calls, missing, notes, error
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from masrouter.execution import CallEnded, CallStarted, Event, RunEnded, TeamNote, TextArrived
from masrouter.server.api_errors import as_api_error
from masrouter.server.chat_run import (
    TeamRun,
    failure_kind,
    finish_reason,
    told_decision,
    told_run,
    told_usage,
    usage_json,
)
from masrouter.types import Plan, Run

_log = logging.getLogger("masrouter.server")

LIVE: Mapping[str, str] = {"io": "answer", "cot": "answer", "orchestrate": "join"}
"""By topology, the step of agent 1 whose reply is the answer, and without which there is none."""

KEEP_ALIVE_S = 5.0
_BEGIN_S = 2.0
_PIECE = 512
"""Characters of an answer that goes out when it is decided."""

_LARGEST = 16_384
"""Characters of one chunk."""

_KEEP_ALIVE = b": the team is working\n\n"
_DONE = b"data: [DONE]\n\n"
_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


class Feed:
    """What a run tells, on its way to a client. Holds a few entries for each call at most."""

    def __init__(self, plan: Plan, *, events: bool) -> None:
        self.sent = ""
        """The answer's text that was taken from here."""
        self._plan = plan
        self._live = LIVE.get(plan.topology)
        self._events = events
        self._waiting: list[dict[str, Any]] = []
        self._news = asyncio.Event()

    @property
    def streams_text(self) -> bool:
        """Whether pieces of text are of any use."""
        return self._events or self._live is not None

    def __call__(self, event: Event) -> None:
        """Take an event of the run."""
        if isinstance(event, TextArrived) and event.agent == 0 and event.step == self._live:
            self._add_text({"answer": True}, event.text)
        if self._events:
            self._tell(event)
        if self._waiting:
            self._news.set()

    def end(self, _: object = None) -> None:
        """Nothing more will come."""
        self._news.set()

    async def wait(self, seconds: float) -> bool:
        """Return when there is news, False where there was none for so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return False
        return True

    def take(self) -> list[dict[str, Any]]:
        """All that waits: `{"answer": True, "text": ...}`, or an event as it is told."""
        taken, self._waiting = self._waiting, []
        self._news.clear()
        for item in taken:
            if "pieces" in item:
                item["text"] = "".join(item.pop("pieces"))
            if "answer" in item:
                self.sent += item["text"]
        return taken

    def __len__(self) -> int:
        """Entries that wait."""
        return len(self._waiting)

    def _tell(self, event: Event) -> None:
        if isinstance(event, TextArrived):
            about = {"event": "text", "agent": event.agent, "step": event.step}
            self._add_text(about, event.text)
        elif isinstance(event, CallStarted):
            self._waiting.append(
                {
                    "event": "call_started",
                    **self._seat(event.agent, event.step, event.model),
                    "started_s": event.started_s,
                }
            )
        elif isinstance(event, CallEnded):
            call = event.call
            self._waiting.append(
                {
                    "event": "call_ended",
                    **self._seat(call.agent, call.step, call.model),
                    "reply": call.reply,
                    **told_usage(call.usage),
                    "started_s": call.started_s,
                    "latency_s": call.latency_s,
                    "attempts": call.attempts,
                    "finish_reason": call.finish_reason,
                    "error": failure_kind(call.error),
                }
            )
        elif isinstance(event, TeamNote):
            self._waiting.append({"event": "note", "text": event.text})
        elif isinstance(event, RunEnded):
            self._waiting.append({"event": "run_ended", **told_run(event.run)})

    def _seat(self, agent: int, step: str, model: str) -> dict[str, Any]:
        role = self._plan.agents[agent].role
        return {"agent": agent, "step": step, "model": model, "role": role}

    def _add_text(self, about: dict[str, Any], text: str) -> None:
        """Join it to what waits of the same call, so that a slow client holds up but one entry."""
        for item in self._waiting:
            if "pieces" in item and all(item.get(key) == about[key] for key in about):
                item["pieces"].append(text)
                return
        self._waiting.append({**about, "pieces": [text]})


class Chunks:
    """Makes the chunks of one completion."""

    def __init__(self, head: Mapping[str, Any], *, with_usage: bool) -> None:
        """head: id, created and model."""
        self._head = {**head, "object": "chat.completion.chunk", "system_fingerprint": None}
        self._usage: dict[str, Any] = {"usage": None} if with_usage else {}

    def text(self, text: str) -> bytes:
        """A piece of the answer."""
        return self._choice({"content": text}, None)

    def begin(self) -> bytes:
        """The first chunk: who speaks."""
        return self._choice({"role": "assistant", "content": ""}, None)

    def finish(self, reason: str) -> bytes:
        """The last chunk with a choice."""
        return self._choice({}, reason)

    def event(self, told: Mapping[str, Any]) -> bytes:
        """A chunk without choices, which clients that do not know it pass over."""
        return sse({**self._head, "choices": [], **self._usage, "masrouter": told})

    def last(self, usage: Mapping[str, Any] | None, told: Mapping[str, Any] | None) -> bytes:
        """The usage of the whole team, and the `masrouter` object, where they were asked for."""
        if not self._usage and told is None:
            return b""
        more = {"masrouter": told} if told is not None else {}
        return sse(
            {**self._head, "choices": [], **({"usage": usage} if self._usage else {}), **more}
        )

    def _choice(self, delta: Mapping[str, Any], reason: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return sse({**self._head, "choices": [choice], **self._usage})


async def stream_team(
    team: TeamRun, chunks: Chunks, headers: Mapping[str, str], *, events: bool, include: bool
) -> StreamingResponse:
    """The response to a streamed request. Raises what fails before there is anything to tell."""
    decision = told_decision(team.served) if events or include else None
    feed = Feed(team.served.plan, events=events)
    work = asyncio.create_task(team.run(feed, stream_text=feed.streams_text))
    work.add_done_callback(feed.end)
    try:
        await feed.wait(_BEGIN_S)
        if work.done() and work.exception() is not None:
            await work
    except BaseException:
        await _stop(work)
        raise
    told = _told(work, feed, chunks, decision, events=events, include=include)
    return _TeamStream(told, work, {**_HEADERS, **headers})


class _TeamStream(StreamingResponse):
    """A streamed response that takes its team along wherever it ends."""

    def __init__(
        self, told: AsyncIterator[bytes], work: asyncio.Task[Run], headers: Mapping[str, str]
    ) -> None:
        super().__init__(told, media_type="text/event-stream", headers=headers)
        self._work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await _stop(self._work)


async def _told(
    work: asyncio.Task[Run],
    feed: Feed,
    chunks: Chunks,
    decision: Mapping[str, Any] | None,
    *,
    events: bool,
    include: bool,
) -> AsyncIterator[bytes]:
    if events and decision is not None:
        yield chunks.event({"event": "decision", **decision})
    yield chunks.begin()
    over = False
    while not over:
        over = work.done()  # looked at first: all that it told is there to be taken then
        for item in feed.take():
            for told in _split(item):
                yield chunks.text(told["text"]) if "answer" in told else chunks.event(told)
        if not over and not await feed.wait(KEEP_ALIVE_S):
            yield _KEEP_ALIVE
    if (error := work.exception()) is not None:
        told_error = as_api_error(_as_exception(error))
        if told_error.code == "internal_error":
            _log.error("a streamed run failed", exc_info=error)
        yield sse(told_error.to_json())
        return
    run = work.result()
    assert run.answer is not None
    for piece in _pieces(run.answer.removeprefix(feed.sent)):
        yield chunks.text(piece)
    yield chunks.finish(finish_reason(run))
    whole = {**decision, **told_run(run)} if include and decision is not None else None
    if last := chunks.last(usage_json(run), whole):
        yield last
    yield _DONE


def stream_nothing(
    chunks: Chunks, headers: Mapping[str, str], told: Mapping[str, Any]
) -> StreamingResponse:
    """The stream of a dry run: an empty answer, with the decision."""

    async def empty() -> AsyncIterator[bytes]:
        yield chunks.begin()
        yield chunks.finish("stop")
        yield chunks.last(usage_json(None), told)
        yield _DONE

    return StreamingResponse(
        empty(), media_type="text/event-stream", headers={**_HEADERS, **headers}
    )


def sse(data: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: %s\n\n" % json.dumps(data, allow_nan=False, separators=(",", ":")).encode()


def _pieces(text: str, most: int = _PIECE) -> Iterator[str]:
    for start in range(0, len(text), most):
        yield text[start : start + most]


def _split(item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Text that became long while it waited, in pieces that a slow client can hold up."""
    if "text" not in item:
        yield item
        return
    for piece in _pieces(item["text"], _LARGEST):
        yield {**item, "text": piece}


def _as_exception(error: BaseException) -> Exception:
    return error if isinstance(error, Exception) else RuntimeError(type(error).__name__)


async def _stop(work: asyncio.Task[Run]) -> None:
    """End the run, if it is not over, and wait until it is recorded."""
    work.cancel()
    await asyncio.wait([work])
    if not work.cancelled():
        work.exception()  # told before, or nobody is there any more to be told
