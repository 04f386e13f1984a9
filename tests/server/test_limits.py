"""The limits in front of an app, spoken to in ASGI: no socket, so each moment can be chosen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.server.asgi_requests import Asked, Held, ask

from masrouter.server import Limits
from masrouter.server.limits import (
    MAX_HEADERS,
    Gate,
    LimitsMiddleware,
    Receive,
    Scope,
    Send,
)

Work = Callable[[], Coroutine[Any, Any, None]]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


def run(work: Work) -> None:
    asyncio.run(work())


def test_a_body_reaches_the_app_whole_however_it_was_cut() -> None:
    async def main() -> None:
        held = Held()
        held.door.set()
        asked = Asked()
        for part in (b"a" * 400, b"", b"b" * 600):
            asked.body_part(part, more=True)
        asked.body_part(b"", more=False)
        await asked.of(LimitsMiddleware(held, Limits(max_body_bytes=1000)))
        assert (asked.status, asked.body) == (200, b"a" * 400 + b"b" * 600)

    run(main)


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_read() -> None:
    async def main() -> None:
        held, asked = Held(), Asked()
        limited = LimitsMiddleware(held, Limits(max_body_bytes=1000))
        await asked.of(limited, headers=((b"content-length", b"1001"),))
        assert (asked.status, asked.headers["connection"], held.begun) == (413, "close", 0)
        assert asked.error["code"] == "body_too_large"

    run(main)


def test_a_body_without_a_length_is_refused_where_it_grows_too_large() -> None:
    async def main() -> None:
        held, asked = Held(), Asked()
        for _ in range(3):
            asked.body_part(b"x" * 400, more=True)
        await asked.of(LimitsMiddleware(held, Limits(max_body_bytes=1000)))
        assert (asked.status, asked.headers["connection"], held.begun) == (413, "close", 0)

    run(main)


@pytest.mark.parametrize("length", [b"-1", b"1e3", b"\xff", b"", b"9" * 21])
def test_a_length_that_is_no_number_is_refused(length: bytes) -> None:
    async def main() -> None:
        asked = Asked()
        await asked.of(LimitsMiddleware(Held(), Limits()), headers=((b"content-length", length),))
        assert asked.status == 400

    run(main)


@pytest.mark.parametrize(
    "headers",
    [((b"x", b"y" * 2000),), tuple((b"x%d" % i, b"") for i in range(MAX_HEADERS + 1))],
    ids=["bytes", "count"],
)
def test_a_head_that_is_too_large_is_refused(headers: tuple[tuple[bytes, bytes], ...]) -> None:
    async def main() -> None:
        asked = await ask(LimitsMiddleware(Held(), Limits(max_header_bytes=1500)), headers=headers)
        assert (asked.status, asked.error["code"]) == (431, "headers_too_large")

    run(main)


def test_a_body_that_does_not_come_ends_in_408() -> None:
    async def main() -> None:
        asked = Asked()
        asked.body_part(b"{", more=True)
        await asked.of(LimitsMiddleware(Held(), Limits(body_timeout_s=0.02)))
        assert (asked.status, asked.headers["connection"]) == (408, "close")
        assert asked.error["code"] == "body_timeout"

    run(main)


def test_slow_bodies_hold_no_slot() -> None:
    async def main() -> None:
        held = Held()
        limited = LimitsMiddleware(held, Limits(max_concurrent=1, max_queued=1))
        slow = [Asked() for _ in range(5)]
        for asked in slow:
            asked.body_part(b"{", more=True)
        tasks = [asyncio.create_task(asked.of(limited)) for asked in slow]
        await asyncio.sleep(0.01)
        held.door.set()
        assert (await ask(limited)).status == 200
        for asked in slow:
            asked.leave()
        await asyncio.gather(*tasks)
        assert held.begun == 1

    run(main)


def test_so_many_run_so_many_wait_in_order_and_the_rest_are_told_when_to_come_back() -> None:
    async def main() -> None:
        held, order = Held(), []
        limits = Limits(max_concurrent=2, max_queued=3, retry_after_s=7)
        limited = LimitsMiddleware(held, limits)

        async def one(index: int) -> Asked:
            asked = await ask(limited, b"%d" % index)
            if asked.status == 200:
                order.append(index)
            return asked

        tasks = []
        for index in range(8):
            tasks.append(asyncio.create_task(one(index)))
            await asyncio.sleep(0.002)
        assert held.running == 2
        held.door.set()
        answers = await asyncio.gather(*tasks)
        assert [asked.status for asked in answers] == [200] * 5 + [429] * 3
        assert (held.most, order) == (2, [0, 1, 2, 3, 4])
        refused = answers[-1]
        assert refused.headers["retry-after"] == "7"
        assert refused.error["type"] == "rate_limit_exceeded"
        assert (refused.error["code"], refused.error["param"]) == ("overloaded", None)

    run(main)


def test_who_waits_too_long_is_told_so_and_loses_its_place() -> None:
    async def main() -> None:
        held = Held()
        limits = Limits(max_concurrent=1, max_queued=1, queue_timeout_s=0.02)
        limited = LimitsMiddleware(held, limits)
        first = asyncio.create_task(ask(limited))
        await until(lambda: held.running == 1)
        waited = await ask(limited)
        assert (waited.status, waited.headers["retry-after"]) == (429, "1")
        held.door.set()
        assert (await first).status == 200
        assert (await ask(limited)).status == 200

    run(main)


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics", "/", "/v1/models"])
def test_what_is_no_work_does_not_wait_behind_work(path: str) -> None:
    async def main() -> None:
        held = Held()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["method"] == "GET":
                await send({"type": "http.response.start", "status": 204, "headers": []})
                await send({"type": "http.response.body"})
            else:
                await held(scope, receive, send)

        limited = LimitsMiddleware(app, Limits(max_concurrent=1, max_queued=1))
        work = [asyncio.create_task(ask(limited)) for _ in range(2)]
        await until(lambda: held.running == 1)
        assert (await ask(limited, b"", method="GET", path=path)).status == 204
        held.door.set()
        await asyncio.gather(*work)

    run(main)


def test_a_slot_is_held_until_the_stream_ends() -> None:
    async def main() -> None:
        pieces: asyncio.Queue[bytes] = asyncio.Queue()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while piece := await pieces.get():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body"})

        limited = LimitsMiddleware(app, Limits(max_concurrent=1, max_queued=0))
        asked = Asked()
        asked.body_part(b"", more=False)
        stream = asyncio.create_task(asked.of(limited))
        pieces.put_nowait(b"one ")
        await until(lambda: asked.body == b"one ")
        assert (await ask(limited)).status == 429
        pieces.put_nowait(b"two")
        pieces.put_nowait(b"")
        await stream
        assert asked.body == b"one two"
        pieces.put_nowait(b"")
        assert (await ask(limited)).status == 200

    run(main)


@pytest.mark.parametrize("running", [True, False], ids=["while it runs", "while it waits"])
def test_a_client_that_leaves_frees_its_place_at_once(running: bool) -> None:
    async def main() -> None:
        held = Held()
        limited = LimitsMiddleware(held, Limits(max_concurrent=1, max_queued=1))
        clients = [Asked(), Asked()]
        tasks = []
        for asked in clients:
            asked.body_part(b"{}", more=False)
            tasks.append(asyncio.create_task(asked.of(limited)))
            await until(lambda: held.running == 1)
        leaves, stays = clients if running else reversed(clients)
        leaves.leave()
        await until(lambda: held.cancelled == 1 if running else tasks[1].done())
        assert leaves.status is None
        third = asyncio.create_task(ask(limited))
        await asyncio.sleep(0.005)
        held.door.set()
        await asyncio.gather(*tasks)
        assert (stays.status, (await third).status) == (200, 200)
        assert (held.most, held.running) == (1, 0)

    run(main)


def test_a_client_that_leaves_within_its_body_never_reaches_the_app() -> None:
    async def main() -> None:
        held, asked = Held(), Asked()
        asked.body_part(b"{", more=True)
        asked.leave()
        await asked.of(LimitsMiddleware(held, Limits()))
        assert (asked.status, held.begun) == (None, 0)

    run(main)


def test_what_runs_after_the_answer_is_not_cancelled_when_the_client_leaves() -> None:
    async def main() -> None:
        done = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"done"})
            assert (await receive())["type"] == "http.request"
            assert (await receive())["type"] == "http.disconnect"
            await asyncio.sleep(0.02)
            done.append(True)

        asked = Asked()
        asked.body_part(b"", more=False)
        asked.leave()
        await asked.of(LimitsMiddleware(app, Limits()))
        assert done == [True]

    run(main)


def test_a_request_that_takes_too_long_ends_in_504_and_frees_its_slot() -> None:
    async def main() -> None:
        held = Held()
        limits = Limits(max_concurrent=1, max_queued=0, request_timeout_s=0.02)
        limited = LimitsMiddleware(held, limits)
        asked = await ask(limited)
        assert (asked.status, asked.error["code"]) == (504, "request_timeout")
        held.door.set()
        assert (await ask(limited)).status == 200

    run(main)


def test_a_timeout_of_the_app_s_own_is_not_taken_for_the_limit() -> None:
    async def main() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            raise TimeoutError("its own")

        with pytest.raises(TimeoutError, match="its own"):
            await ask(LimitsMiddleware(app, Limits()))

    run(main)


def test_a_server_that_stops_takes_its_requests_along() -> None:
    async def main() -> None:
        held = Held()
        limited = LimitsMiddleware(held, Limits())
        task = asyncio.create_task(ask(limited))
        await until(lambda: held.running == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (held.cancelled, held.running) == (1, 0)

    run(main)


def test_all_bodies_together_are_bounded() -> None:
    async def main() -> None:
        held = Held()
        limits = Limits(max_body_bytes=1000, max_concurrent=2, max_queued=10)
        limited = LimitsMiddleware(held, limits)
        waiting = [asyncio.create_task(ask(limited, b"x" * 900)) for _ in range(2)]
        await until(lambda: held.running == 2)
        refused = await ask(limited, b"x" * 900)
        assert (refused.status, refused.headers["connection"]) == (429, "close")
        small = asyncio.create_task(ask(limited, b"x" * 100))
        held.door.set()
        assert {asked.status for asked in await asyncio.gather(*waiting, small)} == {200}
        assert (await ask(limited, b"x" * 900)).status == 200

    run(main)


def test_a_websocket_is_not_served_and_the_lifespan_passes() -> None:
    async def main() -> None:
        seen = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            seen.append(scope["type"])

        limited = LimitsMiddleware(app, Limits())
        asked = Asked()
        for kind in ("lifespan", "websocket"):
            await limited({"type": kind}, asked.sends.get, asked._send)
        assert seen == ["lifespan"]

    run(main)


def test_a_place_given_to_who_gives_up_at_that_moment_is_not_lost() -> None:
    async def main() -> None:
        gate = Gate(most_running=1, most_waiting=1, timeout_s=60)
        assert await gate.enter()
        waits = asyncio.create_task(gate.enter())
        await until(lambda: gate.waiting == 1)
        gate.leave()
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits
        assert (gate.running, gate.waiting) == (0, 0)

    run(main)


@given(
    running=st.integers(1, 3),
    waiting=st.integers(0, 3),
    steps=st.lists(st.tuples(st.sampled_from(["come", "end", "give up"]), st.integers(0, 9))),
)
def test_a_gate_never_holds_more_nor_loses_a_place(
    running: int, waiting: int, steps: list[tuple[str, int]]
) -> None:
    """Whoever comes, leaves and gives up in whatever order, at the same moment too."""

    async def main() -> None:
        gate = Gate(most_running=running, most_waiting=waiting, timeout_s=60)
        doors: list[asyncio.Event] = []
        tasks: list[asyncio.Task[bool]] = []
        inside = 0

        async def visit(door: asyncio.Event) -> bool:
            nonlocal inside
            if not await gate.enter():
                return False
            inside += 1
            try:
                assert inside <= running
                await door.wait()
            finally:
                inside -= 1
                gate.leave()
            return True

        for what, which in steps:
            if what == "come":
                doors.append(asyncio.Event())
                tasks.append(asyncio.create_task(visit(doors[-1])))
            elif doors:
                at = which % len(doors)
                doors[at].set() if what == "end" else tasks[at].cancel()
            if which % 3:
                await asyncio.sleep(0)
            assert gate.waiting <= waiting
        for door in doors:
            door.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (gate.running, gate.waiting, inside) == (0, 0, 0)
        assert all(task.cancelled() or task.exception() is None for task in tasks)

    asyncio.run(main())
