"""How far the signals of missing information can be trusted: counted on labelled tasks.

A signal's weight is the share of tasks that lack something among those that show it, smoothed by
one of each (Laplace). From which score on it pays to ask is another matter (`asking`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from masrouter.delegation.deliberation.missing import MissingRule
from masrouter.delegation.deliberation.signals import KINDS, SignalKind, missing_signals


@dataclass(frozen=True, slots=True)
class LabelledGoal:
    """A task of which it is known whether something is missing."""

    goal: str
    lacks: bool
    context: str = ""
    named: bool | None = None
    """Whether a model named something as missing; None where none was asked."""

    def kinds(self) -> frozenset[SignalKind]:
        """The signals that it shows."""
        found = {signal.kind for signal in missing_signals(self.goal, self.context)}
        return frozenset(found | ({"model"} if self.named else set()))


@dataclass(frozen=True, slots=True)
class SignalCount:
    """How often a signal shows."""

    kind: SignalKind
    lacking: int
    """Tasks that show it and lack something."""
    whole: int
    """Tasks that show it and lack nothing."""

    @property
    def found(self) -> bool:
        """Whether any task shows it."""
        return self.lacking + self.whole > 0

    @property
    def weight(self) -> float:
        """How likely a task that shows it lacks something, in (0, 1)."""
        return (self.lacking + 1) / (self.lacking + self.whole + 2)


def count_signals(
    kinds: Iterable[frozenset[SignalKind]], lacks: Iterable[bool]
) -> tuple[SignalCount, ...]:
    """Of tasks that show these signals and do or do not lack something; one count a kind."""
    labelled = list(zip(kinds, lacks, strict=True))
    return tuple(
        SignalCount(
            kind,
            sum(1 for has, lacking in labelled if kind in has and lacking),
            sum(1 for has, lacking in labelled if kind in has and not lacking),
        )
        for kind in KINDS
    )


def weights_of(counts: Sequence[SignalCount]) -> dict[SignalKind, float]:
    """By kind; one that no task shows keeps its default, since nothing is known against it."""
    usual = MissingRule().weights
    found = {one.kind: one.weight if one.found else usual.get(one.kind) for one in counts}
    return {kind: weight for kind, weight in found.items() if weight is not None}
