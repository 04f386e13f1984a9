"""Run a plan: calls in parallel, a budget and a deadline that hold, a trace of everything."""

from masrouter.execution.events import (
    CallEnded,
    CallStarted,
    Event,
    RunEnded,
    TeamNote,
    TextArrived,
)
from masrouter.execution.ledger import CallMeter, Ledger
from masrouter.execution.runtime import aexecute, execute, stream

__all__ = [
    "CallEnded",
    "CallMeter",
    "CallStarted",
    "Event",
    "Ledger",
    "RunEnded",
    "TeamNote",
    "TextArrived",
    "aexecute",
    "execute",
    "stream",
]
