"""A tool of an MCP server as a worker: its one text argument is what a task gives.

The server is a child process over stdio or an HTTP endpoint, met through the official client
(`pip install 'masrouter[mcp]'`). Each call opens a connection of its own and closes it, so that a
worker belongs to no event loop and a server that dies takes one call with it; an open `mcp.Client`
is used as it is. What a tool gives back is untrusted text.

Not here: masrouter's own tools over MCP (`mcp_server`).
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
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
    folder: str | Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpServer:
    """A streamable HTTP endpoint."""

    url: str
    key_env: str | None = None
    """The environment variable that holds its key, read at every connection."""


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
    schema = tools[tool].input_schema
    argument = argument or _text_argument(schema, fixed, where)
    validator = _validator(schema, where)
    _check_arguments(schema, argument, fixed, where)
    said = description or tools[tool].description or ""
    if not said.strip():
        raise ConfigError(f"{where}: it has no description; give one")

    async def run(text: str) -> Produced:
        arguments = {**fixed, argument: text}
        if wrong := _refusal(validator, arguments):
            raise WorkerError(
                f"the tool's schema refuses the text: {wrong}", kind="rejected", model=name
            )
        try:
            async with _client(server) as client:
                result = await client.call_tool(tool, arguments)
        except ConfigError as error:
            raise WorkerError(str(error), kind="unauthorised", model=name) from error
        except Exception as error:
            raise WorkerError(_told(error), kind=_kind(error), model=name, attempts=1) from error
        text = _text_of(result)
        if result.is_error:
            raise WorkerError(
                f"the tool failed: {quoted(text)}", kind="rejected", model=name, attempts=1
            )
        return Produced(text)

    return Worker(
        name=name, description=said, run=run, takes=takes, usd_per_call=usd_per_call,
        max_concurrency=max_concurrency, deadline_s=deadline_s, examples=examples,
    )  # fmt: skip


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
            env=dict(server.environment),
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


def _text_argument(schema: Mapping[str, Any], fixed: Mapping[str, Any], where: str) -> str:
    properties = schema.get("properties") or {}
    required = [key for key in schema.get("required") or () if key not in fixed]
    free = required or [key for key in properties if key not in fixed]
    if len(free) != 1:
        raise ConfigError(
            f"{where}: say which argument takes the text, and give the others as `fixed`; "
            f"it has: {', '.join(map(quoted, properties)) or 'none'}"
        )
    return str(free[0])


def _check_arguments(
    schema: Mapping[str, Any], argument: str, fixed: Mapping[str, Any], where: str
) -> None:
    properties = schema.get("properties") or {}
    for key in (argument, *fixed):
        if key not in properties:
            near = did_you_mean(key, properties)
            raise ConfigError(f"{where}: it has no argument {key!r}{near}")
    if argument in fixed:
        raise ConfigError(f"{where}: {argument!r} takes the text, so it cannot be fixed too")
    lacking = [k for k in schema.get("required") or () if k not in fixed and k != argument]
    if lacking:
        raise ConfigError(f"{where}: it requires {', '.join(map(quoted, lacking))}; add to `fixed`")
    kinds = _schema_of(properties[argument]).get("type", "string")
    if "string" not in ([kinds] if isinstance(kinds, str) else kinds):
        raise ConfigError(f"{where}: argument {argument!r} takes {kinds}, and the text is a string")
    for key, value in fixed.items():
        own = _schema_of(properties[key]) | {
            part: schema[part] for part in ("$defs", "definitions") if part in schema
        }
        if wrong := _refusal(_validator(own, where), value):
            raise ConfigError(f"{where}: fixed: {key}: {wrong}")


def _schema_of(part: object) -> dict[str, Any]:
    """A schema may be just true or false."""
    if isinstance(part, Mapping):
        return dict(part)
    return {} if part else {"not": {}}


def _refusal(validator: Any, value: object) -> str | None:
    """What a schema has against a value, in one line."""
    from referencing.exceptions import Unresolvable

    try:
        wrong = next(iter(validator.iter_errors(value)), None)
    except Unresolvable as error:
        return f"the schema refers to what is not there: {quoted(error)}"
    if wrong is None:
        return None
    place = "/".join(map(str, wrong.absolute_path))
    return f"{place}: {quoted(wrong.message)}" if place else quoted(wrong.message)


def _validator(schema: Mapping[str, Any], where: str) -> Any:
    """JSON Schema 2020-12 unless it says otherwise; references leave the schema for nowhere."""
    from jsonschema import Draft202012Validator, SchemaError  # type: ignore[import-untyped]
    from jsonschema.validators import validator_for  # type: ignore[import-untyped]
    from referencing import Registry

    kind = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        raise ConfigError(f"{where}: its schema is none: {quoted(error.message)}") from error
    return kind(schema, registry=Registry())


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
