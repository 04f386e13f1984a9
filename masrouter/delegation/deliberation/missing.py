"""Whether a task lacks information, before money is spent on an answer that cannot be right.

First what its text shows for nothing (`signals`). Then, where wanted, one short call of a cheap
model, whose last lines `Missing: ...` are read. What comes out is the question to ask.

Not here: which weights and threshold pay (`calibration.asking`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from masrouter.delegation.deliberation.signals import KINDS, Signal, SignalKind, missing_signals
from masrouter.delegation.tasks import OnTaskEvent, Task, TaskError, TaskResult
from masrouter.errors import ConfigError
from masrouter.execution.ledger import Ledger
from masrouter.sections import section
from masrouter.topologies.endings import read_draft
from masrouter.topologies.prompts import prompt

if TYPE_CHECKING:
    from masrouter.delegation.delegator import Delegator
    from masrouter.delegation.episodes.log import Episode

ASK = (
    "Do not do the task below, and do not answer it. Say what is needed to do it that stands "
    "neither in the task nor in what is given, and that only whoever set the task can know. End "
    "with lines `Missing: ...`, one for each such thing, or with the one line `Missing: nothing`."
)
"""What the cheap model is told."""

_MEASURED: Mapping[SignalKind, float] = {
    "placeholder": 0.86, "reference": 0.93, "options": 0.75, "pronoun": 0.71, "middle": 0.8,
    "quantity": 0.67, "bare": 0.98, "model": 0.68,
}  # fmt: skip
"""Of the tasks that show a signal, the share that lacks something: the project's problems, every
fifth with a gap, and some written goals (tests/benchmarks/bench_asking.py). `model` is that of a
small model as the simulated provider plays it."""


@dataclass(frozen=True, slots=True)
class MissingRule:
    """How much each kind of signal counts, and from which score on a task is asked about.

    The score is 1 - prod(1 - weight) over the kinds that were found (noisy-or, Pearl 1988).
    """

    weights: Mapping[SignalKind, float] = field(default_factory=lambda: dict(_MEASURED))
    """In [0, 1] by kind; a kind that is not there counts 0."""
    threshold: float = 0.65
    """In (0, 1]. Chosen there by outcomes: from 0.7 down to 0.05 all give the same by the text
    alone. A model's word, where it is asked for, tips this one: that pays where questions are
    answered, and not where asking scores nothing."""

    def __post_init__(self) -> None:
        for kind, weight in self.weights.items():
            if kind not in KINDS:
                raise ConfigError(
                    f"missing: weights: no signal {kind!r}; there are {', '.join(KINDS)}"
                )
            if not _is_share(weight):
                raise ConfigError(f"missing: weights: {kind}: expected [0, 1], got {weight!r}")
        if not _is_share(self.threshold) or self.threshold == 0:
            raise ConfigError(f"missing: threshold: expected (0, 1], got {self.threshold!r}")

    @classmethod
    def by_model_alone(cls) -> MissingRule:
        """Asks the model whatever a text shows, and its word decides: for logs to calibrate on."""
        return cls({"model": 1.0}, 1.0)

    def score(self, kinds: Iterable[SignalKind]) -> float:
        """How likely it seems that something is missing, in [0, 1]."""
        left = 1.0
        for kind in set(kinds):
            left *= 1.0 - self.weights.get(kind, 0.0)
        return 1.0 - left

    def asks(self, kinds: Iterable[SignalKind]) -> bool:
        """Whether a task that shows these signals is asked about."""
        # 1 - (1 - w) may fall a little short of w.
        return self.score(kinds) >= self.threshold - 1e-9

    def asks_model(self, kinds: Iterable[SignalKind]) -> bool:
        """Whether a model's word is worth its price for a task whose text shows these signals."""
        shown = list(kinds)
        return not self.asks(shown) and self.asks([*shown, "model"])


@dataclass(frozen=True, slots=True)
class MissingCheck:
    """Whether to ask first, and what."""

    missing: bool
    score: float
    signals: tuple[Signal, ...]
    stated: bool | None
    """Whether the model said anything on it; None where it was not asked."""
    result: TaskResult | None = None
    """Of the model's call; it may have failed, and then only the text's signals count."""

    @property
    def question(self) -> str | None:
        """What to ask; None where nothing is missing."""
        if not self.missing:
            return None
        return " ".join(dict.fromkeys(signal.question for signal in self.signals))

    @property
    def error(self) -> TaskError | None:
        """Type `missing_information`, with the question; None where nothing is missing."""
        if not self.missing:
            return None
        found = ", ".join(f"{signal.text!r}" for signal in self.signals[:5])
        return TaskError(
            "missing_information",
            f"the task cannot be done with what it says ({found}); ask, and give the answer as "
            f"context: {self.question}",
            asked=self.question,
        )


async def check_missing(
    task: Task,
    *,
    delegator: Delegator | None = None,
    model: str | None = None,
    rule: MissingRule | None = None,
    within: Ledger | None = None,
    deadline_s: float | None = None,
    seed: int = 0,
    on_event: OnTaskEvent | None = None,
    episode: Episode | None = None,
    under: str | None = None,
    max_tokens: int = 256,
) -> MissingCheck:
    """Whether a task lacks something, by its text, and by one call of `model` where one is named.

    Where the text alone says enough, or the model's word could not tip the rule, nobody is called.
    A call that fails, or that does not end as it was told to, counts for nothing: `result` and
    `stated` say so. Raises ConfigError for a model without a delegator to ask it through.
    """
    rule = MissingRule() if rule is None else rule
    signals = missing_signals(task.goal, task.context)
    kinds = [signal.kind for signal in signals]
    if model is None or not rule.asks_model(kinds):
        return MissingCheck(rule.asks(kinds), rule.score(kinds), signals, None)
    if delegator is None:
        raise ConfigError(f"check_missing: model {model!r} needs a delegator to be asked through")
    given = prompt(
        section("task", task.goal), section("given", task.context) if task.context else ""
    )
    name = "missing" if task.id is None else f"{task.id}-missing"
    result = await delegator.delegate_task(
        Task(ASK, given, model=model, id=name, max_tokens=max_tokens),
        within=within,
        deadline_s=deadline_s,
        seed=seed,
        on_event=on_event,
        episode=episode,
        under=under,
    )
    if result.answer is None:
        return MissingCheck(False, rule.score(kinds), signals, False, result)
    draft = read_draft(result.answer)
    named = tuple(Signal("model", item, f"Please say: {item}.") for item in draft.missing)
    signals += named
    kinds = [signal.kind for signal in signals]
    return MissingCheck(rule.asks(kinds), rule.score(kinds), signals, draft.stated, result)


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
