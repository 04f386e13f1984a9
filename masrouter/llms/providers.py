"""Several providers at once: a ChatModel whose models are named `provider/model`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from masrouter.catalog import Catalog
from masrouter.errors import CallError, ConfigError
from masrouter.llms.chat import ChatRequest, Completion, Meter, Price
from masrouter.llms.openai_compatible import OpenAICompatible
from masrouter.llms.provider_file import read_providers
from masrouter.llms.sdk import HttpClientFactory
from masrouter.strict_yaml import did_you_mean


class Providers:
    """Endpoints by name; a ChatModel.

    `provider/model` is split at the first slash: what follows is the model, with any slash or
    colon. A name without a known provider in front is taken where exactly one provider lists it.
    """

    def __init__(self, *endpoints: OpenAICompatible) -> None:
        """Raises ConfigError where two have the same name."""
        self.endpoints: dict[str, OpenAICompatible] = {}
        for endpoint in endpoints:
            if endpoint.name in self.endpoints:
                raise ConfigError(f"provider {endpoint.name!r} is given twice")
            self.endpoints[endpoint.name] = endpoint

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        catalog: Catalog | None = None,
        http_client: HttpClientFactory | None = None,
    ) -> Self:
        """Read a provider file (see `masrouter.llms.provider_file`).

        catalog: prices of models without one in the file; `Catalog.default()` for the shipped.
        A key is read from its variable at the first call of its provider, not here.
        Raises ConfigError as `file:line: key: why`.
        """
        try:
            text = Path(path).read_bytes()
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
        return cls(
            *(
                OpenAICompatible(
                    entry.base_url,
                    api_key_env=entry.api_key_env,
                    name=entry.name,
                    catalog=catalog,
                    models=entry.models,
                    options=entry.options,
                    headers=entry.headers,
                    retry=entry.retry,
                    rate_limit=entry.rate_limit,
                    breaker=entry.breaker,
                    source=entry.source,
                    http_client=http_client,
                )
                for entry in read_providers(text, str(path))
            )
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.endpoints.values()))})"

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
        async with AsyncExitStack() as closing:
            for endpoint in self.endpoints.values():
                closing.push_async_callback(endpoint.aclose)

    async def complete(
        self,
        request: ChatRequest,
        *,
        timeout_s: float | None = None,
        meter: Meter | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Completion:
        """See ChatModel. Raises CallError of kind unknown_model where no provider is meant."""
        endpoint = self.endpoint_of(request.model)
        return await endpoint.complete(request, timeout_s=timeout_s, meter=meter, on_text=on_text)

    def price(self, model: str) -> Price | None:
        """See ChatModel; None too where no provider is meant."""
        try:
            return self.endpoint_of(model).price(model)
        except CallError:
            return None

    def credential_problem(self, model: str) -> str | None:
        """See `OpenAICompatible.credential_problem`.

        Raises CallError of kind unknown_model where no provider is meant.
        """
        return self.endpoint_of(model).credential_problem(model)

    def endpoint_of(self, model: str) -> OpenAICompatible:
        """The endpoint that a model's name leads to; raises CallError of kind unknown_model."""
        provider, slash, name = model.partition("/")
        if slash and name and provider in self.endpoints:
            return self.endpoints[provider]
        listing = [point for point in self.endpoints.values() if model in point.models]
        if len(listing) == 1:
            return listing[0]
        raise CallError(self._unknown(model, listing), kind="unknown_model", model=model)

    def _unknown(self, model: str, listing: Iterable[OpenAICompatible]) -> str:
        if several := [f"{point.name}/{model}" for point in listing]:
            return (
                f"model {model!r} is offered by several providers; name one: {', '.join(several)}"
            )
        provider, slash, _ = model.partition("/")
        if not self.endpoints:
            return f"model {model!r}: there are no providers; add one to the provider file"
        there = ", ".join(sorted(self.endpoints))
        if slash:
            return f"model {model!r}: there is no provider {provider!r}, only {there}"
        listed = {name for point in self.endpoints.values() for name in point.models}
        near = did_you_mean(model, listed)
        return f"model {model!r}: no provider lists it{near}; or write provider/model, of {there}"
