"""A tool of an MCP server as a worker: its one text argument is what a task gives.

The server is a child process over stdio or an HTTP endpoint, met through the official client
(`pip install 'masrouter[mcp]'`). Each call opens a connection of its own and closes it, so that a
worker belongs to no event loop and a server that dies takes one call with it; an open `mcp.Client`
is used as it is. What a tool gives back is untrusted text.

Not here: masrouter's own tools over MCP (`tools.mcp_server`).
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from masrouter.delegation.workers.worker import Produced, Takes, Worker, WorkerError
from masrouter.errors import CallKind, ConfigError, MasRouterError
from masrouter.llms.failures import quoted
from masrouter.strict_yaml import did_you_mean

if TYPE_CHECKING:
    from mcp import Client
    from mcp.types import Tool

CALL_S = 60.0
"""Seconds that a call may take where nobody says otherwise, with connecting."""
MOST_TOOL_PAGES = 100
"""Pages of a server's list of tools that are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StdioServer:
    """A server that is started as a child process; no shell is involved."""

    command: str
    arguments: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to a few harmless variables; nothing else of this process's is passed on."""
    inherited: Sequence[str] = ()
    """Names of variables that are passed on all the same, such as a key's; read at every start."""
    folder: str | Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpServer:
    """A streamable HTTP endpoint."""

    url: str
    key_env: str | None = None
    """The environment variable that holds its key, read at every connection."""


@dataclass(frozen=True, slots=True)
class MetTool:
    """A tool whose schema is known."""

    description: str
    """The server's own; may be empty."""
    run: Callable[[str], Awaitable[Produced]]


async def mcp_worker(
    server: StdioServer | HttpServer | Client,
    tool: str,
    *,
    name: str,
    argument: str | None = None,
    fixed: Mapping[str, Any] | None = None,
    description: str | None = None,
    takes: Takes = "material",
    usd_per_call: float | None = None,
    max_concurrency: int = 4,
    deadline_s: float = CALL_S,
    examples: tuple[str, ...] = (),
) -> Worker:
    """A worker that calls a tool; the server is asked for the tool's schema now.

    Args:
        server: how to start it, where it is, or a client that stays open as long as the worker is
            used, in one event loop.
        argument: the tool's argument that takes the text; None: the only one that it requires
            beside `fixed`, or its only one.
        fixed: its other arguments, the same at every call.
        description: in place of the tool's own, which is a stranger's text that models will read.
        usd_per_call: None is unknown; a tool that is free says `0`.

    Raises ConfigError where the server cannot be met, has no such tool, or the tool cannot be
    called with one text and `fixed` by its schema.
    """
    met = await meet_tool(
        server, tool, name=name, argument=argument, fixed=fixed, deadline_s=deadline_s
    )
    said = description or met.description
    if not said.strip():
        raise ConfigError(f"worker {name!r}: MCP tool {tool!r}: it has no description; give one")
    return Worker(
        name=name, description=said, run=met.run, takes=takes, usd_per_call=usd_per_call,
        max_concurrency=max_concurrency, deadline_s=deadline_s, examples=examples,
    )  # fmt: skip


async def meet_tool(
    server: StdioServer | HttpServer | Client,
    tool: str,
    *,
    name: str,
    argument: str | None = None,
    fixed: Mapping[str, Any] | None = None,
    deadline_s: float = CALL_S,
) -> MetTool:
    """Ask a server for a tool's schema. Arguments and errors as of `mcp_worker`."""
    fixed = dict(fixed or {})
    where = f"worker {name!r}: MCP tool {tool!r}"
    try:
        async with asyncio.timeout(deadline_s), _client(server) as client:
            tools = await _tools(client)
    except MasRouterError:
        raise
    except Exception as error:
        raise ConfigError(f"{where}: its server cannot be asked: {_told(error)}") from error
    if tool not in tools:
        raise ConfigError(f"{where}: its server has no such tool{did_you_mean(tool, tools)}")
    takes_what = _Arguments.of(tools[tool].input_schema, where)
    argument = argument or takes_what.for_text(fixed)
    takes_what.check(argument, fixed)
    rule = takes_what.rule(argument)

    async def run(text: str) -> Produced:
        if wrong := _refusal(rule, text):
            why = f"the tool's schema refuses the text: {argument}: {wrong}"
            raise WorkerError(why, kind="rejected", model=name)
        try:
            async with _client(server) as client:
                result = await client.call_tool(tool, {**fixed, argument: text})
        except ConfigError as error:
            raise WorkerError(str(error), kind="unauthorised", model=name) from error
        except Exception as error:
            raise WorkerError(_told(error), kind=_kind(error), model=name, attempts=1) from error
        text = _text_of(result)
        if result.is_error:
            raise WorkerError(
                f"the tool failed: {quoted(text)}", kind="rejected", model=name, attempts=1
            )
        if not text.strip() and result.content:
            came = ", ".join(dict.fromkeys(block.type for block in result.content))
            raise WorkerError(
                f"the tool gave no text, only: {came}", kind="empty", model=name, attempts=1
            )
        return Produced(text)

    return MetTool(tools[tool].description or "", run)


@asynccontextmanager
async def _client(server: StdioServer | HttpServer | Client) -> AsyncIterator[Client]:
    try:
        import httpx2
        from mcp import Client, StdioServerParameters
        from mcp.client.streamable_http import streamable_http_client
    except ImportError as missing:
        raise ConfigError(
            f"an MCP tool needs the package {missing.name}; "
            "install the extra: pip install 'masrouter[mcp]'"
        ) from missing
    if isinstance(server, StdioServer):
        child = StdioServerParameters(
            command=server.command,
            args=list(server.arguments),
            env={**_inherited(server), **server.environment},
            cwd=server.folder,
        )
        async with Client(child) as client:
            yield client
    elif isinstance(server, HttpServer):
        # The deadline of the call is the only one: httpx2 would have its own.
        async with (
            httpx2.AsyncClient(headers=_headers(server), timeout=None) as http,
            Client(streamable_http_client(server.url, http_client=http)) as client,
        ):
            yield client
    else:
        yield server


def _inherited(server: StdioServer) -> dict[str, str]:
    for name in server.inherited:
        if name not in os.environ:
            raise ConfigError(
                f"MCP server {server.command}: the environment variable {name} is not set"
            )
    return {name: os.environ[name] for name in server.inherited}


def _headers(server: HttpServer) -> dict[str, str]:
    if server.key_env is None:
        return {}
    key = os.environ.get(server.key_env, "")
    if not key:
        raise ConfigError(
            f"MCP server {server.url}: the environment variable {server.key_env} is not set"
        )
    return {"Authorization": f"Bearer {key}"}


async def _tools(client: Client) -> dict[str, Tool]:
    """The server's tools by name."""
    cursor: str | None = None
    found: dict[str, Tool] = {}
    for _ in range(MOST_TOOL_PAGES):
        page = await client.list_tools(cursor=cursor)
        found |= {tool.name: tool for tool in page.tools}
        cursor = page.next_cursor
        if cursor is None:
            break
    return found


_CHECKED = (
    "type", "enum", "const", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum",
    "exclusiveMaximum", "minItems", "maxItems",
)  # fmt: skip
"""What is checked here of an argument's schema. All else is left to the server: a stranger's
patterns, and references that multiply, could keep the check busy for ever."""


@dataclass(frozen=True, slots=True)
class _Arguments:
    """What a tool takes, as its server says."""

    properties: Mapping[str, Any]
    required: tuple[str, ...]
    where: str

    @classmethod
    def of(cls, schema: Mapping[str, Any], where: str) -> _Arguments:
        """Raises ConfigError for what is no schema of arguments."""
        properties, required = schema.get("properties") or {}, schema.get("required") or ()
        named = isinstance(required, list | tuple) and all(isinstance(k, str) for k in required)
        if not isinstance(properties, Mapping) or not named:
            raise ConfigError(f"{where}: its schema is none: {quoted(dict(schema))}")
        return cls(properties, tuple(required), where)

    def for_text(self, fixed: Mapping[str, Any]) -> str:
        """The argument that takes the text, where it is clear."""
        required = [key for key in self.required if key not in fixed]
        free = required or [key for key in self.properties if key not in fixed]
        if len(free) != 1:
            raise ConfigError(
                f"{self.where}: say which argument takes the text, and give the others as `fixed`; "
                f"it has: {', '.join(map(quoted, self.properties)) or 'none'}"
            )
        return free[0]

    def check(self, argument: str, fixed: Mapping[str, Any]) -> None:
        """Raises ConfigError where the tool cannot be called with a text and `fixed`."""
        where = self.where
        for key in (argument, *fixed):
            if key not in self.properties:
                near = did_you_mean(key, self.properties)
                raise ConfigError(f"{where}: it has no argument {key!r}{near}")
        if argument in fixed:
            raise ConfigError(f"{where}: {argument!r} takes the text, so it cannot be fixed too")
        lacking = [key for key in self.required if key not in fixed and key != argument]
        if lacking:
            told = ", ".join(map(quoted, lacking))
            raise ConfigError(f"{where}: it requires {told}; add to `fixed`")
        kinds = self.rule(argument).get("type", "string")
        if "string" not in ([kinds] if isinstance(kinds, str) else kinds):
            raise ConfigError(
                f"{where}: argument {argument!r} takes {kinds}, and the text is a string"
            )
        for key, value in fixed.items():
            if wrong := _refusal(self.rule(key), value):
                raise ConfigError(f"{where}: fixed: {key}: {wrong}")

    def rule(self, key: str) -> dict[str, Any]:
        """What is checked of an argument. Raises ConfigError where it is no JSON Schema."""
        from jsonschema import Draft202012Validator, SchemaError  # type: ignore[import-untyped]

        part = self.properties[key]
        part = part if isinstance(part, Mapping) else {}
        rule = {name: part[name] for name in _CHECKED if name in part}
        try:
            Draft202012Validator.check_schema(rule)
        except SchemaError as error:
            why = quoted(error.message)
            raise ConfigError(f"{self.where}: its schema is none: {key}: {why}") from error
        return rule


def _refusal(rule: Mapping[str, Any], value: object) -> str | None:
    """What a rule has against a value, in one line."""
    from jsonschema import Draft202012Validator

    wrong = next(iter(Draft202012Validator(rule).iter_errors(value)), None)
    return None if wrong is None else quoted(wrong.message)


def _text_of(result: Any) -> str:
    """The texts of a result; its structured content where it has no text. Others are named."""
    texts, others = [], []
    for block in result.content:
        if block.type == "text":
            texts.append(block.text)
        else:
            others.append(block.type)
    if not texts and result.structured_content is not None:
        texts.append(json.dumps(result.structured_content, ensure_ascii=False))
    if texts and others:
        texts.append(f"[left out, since it is no text: {', '.join(others)}]")
    return "\n\n".join(texts)


def _kind(error: BaseException) -> CallKind:
    from mcp import MCPError
    from mcp_types import CONNECTION_CLOSED, INVALID_PARAMS, METHOD_NOT_FOUND, REQUEST_TIMEOUT

    cause = _first(error)
    if isinstance(cause, MCPError):
        kinds: dict[int, CallKind] = {
            CONNECTION_CLOSED: "connection", REQUEST_TIMEOUT: "timeout",
            INVALID_PARAMS: "rejected", METHOD_NOT_FOUND: "rejected",
        }  # fmt: skip
        return kinds.get(cause.error.code, "server_error")
    if isinstance(cause, TimeoutError):
        return "timeout"
    if isinstance(cause, ValueError):  # pydantic's too: what came is no MCP
        return "bad_response"
    return "connection"


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _told(error: BaseException) -> str:
    cause = _first(error)
    if isinstance(cause, TimeoutError):
        return "the time was over"
    return f"{type(cause).__name__}: {quoted(cause)}"
