"""Numbers as people read them; what is not known is a dash, never a zero."""

from __future__ import annotations

import math
from collections.abc import Callable

from masrouter.types import Interval

UNKNOWN = "–"


def dollars(value: float | None) -> str:
    """`$0.0031`: three digits that matter, never an exponent."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if value == 0:
        return "$0"
    digits = min(max(0, 2 - math.floor(math.log10(abs(value)))), 12)
    text = f"{abs(value):,.{digits}f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return ("-" if value < 0 else "") + "$" + text


def percent(value: float | None, digits: int = 0) -> str:
    """A share of 1 in percent."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{100 * value:.{digits}f} %"


def signed(value: float | None, digits: int = 3) -> str:
    """With its sign."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text  # neither +0 nor -0


def fixed(value: float | None, digits: int = 3) -> str:
    """With a fixed number of digits."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{value if round(value, digits) else 0.0:.{digits}f}"


def seconds(value: float | None) -> str:
    """`2.1 ms`, `14 s`."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if value < 1e-3:
        return f"{1e6 * value:.3g} µs"
    return f"{1e3 * value:.3g} ms" if value < 1.0 else f"{value:.3g} s"


def spread(interval: Interval | None, form: Callable[[float | None], str] = signed) -> str:
    """`-0.010 to +0.021`."""
    if interval is None:
        return UNKNOWN
    return f"{form(interval.low)} to {form(interval.high)}"


def weight(value: float) -> str:
    """A cost weight, short enough for an axis: `0`, `2.8`, `1,190`."""
    if value == 0:
        return "0"
    if abs(value) >= 1e6 or abs(value) < 1e-3:
        return f"{value:.2g}"
    digits = max(0, 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"
