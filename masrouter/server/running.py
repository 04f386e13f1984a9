"""Run an ASGI app on uvicorn: bounded connections, no resets, and an end that loses nothing.

More connections than `max_connections` wait in the system's backlog; where one of ours is idle it
makes place. At the first SIGTERM or SIGINT the server drains:

    /ready turns 503, and every answer ends its connection
    ──► new connections are still served, until nothing runs, for `NOTICE_S` at most
    ──► the port takes nobody new, who was connecting is let in, and it is closed
    ──► requests under way end; idle connections are closed after `IDLE_S`
    ──► the app's own shutdown, which writes what it holds; exit code 0

A second signal ends the process at once. Not here: what a single request may take (`limits`) and
what a connection does (`connection`). No TLS: that is for the proxy in front.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import uvicorn

from masrouter.errors import ConfigError
from masrouter.server.api_errors import ApiError
from masrouter.server.connection import Connection
from masrouter.server.limits import App, Event, Receive, Scope, Send, send_error
from masrouter.server.listening import (
    BACKLOG,
    SPARE_FILES,
    connections_within,
    listening,
    refuse_newcomers,
)
from masrouter.server.settings import ServerSettings

KEEP_ALIVE_S = 75
"""An idle connection is kept so long: longer than clients keep theirs, so that they end it."""
NOTICE_S = 2.0
IDLE_S = 1.0
_HANDSHAKE_S = 0.1
"""Who had begun to connect when the port closes has this long to finish."""
_AT_ONCE = 128
"""Connections accepted before others get their turn."""
_POLL_S = 0.02


def serve(
    app: App, settings: ServerSettings, *, on_started: Callable[[str], None] | None = None
) -> None:
    """Serve `app` until a signal ends it, and return once everything under way is done.

    Args:
        on_started: told the URL, once connections are accepted.

    Raises ConfigError where the address cannot be listened on or the app does not start.
    """
    HttpServer(app, settings, on_started=on_started).run()


class HttpServer(uvicorn.Server):
    """`serve`, for who holds it in a thread: `run` there, `stop` from anywhere."""

    def __init__(
        self,
        app: App,
        settings: ServerSettings,
        *,
        on_started: Callable[[str], None] | None = None,
    ) -> None:
        self.limits = settings.limits
        self.idle: dict[Connection, None] = {}
        self.lingering: set[Connection] = set()
        self.draining = False
        self._given_up = False
        self._app = app
        self._on_started = on_started
        self._address = (settings.host, settings.port)
        self._listeners: list[socket.socket] = []
        self._paused = False
        self._arriving: set[asyncio.Task[Any]] = set()
        self._most = connections_within(self.limits.max_connections)
        super().__init__(
            uvicorn.Config(
                self._ending_when_draining,
                http=lambda config, server_state, app_state, _loop=None: Connection(  # type: ignore[arg-type]
                    config, server_state, app_state, self
                ),
                interface="asgi3",
                ws="none",
                lifespan="auto",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                h11_max_incomplete_event_size=self.limits.max_header_bytes,
            )
        )

    @property
    def url(self) -> str:
        """Where it listens; before it started, where it is going to."""
        host, port = self._address
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def stop(self) -> None:
        """Begin to drain, as a first signal does; from any thread."""
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal: the first drains, the second ends the process."""
        if self.should_exit:
            os._exit(128 + sig)
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals end the server, not the process: it returns, with exit code 0."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {sig: signal.signal(sig, self.handle_exit) for sig in signals}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, start the app, accept."""
        logging.getLogger("uvicorn.error").addFilter(_is_no_client_fault)
        self._listeners = sockets or listening(*self._address)
        port = self._listeners[0].getsockname()[1]
        self._address = (self._address[0], port)
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            self._close_port()
            raise ConfigError("the server's app did not start; the log says why")
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.add_reader(listener, self._accept, listener)
        self.started = True
        if self._on_started is not None:
            self._on_started(self.url)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then end the app."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        end = began + self.limits.drain_s
        self.draining = True
        self.lifespan.state["draining"] = True  # each request's scope gets a copy: see `health`
        while self.server_state.tasks and loop.time() < min(began + NOTICE_S, end):
            await asyncio.sleep(_POLL_S)
        for listener in self._listeners:
            refuse_newcomers(listener)
        await asyncio.sleep(_HANDSHAKE_S)
        self._close_port()
        while self._is_busy() and loop.time() < end:
            for connection in list(self.idle):
                if loop.time() - max(connection.idle_since, began) >= IDLE_S:
                    connection.close_if_idle()
            await asyncio.sleep(_POLL_S)
        await self._give_up()
        await self.lifespan.shutdown()

    def room_made(self) -> None:
        """A connection is gone, or idle: who waits in the backlog may come in."""
        if self._paused and self._listeners:
            self._paused = False
            loop = asyncio.get_running_loop()
            for listener in self._listeners:
                loop.add_reader(listener, self._accept, listener)

    def _is_busy(self) -> bool:
        state = self.server_state
        return bool(state.connections or state.tasks or self._arriving)

    def _accept(self, listener: socket.socket, most: int = _AT_ONCE) -> None:
        """Take in who waits at the port, as far as there is room."""
        loop = asyncio.get_running_loop()
        if not self._has_room() and not self._made_room():
            self._pause()
            return
        for _ in range(most):
            if not self._has_room():
                return  # called again where anybody still waits
            try:
                accepted, _address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # no file is free: the backlog waits, as for a connection
                self._pause()
                loop.call_later(0.2, self.room_made)
                return
            accepted.setblocking(False)
            task = loop.create_task(self._connected(accepted))
            self._arriving.add(task)
            task.add_done_callback(self._arriving.discard)

    async def _connected(self, accepted: socket.socket) -> None:
        with contextlib.suppress(OSError):  # it left before it was let in
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: Connection(self.config, self.server_state, self.lifespan.state, self),
                accepted,
            )

    def _has_room(self) -> bool:
        held = len(self.server_state.connections) - len(self.lingering) + len(self._arriving)
        return held < self._most and len(self.lingering) < SPARE_FILES // 2

    def _made_room(self) -> bool:
        """Close the connection that is idle for longest."""
        oldest = next((one for one in self.idle if one.was_used), None)
        if oldest is not None:
            oldest.close_if_idle()
        return self._has_room()

    def _pause(self) -> None:
        self._paused = True
        for listener in self._listeners:
            asyncio.get_running_loop().remove_reader(listener)

    def _close_port(self) -> None:
        """Stop listening. The system would reset whom it had accepted and we had not."""
        self._most += BACKLOG  # nobody comes after these
        for listener in self._listeners:
            asyncio.get_running_loop().remove_reader(listener)
            self._accept(listener, most=BACKLOG)
            asyncio.get_running_loop().remove_reader(listener)
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener.close()

    async def _give_up(self) -> None:
        """The time is over: what still runs is told so, and cut off."""
        self._given_up = True
        tasks = list(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=IDLE_S)
        for connection in list(self.server_state.connections):
            connection.abort()  # type: ignore[union-attr]

    async def _ending_when_draining(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The app, each of whose answers ends its connection once the server drains."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def ending(event: Event) -> None:
            nonlocal begun
            if event["type"] == "http.response.start":
                begun = True
                if self.draining:
                    kept = [h for h in event.get("headers", ()) if h[0].lower() != b"connection"]
                    event = {**event, "headers": [*kept, (b"connection", b"close")]}
            await send(event)

        try:
            await self._app(scope, receive, ending)
        except asyncio.CancelledError:
            if not self._given_up:
                raise
            if not begun:
                await send_error(_STOPPED, ending)


_STOPPED = ApiError(
    503,
    "the server stops, and the request was not done in time; ask another one",
    type="server_error",
    code="shutting_down",
    headers={"retry-after": "1"},
)


def _is_no_client_fault(record: logging.LogRecord) -> bool:
    """Whoever can connect could otherwise fill the log."""
    return record.msg != "Invalid HTTP request received."
