"""A server on a port in a thread, and clients that say what no HTTP library would."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from masrouter.server import Limits, ServerSettings
from masrouter.server.limits import App
from masrouter.server.running import HttpServer


@contextlib.contextmanager
def listening(app: App, limits: Limits | None = None) -> Iterator[HttpServer]:
    """The app behind the real server, in a thread; it has stopped when the block is left."""
    settings = ServerSettings(port=0, limits=limits or Limits())
    started = threading.Event()
    server = HttpServer(app, settings, on_started=lambda _: started.set())
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        assert started.wait(30), "the server did not start"
        yield server
    finally:
        server.stop()
        thread.join(60)
        assert not thread.is_alive(), "the server did not stop"


@dataclass(frozen=True)
class Answer:
    """A response as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> Any:
        """Of the error in it."""
        return json.loads(self.body)["error"]["code"]


class Client:
    """A connection. Use it in a `with`."""

    def __init__(self, url: str, timeout_s: float = 20) -> None:
        host, _, port = url.removeprefix("http://").rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=timeout_s)
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> Self:
        """All of it; raises OSError where the other side has reset the connection."""
        self._socket.sendall(data)
        return self

    def get(self, path: str = "/") -> Answer:
        return self.send(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()).answer()

    def answer(self) -> Answer:
        """The next response with a content-length."""
        while b"\r\n\r\n" not in self._rest:
            self._more()
        head, _, rest = self._rest.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        self._rest = rest
        length = int(headers["content-length"])
        while len(self._rest) < length:
            self._more()
        body, self._rest = self._rest[:length], self._rest[length:]
        return Answer(int(first.split()[1]), headers, body)

    def interim(self) -> bytes:
        """The head of an answer that another one follows."""
        while b"\r\n\r\n" not in self._rest:
            self._more()
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        return head

    def is_ended(self) -> bool:
        """Whether the server ends the connection, cleanly, with nothing more to say.

        A reset raises ConnectionResetError.
        """
        return self._rest == b"" and self._socket.recv(1) == b""

    def _more(self) -> None:
        data = self._socket.recv(65_536)
        if not data:
            raise EOFError(f"the connection ended after {self._rest[:200]!r}")
        self._rest += data


def wait_until(condition: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.002)
