"""When to delegate, when to ask first, and what to ask for next."""

from masrouter.delegation.deliberation.agreement import Rule, Verdict, should_delegate
from masrouter.delegation.deliberation.asking import calibrate_asking
from masrouter.delegation.deliberation.calibration import calibrate
from masrouter.delegation.deliberation.collecting import Label, collect_samples
from masrouter.delegation.deliberation.deliberating import Deliberation, deliberate
from masrouter.delegation.deliberation.iterating import by_description, iterate
from masrouter.delegation.deliberation.missing import MissingRule, check_missing
from masrouter.delegation.deliberation.sampled import read_samples
from masrouter.delegation.deliberation.thresholds import Thresholds

__all__ = [
    "Deliberation",
    "Label",
    "MissingRule",
    "Rule",
    "Thresholds",
    "Verdict",
    "by_description",
    "calibrate",
    "calibrate_asking",
    "check_missing",
    "collect_samples",
    "deliberate",
    "iterate",
    "read_samples",
    "should_delegate",
]
