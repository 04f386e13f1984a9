"""Thresholds chosen on logged outcomes, and what they save: to delegate, ask, match, iterate.

    collecting ─► sampled ─┬─► replaying ───────► agreement   how many samples must agree
    gaps ──────────────────┴─► asking_outcomes ─► asking      when to ask back first
    matching_outcomes ──────────────────────────► matching    which requests are a worker's
    iterations ─────────────────────────────────► iterating   how far to ask for what is missing

Each choice is made on some queries and judged on others, against always, never and message length.
"""

from masrouter.delegation.calibration.agreement import calibrate
from masrouter.delegation.calibration.asking import calibrate_asking
from masrouter.delegation.calibration.collecting import Label, collect_samples
from masrouter.delegation.calibration.iterating import calibrate_iterating
from masrouter.delegation.calibration.iterations import collect_iterations, read_iterations
from masrouter.delegation.calibration.matching import calibrate_matching
from masrouter.delegation.calibration.matching_outcomes import collect_matching
from masrouter.delegation.calibration.sampled import read_samples

__all__ = [
    "Label",
    "calibrate",
    "calibrate_asking",
    "calibrate_iterating",
    "calibrate_matching",
    "collect_iterations",
    "collect_matching",
    "collect_samples",
    "read_iterations",
    "read_samples",
]
