"""What happens while a team works, told as it happens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from masrouter.types import Call, Run


@dataclass(frozen=True, slots=True)
class CallStarted:
    """A call is being sent."""

    agent: int
    """Index into `plan.agents`."""
    step: str
    model: str
    started_s: float
    """Seconds since the run began."""


@dataclass(frozen=True, slots=True)
class TextArrived:
    """A piece of a reply; only where text was asked to be streamed."""

    agent: int
    step: str
    text: str


@dataclass(frozen=True, slots=True)
class CallEnded:
    """A call is over, well or not."""

    call: Call


@dataclass(frozen=True, slots=True)
class TeamNote:
    """The topology decided something."""

    text: str


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The last event of a run, unless it is cancelled."""

    run: Run


Event = CallStarted | TextArrived | CallEnded | TeamNote | RunEnded
OnEvent = Callable[[Event], None]


class Listener:
    """Passes events on, and keeps a listener's fault away from calls that cost money.

    Where it raises, the event loop's exception handler is told, later events are not passed on,
    and the run goes on; `notes` says so.
    """

    def __init__(self, on_event: OnEvent | None) -> None:
        self._on_event = on_event
        self.notes: tuple[str, ...] = ()

    def __call__(self, event: Event) -> None:
        if self._on_event is None:
            return
        try:
            self._on_event(event)
        except Exception as error:
            self._on_event = None
            self.notes = (
                f"on_event raised {type(error).__name__} at {type(event).__name__}: {error}; "
                "no later event was passed on",
            )
            asyncio.get_running_loop().call_exception_handler(
                {"message": "on_event raised; the run goes on without it", "exception": error}
            )
