"""One exchange with an endpoint on the `openai` SDK: a request out, a Reply or a Failure back.

The SDK's own retries are off. It is imported at the first call, and so is httpx2 with it. A client
belongs to the event loop it was made in and is closed with that loop.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from masrouter.llms.failures import (
    Failure,
    error_in_answer,
    missing_extra,
    quoted,
    status_failure,
)
from masrouter.llms.per_loop import PerLoop
from masrouter.llms.wire import Reply, StreamedAnswer, read_answer
from masrouter.types import Usage

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI, AsyncStream
    from openai._response import AsyncAPIResponse

MAX_ANSWER_BYTES = 32 << 20
_NO_KEY = "none"
_END = object()

HttpClientFactory = Callable[[], "httpx2.AsyncClient"]


@dataclass(slots=True)
class _Held:
    """A client and the generator that closes it."""

    client: AsyncOpenAI
    closing: AsyncGenerator[None, None]
    started: bool = False


async def _closing(client: AsyncOpenAI) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await client.close()


class Sdk:
    """Exchanges with one endpoint."""

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        connect_timeout_s: float,
        http_client: HttpClientFactory | None,
    ) -> None:
        self._base_url = base_url
        self._headers = headers
        self._connect_timeout_s = connect_timeout_s
        self._http_client = http_client
        self._held = PerLoop(self._open)

    async def exchange(
        self,
        body: Mapping[str, Any],
        extra_body: Mapping[str, Any],
        key: str | None,
        *,
        stall_timeout_s: float,
        on_text: Callable[[str], None] | None,
    ) -> Reply:
        """Send one request. Streamed where `body` says so; then `on_text` gets each piece.

        The answer may be calls of tools where `body` offers some.
        Raises Failure for whatever the provider did; being cancelled ends the exchange.
        """
        client = await self._client()
        import openai

        timeout = openai.Timeout(None, connect=self._connect_timeout_s)
        async with AsyncExitStack() as open_response:
            with _as_failures():
                response = await open_response.enter_async_context(
                    client.chat.completions.with_streaming_response.create(
                        **body,
                        extra_body=dict(extra_body) or None,
                        extra_headers=self._headers_with(key),
                        timeout=timeout,
                    )
                )
            content_type = response.headers.get("content-type", "")
            if body.get("stream") and "text/event-stream" in content_type:
                stream = await response.parse(to=openai.AsyncStream[object])
                answer = StreamedAnswer("tools" in body)
                return await _read_stream(stream, answer, stall_timeout_s, on_text)
            raw = await _read_all(response)
            reply = read_answer(raw, content_type, tools="tools" in body)
            if on_text and reply.text:
                on_text(reply.text)
            return reply

    async def prepare(self) -> None:
        """Open the running loop's client. Raises ConfigError where the SDK is not installed."""
        await self._client()

    async def aclose(self) -> None:
        """Close the running loop's client; the next exchange opens another."""
        held = self._held.pop()
        if held is not None:
            await held.closing.aclose()

    async def _client(self) -> AsyncOpenAI:
        held = self._held.get()
        if not held.started:
            # A loop that ends closes its asynchronous generators, and thereby the client.
            held.started = True
            await anext(held.closing)
        return held.client

    def _open(self) -> _Held:
        try:
            import openai
        except ImportError as missing:
            raise missing_extra(missing) from None
        # A redirect could lead a prompt and a key elsewhere, so none is followed.
        make = self._http_client or (lambda: openai.DefaultAsyncHttpxClient(follow_redirects=False))
        client = openai.AsyncOpenAI(
            api_key=_NO_KEY, base_url=self._base_url, max_retries=0, http_client=make()
        )
        return _Held(client, _closing(client))

    def _headers_with(self, key: str | None) -> dict[str, Any]:
        import openai

        # The SDK would send what the environment says of OpenAI to any endpoint.
        ambient = [
            line.partition(":")[0].strip()
            for line in os.environ.get("OPENAI_CUSTOM_HEADERS", "").splitlines()
        ]
        ambient += ["OpenAI-Organization", "OpenAI-Project"]
        own = {name.lower() for name in self._headers} | {"authorization"}
        headers: dict[str, Any] = {
            name: openai.Omit() for name in ambient if name and name.lower() not in own
        }
        headers["Authorization"] = openai.Omit() if key is None else f"Bearer {key}"
        return headers | dict(self._headers)


async def _read_all(response: AsyncAPIResponse[Any]) -> bytes:
    parts: list[bytes] = []
    size = 0
    with _as_failures():
        async for part in response.iter_bytes():
            size = _allowed(size + len(part))
            parts.append(part)
    return b"".join(parts)


async def _read_stream(
    stream: AsyncStream[Any],
    answer: StreamedAnswer,
    stall_timeout_s: float,
    on_text: Callable[[str], None] | None,
) -> Reply:
    """Pass a streamed answer on, piece by piece."""
    passed_on = False
    async with stream:
        while True:
            try:
                chunk = await _next_chunk(stream, answer, stall_timeout_s)
                if chunk is _END:
                    return answer.reply()
                piece = answer.take(chunk)
                _allowed(answer.size)
            except Failure as failure:
                if passed_on and failure.retry != "no":
                    failure.retry = "no"
                    failure.note = "; not tried again, as text was passed on"
                raise
            if piece and on_text:
                passed_on = True
                on_text(piece)


async def _next_chunk(
    stream: AsyncStream[Any], answer: StreamedAnswer, stall_timeout_s: float
) -> Any:
    try:
        # A first piece may take its time, when the model reasons; the attempt's timeout holds then.
        async with asyncio.timeout(stall_timeout_s if answer.begun else None) as patience:
            with _as_failures(answer.usage):
                return await anext(stream, _END)
    except TimeoutError:
        if not patience.expired():
            raise
        why = f"the stream stalled for {stall_timeout_s:g} s"
        raise Failure(
            "timeout", why, retry="yes", billed=True, usage=answer.usage, fault=True
        ) from None


def _allowed(size: int) -> int:
    if size > MAX_ANSWER_BYTES:
        why = f"an answer larger than {MAX_ANSWER_BYTES >> 20} MiB"
        raise Failure("bad_response", why, status=200, billed=True)
    return size


@contextmanager
def _as_failures(usage: Usage | None = None) -> Iterator[None]:
    """What the SDK and the HTTP client raise, as a Failure. usage: as far as it was told."""
    import anyio
    import httpx2
    import openai

    try:
        yield
    except openai.APIStatusError as error:
        failure = status_failure(error.status_code, error.body, error.response.headers)
    except openai.APIConnectionError as error:
        failure = _broken_connection(error.__cause__ or error)
    except openai.APIError as error:  # an error event inside a stream
        failure = error_in_answer(error.body, usage)
    except httpx2.DecodingError as error:
        why = f"an answer that cannot be decoded: {quoted(error)}"
        failure = Failure("bad_response", why, status=200, retry="broken", billed=True)
    except (httpx2.RequestError, httpx2.StreamError, OSError, anyio.EndOfStream) as error:
        failure = _broken_connection(error)
    except (ValueError, RecursionError) as error:
        why = f"a stream that holds no JSON: {quoted(error)}"
        failure = Failure("bad_response", why, status=200, retry="broken", billed=True, usage=usage)
    else:
        return
    # Raised here and not above, so that no request with its headers hangs on the error.
    raise failure


def _broken_connection(error: BaseException) -> Failure:
    """A connection that failed; billed unless the request can never have arrived."""
    import httpx2

    unsent = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)
    hopeless = (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError)
    what = quoted(error) or type(error).__name__
    if isinstance(error, hopeless):
        return Failure("connection", f"the request cannot be sent: {what}")
    if isinstance(error, unsent):
        return Failure("connection", f"no connection: {what}", retry="yes", fault=True)
    why = f"the connection broke: {what}"
    return Failure("connection", why, retry="yes", billed=True, fault=True)
