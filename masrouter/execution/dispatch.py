"""Sends a team's calls: so many at once, within the deadline and the budget, each on record."""

from __future__ import annotations

import asyncio
import sys
from functools import partial

from masrouter.errors import BudgetError, CallError, ConfigError
from masrouter.execution.events import CallEnded, CallStarted, Listener, TextArrived
from masrouter.execution.ledger import CallMeter, Ledger
from masrouter.llms.chat import ChatModel, ChatRequest, Completion, Price
from masrouter.types import Call

_SLACK_S = 0.05
"""A client that is given the time that is left may stop a little early."""


class DeadlineError(CallError):
    """The run's time is over; the call was cut off, or not sent any more."""


def check_deadline(deadline_s: float | None) -> None:
    """Raises ConfigError for what is neither a number of seconds > 0 nor None."""
    if deadline_s is None:
        return
    number = isinstance(deadline_s, int | float) and not isinstance(deadline_s, bool)
    if not number or not 0 < deadline_s <= sys.float_info.max:
        raise ConfigError(
            f"deadline_s: expected seconds > 0, or None for no limit, got {deadline_s!r:.80}"
        )


class Clock:
    """Seconds since the run began, and when it has to end."""

    def __init__(self, deadline_s: float | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time()
        self.deadline_s = deadline_s
        self.end = None if deadline_s is None else self._start + deadline_s
        """In the event loop's time, as `asyncio.timeout_at` takes it."""

    def now(self) -> float:
        """Seconds since the run began."""
        return self._loop.time() - self._start

    def left(self) -> float | None:
        """Seconds until the deadline, at least 0; None where there is none."""
        return None if self.end is None else max(0.0, self.end - self._loop.time())

    def is_over(self, slack_s: float = 0.0) -> bool:
        """Whether the deadline has passed, or will in `slack_s`."""
        left = self.left()
        return left is not None and left <= slack_s


class Dispatcher:
    """A `Sender` for a team. `calls` are on record in the order in which they ended."""

    def __init__(
        self,
        llm: ChatModel,
        prices: dict[str, Price | None],
        ledger: Ledger,
        clock: Clock,
        listener: Listener,
        *,
        max_concurrency: int,
        stream_text: bool,
    ) -> None:
        self.calls: list[Call] = []
        self._llm = llm
        self._prices = prices
        self._ledger = ledger
        self._clock = clock
        self._listener = listener
        self._stream_text = stream_text
        self._slots = asyncio.Semaphore(max_concurrency)

    async def __call__(self, agent: int, step: str, request: ChatRequest) -> Completion:
        """Send one request when it is its turn; raises CallError or BudgetError."""
        meter = self._ledger.meter(request, self._prices[request.model])
        started = self._clock.now()
        completion: Completion | None = None
        failure: str | None = "cancelled: the run was cancelled"
        try:
            if self._clock.is_over():
                raise self._too_late(request, meter)
            async with asyncio.timeout_at(self._clock.end) as limit, self._slots:
                await meter.ready()
                started = self._clock.now()
                self._listener(CallStarted(agent, step, request.model, started))
                completion = await self._complete(agent, step, request, meter)
            failure = None
            return completion
        except TimeoutError as error:
            if not limit.expired():
                failure = f"TimeoutError: {error}"
                raise
            late = self._too_late(request, meter)
            failure = f"{late.kind}: {late}"
            raise late from None
        except CallError as error:
            failure = f"{error.kind}: {error}"
            late_too = error.kind == "timeout" and self._clock.is_over(_SLACK_S)
            if late_too and not isinstance(error, DeadlineError):
                raise self._too_late(request, meter) from error
            raise
        except BudgetError as error:
            failure = f"budget: {error}"
            raise
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
            raise
        finally:
            meter.close()
            call = Call(
                agent=agent,
                step=step,
                model=request.model,
                messages=tuple((m.speaker, m.content) for m in request.messages),
                reply=None if completion is None or failure else completion.text,
                usage=meter.usage,
                started_s=started,
                latency_s=self._clock.now() - started,
                attempts=meter.attempts,
                error=failure,
                finish_reason=None if completion is None else completion.finish_reason,
                answered_by=None if completion is None else completion.model,
            )
            self.calls.append(call)
            self._listener(CallEnded(call))

    async def _complete(
        self, agent: int, step: str, request: ChatRequest, meter: CallMeter
    ) -> Completion:
        on_text = partial(self._text, agent, step) if self._stream_text else None
        completion = await self._llm.complete(
            request, timeout_s=self._clock.left(), meter=meter, on_text=on_text
        )
        if meter.attempts == 0:
            meter.count_unmetered(completion.usage)
        if not completion.text.strip() and not completion.tool_calls:
            raise CallError(
                f"model {request.model!r} gave a completion without text",
                kind="empty",
                model=request.model,
                attempts=meter.attempts,
            )
        return completion

    def _text(self, agent: int, step: str, text: str) -> None:
        self._listener(TextArrived(agent, step, text))

    def _too_late(self, request: ChatRequest, meter: CallMeter) -> DeadlineError:
        return DeadlineError(
            f"the run's {self._clock.deadline_s:g} s are over",
            kind="timeout",
            model=request.model,
            attempts=meter.attempts,
        )
