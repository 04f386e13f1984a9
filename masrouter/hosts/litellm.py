"""LiteLLM: the router as a `litellm.Router`'s routing strategy, and teams on its deployments.

    litellm_router = litellm.Router(model_list=[...])
    use_routing(litellm_router, router)
    await litellm_router.acompletion(model="masrouter/auto", messages=[...])
    run = await run_plan(plan, query, models=litellm_router)

A model group (`model_name`) that the router knows by the same name can be chosen; what it knows and
has no deployment here is left out of the routing. Of the chosen group LiteLLM picks the deployment
as it always does, with its load balancing and cooldowns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from masrouter.hosts.calling import ExecutionOptions, HostModel, Said, run_in_host
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
    import litellm
    from litellm.types.router import (
        CustomRoutingStrategyBase,
        RouterRateLimitError,
        RouterRateLimitErrorBasic,
    )
except ImportError as missing:
    raise missing_host("litellm", missing) from None

METADATA = "masrouter"
"""Key of a request's metadata, as LiteLLM's callbacks and logs see it, for the decision."""

_UNAVAILABLE = (RouterRateLimitError, RouterRateLimitErrorBasic)


class RoutingStrategy(CustomRoutingStrategyBase):  # type: ignore[misc]
    """Picks the model group of `masrouter/auto`; every other name is left to LiteLLM.

    Routed on the last user message. Where all deployments of the chosen group are in cooldown, it
    routes again among the other groups. The decision is put into the request's metadata, where
    LiteLLM's callbacks and logs find it.

    LiteLLM itself retries only names with deployments of their own, so not `masrouter/auto`; what
    should be asked after a failure goes into `fallbacks=[{"masrouter/auto": [...]}]`.
    """

    def __init__(
        self,
        router: Router,
        litellm_router: litellm.Router,
        *,
        on_decision: OnDecision | None = None,
        **options: Unpack[RouteOptions],
    ) -> None:
        """Raises ConfigError for a router without a plan that makes one call."""
        self._chooser = Chooser(router, None, options, on_decision=on_decision)
        self._litellm = litellm_router
        # Taken before this strategy replaces them on the instance.
        self._pick = litellm_router.get_available_deployment
        self._apick = litellm_router.async_get_available_deployment

    async def async_get_available_deployment(
        self,
        model: str,
        messages: Any = None,
        input: Any = None,
        specific_deployment: bool | None = False,
        request_kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """A deployment of the group that the router picks, or of the one that was named."""
        passed = _passed(messages, input, specific_deployment, request_kwargs)
        if model != AUTO:
            return await self._apick(model=model, **passed)
        groups = self._groups()
        while True:
            choice = await self._chooser.achoose(last_user_text(messages), among=groups)
            try:
                deployment = await self._apick(model=choice.model, **passed)
            except _UNAVAILABLE:
                groups.discard(choice.model)
                if not groups:
                    raise
                continue
            return _marked(deployment, passed["request_kwargs"], choice)

    def get_available_deployment(
        self,
        model: str,
        messages: Any = None,
        input: Any = None,
        specific_deployment: bool | None = False,
        request_kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """The same, for LiteLLM's calls that are not asynchronous."""
        passed = _passed(messages, input, specific_deployment, request_kwargs)
        if model != AUTO:
            return self._pick(model=model, **passed)
        groups = self._groups()
        while True:
            choice = self._chooser.choose(last_user_text(messages), among=groups)
            try:
                deployment = self._pick(model=choice.model, **passed)
            except _UNAVAILABLE:
                groups.discard(choice.model)
                if not groups:
                    raise
                continue
            return _marked(deployment, passed["request_kwargs"], choice)

    def _groups(self) -> set[str]:
        """Model groups with deployments now that the router can choose."""
        return set(self._litellm.get_model_names()).intersection(self._chooser.names)


def use_routing(
    litellm_router: litellm.Router,
    router: Router,
    *,
    on_decision: OnDecision | None = None,
    **options: Unpack[RouteOptions],
) -> None:
    """Let a LiteLLM router serve `masrouter/auto`. Raises what RoutingStrategy raises."""
    strategy = RoutingStrategy(router, litellm_router, on_decision=on_decision, **options)
    litellm_router.set_custom_routing_strategy(strategy)


async def run_plan(
    plan: Plan,
    query: str,
    *,
    models: litellm.Router,
    **options: Unpack[ExecutionOptions],
) -> Run:
    """`aexecute` on the model groups of a LiteLLM router. Raises what it raises.

    What a model does not take of temperature and seed is dropped where the router's settings say so
    (`drop_params`), as for every LiteLLM call.
    """

    async def ask(request: ChatRequest) -> Said:
        settings = {"temperature": request.temperature, "seed": request.seed}
        reply: Any = await models.acompletion(
            model=request.model,
            messages=[{"role": m.speaker, "content": m.content} for m in request.messages],
            max_tokens=request.max_tokens,
            **{name: value for name, value in settings.items() if value is not None},
        )
        text = reply.choices[0].message.content or ""
        finish_reason = reply.choices[0].finish_reason
        usage = getattr(reply, "usage", None)
        if (
            usage is None or not usage.total_tokens
        ):  # LiteLLM leaves out, or zeroes, what is unknown
            return Said(text, finish_reason=finish_reason)
        return Said(text, usage.prompt_tokens, usage.completion_tokens, finish_reason)

    llm = HostModel(models.get_model_names(), ask, catalog=options.get("catalog"))
    return await run_in_host(plan, query, llm, options)


def last_user_text(messages: Sequence[Mapping[str, Any]] | None) -> str:
    """The text that a request is routed on; empty where no user said any."""
    for message in reversed(messages or ()):
        if message.get("role") == "user":
            content = message.get("content") or ""
            if isinstance(content, str):
                return content
            return "\n".join(part["text"] for part in content if part.get("type") == "text")
    return ""


def _passed(
    messages: Any,
    input: Any,
    specific_deployment: bool | None,
    request_kwargs: dict[str, Any] | None,
) -> dict[str, Any]:
    """What LiteLLM's own choice of a deployment is told, beside the group."""
    return {
        "messages": messages,
        "input": input,
        "specific_deployment": specific_deployment,
        "request_kwargs": {} if request_kwargs is None else request_kwargs,
    }


def _marked(deployment: Any, request_kwargs: dict[str, Any], choice: Choice) -> Any:
    key = "litellm_metadata" if "litellm_metadata" in request_kwargs else "metadata"
    request_kwargs[key] = {**(request_kwargs.get(key) or {}), METADATA: choice.as_metadata()}
    return deployment
