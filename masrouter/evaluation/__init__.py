"""Offline evaluation: baselines, cross-validation, metrics, off-policy estimates and reports.

Not here: routing, training, running plans.
"""
