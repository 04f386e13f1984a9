"""Which worker fits a request, by their descriptions; and a request of several steps as tasks.

A request fits the worker whose description, or one of whose example requests, is nearest to it in
the encoder's space, unless it is about as near to what any chat model does. Steps are found by
rules in English requests: connectives and sentences before a verb that asks for work, and numbered
lists. Where the rules find nothing, a request stays whole.

Not here: the trained router, which learns from outcomes what a description cannot say.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from masrouter.delegation.tasks import Task
from masrouter.delegation.workers.worker import Worker
from masrouter.encoder import Encoder
from masrouter.errors import ConfigError

CHAT_WORK = (
    "Writes, explains and fixes computer programs.",
    "Solves problems of mathematics and logic.",
    "Writes stories, poems, letters and other new texts.",
    "Explains facts of science, history and general knowledge.",
    "Gives advice, ideas and plans for everyday life.",
)
"""What a chat model does anyway."""


@dataclass(frozen=True, slots=True)
class MatchingRule:
    """From when on a worker is near enough to a request. Raises ConfigError for what cannot be."""

    threshold: float
    """Of `Match.score`: a worker fits from it on."""
    chat_weight: float
    """How much nearness to a chat model's work speaks against a worker, in [0, 1]."""
    encoder: str
    """In whose space: the beginning of its identity, such as its name."""

    def __post_init__(self) -> None:
        for key, low, high in (("threshold", -2.0, 2.0), ("chat_weight", 0.0, 1.0)):
            value = getattr(self, key)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (number and low <= value <= high):
                raise ConfigError(f"matching: {key}: expected [{low:g}, {high:g}], got {value!r}")
        if not isinstance(self.encoder, str) or not self.encoder:
            raise ConfigError(f"matching: encoder: expected a name, got {self.encoder!r}")

    def is_for(self, encoder: Encoder) -> bool:
        """Whether the rule was chosen in this encoder's space."""
        name, identity = self.encoder, encoder.identity
        return identity == name or identity.startswith((f"{name}@", f"{name}+"))


MEASURED = MatchingRule(threshold=0.2, chat_weight=0.5, encoder="all-MiniLM-L6-v2")
"""Chosen on 100 labelled requests to 10 workers, and on the outcomes of 300 requests of which half
are for 6 workers that really run and refuse what they do not understand, after which a model is
asked (tests/benchmarks/bench_delegation_matching.py). Where nobody is asked next, and for requests,
workers and models of another kind, choose a rule: `calibration.calibrate_matching`."""


@dataclass(frozen=True, slots=True)
class Match:
    """How workers fit a request."""

    worker: str | None
    """The one that fits; None where none does."""
    nearest: str
    """The one that comes nearest, whether it fits or not."""
    score: float
    """Its cosine less the rule's weight times that of a chat model's work."""
    cosines: Mapping[str, float]
    """Of each worker, in their order."""
    chat: float
    """Cosine of the chat model's work that comes nearest."""


@dataclass(frozen=True, slots=True)
class Steps:
    """A request in parts."""

    steps: tuple[str, ...]
    """What is asked for, in order; at least one."""
    material: str
    """The text that came along, behind an empty line or a colon at a line's end; may be empty."""


def match_workers(
    requests: Sequence[str],
    workers: Sequence[Worker],
    encoder: Encoder,
    *,
    rule: MatchingRule | None = None,
) -> list[Match]:
    """The match of each request, encoded together.

    rule: when a worker fits; None takes the one measured for all-MiniLM-L6-v2.
    Raises ConfigError without workers, or for another encoder than the rule's.
    """
    if not workers:
        raise ConfigError("match_workers: there are no workers; give at least one")
    rule = MEASURED if rule is None else rule
    if not rule.is_for(encoder):
        raise ConfigError(
            f"match_workers: the rule is for the encoder {rule.encoder!r}, and this one is "
            f"{encoder.identity!r}; give a rule that was chosen with it, or use {rule.encoder}"
        )
    if not requests:
        return []
    texts = [[worker.description, *worker.examples] for worker in workers]
    vectors = encoder.encode([*requests, *CHAT_WORK, *(text for own in texts for text in own)])
    asked, rest = vectors[: len(requests)], vectors[len(requests) :]
    cosines = asked @ rest.T  # (N, C + D), chat work first
    chat = cosines[:, : len(CHAT_WORK)].max(1)  # (N,)
    ends = np.cumsum([len(own) for own in texts])[:-1]
    parts = np.split(cosines[:, len(CHAT_WORK) :], ends, axis=1)
    near = np.stack([part.max(1) for part in parts], axis=1)  # (N, W)
    found = []
    for row, against in zip(near, chat, strict=True):
        best = int(row.argmax())
        score = float(row[best] - rule.chat_weight * against)
        name = workers[best].name
        by_name = {worker.name: float(x) for worker, x in zip(workers, row, strict=True)}
        fits = name if score >= rule.threshold else None
        found.append(Match(fits, name, score, by_name, float(against)))
    return found


def plan_steps(
    goal: str,
    workers: Sequence[Worker],
    encoder: Encoder,
    *,
    context: str = "",
    otherwise: str | None = None,
    rule: MatchingRule | None = None,
) -> tuple[Task, ...]:
    """A request as tasks that need each other in turn, each for the worker that fits it.

    The first task is given `context` and the request's own material, each further one the answer
    before it. Neighbouring steps for one worker, or for none, stay one task; a request in which no
    step fits a worker stays whole, and so does one step that asks two questions, which no worker is
    given. A first worker that takes the goal alone has the material there.

    otherwise: the model of steps that no worker fits; None leaves it to the delegation.
    Raises ConfigError as `match_workers`, and for a request without text.
    """
    if not goal.strip():
        raise ConfigError("plan_steps: the goal is empty; say what is to be done")
    found = split_steps(goal)
    matches = match_workers(found.steps, workers, encoder, rule=rule)
    if all(match.worker is None for match in matches) or (
        len(matches) == 1 and _asks_twice(found.steps[0])
    ):
        return (Task(goal, context=context, model=otherwise, id="step-1"),)
    joined: list[tuple[str, str | None]] = []
    for step, match in zip(found.steps, matches, strict=True):
        if joined and joined[-1][1] == match.worker:
            joined[-1] = (f"{joined[-1][0]}; then {step}", match.worker)
        else:
            joined.append((step, match.worker))
    material = found.material
    takes = {worker.name: worker.takes for worker in workers}
    if takes.get(joined[0][1] or "") == "goal":
        whole = goal if len(joined) == 1 else _joined(joined[0][0], material)
        joined[0], material = (whole, joined[0][1]), ""
    return tuple(
        Task(
            step,
            context=_joined(context, material) if position == 1 else "",
            model=worker or otherwise,
            id=f"step-{position}",
            needs=() if position == 1 else (f"step-{position - 1}",),
        )
        for position, (step, worker) in enumerate(joined, 1)
    )


def _joined(*texts: str) -> str:
    return "\n\n".join(text for text in texts if text.strip())


_VERBS = (
    "add|analy[sz]e|ask|build|calculate|cancel|categori[sz]e|classify|clean|collect|compare|"
    "compile|compute|condense|convert|correct|create|debug|describe|detect|determine|download|"
    "e-?mail|evaluate|explain|extract|fetch|find|gather|generate|get|give|identify|implement|"
    "improve|inspect|locate|make|paraphrase|predict|prepare|proofread|prove|publish|put|read|"
    "recommend|reformat|render|reply|retrieve|rewrite|save|select|send|shorten|show|simplify|"
    "solve|suggest|summari[sz]e|tabulate|tell|transcribe|translate|upload|validate|verify|"
    "visuali[sz]e|write"
)
_ALSO_NOUNS = (
    "answer|book|check|count|draft|estimate|format|grade|judge|label|list|look|measure|move|"
    "outline|plan|post|present|query|rank|rate|report|research|return|review|run|schedule|search|"
    "sort|state|store|test|turn"
)
_OBJECT = (
    "(?:all|an?|any|each|every|her|him|it|its|me|my|our|that|the|their|them|these|this|up|us|your)"
)
_POLITE = r"(?:please\s+|also\s+)?"
_ASKED = rf"(?={_POLITE}(?:(?:{_VERBS})\b|(?:{_ALSO_NOUNS})\s+{_OBJECT}\b))"
_AFTER = r"(?:then|afterwards|after\s+that|finally|next|lastly)"
_BORDERS = re.compile(
    rf"[,;.!]?\s+(?:and\s+|but\s+)?{_AFTER},?\s+(?={_POLITE}(?:{_VERBS}|{_ALSO_NOUNS})\b)"
    rf"|,?\s+(?:and|before\s+you)\s+{_ASKED}"
    rf"|[,;.!?]\s+{_ASKED}"
    r"|,?\s+followed\s+by\s+",
    re.IGNORECASE,
)
_FORM = re.compile(
    rf"{_POLITE}(?:answer|give|reply|respond|return|show|state|tell|write)(?:\s+(?:me|us))?\s+(?:"
    r"(?:with\s+|in\s+)?(?:only|just)\b"
    r"|(?:with\s+|in\s+)?(?:one|two|three|a\s+single)\s+(?:decimal|digit|letter|line|number|"
    r"sentence|whole\s+number|word)s?(?:\s+places?)?\s*(?:[.!?]|$)"
    r"|(?:in\s+)?digits\b"
    r"|(?:the|your)\s+(?:answer|number|output|result|value)(?:\s+(?:alone|only))?\s*(?:[.!?]|$)"
    r"|(?:(?:the|your)\s+(?:answer|date|day|list|name|number|output|result|translation|"
    r"value|words?)\s+)?(?:in|as|with|without|(?:rounded\s+)?to)\s+"
    r"(?!an?\s+(?:chart|diagram|e-?mail|graph|letter|plot|poem|report|story)\b))",
    re.IGNORECASE,
)
"""A sentence on how to write the answer: no step of its own."""
_ASKS = re.compile(
    rf"\?|^\s*\w+\s+{_OBJECT}\b|(?:^\s*|[.!,;:]\s+|\b(?:please|you|to|and|then|must|should|me|us)\s+)"
    rf"(?:{_VERBS}|{_ALSO_NOUNS})\b",
    re.IGNORECASE,
)
"""Whether a text asks for anything, and does not only tell what is given."""
_CONDITION = re.compile(r"\s*(?:if|when|whenever|once|unless|while|as)\b", re.IGNORECASE)
_NUMBERED = re.compile(r"^\s{0,8}(\d{1,2})[.)]\s+(\S.*)$", re.MULTILINE)
_ANNOUNCING = frozenset((
    "a", "after", "and", "another", "are", "as", "can", "carry", "could", "do", "each", "follow",
    "following", "follows", "for", "here", "i", "in", "instructions", "is", "like", "list", "me",
    "my", "need", "of", "one", "order", "other", "out", "perform", "please", "request", "requests",
    "step", "steps", "task", "tasks", "the", "them", "these", "things", "this", "to", "want",
    "what", "with", "would", "you",
))  # fmt: skip
_QUOTED = re.compile(r'"[^"\n]*"|“[^”\n]*”|`[^`\n]*`')
_SINGLY_QUOTED = re.compile(r"(?<!\w)'[^'\n]*'(?!\w)")
_ASKING = "(?:how|what|when|where|which|who)"
_QUESTION = re.compile(
    rf"\?+(?=\s|$)|\b(?!{_ASKING}\b)\w+\W?\s+and\s+(?:then\s+)?(?={_ASKING}\b)", re.IGNORECASE
)
"""The end of one: its mark, or "and" before another; "who and where" is one."""
_MATERIAL = re.compile(r":[ \t]*\n|\n[ \t]*\n|\n?```")
LONGEST_REQUEST = 4000
"""Characters of a request's instruction beyond which it is not split: it is no list of steps."""


def split_steps(goal: str) -> Steps:
    """A request's steps, and the material behind them; one step where it has no others.

    What stands in quotation marks is never split, nor anything of the material.
    """
    listed = _numbered(goal)
    if listed is not None:
        return listed
    border = _MATERIAL.search(goal.strip())
    request, material = goal.strip(), ""
    if border is not None and border.start() > 0:
        material = request[border.start() :].lstrip(":").strip()
        request = request[: border.start()].strip()
    if len(request) > LONGEST_REQUEST:
        return Steps((request,), material)
    return Steps(_steps_of(request), material)


def _numbered(goal: str) -> Steps | None:
    """Lines 1., 2., ... as steps; what stands behind an empty line after them is material."""
    items = list(_NUMBERED.finditer(goal))
    numbers = [int(item[1]) for item in items]
    count = next((i for i, number in enumerate(numbers) if number != i + 1), len(numbers))
    if count < 2:
        return None
    between = [goal[a.end() : b.start()] for a, b in itertools.pairwise(items[:count])]
    intro = goal[: items[0].start()].strip()
    if any(gap.strip() for gap in between) or not _announces(intro):
        return None
    steps = tuple(item[2].strip().rstrip(".;,") for item in items[:count])
    return Steps(steps, goal[items[count - 1].end() :].strip())


def _announces(intro: str) -> bool:
    """Whether it says no more than that a list comes: nothing is lost without it."""
    words = set(re.findall(r"\w+", intro.casefold()))
    return not intro or (intro.endswith(":") and words <= _ANNOUNCING)


def _steps_of(request: str) -> tuple[str, ...]:
    # Of one length with the request, so that places found here are places there.
    masked = _QUOTED.sub(lambda quote: "x" * len(quote[0]), request)
    steps, start = [], 0
    for border in _BORDERS.finditer(masked):
        if _CONDITION.match(masked, start):
            continue  # "if it rains, book a taxi" is one thing to do
        if border[0].strip() in (".", "!", "?") and _FORM.match(masked, border.end()):
            continue
        if border[0].strip() in (".", "!") and not _ASKS.search(masked[start : border.start()]):
            continue  # "The label says 206 miles. Give it in kilometres." asks for one thing
        steps.append(request[start : border.start()])
        start = border.end()
    steps.append(request[start:])
    kept = tuple(step.strip(" ,;.") for step in steps if step.strip(" ,;."))
    return kept if len(kept) > 1 else (request,)


def _asks_twice(request: str) -> bool:
    """Whether a worker would answer half of it, and call that done."""
    if len(request) > LONGEST_REQUEST:
        return False
    masked = _SINGLY_QUOTED.sub("", _QUOTED.sub("", request))
    ends = [found[0][0] == "?" for found in _QUESTION.finditer(masked)]
    return len(ends) > 1 or ends == [False]
