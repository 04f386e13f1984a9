"""Requests to an ASGI app without a server: each event is sent and received by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from masrouter.server.limits import (
    App,
    Event,
    Receive,
    Scope,
    Send,
)


@dataclass
class Asked:
    """One request to an ASGI app, and what came back."""

    sends: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def body_part(self, part: bytes, *, more: bool) -> None:
        self.sends.put_nowait({"type": "http.request", "body": part, "more_body": more})

    def leave(self) -> None:
        self.sends.put_nowait({"type": "http.disconnect"})

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)["error"]
        return found

    async def _send(self, event: Event) -> None:
        if event["type"] == "http.response.start":
            assert self.status is None
            self.status = event["status"]
            self.headers = {name.decode(): value.decode() for name, value in event["headers"]}
        else:
            self.body += event.get("body", b"")

    async def of(
        self,
        app: App,
        *,
        path: str = "/v1/decision",
        method: str = "POST",
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> Asked:
        scope: Scope = {
            "type": "http", "method": method, "path": path, "raw_path": path.encode(),
            "query_string": b"", "headers": list(headers),
        }  # fmt: skip
        await app(scope, self.sends.get, self._send)
        return self


def ask(app: App, body: bytes = b"{}", **options: Any) -> Coroutine[Any, Any, Asked]:
    """A request whose body is there at once."""
    asked = Asked()
    asked.body_part(body, more=False)
    return asked.of(app, **options)


class Held:
    """An app whose requests end when told; it counts them."""

    def __init__(self) -> None:
        self.door = asyncio.Event()
        self.running = self.most = self.begun = self.cancelled = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.begun += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            body = (await receive())["body"]
            await self.door.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body})
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
