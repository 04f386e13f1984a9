"""One client's connection: uvicorn's h11 protocol, with what it leaves to a proxy.

h11 is taken for what it bounds by itself: one request at a time, heads and chunk headers of bounded
size, a strict reading. Added here are a time for a request's head (408), errors of the wire in the
API's own shape, and an end that no client takes for a failure: the answer, then the end of the
stream, and the connection is closed once the client has stopped sending. A socket closed while
bytes still arrive resets the connection, and the client may never see its answer.

Not here: how many connections there are and when the server stops (`running`).
"""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any, Protocol, cast

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from masrouter.server.api_errors import ApiError
from masrouter.server.settings import Limits

LINGER_S = 30.0
"""So long at most is read, and thrown away, after the last answer."""
LINGER_IDLE_S = 2.0
"""The same, when nothing arrives and the answer is sent."""
LINGER_BYTES = 256_000_000


class Owner(Protocol):
    """What a connection needs of its server."""

    limits: Limits
    idle: dict[Connection, None]
    """Connections without a request, the one that waits longest first."""
    lingering: set[Connection]
    """Answered for good, closed as soon as their clients are done."""

    def room_made(self) -> None:
        """There is room for another connection, or one that may be closed for it."""


class Connection(H11Protocol):
    """An HTTP/1.1 connection that cannot be held up and does not end in a reset."""

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], owner: Owner
    ) -> None:
        super().__init__(config, server_state, app_state, asyncio.get_running_loop())
        self._owner = owner
        self._head_timer: asyncio.TimerHandle | None = None
        self._link: _Link
        self.idle_since = self.loop.time()
        self.was_used = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: a client is there."""
        self._link = _Link(cast(asyncio.Transport, transport), self)
        super().connection_made(self._link)
        self._mark()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: it is gone."""
        self._link.gone()
        self._stop_head_timer()
        self._unset_keepalive_if_required()
        self._owner.idle.pop(self, None)
        self._owner.lingering.discard(self)
        super().connection_lost(exc)
        self._owner.room_made()

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes."""
        if self._link.is_closing():
            self._link.thrown_away(len(data))
            return
        self.was_used = True
        super().data_received(data)
        self._mark()

    def on_response_complete(self) -> None:
        """uvicorn: the answer is written, and the next request may be read."""
        super().on_response_complete()
        self._mark()

    def send_400_response(self, msg: str) -> None:
        """uvicorn: the bytes are no HTTP."""
        most = self._owner.limits.max_header_bytes
        if len(self.conn.trailing_data[0]) > most:
            self._refuse(431, f"the head of a request may have {most} bytes", "headers_too_large")
        else:
            self._refuse(400, "this is no HTTP/1.1 request", "invalid_http")

    def _unsupported_upgrade_warning(self) -> None:
        """uvicorn: the client offers another protocol. It is answered in this one."""

    def shutdown(self) -> None:
        """uvicorn: the server stops. `running` ends connections itself, when they are idle."""

    @property
    def is_idle(self) -> bool:
        """Whether there is no request, nor a part of one, not even unread ones."""
        return self in self._owner.idle and not self._link.has_unread_bytes()

    def close_if_idle(self) -> None:
        """End a connection that has no request."""
        if self.is_idle:
            self._link.close()

    def timeout_keep_alive_handler(self) -> None:
        """uvicorn: nothing was asked for long."""
        self.close_if_idle()

    def abort(self) -> None:
        """End it whatever is under way."""
        self._link.abort()

    def _mark(self) -> None:
        """Note whether a request is awaited, arriving or under way."""
        idle = self._owner.idle
        if self._link.is_closing() or self.conn.their_state is not h11.IDLE:
            self._stop_head_timer()
            idle.pop(self, None)
            return
        if self.conn.trailing_data[0]:
            idle.pop(self, None)
        elif self not in idle:
            idle[self] = None
            self.idle_since = self.loop.time()
            self._stop_head_timer()
            self._owner.room_made()
        if self._head_timer is None and (self not in idle or not self.was_used):
            self._unset_keepalive_if_required()
            self._head_timer = self.loop.call_later(
                self._owner.limits.header_timeout_s, self._head_is_late
            )

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self in self._owner.idle:
            self.close_if_idle()  # nothing was ever sent, so nothing is answered
            return
        seconds = self._owner.limits.header_timeout_s
        self._refuse(408, f"the head did not arrive within {seconds:g} s", "header_timeout")

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, status: int, message: str, code: str) -> None:
        """Answer what never became a request, or broke off within its body, and close."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:
                self._link.close()
                return
        body = json.dumps(ApiError(status, message, code=code).to_json()).encode()
        head = h11.Response(
            status_code=status,
            headers=[
                *self.server_state.default_headers,
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
            ],
            reason=_REASONS[status],
        )
        writer = h11.Connection(h11.SERVER)  # the one that reads has given up
        self._link.write((writer.send(head) or b"") + body)
        self._link.close()


_REASONS = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large"}


class _Link(asyncio.Transport):
    """A transport that closes in steps: what is written, the end of the stream, then the socket."""

    def __init__(self, transport: asyncio.Transport, connection: Connection) -> None:
        super().__init__()
        self._transport = transport
        self._connection = connection
        self._closing = False
        self._thrown_away = 0
        self._deadline = 0.0
        self._quiet_since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if not self._closing and data:
            self._transport.write(data)

    def is_closing(self) -> bool:
        return self._closing or self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        """Say that this was all, then read what the client still sends, within bounds."""
        if self.is_closing():
            return
        connection = self._connection
        loop = connection.loop
        self._closing = True
        connection._mark()
        connection._owner.lingering.add(connection)
        connection._owner.room_made()
        self._transport.resume_reading()
        self._transport.write_eof()
        self._quiet_since = loop.time()
        self._deadline = loop.time() + LINGER_S
        self._timer = loop.call_later(LINGER_IDLE_S, self._check)

    def thrown_away(self, size: int) -> None:
        """Bytes came that nobody waits for."""
        self._thrown_away += size
        self._quiet_since = self._connection.loop.time()
        if self._thrown_away > LINGER_BYTES:
            self.abort()

    def abort(self) -> None:
        self._closing = True
        self._transport.abort()

    def gone(self) -> None:
        """The socket is closed."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()

    def has_unread_bytes(self) -> bool:
        """Whether the client has sent what was not read yet."""
        known = self._transport.get_extra_info("socket")
        if known is None or known.fileno() < 0:
            return False
        borrowed = socket.socket(known.family, known.type, fileno=known.fileno())
        try:
            return bool(borrowed.recv(1, socket.MSG_PEEK))
        except OSError:
            return False  # nothing there, or nobody
        finally:
            borrowed.detach()

    def _check(self) -> None:
        now = self._connection.loop.time()
        if self._transport.get_write_buffer_size():
            self._quiet_since = now
        if now >= self._deadline or now - self._quiet_since >= LINGER_IDLE_S:
            self.abort()
        else:
            self._timer = self._connection.loop.call_later(LINGER_IDLE_S / 4, self._check)
