"""A chat model behind any OpenAI-compatible endpoint: OpenAI, OpenRouter, vLLM, Ollama, ...

One call is: the endpoint's circuit, its rate limit, the meter, one exchange; and the same again
while another try may help and the deadline allows it. What goes over the wire is in `wire` and
`sdk`, when to try again in `retrying`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from masrouter.catalog import Catalog
from masrouter.errors import CallError, ConfigError
from masrouter.llms.chat import ChatRequest, Completion, Meter, Price
from masrouter.llms.circuit_breaker import Breaker, Circuit, Outcome
from masrouter.llms.failures import LONGEST_REASON, Failure
from masrouter.llms.prices import PriceBook
from masrouter.llms.rate_limit import Grant, Limiter, RateLimit
from masrouter.llms.retrying import RetryPolicy, retrying
from masrouter.llms.sdk import HttpClientFactory, Sdk
from masrouter.llms.tool_calls import with_own_ids
from masrouter.llms.wire import ModelOptions, Reply, request_body
from masrouter.types import Usage


@dataclass(slots=True)
class _Call:
    """One call under way, over all its attempts."""

    request: ChatRequest
    name: str
    """As plans name the model here, without the endpoint."""
    options: ModelOptions
    key: str | None
    deadline: float
    meter: Meter | None
    on_text: Callable[[str], None] | None
    attempts: int = 0
    last: Failure | None = field(default=None)

    @property
    def own_name(self) -> str:
        return self.options.name or self.name


class OpenAICompatible:
    """One endpoint; a ChatModel.

    base_url: up to and with `/v1`. api_key, or api_key_env, the environment variable that holds
    it, read at each call; neither for a server that needs none. name: what stands before the slash
    in `provider/model`; the URL's host by default. Models are named bare or as `name/model`.

    catalog: prices; `Catalog.default()` for the shipped ones. models: the options of single models
    by the names that plans use; options: those of every other. headers: sent with each request.
    http_client makes the HTTP client of an event loop (httpx2.AsyncClient), to bring a proxy,
    certificates or a test's transport.

    Connections live as long as the event loop, or until `aclose`; `async with` does that.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        api_key_env: str | None = None,
        name: str | None = None,
        catalog: Catalog | None = None,
        models: Mapping[str, ModelOptions] | None = None,
        options: ModelOptions | None = None,
        headers: Mapping[str, str] | None = None,
        retry: RetryPolicy | None = None,
        rate_limit: RateLimit | None = None,
        breaker: Breaker | None = None,
        source: str | None = None,
        http_client: HttpClientFactory | None = None,
    ) -> None:
        """source: where this endpoint was configured, for messages. Raises ConfigError."""
        self.base_url = checked_url(base_url)
        self.name = urlsplit(base_url).netloc if name is None else name
        if not self.name or "/" in self.name:
            raise ConfigError(f"provider: name: expected a name without a slash, got {name!r}")
        self.models: Mapping[str, ModelOptions] = dict(models or {})
        self._options = options or ModelOptions()
        self._key, self._key_env, self._source = api_key, api_key_env, source
        self._prices = PriceBook(catalog, self.base_url)
        self._policy = retry or RetryPolicy()
        self._limiter = Limiter(rate_limit)
        self._circuit = Circuit(breaker or Breaker())
        self._headers = dict(headers or {})
        self._sdk = Sdk(self.base_url, self._headers, self._policy.connect_timeout_s, http_client)
        self._without_stream_options: set[str] = set()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r}, base_url={self.base_url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections of the running event loop; a later call opens others."""
        await self._sdk.aclose()

    async def complete(
        self,
        request: ChatRequest,
        *,
        timeout_s: float | None = None,
        meter: Meter | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Completion:
        """See ChatModel. Without `timeout_s` the retry policy's `deadline_s` holds."""
        name = self._bare(request.model)
        await self._sdk.prepare()  # the SDK's import takes a second, and no call's time
        clock = asyncio.get_running_loop().time
        started = clock()
        time_s = self._policy.deadline_s if timeout_s is None else timeout_s
        call = _Call(
            request=request,
            name=name,
            options=self._options_of(name),
            key=self._read_key(name),
            deadline=started + time_s,
            meter=meter,
            on_text=on_text,
        )
        failure: Failure | None = None
        try:
            if not time_s > 0:
                raise Failure("timeout", "no time was left; nothing was sent")
            reply: Reply = await retrying(self._policy, call.deadline)(self._attempt, call)
        except Failure as last:
            failure = last
        latency_s = clock() - started
        if failure is not None:
            raise self._error(call, failure, latency_s)
        return Completion(
            text=reply.text,
            usage=reply.usage,
            model=reply.model or call.own_name,
            finish_reason=reply.finish_reason,
            attempts=call.attempts,
            latency_s=latency_s,
            tool_calls=with_own_ids(reply.tool_calls, request.messages),
        )

    def price(self, model: str) -> Price | None:
        """See ChatModel."""
        name = self._bare(model)
        options = self._options_of(name)
        own = options.name or name
        return options.price or self._prices.price((name, f"{self.name}/{name}", own), own)

    def credential_problem(self, model: str) -> str | None:
        """Why a call of the model would have no key; None where nothing is missing.

        No key is sent, and whether a provider takes it is not known here. Models may read it:
        neither a key nor a place on this machine is in it.
        """
        _, problem = self._key_now()
        return problem and f"{self.name}/{self._bare(model)}: {problem}"

    async def _attempt(self, call: _Call) -> Reply:
        """Wait for leave, send once, settle what it cost. Raises Failure, BudgetError."""
        wait = self._circuit.open_for_s()
        if wait is not None:
            raise self._refused(call, wait)
        tokens = call.request.most_prompt_tokens // 4 + call.request.max_tokens
        try:
            async with self._limiter.grant(tokens, call.deadline) as grant:
                entry = self._circuit.enter()
                if entry is None:
                    raise self._refused(call, self._circuit.open_for_s() or 0.0)
                outcome: Outcome = "unknown"
                try:
                    reply = await self._metered(call, grant)
                    outcome = "works"
                except Failure as failure:
                    outcome = "fault" if failure.fault else "works"
                    raise
                finally:
                    self._circuit.end(entry, outcome)
        except Failure as failure:
            call.last = failure
            raise
        return reply

    def _refused(self, call: _Call, wait_s: float) -> Failure:
        """The circuit is open: why this call ends, which may be what it met before."""
        if call.last is not None:
            call.last.retry = "no"
            call.last.note = "; not tried again, as the provider failed too often just now"
            return call.last
        why = f"the provider failed too often just now; it is tried again in {wait_s:.0f} s"
        return Failure("circuit_open", f"{why}; nothing was sent")

    async def _metered(self, call: _Call, grant: Grant) -> Reply:
        """One exchange, between `reserve` and exactly one of `settle` and `release`."""
        meter = call.meter
        if meter is not None:
            meter.reserve()
        call.attempts += 1
        grant.used = grant.estimate
        usage: Usage | None = None
        billed = True
        try:
            reply = await self._timed(call)
            usage = self._with_cost(call, reply.usage)
            grant.used = _total(usage, grant.estimate)
            return replace(reply, usage=usage)
        except Failure as failure:
            billed = failure.billed
            usage = failure.usage and self._with_cost(call, failure.usage)
            raise
        finally:
            # Broken off from outside, it may be billed like any answer that was not received.
            if not billed:
                grant.used = 0
            if meter is not None:
                meter.settle(usage) if billed else meter.release()

    async def _timed(self, call: _Call) -> Reply:
        """One exchange within its own timeout and the call's deadline."""
        until = asyncio.get_running_loop().time() + self._policy.attempt_timeout_s
        try:
            async with asyncio.timeout_at(min(until, call.deadline)) as patience:
                return await self._exchange(call)
        except TimeoutError:
            if not patience.expired():
                raise
            late = "the deadline" if call.deadline <= until else "the timeout of one attempt"
            why = f"no complete answer before {late}"
            raise Failure("timeout", why, retry="yes", billed=True, fault=True) from None

    async def _exchange(self, call: _Call) -> Reply:
        own, options = call.own_name, call.options
        ask_usage = options.stream_usage and own not in self._without_stream_options
        body = request_body(
            call.request, own, options, stream=call.on_text is not None, stream_usage=ask_usage
        )
        try:
            return await self._sdk.exchange(
                body,
                options.extra_body,
                call.key,
                stall_timeout_s=self._policy.stall_timeout_s,
                on_text=call.on_text,
            )
        except Failure as failure:
            refused = failure.status in (400, 422) and "stream_options" in failure.why
            if refused and "stream_options" in body:
                # A provider that does not know the field: streamed calls tell no usage there.
                self._without_stream_options.add(own)
                failure.retry = "yes"
            raise

    def _with_cost(self, call: _Call, usage: Usage) -> Usage:
        """What the response says it cost; else by its tokens and the model's price."""
        if usage.cost_usd is not None:
            return usage
        cost = self._prices.cost_usd(self.price(call.name), call.own_name, usage)
        return replace(usage, cost_usd=cost)

    def _bare(self, model: str) -> str:
        return model if model in self.models else model.removeprefix(f"{self.name}/")

    def _options_of(self, name: str) -> ModelOptions:
        return self.models.get(name, self._options)

    def _read_key(self, name: str) -> str | None:
        key, problem = self._key_now()
        if problem is None:
            return key
        where = f"{self._source}: " if self._source else ""
        model = f"{self.name}/{name}"
        raise CallError(f"{model}: {where}{problem}", kind="unauthorised", model=model)

    def _key_now(self) -> tuple[str | None, str | None]:
        """The key, or what is wrong with it; neither where none is needed."""
        key = self._key
        if key is None:
            if self._key_env is None:
                return None, None
            key = os.environ.get(self._key_env, "")
        key = key.strip()
        if key and key.isascii() and key.isprintable():
            return key, None
        what = f"the environment variable {self._key_env}" if self._key is None else "api_key"
        state = "holds characters that no key has" if key else "is not set or empty"
        return None, f"{what} {state}; set it to the provider's key"

    def _error(self, call: _Call, failure: Failure, latency_s: float) -> CallError:
        why = failure.why
        if failure.kind == "unauthorised" and failure.status in (401, 403):
            failure.note += f"; {self._key_hint()}"
        for secret in self._secrets(call):
            why = why.replace(secret, "***")
        if len(why) > LONGEST_REASON:
            why = f"{why[:LONGEST_REASON]}..."
        why += failure.note
        model = f"{self.name}/{call.name}"
        tries = f" ({call.attempts} attempts in {latency_s:.1f} s)" if call.attempts > 1 else ""
        return CallError(
            f"{model}: {why}{tries}",
            kind=failure.kind,
            model=model,
            status=failure.status,
            attempts=call.attempts,
        )

    def _secrets(self, call: _Call) -> list[str]:
        telling = ("auth", "key", "token", "secret", "cookie")
        headers = self._headers.items()
        found = [value for name, value in headers if any(word in name.lower() for word in telling)]
        found += [call.key] if call.key else []
        return sorted((secret for secret in found if len(secret) > 3), key=len, reverse=True)

    def _key_hint(self) -> str:
        if self._key is not None:
            return "check api_key"
        if self._key_env is not None:
            return f"check the environment variable {self._key_env}"
        return "no key was sent: give api_key or api_key_env"


def checked_url(base_url: str) -> str:
    """An endpoint's URL without a slash at its end; raises ConfigError."""
    try:
        parts = urlsplit(base_url)
        _ = parts.port
    except ValueError:
        parts = None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            "base_url: expected a URL such as https://api.openai.com/v1 or "
            "http://localhost:11434/v1"
        )
    if parts.username is not None or parts.password is not None:
        raise ConfigError("base_url: holds a user or password; give a key by api_key_env instead")
    if parts.query or parts.fragment:
        raise ConfigError("base_url: ends in a query or fragment; give the path alone")
    return base_url.rstrip("/")


def _total(usage: Usage, estimate: float) -> float:
    if usage.prompt_tokens is None or usage.completion_tokens is None:
        return estimate
    return usage.prompt_tokens + usage.completion_tokens
