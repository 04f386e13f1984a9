"""Whether a task speaks of what its worker cannot see: the conversation, or another task's answer.

A parent model forgets that its workers see goal and context alone. What it means by `the above`
would be guessed by the worker, and paid for; so it is asked back before anything is sent. The rules
look for set phrases: they miss much, and a task that has context is taken at its word. Whether
the material that is there suffices is another question (`deliberation.missing`).

The references of `deliberation.signals` are others: those are guesses, weighed with what they were
right in, and take `Review the code.` for one; what is found here is refused outright, so that it
has to be certain, and is about the conversation and the other tasks of a batch. Of 744 complete
goals (the problems of `data/problems` and those written for the tests) it refuses none.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from masrouter.delegation.tasks import Task, TaskError

_NEAR_START = 80
"""Characters before `above` that cannot be what it refers to."""
MOST_ID = 200
"""Characters of an id that is looked for, and told."""
_MOST = 20_000
"""Characters of a goal, and of a context, that are looked at: a text may be made to be slow."""
_BEHIND = (
    r"(?=\s*$|\s*[^\w\s-]|\s+(?:and|or|into|to|as|by|with|using|so|then|before|after|is|are|was|"
    r"were|has|have|in (?:\d|one|two|three|a few|a single|english|french|german|spanish))\b)"
)
"""What may follow: `the second task of Hercules` and `the above ground pool` speak of others."""
_ABOVE = re.compile(
    r"\b(?:the|see|as|mentioned|described|given|shown|listed|discussed) above\b(?!-)" + _BEHIND,
    re.IGNORECASE,
)
_CONVERSATION = re.compile(
    r"\b(?:(?:our|this|the (?:previous|above|earlier|current)) (?:conversation|discussion|chat)"
    r"|(?:the|my|your) (?:previous|earlier|last|preceding) (?:message|answer|reply|turn)s?"
    r"|(?:as|what) we (?:discussed|said)(?: (?:before|earlier))?"
    r"|the attached (?:file|document|image|text))\b"
    + _BEHIND
    +
    # Where a colon, a quote or a line follows, the material may stand in the goal itself.
    r"(?![^\n]*[:\"`\n])",
    re.IGNORECASE,
)
_OTHER_TASK = re.compile(
    r"\bthe (?:(?:previous|first|second|third|other|preceding) tasks?|previous step"
    r"|others' results|results? of the others?)\b" + _BEHIND,
    re.IGNORECASE,
)
_ANSWER = r"(?:results?|outputs?|answers?) (?:of|from|by)(?: the)?(?: task)?"


def unseen(task: Task, ids: Collection[str]) -> TaskError | None:
    """What the task refers to and would not be given; None where nothing is found.

    ids: those of all tasks of the batch. Only what a task names in `needs` is given to it.
    """
    goal, context = task.goal[:_MOST], task.context[:_MOST]
    for other in ids:
        if other == task.id or other in task.needs or len(other) > MOST_ID:
            continue
        # `results of a` is plain English, so that short words count behind `task` alone.
        before = "task" if len(other) < 3 and other.isalpha() else rf"(?:{_ANSWER}|task)"
        named = rf"\b{before} [`'\"]?{re.escape(other)}(?![\w-])"
        if found := re.search(named, f"{goal}\n{context}", re.IGNORECASE):
            return TaskError(
                "invalid_task",
                f"task {task.id!r} speaks of {found[0]!r} and would not be given it: tasks see "
                f'nothing of each other but what they need; add "needs": ["{other}"]',
                asked=found[0],
                nearest=(other,),
            )
    if task.needs:
        return None
    if found := _OTHER_TASK.search(goal):
        if task.context or not (others := [one for one in ids if one != task.id]):
            return None
        return TaskError(
            "invalid_task",
            f"task {task.id!r} speaks of {found[0]!r} and would not be given its answer; name the "
            "task in needs",
            asked=found[0],
            nearest=tuple(others),
        )
    if task.context:
        return None
    found = _CONVERSATION.search(goal) or _ABOVE.search(goal[: _NEAR_START + 20])
    if found is None or (found.re is _ABOVE and found.start() > _NEAR_START):
        return None
    return TaskError(
        "missing_information",
        f"the goal speaks of {found[0]!r}, and the worker sees nothing but goal and context: what "
        "is it? Put it into context, word for word",
        asked=found[0],
    )
