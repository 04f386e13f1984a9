"""Work on many things at once, and tell what came of them in their order, whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Done = TypeVar("Done")


async def done_in_order(
    items: Sequence[Item],
    work: Callable[[Item], Awaitable[Done]],
    *,
    at_once: int,
    tell: Callable[[Done], None] | None = None,
) -> tuple[Done, ...]:
    """What `work` makes of each item, so many of them at a time.

    tell: given each, in their order, once all before it are done; and those that were done where it
    ends with an error, so that what was paid for is not lost. The first error ends all work, and is
    raised as it is.
    """
    slots = asyncio.Semaphore(at_once)
    tell = tell or (lambda done: None)

    async def in_slot(item: Item) -> Done:
        async with slots:
            return await work(item)

    working: list[asyncio.Task[Done]] = []
    found: list[Done] = []
    try:
        async with asyncio.TaskGroup() as group:
            working += [group.create_task(in_slot(item)) for item in items]
            for one in working:
                found.append(await one)
                tell(found[-1])
    except BaseExceptionGroup as broken:
        raise broken.exceptions[0] from None
    finally:
        for one in working[len(found) :]:
            if one.done() and not one.cancelled() and one.exception() is None:
                tell(one.result())
    return tuple(found)
