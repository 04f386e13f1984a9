"""The loop in which a model answers a question and hands out parts of it."""

from masrouter.delegation.parent.outcome import ParentLimits, ParentRun, Turn
from masrouter.delegation.parent.running import run_parent

__all__ = ["ParentLimits", "ParentRun", "Turn", "run_parent"]
