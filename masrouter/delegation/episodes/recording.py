"""Keep a batch's results in the log of episodes, so that the router can learn from them.

Work goes on where the log cannot be written any more: an answer is worth more than its record. The
event loop's exception handler is told.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace

from masrouter.delegation.episodes.events import MOST_ID, storable
from masrouter.delegation.episodes.log import Episode, EpisodeLog
from masrouter.delegation.naming.model_names import renamed
from masrouter.delegation.query import task_query
from masrouter.delegation.tasks import Grading, Task, TaskResult, shortened

_MOST_GOAL = 100_000
"""Characters that are kept of what was asked, where nobody worked on it."""


class Recording:
    """Where the results of one batch belong. Raises LogError where an episode cannot be opened."""

    def __init__(
        self,
        log: EpisodeLog,
        tasks: Sequence[Task],
        *,
        episode: Episode | None,
        under: str | None,
        learned: Mapping[str, str],
    ) -> None:
        """under: the node of the log whose work these tasks are; None: the episode's own. learned:
        what models are logged as, where that is not the name they are called by."""
        if episode is None:
            goals = "\n\n".join(task.goal for task in tasks if _is_text(task.goal))
            episode = log.open(shortened(goals, _MOST_GOAL))
        self.episode = episode
        self._log = log
        self.under = under
        self._learned = learned
        self._batch = uuid.uuid4().hex[:12]

    async def keep(self, index: int, task: Task, result: TaskResult, seed: int) -> TaskResult:
        """The result with the name of its node. index: in the batch; faulty tasks share ids."""
        node = f"{self._batch}/{index + 1}/{result.id}"[:MOST_ID]
        plan = None if result.plan is None else renamed(result.plan, self._learned)
        try:
            await asyncio.to_thread(
                self._log.add_result,
                self.episode,
                node,
                self.under,
                replace(result, plan=plan),
                query=_query(task, result),
                kind=storable(task.kind) if task.kind and _is_text(task.kind) else None,
                seed=seed,
            )
        except Exception as error:
            told = {
                "message": "a result could not be logged; the batch goes on",
                "exception": error,
            }
            asyncio.get_running_loop().call_exception_handler(told)
            return result
        return replace(result, node=node)

    async def grade(self, node: str, grading: Grading) -> None:
        """Give a node, whose answer became a policy's, the grade that this has got."""
        try:
            await asyncio.to_thread(self._log.grade, self.episode, node, grading)
        except Exception as error:
            told = {"message": "a grade could not be logged; the batch goes on", "exception": error}
            asyncio.get_running_loop().call_exception_handler(told)


def _query(task: Task, result: TaskResult) -> str:
    """What its team was given, or would have been."""
    if result.run is not None:
        return result.run.query
    if _is_text(task.goal) and isinstance(task.context, str):
        query = task_query(task.goal, task.context)
        return query if result.plan is not None else shortened(query, _MOST_GOAL)
    return "(no goal)"


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
