"""A parent: a model that answers a question and may hand out parts of it, in a loop that ends.

    question ──► model ──► calls of tools ──► their answers, as JSON ──► model ──► ... ──► text

Every turn is one call of the parent's model. What it calls badly, and what a limit does not let it
have, is an error that it reads and can mend; the loop ends with its first answer in text, after
`max_turns`, or when money or time are over. Its own calls and all that it hands out share one
ledger. Here is the way in; `loop` is the loop, `hand_out` what a whole tree of parents may do,
`tools` what a call does, and `outcome` what comes back.
"""

from __future__ import annotations

import asyncio

from masrouter.delegation.delegator import Delegator
from masrouter.delegation.episodes.log import Episode
from masrouter.delegation.intake import check_options
from masrouter.delegation.parent.hand_out import Places
from masrouter.delegation.parent.loop import Loop, Tree, checked_task, parent_target
from masrouter.delegation.parent.outcome import ParentLimits, ParentRun
from masrouter.delegation.running import Tell
from masrouter.delegation.tasks import OnTaskEvent, Task
from masrouter.errors import ConfigError
from masrouter.execution.dispatch import Clock
from masrouter.execution.ledger import Ledger


async def run_parent(
    goal: str,
    *,
    model: str,
    delegator: Delegator,
    context: str = "",
    limits: ParentLimits | None = None,
    budget_usd: float | None = None,
    within: Ledger | None = None,
    deadline_s: float | None = None,
    cost_weight: float | None = None,
    seed: int = 0,
    on_event: OnTaskEvent | None = None,
    episode: Episode | None = None,
    under: str | None = None,
) -> ParentRun:
    """Let a model answer, with the tools of delegation in its hands, and say all that it took.

    Args:
        model: the parent, under any name that leads to one chat model. What it hands out without
            naming a model goes to the settings' default, else to it.
        budget_usd: for its own calls and all that is handed out. While tools work, what the
            parent's next call may cost is kept back, so that it can read what they answer.
        within: the books of what this is a part of, whose budget holds too.
        deadline_s: seconds for all of it.
        cost_weight, seed: as `Delegator.delegate_tasks` takes them.
        on_event: called with each event of each task, under the ids of `ParentRun.results`.
        episode, under: where the results belong in a tree of decisions; without an episode, a
            Delegator that has a log opens one.

    Raises DelegationError where the question or the parent's model cannot be meant, ConfigError
    for a bad setting: all before anything is sent. After that every way to end, but being
    cancelled, is a ParentRun.
    """
    limits = ParentLimits() if limits is None else limits
    check_options(deadline_s, cost_weight, None, seed)
    if under is not None and episode is None:
        raise ConfigError(f"under: {under!r} is a node of an episode; give the episode too")
    settings = delegator.settings
    ledger = Ledger(budget_usd, within=within)
    task = checked_task(Task(goal, context, model), settings)
    target = parent_target(delegator, model, None, budgeted=ledger.left_usd is not None)
    if delegator.episodes is None:
        episode = None
    elif episode is None:
        episode = await asyncio.to_thread(delegator.episodes.open, goal)
    tree = Tree(
        delegator=delegator,
        limits=limits,
        places=Places(limits.max_tasks or settings.max_total_tasks),
        max_depth=min(limits.max_depth or settings.max_depth, settings.max_depth),
        cost_weight=cost_weight,
        tell=Tell(on_event),
        episode=episode,
    )
    loop = Loop(tree, task, target, ledger, Clock(deadline_s), level=1, under=under, seed=seed)
    return await loop.run()
