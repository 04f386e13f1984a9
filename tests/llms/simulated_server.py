"""The simulated provider behind an OpenAI-compatible endpoint on 127.0.0.1.

What a request asks for is what the provider is asked: model, messages, max_tokens, temperature and
seed. So the same request gets the same answer, over HTTP as without it.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from masrouter.errors import CallError
from masrouter.llms import ChatRequest, Message
from masrouter.llms.simulated import SimulatedProvider


@dataclass
class SimulatedServer:
    """Run it in a `with`."""

    provider: SimulatedProvider
    latency_s: float = 0.0
    """Before each answer."""
    asked: Counter[str] = field(default_factory=Counter)
    """How often each request came, by its digest."""

    def __enter__(self) -> Self:
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(30)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def calls(self) -> int:
        with self._lock:
            return self.asked.total()

    def write_providers(self, path: Path) -> Path:
        """A providers file with all models that the provider plays; prices are the catalog's."""
        entry = {
            "base_url": self.base_url,
            "api_key_env": None,
            "models": dict.fromkeys(self.provider.models),
        }
        path.write_text(json.dumps({"providers": {"here": entry}}))
        return path

    def answer(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and JSON for a request's JSON."""
        request = ChatRequest(
            body["model"],
            tuple(Message(turn["role"], turn["content"]) for turn in body["messages"]),
            body["max_tokens"],
            body.get("temperature"),
            body.get("seed"),
        )
        with self._lock:
            self.asked[request.digest()] += 1
        time.sleep(self.latency_s)
        meter = _LastUsage()
        try:
            said = asyncio.run(self.provider.complete(request, meter=meter))
            text, finish, usage = said.text, said.finish_reason, said.usage
        except CallError as error:
            if error.kind != "empty" or meter.usage is None:
                return error.status or 400, {"error": {"message": str(error)}}
            text, finish, usage = "", "length", meter.usage
        message = {"role": "assistant", "content": text}
        return 200, {
            "id": "1",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": {
                "prompt_tokens": usage.prompt_tokens,
                "completion_tokens": usage.completion_tokens,
                "total_tokens": (usage.prompt_tokens or 0) + (usage.completion_tokens or 0),
            },
        }


class _LastUsage:
    """A meter that remembers what an attempt was billed."""

    def __init__(self) -> None:
        self.usage: Any = None

    def reserve(self) -> None:
        pass

    def settle(self, usage: Any) -> None:
        self.usage = usage

    def release(self) -> None:
        pass


class _Server(ThreadingHTTPServer):
    owner: SimulatedServer
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed breaks its connections off: that is no fault of the server."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["content-length"]))
        if self.path != "/v1/chat/completions":
            self._send(404, {"error": {"message": f"no such path: {self.path}"}})
            return
        self._send(*self.server.owner.answer(json.loads(raw)))

    def _send(self, status: int, data: dict[str, Any]) -> None:
        raw = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: Any) -> None:
        pass
