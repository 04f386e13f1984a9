"""What a policy would earn, estimated from the rounds that another policy logged.

rounds.py         logged rows as rounds, with the probability of each stage
estimators.py     direct method, IPS, SNIPS, DR, SWITCH-DR, stagewise DR: a value a round each
resampling.py     intervals over queries, whose rounds are not independent
outcome_model.py  the cross-fitted critic that DR corrects
support.py        can the logs answer at all? a verdict in words, and the probe that would
policy_value.py   all of it in one call

Not here: looking choices up in grid logs (`crossval`).
"""

from masrouter.evaluation.off_policy.estimators import (
    Estimate,
    difference,
    dm,
    dr,
    effective_sample_size,
    ips,
    on_policy,
    snips,
    stagewise_dr,
    switch_threshold,
)
from masrouter.evaluation.off_policy.policy_value import (
    Estimates,
    Guess,
    PolicyValue,
    PrefixValue,
    estimate_policy,
)
from masrouter.evaluation.off_policy.resampling import ClusterBootstrap
from masrouter.evaluation.off_policy.rounds import LoggedRounds
from masrouter.evaluation.off_policy.support import Probe, Verdict, not_identified

__all__ = [
    "ClusterBootstrap",
    "Estimate",
    "Estimates",
    "Guess",
    "LoggedRounds",
    "PolicyValue",
    "PrefixValue",
    "Probe",
    "Verdict",
    "difference",
    "dm",
    "dr",
    "effective_sample_size",
    "estimate_policy",
    "ips",
    "not_identified",
    "on_policy",
    "snips",
    "stagewise_dr",
    "switch_threshold",
]
