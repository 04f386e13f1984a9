"""pydantic-ai: a model that routes among models, and teams whose seats are pydantic-ai agents.

agent = Agent(RoutingModel(router, {"gpt-4o": "openai:gpt-4o", ...}), tools=[...])
run = await run_plan(plan, query, models=models)
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from masrouter.hosts.calling import (
    ExecutionOptions,
    HostModel,
    Said,
    run_in_host,
    seat_key,
    seats_of,
)
from masrouter.hosts.choosing import AUTO, Choice, Chooser, OnDecision, RouteOptions, missing_host
from masrouter.llms.chat import ChatRequest
from masrouter.types import Plan, Run

if TYPE_CHECKING:
    from masrouter.router import Router

try:
    from pydantic_ai import Agent, RunContext
    from pydantic_ai.messages import (
        ModelMessage,
        ModelRequest,
        ModelResponse,
        TextContent,
        UserPromptPart,
    )
    from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse, infer_model
    from pydantic_ai.profiles import ModelProfile
    from pydantic_ai.settings import ModelSettings
except ImportError as missing:
    raise missing_host("pydantic-ai", missing) from None

METADATA = "masrouter"
"""Key of `ModelResponse.metadata` under which the decision stands."""


class RoutingModel(Model[Any]):
    """Passes each request, with its tools and settings, to the model that the router picks.

    models: pydantic-ai models, or their names there, by the names that the router knows.
    Routed on the last user prompt, so all requests of one turn go to the same model. The decision
    is attached to the response, in `metadata["masrouter"]`.
    """

    def __init__(
        self,
        router: Router,
        models: Mapping[str, Model[Any] | str],
        *,
        on_decision: OnDecision | None = None,
        **options: Unpack[RouteOptions],
    ) -> None:
        """Raises ConfigError for a model that the router could never choose."""
        super().__init__()
        self._chooser = Chooser(router, models, options, on_decision=on_decision)
        self.models = {name: infer_model(model) for name, model in models.items()}
        self._entered: list[AsyncExitStack] = []

    @property
    def model_name(self) -> str:
        """`masrouter/auto`; a response names the model that gave it."""
        return AUTO

    @property
    def system(self) -> str:
        """`masrouter`."""
        return "masrouter"

    @property
    def profile(self) -> ModelProfile:
        """It has none: each model's own profile holds once it is chosen."""
        raise NotImplementedError("RoutingModel has no profile of its own; its models have")

    @property
    def context_window(self) -> int | None:
        """The smallest that is known of its models, as any of them may be chosen."""
        windows = [model.context_window for model in self.models.values()]
        return min((window for window in windows if window is not None), default=None)

    async def __aenter__(self) -> Self:
        """Open the clients of all models."""
        async with AsyncExitStack() as stack:
            for model in self.models.values():
                await stack.enter_async_context(model)
            self._entered.append(stack.pop_all())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        """Close them."""
        return await self._entered.pop().__aexit__(kind, error, trace)

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Route, and ask the chosen model."""
        choice = await self._chooser.achoose(last_user_text(messages))
        model = self.models[choice.model]
        prepared = model.prepare_messages(messages, model_request_parameters)
        response = await model.request(prepared, model_settings, model_request_parameters)
        _mark(response, choice)
        return response

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        """Route, and stream from the chosen model."""
        choice = await self._chooser.achoose(last_user_text(messages))
        model = self.models[choice.model]
        prepared = model.prepare_messages(messages, model_request_parameters)
        async with model.request_stream(
            prepared, model_settings, model_request_parameters, run_context
        ) as response:
            _mark(response, choice)
            yield response

    def customize_request_parameters(
        self, model_request_parameters: ModelRequestParameters
    ) -> ModelRequestParameters:
        """Left to the chosen model."""
        return model_request_parameters

    def prepare_request(
        self,
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> tuple[ModelSettings | None, ModelRequestParameters]:
        """Left to the chosen model."""
        return model_settings, model_request_parameters

    def prepare_messages(
        self,
        messages: list[ModelMessage],
        model_request_parameters: ModelRequestParameters | None = None,
    ) -> list[ModelMessage]:
        """Left to the chosen model."""
        return messages


async def run_plan(
    plan: Plan,
    query: str,
    *,
    models: Mapping[str, Model[Any] | str],
    **options: Unpack[ExecutionOptions],
) -> Run:
    """`aexecute` with a pydantic-ai agent in every seat. Raises what it raises.

    models: pydantic-ai models, or their names there, by the plan's names.
    """
    seats = {
        key: Agent(models[agent.model], instructions=key[1], name=str(agent))
        for key, agent in seats_of(plan, options.get("catalog")).items()
        if agent.model in models
    }

    async def ask(request: ChatRequest) -> Said:
        settings = ModelSettings(max_tokens=request.max_tokens)
        if request.temperature is not None:
            settings["temperature"] = request.temperature
        if request.seed is not None:
            settings["seed"] = request.seed
        result = await seats[seat_key(request)].run(
            request.messages[-1].content, model_settings=settings
        )
        usage = result.usage
        known = bool(usage.total_tokens)  # pydantic-ai has no word for unknown
        return Said(
            text=result.output,
            prompt_tokens=usage.input_tokens if known else None,
            completion_tokens=usage.output_tokens if known else None,
            finish_reason=result.response.finish_reason,
        )

    llm = HostModel(models, ask, catalog=options.get("catalog"))
    return await run_in_host(plan, query, llm, options)


def last_user_text(messages: list[ModelMessage]) -> str:
    """The text that a request is routed on; empty where no user said any."""
    for message in reversed(messages):
        if isinstance(message, ModelRequest):
            for part in reversed(message.parts):
                if isinstance(part, UserPromptPart):
                    content = part.content
                    if isinstance(content, str):
                        return content
                    return "\n".join(
                        item if isinstance(item, str) else item.content
                        for item in content
                        if isinstance(item, str | TextContent)
                    )
    return ""


def _mark(response: ModelResponse | StreamedResponse, choice: Choice) -> None:
    response.metadata = {**(response.metadata or {}), METADATA: choice.as_metadata()}
