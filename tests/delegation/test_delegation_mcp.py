"""The MCP server, met by the official client: in process, and over HTTP by a real server."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Literal

import httpx
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server import Server
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.memory import create_client_server_memory_streams
from mcp.shared.message import SessionMessage
from mcp.types import JSONRPCRequest, TextContent
from tests.delegation.scripted import ScriptedModel

from masrouter.delegation.delegator import Delegator
from masrouter.delegation.naming.settings import Settings
from masrouter.delegation.tasks import Batch, TaskWorking
from masrouter.delegation.tools.calling import tools_of
from masrouter.delegation.tools.mcp_http import ENVIRONMENT_KEY, PATH, http_app, key_of, serve_http
from masrouter.delegation.tools.mcp_server import EachCall, mcp_server
from masrouter.errors import ConfigError, RoutingError
from masrouter.execution.events import CallStarted

KEY = "a-key-of-sufficient-length"
ASKED = {"goal": "a", "model": "small"}
HELLO = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}
HELLO_REQUEST = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HELLO}
Era = Literal["auto", "legacy"]
eras = pytest.mark.parametrize("era", ["auto", "legacy"])


def model(**options: Any) -> ScriptedModel:
    return ScriptedModel({"small": "a small answer", "large": "a large answer"}, **options)


def server_of(llm: ScriptedModel, **options: Any) -> Server[Any]:
    return mcp_server(Delegator(llm), **options)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


@contextlib.contextmanager
def served(server: Server[Any], *, key: str | None = None) -> Iterator[str]:
    """The URL of a server that runs in a thread until the block is left."""
    told: queue.Queue[tuple[str, Callable[[], None]]] = queue.Queue()

    def run() -> None:
        serve_http(
            server, port=0, key=key, drain_s=0, on_started=lambda *started: told.put(started)
        )

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    url, stop = told.get(timeout=20)
    try:
        yield url
    finally:
        stop()
        thread.join(20)
        assert not thread.is_alive()


@contextlib.asynccontextmanager
async def client_of(
    url: str, *, era: Era = "auto", key: str | None = None
) -> AsyncIterator[Client]:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    async with (
        create_mcp_http_client(headers=headers) as http,
        Client(streamable_http_client(url, http_client=http), mode=era) as client,
    ):
        yield client


class TestServer:
    @eras
    def test_the_official_client_lists_and_calls_the_tools(self, era: Era) -> None:
        llm = model()

        async def run() -> None:
            async with Client(server_of(llm), mode=era) as client:
                listed = (await client.list_tools()).tools
                assert [tool.name for tool in listed] == [
                    "delegate_task", "delegate_tasks", "list_models",
                ]  # fmt: skip
                for tool, own in zip(listed, tools_of(Delegator(llm)), strict=True):
                    assert tool.description == own.description
                    assert tool.input_schema == own.parameters
                offered = await client.call_tool("list_models", {})
                assert offered.structured_content is not None
                assert [o["id"] for o in offered.structured_content["models"]] == ["small", "large"]
                done = await client.call_tool(
                    "delegate_tasks",
                    {"tasks": [{"goal": "a", "model": "large"}, {"goal": "b"}], "model": "small"},
                )
                assert not done.is_error
                assert done.structured_content is not None
                said = [one["summary"] for one in done.structured_content["results"]]
                assert said == ["a large answer", "a small answer"]
                assert isinstance(done.content[0], TextContent)
                assert json.loads(done.content[0].text) == done.structured_content

        asyncio.run(run())

    def test_a_call_that_fails_is_marked_and_says_why(self) -> None:
        async def run() -> None:
            async with Client(server_of(model())) as client:
                for name, arguments, kind in (
                    ("delegate_task", {"goal": "a", "model": "openrouter:gpt-4o"}, "unknown_model"),
                    ("delegate_task", {"goal": 7}, "invalid_task"),
                    ("delegate", {}, "invalid_task"),
                ):
                    answer = await client.call_tool(name, arguments)
                    assert answer.is_error
                    assert answer.structured_content is not None
                    assert answer.structured_content["error"]["type"] == kind

        asyncio.run(run())

    def test_all_clients_share_one_budget(self) -> None:
        llm = model()
        server = server_of(llm, budget_usd=0.012)
        task = {"goal": "a", "model": "small", "max_tokens": 2000}

        async def run() -> list[dict[str, Any]]:
            answers = []
            for _ in range(3):
                async with Client(server) as client:
                    done = await client.call_tool("delegate_task", task)
                    assert done.structured_content is not None
                    answers.append(done.structured_content)
            return answers

        first, second, third = asyncio.run(run())
        left = [answer["budget_left_usd"] for answer in (first, second, third)]
        assert left[0] > left[1] > left[2]
        assert llm.billed_usd == pytest.approx(0.012 - left[2])

    def test_a_budget_that_is_used_up_lets_nothing_through(self) -> None:
        llm = model()

        async def run() -> None:
            async with Client(server_of(llm, budget_usd=1e-9)) as client:
                answer = await client.call_tool("delegate_task", ASKED)
                assert answer.is_error
                assert answer.structured_content is not None
                assert answer.structured_content["error"]["type"] == "budget"

        asyncio.run(run())
        assert llm.requests == []

    def test_a_call_keeps_to_its_own_budget_and_deadline(self) -> None:
        slow = model(delays_s={"large": 60})
        each = EachCall(budget_usd=0.05, deadline_s=0.05)

        async def run() -> None:
            async with Client(server_of(slow, budget_usd=10, each_call=each)) as client:
                dear = {"goal": "a", "model": "small", "budget_usd": 1}
                refused = await client.call_tool("delegate_task", dear)
                assert refused.structured_content is not None
                assert refused.structured_content["error"]["type"] == "budget"
                late = await client.call_tool("delegate_task", {"goal": "a", "model": "large"})
                assert late.structured_content is not None
                assert late.structured_content["error"]["type"] == "deadline"

        asyncio.run(run())

    def test_what_would_fail_every_call_is_said_before_any(self) -> None:
        with pytest.raises(ConfigError, match="deadline_s"):
            EachCall(deadline_s=0)
        with pytest.raises(RoutingError, match="cost_weight"):
            EachCall(cost_weight=-1)
        with pytest.raises(ConfigError, match="refused: none-such"):
            mcp_server(Delegator(model(), Settings(refused=("none-such",))))

    @pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
    def test_options_that_mean_nothing_are_refused(self, value: float) -> None:
        with pytest.raises(ConfigError, match="budget_usd"):
            EachCall(budget_usd=value)
        with pytest.raises(ConfigError, match="deadline_s"):
            EachCall(deadline_s=value)
        with pytest.raises(ConfigError, match="budget_usd"):
            server_of(model(), budget_usd=value)

    @eras
    def test_progress_is_told_per_task_and_only_grows(self, era: Era) -> None:
        told: list[tuple[float, float | None, str]] = []

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            told.append((progress, total, message or ""))

        async def run() -> None:
            async with Client(server_of(model()), mode=era) as client:
                tasks = [{"goal": "a", "model": "small"}, {"goal": "b", "model": "large"}]
                await client.call_tool(
                    "delegate_tasks", {"tasks": tasks}, progress_callback=on_progress
                )
                await until(lambda: len(told) >= 10)

        asyncio.run(run())
        steps = [progress for progress, _, _ in told]
        assert all(after > before for before, after in itertools.pairwise(steps))
        assert told[-1][:2] == (2.0, 2)
        for name, asked in (("task-1", "small"), ("task-2", "large")):
            own = [message for _, _, message in told if message.startswith(name)]
            assert asked in own[0]
            assert "done, $" in own[-1]

    def test_progress_grows_however_long_a_task_works(self) -> None:
        class Long(Delegator):
            async def delegate_tasks(self, tasks: Any, **options: Any) -> Batch:
                for n in range(200):
                    asking = CallStarted(0, f"step {n}", "small", 0.0)
                    options["on_event"](TaskWorking("task-1", asking))
                return await super().delegate_tasks(tasks, **options)

        told: list[float] = []

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            told.append(progress)

        async def run() -> None:
            async with Client(mcp_server(Long(model()))) as client:
                await client.call_tool("delegate_task", ASKED, progress_callback=on_progress)
                await until(lambda: told and told[-1] == 1)

        asyncio.run(run())
        assert len(told) > 200
        assert all(after > before for before, after in itertools.pairwise(told))

    @eras
    def test_a_cancelled_call_cancels_its_work(self, era: Era) -> None:
        llm = model(delays_s={"small": 60, "large": 60})

        async def run() -> None:
            async with Client(server_of(llm), mode=era) as client:
                tasks = [{"goal": "a", "model": "small"}, {"goal": "b", "model": "large"}]
                call = asyncio.create_task(client.call_tool("delegate_tasks", {"tasks": tasks}))
                await until(lambda: llm.in_flight == 2)
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
                await until(lambda: llm.cancelled == 2)
                assert (await client.call_tool("list_models", {})).is_error is False

        asyncio.run(run())

    def test_a_client_that_leaves_cancels_its_work(self) -> None:
        llm = model(delays_s={"small": 60})
        server = server_of(llm)

        async def run() -> None:
            async with create_client_server_memory_streams() as ((_, sent), (read, write)):
                options = server.create_initialization_options()
                serving = asyncio.create_task(server.run(read, write, options))
                for id, method, params in (
                    (1, "initialize", HELLO),
                    (2, "tools/call", {"name": "delegate_task", "arguments": ASKED}),
                ):
                    request = JSONRPCRequest(jsonrpc="2.0", id=id, method=method, params=params)
                    await sent.send(SessionMessage(request))
                await until(lambda: llm.in_flight == 1)
                await sent.aclose()
                await serving
            assert llm.cancelled == 1

        asyncio.run(run())

    def test_calls_at_once_do_not_wait_for_each_other(self) -> None:
        llm = model(gather=4)

        async def run() -> None:
            async with Client(server_of(llm)) as client:
                calls = [client.call_tool("delegate_task", ASKED) for _ in range(4)]
                await asyncio.gather(*calls)

        asyncio.run(run())
        assert llm.peak == 4


class TestHttp:
    @eras
    def test_the_official_client_lists_and_calls_over_http(self, era: Era) -> None:
        told: list[str] = []

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            told.append(message or "")

        async def run(url: str) -> None:
            async with client_of(url, era=era) as client:
                assert len((await client.list_tools()).tools) == 3
                done = await client.call_tool("delegate_task", ASKED, progress_callback=on_progress)
                assert done.structured_content is not None
                assert done.structured_content["summary"] == "a small answer"

        with served(server_of(model())) as url:
            asyncio.run(run(url))
        assert "done" in told[-1]

    @eras
    def test_cancelling_over_http_cancels_the_work(self, era: Era) -> None:
        llm = model(delays_s={"small": 60})

        async def run(url: str) -> None:
            async with client_of(url, era=era) as client:
                call = asyncio.create_task(client.call_tool("delegate_task", ASKED))
                await until(lambda: llm.in_flight == 1)
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
                await until(lambda: llm.cancelled == 1)

        with served(server_of(llm)) as url:
            asyncio.run(run(url))

    @eras
    def test_a_server_that_stops_cancels_what_is_under_way(self, era: Era) -> None:
        llm = model(delays_s={"small": 60})

        async def run(url: str, left: threading.Event) -> None:
            with contextlib.suppress(BaseException):
                async with client_of(url, era=era) as client:
                    call = asyncio.create_task(client.call_tool("delegate_task", ASKED))
                    await until(lambda: llm.in_flight == 1)
                    left.set()
                    await call

        left = threading.Event()
        with served(server_of(llm)) as url:
            client = threading.Thread(target=lambda: asyncio.run(run(url, left)), daemon=True)
            client.start()
            assert left.wait(20)
        assert llm.cancelled == 1
        client.join(20)

    def test_without_the_key_nothing_is_answered(self) -> None:
        async def run(url: str) -> None:
            async with client_of(url, key=KEY) as client:
                assert len((await client.list_tools()).tools) == 3

        with served(server_of(model()), key=KEY) as url:
            asyncio.run(run(url))
            body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
            for sent in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": KEY}):
                answer = httpx.post(url, json=body, headers=sent)
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == "Bearer"
                assert KEY not in answer.text
            assert httpx.get(url).status_code == 401
            # A proxy in front has a name of its own; nobody gets in by it alone.
            proxied = {"Host": "mcp.example", "Accept": "application/json, text/event-stream"}
            assert httpx.post(url, json=body, headers=proxied).status_code == 401
            proxied["Authorization"] = f"Bearer {KEY}"
            assert httpx.post(url, json=HELLO_REQUEST, headers=proxied).status_code == 200

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"Host": "evil.example"}, 421),
            ({"Host": "evil.example:80"}, 421),
            ({"Origin": "https://evil.example"}, 403),
            ({"Origin": "null"}, 403),
        ],
        ids=["host", "host with port", "origin", "null origin"],
    )
    def test_no_web_page_reaches_a_server_without_a_key(
        self, headers: dict[str, str], status: int
    ) -> None:
        llm = model()
        body = {
            "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": "delegate_task", "arguments": {"goal": "a", "model": "small"}},
        }  # fmt: skip
        accept = {"Accept": "application/json, text/event-stream"}
        with served(server_of(llm)) as url:
            assert httpx.post(url, json=body, headers=accept | headers).status_code == status
        assert llm.requests == []

    def test_a_client_that_leaves_out_port_80_is_let_in(self) -> None:
        headers = {"Accept": "application/json, text/event-stream", "Host": "localhost"}
        with served(server_of(model())) as url:
            assert httpx.post(url, json=HELLO_REQUEST, headers=headers).status_code == 200

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", ""])
    def test_beyond_this_machine_a_key_is_needed(self, host: str) -> None:
        with pytest.raises(ConfigError, match=ENVIRONMENT_KEY):
            http_app(server_of(model()), host=host)
        http_app(server_of(model()), host=host, key=KEY)

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.2"])
    def test_on_this_machine_it_needs_none(self, host: str) -> None:
        http_app(server_of(model()), host=host)

    @pytest.mark.parametrize("key", ["", "short", " " * 20, "a-long-enough-key\n", "ключ" * 8])
    def test_a_key_that_is_none_is_refused_and_not_shown(self, key: str) -> None:
        with pytest.raises(ConfigError) as error:
            key_of({ENVIRONMENT_KEY: key})
        assert ENVIRONMENT_KEY in str(error.value)
        assert not key.strip() or key not in str(error.value)
        assert key_of({}) is None
        assert key_of({ENVIRONMENT_KEY: KEY}) == KEY

    def test_a_port_that_is_taken_is_told(self) -> None:
        with served(server_of(model())) as url:
            port = int(url.removesuffix(PATH).rpartition(":")[2])
            with pytest.raises(ConfigError, match=f"127.0.0.1:{port}: cannot listen there"):
                serve_http(server_of(model()), port=port)
