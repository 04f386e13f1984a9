"""The MCP server over streamable HTTP: who is let in, and until when.

Whoever reaches it spends its owner's money. Without a key it listens on this machine alone, and the
Host and Origin headers are checked, so that no web page in a browser here can reach it by a name
that it made lead here. Beyond this machine a key is needed (`MASROUTER_MCP_KEY`, sent as
`Authorization: Bearer KEY`); TLS is a reverse proxy's.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import ipaddress
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from typing import Any

import uvicorn
from mcp.server import Server
from mcp.server.transport_security import TransportSecuritySettings

from masrouter.errors import ConfigError

ENVIRONMENT_KEY = "MASROUTER_MCP_KEY"
PATH = "/mcp"
MOST_CONNECTIONS = 256
_LEAST_KEY = 16
_LOCAL = ("localhost", "127.0.0.1", "[::1]")

App = Callable[..., Awaitable[None]]
Scope = MutableMapping[str, Any]


def key_of(environment: Mapping[str, str]) -> str | None:
    """The key that clients must send; None where none is set.

    Raises ConfigError for one that could be guessed, or that no header could carry.
    """
    key = environment.get(ENVIRONMENT_KEY)
    if key is None:
        return None
    if len(key) < _LEAST_KEY or not (key.isascii() and key.isprintable() and key == key.strip()):
        raise ConfigError(
            f"{ENVIRONMENT_KEY}: expected at least {_LEAST_KEY} characters of printable ASCII "
            f"without spaces around them, got {len(key)} characters; unset it to listen on this "
            "machine alone"
        )
    return key


def http_app(
    server: Server[dict[str, Any]], *, host: str = "127.0.0.1", key: str | None = None
) -> App:
    """The ASGI app of a server that will listen on `host`, at `/mcp`.

    Raises ConfigError for a host beyond this machine without a key.
    """
    local = is_local(host)
    if not local and key is None:
        raise ConfigError(
            f"host {host!r} can be reached from beyond this machine, and whoever reaches it could "
            f"spend your money: set a key in the environment variable {ENVIRONMENT_KEY}"
        )
    names = {*_LOCAL, f"[{host}]" if ":" in host else host} if local else set()
    app = server.streamable_http_app(
        streamable_http_path=PATH,
        # With a key every request is its holder's, and a proxy in front may have any name.
        transport_security=TransportSecuritySettings(
            enable_dns_rebinding_protection=key is None,
            # Clients leave out port 80.
            allowed_hosts=sorted(f"{name}{port}" for name in names for port in ("", ":*")),
            allowed_origins=sorted(f"http://{name}{port}" for name in names for port in ("", ":*")),
        ),
    )
    return app if key is None else _with_key(app, key)


OnStarted = Callable[[str, Callable[[], None]], None]
"""Told the URL, and what ends the server, from any thread."""


def serve_http(
    server: Server[dict[str, Any]],
    *,
    host: str = "127.0.0.1",
    port: int = 8485,
    key: str | None = None,
    drain_s: int = 5,
    on_started: OnStarted | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, or until it is told to stop. Port 0 takes a free one.

    drain_s: calls that are under way then have so long to end; after it they are cancelled.
    Raises ConfigError where the address cannot be listened on, or lacks a key.
    """
    app = http_app(server, host=host, key=key)
    with _listening(host, port) as listener:
        shown = f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{listener.getsockname()[1]}{PATH}"
        _HttpServer(app, url, drain_s, on_started).run([listener])


def is_local(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _HttpServer(uvicorn.Server):
    """Signals end the server, not the process: `run` returns."""

    def __init__(self, app: App, url: str, drain_s: int, on_started: OnStarted | None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="on",
                ws="none",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                limit_concurrency=MOST_CONNECTIONS,
                timeout_graceful_shutdown=drain_s,
            )
        )
        self._url = url
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets)
        if self.started and self._on_started is not None:
            self._on_started(self._url, self.stop)

    def stop(self) -> None:
        """Begin to drain, as a first signal does; from any thread."""
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The first signal drains, the second ends."""
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


def _listening(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return socket.create_server(address, family=family)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"{host}:{port}: cannot listen there: {error}; choose another port or host"
        ) from error


def _with_key(app: App, key: str) -> App:
    """The app for whoever sends the key; 401 for the others, before anything of it is read."""
    expected = hashlib.sha256(f"Bearer {key}".encode()).digest()

    async def guarded(scope: Scope, receive: App, send: App) -> None:
        if scope["type"] == "http":
            sent = [v for name, v in scope["headers"] if name.lower() == b"authorization"]
            given = hashlib.sha256(sent[0] if len(sent) == 1 else b"").digest()
            if not hmac.compare_digest(given, expected):
                await _refuse(send)
                return
        await app(scope, receive, send)

    return guarded


async def _refuse(send: App) -> None:
    headers = [
        (b"www-authenticate", b"Bearer"),
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"connection", b"close"),
    ]
    body = b"A valid key is needed: send `Authorization: Bearer KEY`.\n"
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": body})
