"""Numbers as a replay shows them: unknown is a dash, an interval stands in brackets.

Costs are shown for a thousand runs where the name says so: single ones have too many zeros.
"""

from __future__ import annotations

import math

from masrouter.evaluation.replay.types import Measured
from masrouter.types import Interval

UNKNOWN = "–"


def usd(value: float | None) -> str:
    """`$0.0031`: three digits that matter, never an exponent."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if value == 0:
        return "$0"
    digits = max(2, 2 - math.floor(math.log10(abs(value))))
    return ("-" if value < 0 else "") + "$" + f"{abs(value):,.{min(digits, 12)}f}"


def usd_of_1000(value: float | None) -> str:
    """The cost of a thousand."""
    return usd(None if value is None else 1000 * value)


def score(value: float | None) -> str:
    """Three digits."""
    return UNKNOWN if value is None else f"{value:.3f}"


def mean_score(measured: Measured | None) -> str:
    """With its interval."""
    if measured is None:
        return UNKNOWN
    return f"{measured.value:.3f}{brackets(measured.interval, '.3f')}"


def mean_cost(measured: Measured | None) -> str:
    """Of a thousand, with its interval."""
    if measured is None:
        return UNKNOWN
    ends = measured.interval
    shown = "" if ends is None else f" [{usd_of_1000(ends.low)}, {usd_of_1000(ends.high)}]"
    return usd_of_1000(measured.value) + shown


def score_change(measured: Measured | None) -> str:
    """Signed, with its interval."""
    if measured is None:
        return UNKNOWN
    return f"{measured.value:+.3f}{brackets(measured.interval, '+.3f')}"


def cost_change(measured: Measured | None) -> str:
    """Signed, of a thousand, with its interval."""
    if measured is None:
        return UNKNOWN

    def signed(value: float) -> str:
        return ("+" if value > 0 else "") + usd_of_1000(value)

    ends = measured.interval
    shown = "" if ends is None else f" [{signed(ends.low)}, {signed(ends.high)}]"
    return signed(measured.value) + shown


def share(measured: Measured | None) -> str:
    """Percent, with its interval."""
    if measured is None:
        return UNKNOWN
    form = ".1%" if 0 < abs(measured.value) < 0.01 else ".0%"
    return f"{measured.value:{form}}{brackets(measured.interval, form)}"


def reach(interval: Interval | None) -> str:
    """A range of scores."""
    return UNKNOWN if interval is None else f"{interval.low:.3f} to {interval.high:.3f}"


def brackets(interval: Interval | None, form: str) -> str:
    """The ends, nothing where there is no interval."""
    if interval is None:
        return ""
    return f" [{format(interval.low, form)}, {format(interval.high, form)}]"
