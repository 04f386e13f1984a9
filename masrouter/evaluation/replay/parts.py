"""How traffic is cut: by domain, and by spans of time that its timestamps allow."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from masrouter.evaluation.replay.traffic import Routed, Times, Traffic
from masrouter.outcomes import Ints

MOST_DOMAINS = 12
"""Further ones are shown together."""
OTHERS = "(all others)"
NO_TIME = "(no timestamp)"
DAYS, WEEKS, MONTHS = 21, 26 * 7, 36 * 31
"""Longest spans, in days, that are cut into days, weeks and months; then years."""


@dataclass(frozen=True)
class Cut:
    """A label for each of k things."""

    names: tuple[str, ...]
    label: Ints  # (k,) index into names
    source: str
    """Where the labels come from, in words."""


def domains(traffic: Traffic, routed: Routed, predicted: bool) -> Cut:
    """A domain for each query, (Q,), the most frequent first.

    The logs' task, else their data set, else the router's prediction if `predicted` says that it
    can tell domains apart: the first of them that is not one name for all.
    """
    named = [task or dataset for task, dataset in zip(traffic.tasks, traffic.datasets, strict=True)]
    own, source = named, "the task that the logs name, else their data set"
    if len(set(named)) == 1 or not any(traffic.tasks):
        own, source = list(traffic.datasets), "the logs' data sets"
    if len(set(own)) == 1 and predicted:
        own = ["(not routed)" if d is None else d.domain for d in routed.decisions]
        source = "predicted by the router from the text, since the logs name one for all"
    ranked = [name for name, _ in sorted(Counter(own).items(), key=lambda x: (-x[1], x[0]))]
    kept = ranked if len(ranked) <= MOST_DOMAINS else [*ranked[: MOST_DOMAINS - 1], OTHERS]
    position = {name: i for i, name in enumerate(kept)}
    last = len(kept) - 1
    label = np.array([position.get(name, last) for name in own], dtype=np.int64)
    return Cut(tuple(kept), label, source)


def spans(time: Times) -> Cut:
    """A span for each moment, (n,), in order of time; no names where nothing has a timestamp."""
    known = ~np.isnat(time)
    label = np.full(len(time), -1, dtype=np.int64)
    if not known.any():
        return Cut((), label, "the logs have no timestamps")
    days = (time[known].max() - time[known].min()) / np.timedelta64(1, "D")
    moments = time[known]
    if days <= DAYS:
        starts, what = moments.astype("datetime64[D]"), "days"
    elif days <= WEEKS:
        # Weeks of the calendar begin on Mondays; numpy's on the weekday of 1 January 1970.
        shift = np.timedelta64(3, "D")
        day = moments.astype("datetime64[D]") + shift
        starts, what = (
            day.astype("datetime64[W]").astype("datetime64[D]") - shift,
            "weeks (from Monday)",
        )
    elif days <= MONTHS:
        starts, what = moments.astype("datetime64[M]"), "months"
    else:
        starts, what = moments.astype("datetime64[Y]"), "years"
    distinct, label[known] = np.unique(starts, return_inverse=True)
    names = [str(start) for start in distinct]
    source = f"{what} of the runs' timestamps (UTC)"
    if not known.all():
        label[~known] = len(names)
        names.append(NO_TIME)
        source += f"; {int((~known).sum()):,} of {len(time):,} runs have none"
    return Cut(tuple(names), label, source)
