"""The MCP server over the standard streams: one client, which has started this process.

Standard output carries nothing but the protocol: what else is printed goes to standard error, and
child processes find standard input empty.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import Any, Self, cast

from mcp.server import Server
from mcp.server.stdio import stdio_server

_MOST_WAITING = 1000
"""Lines that are read ahead."""


async def serve_stdio(server: Server[dict[str, Any]]) -> None:
    """Serve the client until it closes the streams, or SIGTERM comes.

    Either cancels the calls that are under way.
    """
    serving = asyncio.current_task()
    assert serving is not None
    terminated = False

    def terminate() -> None:
        nonlocal terminated
        terminated = True
        serving.cancel()

    loop = asyncio.get_running_loop()
    with contextlib.suppress(NotImplementedError, RuntimeError):  # Windows; not the main thread
        loop.add_signal_handler(signal.SIGTERM, terminate)
    try:
        with _own_standard_input() as wire:
            lines = cast("Any", _Lines(wire))  # iterated over, and nothing else
            async with stdio_server(stdin=lines) as (read, write):
                await server.run(read, write, server.create_initialization_options())
    except asyncio.CancelledError:
        if not terminated:
            raise
    finally:
        with contextlib.suppress(NotImplementedError, RuntimeError):
            loop.remove_signal_handler(signal.SIGTERM)


@contextlib.contextmanager
def _own_standard_input() -> Iterator[int]:
    """A descriptor of what came in as standard input, which is empty for everybody else meanwhile.

    It stays open: a thread may still wait at it, and must not meet another file under its number.
    """
    wire = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    try:
        os.dup2(nothing, 0)
    finally:
        os.close(nothing)
    try:
        yield wire
    finally:
        os.dup2(wire, 0)


class _Lines:
    """The lines of a file, read in a thread that keeps nobody from ending.

    The package's own reader cannot be cancelled while it waits, so that Ctrl-C would hang until the
    client has gone; `sys.stdin` holds a lock meanwhile, at which the interpreter would end badly.
    """

    def __init__(self, file: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._lines: asyncio.Queue[str | None] = asyncio.Queue(_MOST_WAITING)
        self._file = file
        threading.Thread(target=self._read, name="standard input", daemon=True).start()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        line = await self._lines.get()
        if line is None:
            raise StopAsyncIteration
        return line

    def _read(self) -> None:
        begun: list[bytes] = []
        with contextlib.suppress(OSError, RuntimeError, CancelledError):  # the loop has ended
            while piece := os.read(self._file, 1 << 16):
                *ends, rest = piece.split(b"\n")
                for end in ends:
                    self._pass_on(b"".join([*begun, end]))
                    begun = []
                begun.append(rest)
            if any(begun):
                self._pass_on(b"".join(begun))
            self._put(None)

    def _pass_on(self, line: bytes) -> None:
        self._put(line.decode("utf-8", "replace"))

    def _put(self, line: str | None) -> None:
        asyncio.run_coroutine_threadsafe(self._lines.put(line), self._loop).result()
