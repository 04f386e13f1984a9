"""Logged queries for tests of choosing and replaying rules."""

from __future__ import annotations

from masrouter.delegation.calibration.sampled import Sample, SampledQuery, StrongOutcome

CHEAP, DEAR = 0.001, 0.1
"""US dollars of a sample, and of the strong worker's answer."""


def sampled(name: str, answers: str, *, strong: float = 1.0, query: str = "?") -> SampledQuery:
    """A query with a sample a letter: `r` is right, `.` failed, any other letter is wrong."""
    return SampledQuery(
        query_id=name,
        query=query,
        samples=tuple(
            Sample("" if one == "." else f"Answer: {ord(one)}", float(one == "r"), CHEAP)
            for one in answers
        ),
        strong=StrongOutcome(strong, DEAR),
    )
