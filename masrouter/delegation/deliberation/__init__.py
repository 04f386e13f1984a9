"""When to delegate, when to ask first, and what to ask for next."""

from masrouter.delegation.deliberation.agreement import Rule, Verdict, should_delegate
from masrouter.delegation.deliberation.deliberating import Deliberation, deliberate
from masrouter.delegation.deliberation.iterating import by_description, iterate
from masrouter.delegation.deliberation.iterating_rule import IteratingRule
from masrouter.delegation.deliberation.missing import MissingRule, check_missing
from masrouter.delegation.deliberation.thresholds import Thresholds

__all__ = [
    "Deliberation",
    "IteratingRule",
    "MissingRule",
    "Rule",
    "Thresholds",
    "Verdict",
    "by_description",
    "check_missing",
    "deliberate",
    "iterate",
    "should_delegate",
]
