"""A tool of a real MCP server as a worker: a child process over stdio, and over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from mcp import Client
from mcp.server import MCPServer
from starlette.requests import Request
from starlette.responses import Response
from tests.delegation.mcp_tool_server import server

from masrouter.delegation.delegator import Delegator
from masrouter.delegation.tasks import Batch, Task
from masrouter.delegation.workers.mcp_tool import HttpServer, StdioServer, mcp_worker
from masrouter.delegation.workers.worker import Worker, WorkerError, with_workers
from masrouter.errors import ConfigError
from masrouter.llms.chat import ChatRequest, messages
from masrouter.llms.simulated import SimulatedProvider

CHILD = StdioServer(
    command=sys.executable, arguments=[str(Path(__file__).with_name("mcp_tool_server.py"))]
)
KEY = "MASROUTER_TEST_MCP_KEY"


async def answer(worker: Worker, text: str) -> str:
    request = ChatRequest(worker.name, messages(None, text), max_tokens=100)
    return (await with_workers(None, [worker]).complete(request)).text


async def failure(worker: Worker, text: str) -> WorkerError:
    with pytest.raises(WorkerError) as caught:
        await answer(worker, text)
    return caught.value


@contextlib.contextmanager
def served(key: str | None = None) -> Iterator[HttpServer]:
    """The same tools over HTTP, by a real server in a thread."""
    app = server().streamable_http_app()

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        refused = key is not None and scope["type"] == "http"
        if refused and Request(scope).headers.get("authorization") != f"Bearer {key}":
            await Response(status_code=401)(scope, receive, send)
            return
        await app(scope, receive, send)

    listening = socket.create_server(("127.0.0.1", 0))
    running = uvicorn.Server(uvicorn.Config(guarded, log_level="critical", ws="none"))
    thread = threading.Thread(target=running.run, args=([listening],), daemon=True)
    thread.start()
    port = listening.getsockname()[1]
    try:
        yield HttpServer(url=f"http://127.0.0.1:{port}/mcp", key_env=None if key is None else KEY)
    finally:
        running.should_exit = True
        thread.join(20)
        listening.close()
        assert not thread.is_alive()


def saying(*, text: Any = None, **schema: Any) -> MCPServer:
    """A server that says of its tool `echo` what is given: the schema of `text`, or other parts."""
    made = MCPServer("liar")

    @made.tool()
    def echo(text: str) -> str:
        """Gives a text back."""
        return text

    listed = made._tool_manager.get_tool("echo")
    assert listed is not None
    listed.parameters |= schema if text is None else {"properties": {"text": text}}
    return made


class TestStdio:
    def test_a_tool_of_a_child_process_does_a_task(self) -> None:
        async def run() -> Batch:
            shout = await mcp_worker(
                CHILD, "shout", name="shouter", fixed={"mark": "?"}, usd_per_call=0
            )
            assert shout.description == "Writes a text in capital letters."
            delegator = Delegator(SimulatedProvider([]), workers=[shout])
            tasks = [Task("Shout it.", context="hello", model="shouter"), Task("x" * 50)]
            return await delegator.delegate_tasks(tasks, model="shouter", budget_usd=0.0)

        done, refused = asyncio.run(run()).results
        assert (done.answer, done.models, done.usage.cost_usd) == ("HELLO?", ("shouter",), 0.0)
        assert refused.error is not None
        assert refused.error.type == "worker"
        assert "the tool's schema refuses the text: text: " in refused.error.message

    def test_a_child_that_dies_takes_one_call_with_it(self) -> None:
        async def run() -> WorkerError:
            return await failure(await mcp_worker(CHILD, "die", name="dying"), "x")

        assert asyncio.run(run()).kind == "connection"

    def test_a_child_is_given_no_more_of_the_environment_than_it_is_said(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(KEY, "secret")
        with_key = StdioServer(
            command=CHILD.command, arguments=CHILD.arguments, environment={"SAID": "yes"}
        )

        async def run() -> str:
            worker = await mcp_worker(with_key, "variables", name="variables")
            return await answer(worker, f"{KEY} SAID")

        assert asyncio.run(run()) == "not set, yes"

    @pytest.mark.parametrize(
        "child",
        [
            StdioServer(command="/no/such/program"),
            StdioServer(command=sys.executable, arguments=["-c", "raise SystemExit"]),
        ],
    )
    def test_a_server_that_does_not_start_is_told(self, child: StdioServer) -> None:
        with pytest.raises(ConfigError, match="its server cannot be asked"):
            asyncio.run(mcp_worker(child, "shout", name="shouter"))

    def test_a_server_that_says_nothing_is_not_waited_for(self) -> None:
        silent = StdioServer(
            command=sys.executable, arguments=["-c", "import sys; sys.stdin.read()"]
        )
        with pytest.raises(ConfigError, match="the time was over"):
            asyncio.run(mcp_worker(silent, "shout", name="shouter", deadline_s=0.5))


class TestHttp:
    def test_a_tool_behind_a_key_is_called_over_http(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def run(place: HttpServer) -> str:
            worker = await mcp_worker(
                place, "count", name="counter", argument="text", fixed={"letter": "a"}
            )
            return await answer(worker, "banana")

        with served("right") as place:
            with pytest.raises(ConfigError, match=f"variable {KEY} is not set"):
                asyncio.run(run(place))
            monkeypatch.setenv(KEY, "wrong")
            with pytest.raises(ConfigError, match="its server cannot be asked"):
                asyncio.run(run(place))
            monkeypatch.setenv(KEY, "right")
            assert asyncio.run(run(place)) == "3"

    def test_failures_are_typed(self) -> None:
        async def run(place: HttpServer) -> dict[str, WorkerError]:
            return {
                tool: await failure(await mcp_worker(place, tool, name="w", deadline_s=1), "it")
                for tool in ("fail", "dawdle")
            }

        with served() as place:
            failed = asyncio.run(run(place))
            gone = asyncio.run(mcp_worker(place, "shout", name="w"))
        assert failed["fail"].kind == "rejected"
        assert "the tool failed: " in str(failed["fail"])
        assert "cannot do 'it'" in str(failed["fail"])
        assert failed["dawdle"].kind == "timeout"
        assert asyncio.run(failure(gone, "x")).kind == "connection"


class TestSchema:
    """With an open client in process: what is said about a tool does not depend on the way."""

    @pytest.mark.parametrize(
        ("tool", "options", "why"),
        [
            ("shouts", {}, "no such tool; did you mean 'shout'"),
            ("count", {}, "say which argument takes the text, .* it has: text, letter"),
            ("count", {"argument": "text"}, "it requires letter; add to `fixed`"),
            ("count", {"argument": "txt"}, "no argument 'txt'; did you mean 'text'"),
            ("count", {"fixed": {"letter": 1}}, "fixed: letter: 1 is not of type 'string'"),
            ("shout", {"fixed": {"mark": "x"}}, "fixed: mark: 'x' is not one of"),
            ("shout", {"fixed": {"marc": "!"}}, "no argument 'marc'; did you mean 'mark'"),
            ("shout", {"argument": "text", "fixed": {"text": "a"}}, "cannot be fixed too"),
            ("number", {}, "argument 'value' takes integer, and the text is a string"),
        ],
    )
    def test_a_tool_that_one_text_cannot_call_is_refused(
        self, tool: str, options: Any, why: str
    ) -> None:
        async def run() -> None:
            async with Client(server()) as client:
                with pytest.raises(ConfigError, match=why):
                    await mcp_worker(client, tool, name="w", **options)

        asyncio.run(run())

    def test_an_open_client_is_used_as_it_is(self) -> None:
        async def run() -> list[str]:
            async with Client(server()) as client:
                worker = await mcp_worker(client, "shout", name="w", description="Shouts.")
                assert worker.description == "Shouts."
                return [await answer(worker, text) for text in ("a", "b")]

        assert asyncio.run(run()) == ["A!", "B!"]

    def test_a_strangers_pattern_cannot_keep_the_program_busy(self) -> None:
        """Trying it on this text here would take longer than the universe has."""
        text = "the quick brown fox jumps over the lazy dog " * 4 + "!"

        async def run() -> str:
            async with Client(saying(text={"type": "string", "pattern": r"^(\w+\s?)*$"})) as client:
                return await answer(await mcp_worker(client, "echo", name="w"), text)

        assert asyncio.run(run()) == text

    def test_references_that_multiply_are_not_followed(self) -> None:
        deep = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(60)}
        schema = {"$ref": "#/$defs/a0", "$defs": {**deep, "a60": {"type": "string"}}}

        async def run() -> str:
            async with Client(saying(text=schema)) as client:
                return await answer(await mcp_worker(client, "echo", name="w"), "hi")

        assert asyncio.run(run()) == "hi"

    @pytest.mark.parametrize(
        "lie",
        [{"properties": ["text"]}, {"required": 5}, {"properties": {"text": {"type": "sting"}}}],
    )
    def test_a_schema_that_is_none_is_refused(self, lie: dict[str, Any]) -> None:
        async def run() -> None:
            async with Client(saying(**lie)) as client:
                with pytest.raises(ConfigError, match="its schema is none"):
                    await mcp_worker(client, "echo", name="w")

        asyncio.run(run())

    def test_a_tool_that_gives_no_text_at_all_says_what_it_gave(self) -> None:
        async def run() -> WorkerError:
            async with Client(server()) as client:
                return await failure(await mcp_worker(client, "picture", name="w"), "cat")

        error = asyncio.run(run())
        assert error.kind == "empty"
        assert "the tool gave no text, only: image" in str(error)

    def test_what_is_no_text_is_named(self) -> None:
        async def run() -> str:
            async with Client(server()) as client:
                return await answer(await mcp_worker(client, "draw", name="w"), "cat")

        assert asyncio.run(run()) == "drawn: cat\n\n[left out, since it is no text: image]"
