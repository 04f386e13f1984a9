"""AG2: a model config that routes, and teams whose seats are AG2 agents.

    tutor = Agent("tutor", config=RoutingConfig(router, {"gpt-4o": OpenAIConfig("gpt-4o"), ...}))
    run = await run_plan(plan, query, models=configs)

For the AG2 of the package `ag2` (1.x), whose agents are made of a prompt and a model config.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, Unpack, cast

from masrouter.errors import BudgetError
from masrouter.hosts.calling import (
    ExecutionOptions,
    HostModel,
    Said,
    run_in_host,
    seat_key,
    seats_of,
)
from masrouter.hosts.choosing import AUTO, Chooser, OnDecision, RouteOptions, missing_host
from masrouter.llms.chat import ChatRequest
from masrouter.types import Plan, Run

if TYPE_CHECKING:
    from masrouter.router import Router

try:
    from ag2 import Agent
    from ag2.config import LLMClient, ModelConfig, ModelProvider
    from ag2.context import ConversationContext
    from ag2.events import BaseEvent, ModelRequest, ModelResponse, TextInput
    from ag2.tools.schemas import ToolSchema
except ImportError as missing:
    raise missing_host("ag2", missing) from None

METADATA = "masrouter"
"""Key of the response's message metadata under which the decision stands."""

_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


class RoutingConfig(ModelConfig):
    """A model config whose client passes each call, tools and all, to the model the router picks.

    models: AG2 model configs by the names that the router knows.
    Routed on the last request of the user, so the calls after a tool go to the same model. The
    decision is attached to the reply, in `response.metadata["masrouter"]`.
    """

    def __init__(
        self,
        router: Router,
        models: Mapping[str, ModelConfig],
        *,
        on_decision: OnDecision | None = None,
        **options: Unpack[RouteOptions],
    ) -> None:
        """Raises ConfigError for a model that the router could never choose."""
        self.models = dict(models)
        self._chooser = Chooser(router, self.models, options, on_decision=on_decision)

    @property
    def provider(self) -> ModelProvider:
        """That of the first model: AG2 has no name for several."""
        return next(iter(self.models.values())).provider

    @property
    def model(self) -> str:
        """`masrouter/auto`; a response names the model that gave it."""
        return AUTO

    def copy(self) -> Self:
        """Itself: nothing in it changes."""
        return self

    def create(self) -> LLMClient:
        """A client that routes, over one client of each model."""
        clients = {name: config.create() for name, config in self.models.items()}
        return _RoutingClient(self._chooser, clients)


class _RoutingClient(LLMClient):
    def __init__(self, chooser: Chooser, clients: Mapping[str, LLMClient]) -> None:
        self._chooser = chooser
        self._clients = clients

    async def __call__(
        self,
        messages: Sequence[BaseEvent],
        context: ConversationContext,
        *,
        tools: Iterable[ToolSchema],
        response_schema: Any,
        serializer: Any,
    ) -> ModelResponse:
        choice = await self._chooser.achoose(last_user_text(messages))
        response = await self._clients[choice.model](
            messages, context, tools=tools, response_schema=response_schema, serializer=serializer
        )
        if response.message is not None:
            response.message.metadata[METADATA] = choice.as_metadata()
        return response


async def run_plan(
    plan: Plan,
    query: str,
    *,
    models: Mapping[str, ModelConfig],
    **options: Unpack[ExecutionOptions],
) -> Run:
    """`aexecute` with an AG2 agent in every seat. Raises what it raises.

    models: AG2 model configs by the plan's names. A config that can be copied with another
    `max_tokens` and `temperature`, as most of AG2's can, is so for each call; of any other its own
    settings hold, and a run on it takes no budget.
    """
    unbounded = [model for model in plan.models if model in models and not _limit(models[model])]
    if options.get("budget_usd") is not None and unbounded:
        raise BudgetError(
            f"budget_usd: the config of {', '.join(map(repr, unbounded))} takes no max_tokens, so "
            "nobody can say what a call may cost; run without a budget, or use another config"
        )
    seats = {
        key: Agent(str(agent), key[1], config=models[agent.model])
        for key, agent in seats_of(plan, options.get("catalog")).items()
        if agent.model in models
    }

    async def ask(request: ChatRequest) -> Said:
        config = _with_settings(models[request.model], request)
        reply = await seats[seat_key(request)].ask(request.messages[-1].content, config=config)
        usage = (await reply.usage()).total
        return Said(
            text=reply.body or "",
            prompt_tokens=_whole(usage.prompt_tokens),
            completion_tokens=_whole(usage.completion_tokens),
            finish_reason=reply.response.finish_reason,
        )

    llm = HostModel(models, ask, catalog=options.get("catalog"))
    return await run_in_host(plan, query, llm, options)


def last_user_text(messages: Sequence[BaseEvent]) -> str:
    """The text that a call is routed on; empty where no user said any."""
    for event in reversed(messages):
        if isinstance(event, ModelRequest):
            return "\n".join(part.content for part in event.parts if isinstance(part, TextInput))
    return ""


def _limit(config: ModelConfig) -> str | None:
    """The config's field for the most completion tokens: the one that is set, else the first."""
    found = [name for name in _LIMITS if hasattr(config, name)]
    used = [name for name in found if isinstance(getattr(config, name), int)]
    return next(iter(used or found), None)


def _with_settings(config: ModelConfig, request: ChatRequest) -> ModelConfig:
    limit = _limit(config)
    if limit is None:
        return config
    settings: dict[str, Any] = {limit: request.max_tokens}
    if request.temperature is not None and hasattr(config, "temperature"):
        settings["temperature"] = request.temperature
    return cast(Any, config).copy(**settings)  # type: ignore[no-any-return]


def _whole(tokens: float | None) -> int | None:
    return None if tokens is None else int(tokens)
