"""When to delegate, when to ask first, and what to ask for next."""

from masrouter.delegation.deliberation.agreement import Rule, Verdict, should_delegate
from masrouter.delegation.deliberation.calibration import calibrate
from masrouter.delegation.deliberation.deliberating import Deliberation, deliberate
from masrouter.delegation.deliberation.iterating import by_description, iterate
from masrouter.delegation.deliberation.missing import MissingRule, check_missing
from masrouter.delegation.deliberation.missing_labels import LabelledGoal, calibrate_missing
from masrouter.delegation.deliberation.sampled import collect_samples, read_samples
from masrouter.delegation.deliberation.thresholds import Thresholds

__all__ = [
    "Deliberation",
    "LabelledGoal",
    "MissingRule",
    "Rule",
    "Thresholds",
    "Verdict",
    "by_description",
    "calibrate",
    "calibrate_missing",
    "check_missing",
    "collect_samples",
    "deliberate",
    "iterate",
    "read_samples",
    "should_delegate",
]
