"""OpenAI Agents SDK: a model provider that routes, and teams whose seats are agents of the SDK.

config = RunConfig(model_provider=RoutingProvider(router, ["gpt-4o", "gpt-4o-mini"]))
await Runner.run(Agent(name="Tutor", model="masrouter/auto", tools=[...]), text, run_config=config)
run = await run_plan(plan, query, models=provider)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Unpack

from masrouter.hosts.calling import (
    ExecutionOptions,
    HostModel,
    Said,
    run_in_host,
    seat_key,
    seats_of,
)
from masrouter.hosts.choosing import (
    AUTO,
    Choice,
    Chooser,
    OnDecision,
    RouteOptions,
    missing_host,
)
from masrouter.llms.chat import ChatRequest
from masrouter.types import Plan, Run

if TYPE_CHECKING:
    from masrouter.router import Router

try:
    import agents
    from agents.items import ItemHelpers, TResponseInputItem, TResponseStreamEvent
    from agents.models.multi_provider import MultiProvider
except ImportError as missing:
    raise missing_host("openai-agents", missing) from None


class RoutingProvider(agents.ModelProvider):
    """Serves the model `masrouter/auto`, which routes each request; any other name is `provider`'s.

    models: names as the router knows them; a mapping gives the provider's name of each.
    provider: of the models; None is the SDK's own, which takes OpenAI's key from the environment.
    A decision is a span named `masrouter` in the run's trace, where tracing is on.
    """

    def __init__(
        self,
        router: Router,
        models: Iterable[str] | Mapping[str, str],
        *,
        provider: agents.ModelProvider | None = None,
        on_decision: OnDecision | None = None,
        **options: Unpack[RouteOptions],
    ) -> None:
        """Raises ConfigError for a model that the router could never choose."""
        own = dict(models) if isinstance(models, Mapping) else {name: name for name in models}
        self._provider = provider or MultiProvider()
        chooser = Chooser(router, own, options, on_decision=on_decision)
        self._auto = RoutedModel(chooser, self._provider, own)

    def get_model(self, model_name: str | None) -> agents.Model:
        """The model that routes, or one of the provider's."""
        return self._auto if model_name == AUTO else self._provider.get_model(model_name)

    async def aclose(self) -> None:
        """Close the provider."""
        await self._provider.aclose()


class RoutedModel(agents.Model):
    """Passes each request, whole, to the model that the router picks by its last user message."""

    def __init__(
        self, chooser: Chooser, provider: agents.ModelProvider, own_names: Mapping[str, str]
    ) -> None:
        self._chooser = chooser
        self._provider = provider
        self._own_names = own_names

    async def get_response(
        self,
        system_instructions: str | None,
        input: str | list[TResponseInputItem],
        *arguments: Any,
        **more: Any,
    ) -> agents.ModelResponse:
        """Route, and ask the chosen model."""
        model = await self._model(input)
        return await model.get_response(system_instructions, input, *arguments, **more)

    async def stream_response(
        self,
        system_instructions: str | None,
        input: str | list[TResponseInputItem],
        *arguments: Any,
        **more: Any,
    ) -> AsyncIterator[TResponseStreamEvent]:
        """Route, and stream from the chosen model."""
        model = await self._model(input)
        async for event in model.stream_response(system_instructions, input, *arguments, **more):
            yield event

    async def _model(self, input: str | list[TResponseInputItem]) -> agents.Model:
        choice = await self._chooser.achoose(last_user_text(input))
        _trace(choice)
        return self._provider.get_model(self._own_names[choice.model])


async def run_plan(
    plan: Plan,
    query: str,
    *,
    models: agents.ModelProvider | Mapping[str, agents.Model],
    run_config: agents.RunConfig | None = None,
    **options: Unpack[ExecutionOptions],
) -> Run:
    """`aexecute` with an SDK agent in every seat, run by `Runner`, in one trace. Raises what it
    raises.

    models: a provider that knows the plan's names of models, or models by those names.
    run_config: of each agent's run: tracing, guardrails.
    """
    given = (
        dict(models)
        if isinstance(models, Mapping)
        else {name: models.get_model(name) for name in plan.models}
    )
    seats = {
        key: agents.Agent[None](name=str(agent), instructions=key[1], model=given[agent.model])
        for key, agent in seats_of(plan, options.get("catalog")).items()
        if agent.model in given
    }

    async def ask(request: ChatRequest) -> Said:
        settings = agents.ModelSettings(
            max_tokens=request.max_tokens, temperature=request.temperature
        )
        result = await agents.Runner.run(
            seats[seat_key(request)].clone(model_settings=settings),
            request.messages[-1].content,
            max_turns=1,
            run_config=run_config,
        )
        usage = result.context_wrapper.usage
        text = str(result.final_output)
        if not usage.total_tokens:  # the SDK has no word for unknown
            return Said(text)
        return Said(text, usage.input_tokens, usage.output_tokens)

    llm = HostModel(given, ask, catalog=options.get("catalog"))
    untraced = run_config is not None and run_config.tracing_disabled
    with ExitStack() as stack:
        if agents.get_current_trace() is None:
            stack.enter_context(agents.trace(f"masrouter {plan.topology}", disabled=untraced))
        return await run_in_host(plan, query, llm, options)


def last_user_text(input: str | list[TResponseInputItem]) -> str:
    """The text that a request is routed on; empty where no user said any."""
    for item in reversed(ItemHelpers.input_to_new_input_list(input)):
        if item.get("role") == "user":
            content: Any = item.get("content")
            if isinstance(content, str):
                return content
            return "\n".join(str(part["text"]) for part in content if "text" in part)
    return ""


def _trace(choice: Choice) -> None:
    with agents.custom_span("masrouter", data=choice.as_metadata()):
        pass
