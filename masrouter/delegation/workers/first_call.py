"""What a worker needs only once it is called: a model in memory, the schema of a server's tool.

Made once, at the first call; where that fails the call has failed, and the next one tries again.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from masrouter.delegation.workers.mcp_tool import HttpServer, MetTool, StdioServer, meet_tool
from masrouter.delegation.workers.worker import Outcome, Produced, Worker
from masrouter.llms.per_loop import PerLoop


class LoadedAtFirstCall:
    """A worker's `run` whose worker is loaded where it runs: in a thread."""

    def __init__(self, load: Callable[[], Worker]) -> None:
        self._load = load
        self._loaded: Worker | None = None
        self._lock = threading.Lock()

    def __call__(self, text: str) -> Outcome | Awaitable[Outcome]:
        """What the loaded worker makes of a text. Raises what loading raises."""
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
        return self._loaded.run(text)


class MetAtFirstCall:
    """A worker's `run` that asks an MCP server for its tool's schema before it first calls it."""

    def __init__(
        self,
        server: StdioServer | HttpServer,
        tool: str,
        *,
        name: str,
        argument: str | None,
        fixed: Mapping[str, Any] | None,
    ) -> None:
        """As `meet_tool`."""
        self._server, self._tool, self._name = server, tool, name
        self._argument, self._fixed = argument, fixed
        self._met: MetTool | None = None
        self._meeting = PerLoop(asyncio.Lock)

    async def __call__(self, text: str) -> Produced:
        """What the tool makes of a text. Raises what `meet_tool` raises."""
        async with self._meeting.get():
            if self._met is None:
                self._met = await meet_tool(
                    self._server,
                    self._tool,
                    name=self._name,
                    argument=self._argument,
                    fixed=self._fixed,
                )
        return await self._met.run(text)
