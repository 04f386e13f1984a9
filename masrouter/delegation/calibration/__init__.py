"""Thresholds chosen on logged outcomes, and what they save: when to delegate, to ask, to match.

    collecting ─► sampled ─┬─► replaying ───────► agreement   how many samples must agree
    gaps ──────────────────┴─► asking_outcomes ─► asking      when to ask back first
    matching_outcomes ──────────────────────────► matching    which requests are a worker's

Each choice is made on some queries and judged on others, against always, never and message length.
"""

from masrouter.delegation.calibration.agreement import calibrate
from masrouter.delegation.calibration.asking import calibrate_asking
from masrouter.delegation.calibration.collecting import Label, collect_samples
from masrouter.delegation.calibration.matching import calibrate_matching
from masrouter.delegation.calibration.matching_outcomes import collect_matching
from masrouter.delegation.calibration.sampled import read_samples

__all__ = [
    "Label",
    "calibrate",
    "calibrate_asking",
    "calibrate_matching",
    "collect_matching",
    "collect_samples",
    "read_samples",
]
