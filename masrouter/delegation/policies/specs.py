"""What a policy is: a way of doing a task with several models, under one name.

    policies:
      careful:    {deliberate: {cheap: small, strong: large, thresholds: thresholds.json}}
      researched: {iterate: {model: medium, subtask: small, rounds: 3, requests: 4}}
      fitting:    {match: {otherwise: small}}

Plain data. Not here: reading the file (`reading`), and what a policy does (`running`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from masrouter.errors import ConfigError

if TYPE_CHECKING:
    from masrouter.delegation.deliberation.agreement import Rule
    from masrouter.delegation.deliberation.missing import MissingRule
    from masrouter.delegation.workers.matching import MatchingRule

MOST_ROUNDS = 64
"""Of drafts: `auto` sets money aside for each beforehand, and more is a slip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliberate:
    """The cheap model a few times, and the strong one only where its samples disagree.

    Raises ConfigError for `ask_missing` without `missing`, the rule that judges what is said.
    """

    cheap: str
    strong: str = "auto"
    rule: Rule | None = None
    """How many samples, and how many must agree; None is the default rule."""
    missing: MissingRule | None = None
    """When to ask back in place of an answer; None never does."""
    ask_missing: bool = False
    """Whether the cheap model is asked what is missing as well. In a file, where it is left out:
    where the thresholds say that this pays."""

    def __post_init__(self) -> None:
        if self.ask_missing and self.missing is None:
            raise ConfigError("ask_missing: needs `missing`, the rule to judge it by")

    @property
    def kind(self) -> str:
        """As a settings file has it."""
        return "deliberate"

    @property
    def parts(self) -> Mapping[str, str]:
        """The names that it calls, each by what it is for."""
        return {"cheap": self.cheap, "strong": self.strong}

    @property
    def calls(self) -> tuple[tuple[str, int], ...]:
        """How often each name is called for a task at most, about."""
        return ((self.cheap, self._rule().samples), (self.strong, 1))

    @property
    def description(self) -> str:
        """What it does, for whoever chooses."""
        rule = self._rule()
        whole = "does the step at which they part" if rule.at == "step" else "does the task"
        text = (
            f"Asks {self.cheap} up to {rule.samples} times; where fewer than {rule.needed} of the "
            f"answers agree, {self.strong} {whole}."
        )
        if self.missing is not None:
            text += " Asks back where the task lacks information."
        return text

    def _rule(self) -> Rule:
        # The room of deliberation imports the delegator, which imports the settings.
        from masrouter.delegation.deliberation.agreement import Rule

        return Rule() if self.rule is None else self.rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Iterate:
    """Drafts in rounds: what a draft says it lacks is asked for before the next one.

    Raises ConfigError for a number below 1, or more than `MOST_ROUNDS` rounds.
    """

    model: str
    """Writes the drafts."""
    subtask: str | None = "auto"
    """Is asked for what no worker's description fits, or where that worker fails; None asks nobody
    then."""
    ahead: str | None = None
    """Is asked with the goal itself before the first draft: a worker that looks things up."""
    unasked: str | None = None
    """Was named as `ahead`, and is left out: by the thresholds it does not pay."""
    rounds: int = 3
    """Drafts at most."""
    requests: int = 4
    """Asked for after a draft, at most."""
    matching: MatchingRule | None = None
    """When a worker fits a request; None is the default rule."""

    def __post_init__(self) -> None:
        for key in ("rounds", "requests"):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{key}: expected a whole number >= 1, got {value!r:.40}")
        if self.rounds > MOST_ROUNDS:
            raise ConfigError(f"rounds: at most {MOST_ROUNDS} are allowed, got {self.rounds!r:.40}")

    @property
    def kind(self) -> str:
        """As a settings file has it."""
        return "iterate"

    @property
    def parts(self) -> Mapping[str, str]:
        """The names that it calls, each by what it is for."""
        beside = {"subtask": self.subtask, "ahead": self.ahead}
        return {"model": self.model, **{k: name for k, name in beside.items() if name is not None}}

    @property
    def calls(self) -> tuple[tuple[str, int], ...]:
        """How often each name is called for a task, about; what drafts lack nobody knows."""
        ahead = () if self.ahead is None else ((self.ahead, 1),)
        return ((self.model, self.rounds), *ahead)

    @property
    def description(self) -> str:
        """What it does, for whoever chooses."""
        first = "" if self.ahead is None else f"{self.ahead} is asked first. "
        if self.unasked is not None:
            first = f"{self.unasked} is not asked first, since that did not pay. "
        otherwise = "" if self.subtask is None else f", else of {self.subtask}"
        return (
            f"{first}{self.model} writes up to {self.rounds} drafts; what a draft says it lacks is "
            f"asked of the worker whose description fits{otherwise}."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Each step of a task goes to the worker whose description fits it."""

    otherwise: str
    """Does the steps that no worker fits."""
    matching: MatchingRule | None = None
    """When a worker fits; None is the default rule."""
    fall_back: bool = True
    """Whether `otherwise` does a step after its worker failed; the result says where it did. The
    default rule counts on it: without, choose `matching` by `calibrate_matching(fall_back=False)`.
    """

    @property
    def kind(self) -> str:
        """As a settings file has it."""
        return "match"

    @property
    def parts(self) -> Mapping[str, str]:
        """The names that it calls, each by what it is for."""
        return {"otherwise": self.otherwise}

    @property
    def calls(self) -> tuple[tuple[str, int], ...]:
        """How often each name is called for a task, about."""
        return ((self.otherwise, 1),)

    @property
    def description(self) -> str:
        """What it does, for whoever chooses."""
        text = (
            "Takes the task apart, and gives each step to the worker whose description fits it, "
            f"else to {self.otherwise}"
        )
        return f"{text}, also after a worker that failed." if self.fall_back else f"{text}."


PolicySpec: TypeAlias = Deliberate | Iterate | Match
