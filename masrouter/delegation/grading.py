"""Ask a task's own grader how good its answer was.

An answer stays one where its grader is at fault, or too slow: then its score is unknown, and the
event loop's exception handler is told why.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading

from masrouter.delegation.episodes.events import check_grading
from masrouter.delegation.tasks import Grade, Grading


async def grading_of(grade: Grade, answer: str, *, until: float | None) -> Grading | None:
    """What a grader says. until: when it is too late, in the event loop's time; None: never."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout_at(until):
            given = await _in_thread(grade, answer, loop)
    except TimeoutError as late:
        given = late
    if not isinstance(given, BaseException):
        return given
    message = "a task's grader is at fault; its answer has no score"
    loop.call_exception_handler({"message": message, "exception": given})
    return None


async def _in_thread(
    grade: Grade, answer: str, loop: asyncio.AbstractEventLoop
) -> Grading | BaseException | None:
    """A daemon thread: a grader that never ends holds up neither the batch nor the exit."""
    future: asyncio.Future[Grading | BaseException | None] = loop.create_future()
    context = contextvars.copy_context()

    def end(given: Grading | BaseException | None) -> None:
        if not future.done():
            future.set_result(given)

    def work() -> None:
        given: Grading | BaseException | None
        try:
            given = _checked(context.run(grade, answer))
        except BaseException as error:  # an exit is this grader's fault, and ends nothing else
            given = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(end, given)

    threading.Thread(target=work, name="masrouter-grader", daemon=True).start()
    return await future


def _checked(given: object) -> Grading | None:
    if given is None:
        return None
    if not isinstance(given, Grading):
        raise TypeError(f"expected a Grading, or None, got {given!r:.80}")
    check_grading(given)  # as the log of episodes does
    return given
