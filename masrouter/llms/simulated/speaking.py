"""What a simulated model says in a situation: judgement first, then the words for it.

A reply in steps is a path to the answer that it gives (masrouter.llms.simulated.steps). Where the
prompt shows steps that are settled, the answer is drawn among those to which they lead; the next
step alone is that of an answer drawn in the same way. A model that always reasons thinks about one
step as long as about a whole answer: nothing is published on it, and less would make such a step
look cheaper than it may be.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from masrouter.llms.simulated import replies
from masrouter.llms.simulated.judgement import Mind
from masrouter.llms.simulated.situation import Situation
from masrouter.llms.simulated.steps import Paths
from masrouter.llms.simulated.tasks import RIGHT


def say(
    mind: Mind, situation: Situation, rng: random.Random, paths: Callable[[], Paths]
) -> tuple[str, int]:
    """The text of a reply, and the hidden tokens spent on it. paths: those of the task."""
    task, act = mind.task, situation.act
    if act in ("answer", "delegate"):
        index, text = _answer(mind, situation, rng, paths)
    elif act == "critique":
        wrong = mind.calls_wrong(situation, rng)
        index = mind.hits_the_point(situation, rng)
        text = replies.critique(task, wrong, index, rng)
    else:
        index = mind.hits_the_point(situation, rng)
        if act == "plan":
            text = replies.plan(task, index, rng)
        elif act == "decompose":
            text = replies.subtasks(task, index, situation.most_subtasks, rng)
        elif act == "name_missing":
            text = _gaps(mind, situation, rng)
        elif act == "supply" and situation.lacks:
            text = replies.UNKNOWABLE
        else:
            text = replies.subtask_result(task, index, rng)
    share = replies.hidden_share(task.difficulty, index) * rng.uniform(0.5, 1.5)
    return text, round(mind.model.thinking_tokens * share)


def _answer(
    mind: Mind, situation: Situation, rng: random.Random, paths: Callable[[], Paths]
) -> tuple[int, str]:
    """The answer that the model gives, or would give, and the text."""
    task = mind.task
    if situation.form == "free" and not situation.steps:
        index = mind.answer(situation, rng)
        text = replies.answer(task, index, situation.asks_reasoning, rng)
    else:
        index, text = _behind_steps(mind, situation, rng, paths())
    if situation.act == "delegate" and not situation.has_results:
        # Who doubts the own answer hands the work out; the doubt is as good as the model.
        if mind.calls_wrong(situation.showing(index), rng):
            text = replies.delegations(task, index, situation.workers, rng)
    elif situation.asks_missing:
        if situation.lacks and mind.finds_missing(situation, rng):
            return index, f"{text}\n{replies.gap(task, rng)}"
        unsure = mind.calls_wrong(situation.showing(index), rng)
        text = f"{text}\n{replies.missing(unsure)}"
    elif situation.asks_gaps:
        text = f"{text}\n{_gaps(mind, situation, rng)}"
    return index, text


def _behind_steps(
    mind: Mind, situation: Situation, rng: random.Random, paths: Paths
) -> tuple[int, str]:
    """An answer, or a step towards one, that goes on behind the steps that are shown."""
    task = mind.task
    last = paths.last(situation.steps)
    among: frozenset[int] | None = None
    done = 0
    if last is not None:
        among, done = paths.behind(last), last.at
        if last.answer != RIGHT and mind.leaves(situation, rng):
            among = frozenset(range(1 + len(task.wrong))) - among
    index = mind.answer(situation, rng, among)
    if situation.form == "next_step":
        return index, paths.line(index, done + 1, rng)
    if situation.form == "steps":
        return index, replies.in_steps(task, index, paths, done, rng)
    return index, replies.answer(task, index, situation.asks_reasoning, rng)


def _gaps(mind: Mind, situation: Situation, rng: random.Random) -> str:
    """The last lines of a reply that should name what the question lacks."""
    if not mind.finds_missing(situation, rng):
        return replies.missing(False)
    return replies.gap(mind.task, rng) if situation.lacks else replies.no_gap(mind.task, rng)
