"""LangChain: a middleware that picks the chat model of an agent's calls, and chat models for teams.

    agent = create_agent(any_model, tools, middleware=[RoutingMiddleware(router, models)])
    run = await run_plan(plan, query, models=models)

`models` are chat models by the names that the router and its plans use. For a plan as a graph see
`masrouter.hosts.langgraph`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from masrouter.catalog import Catalog
from masrouter.hosts.calling import ExecutionOptions, HostModel, Said, run_in_host
from masrouter.hosts.choosing import Choice, Chooser, OnDecision, RouteOptions, missing_host
from masrouter.llms.chat import ChatRequest
from masrouter.types import Plan, Run

if TYPE_CHECKING:
    from masrouter.router import Router

try:
    from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
except ImportError as missing:
    raise missing_host("langchain", missing) from None

METADATA = "masrouter"
"""Key of `AIMessage.response_metadata` under which the decision stands."""

CallOptions = Callable[[ChatRequest], Mapping[str, Any]]


class RoutingMiddleware(AgentMiddleware):
    """Gives each model call of an agent the chat model that the router picks.

    Routed on the last human message, so all calls of one turn get the same model. The agent's own
    model is used for nothing but what LangChain reads from it when the agent is made; its tools,
    prompt and response format go to the chosen one. The decision is attached to the reply, in
    `response_metadata["masrouter"]`.
    """

    def __init__(
        self,
        router: Router,
        models: Mapping[str, BaseChatModel],
        *,
        on_decision: OnDecision | None = None,
        **options: Unpack[RouteOptions],
    ) -> None:
        """Raises ConfigError for a model that the router could never choose."""
        super().__init__()
        self._models = dict(models)
        self._chooser = Chooser(router, self._models, options, on_decision=on_decision)

    def wrap_model_call(
        self,
        request: ModelRequest,
        handler: Callable[[ModelRequest], ModelResponse[Any]],
    ) -> ModelResponse[Any]:
        """Route, and call the chosen model."""
        choice = self._chooser.choose(last_human_text(request.messages))
        return _marked(handler(request.override(model=self._models[choice.model])), choice)

    async def awrap_model_call(
        self,
        request: ModelRequest,
        handler: Callable[[ModelRequest], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any]:
        """The same without holding up the event loop."""
        choice = await self._chooser.achoose(last_human_text(request.messages))
        return _marked(await handler(request.override(model=self._models[choice.model])), choice)


class LangChainModel(HostModel):
    """A masrouter ChatModel on LangChain chat models, for `execute` and `graph_from_plan`.

    call_options: what is passed to a model beside the messages. The usual ones are `max_tokens`,
    and `temperature` where a topology sets one; give a function of your own for models that call
    them otherwise or refuse them. Seeds are not passed on: LangChain has no common name for them.
    """

    def __init__(
        self,
        models: Mapping[str, BaseChatModel],
        *,
        catalog: Catalog | None = None,
        call_options: CallOptions | None = None,
    ) -> None:
        self._models = dict(models)
        self._call_options = call_options or usual_call_options
        super().__init__(self._models, self._invoke, catalog=catalog)

    async def _invoke(self, request: ChatRequest) -> Said:
        messages = [(message.speaker, message.content) for message in request.messages]
        model = self._models[request.model]
        reply = await model.ainvoke(messages, **self._call_options(request))
        usage = reply.usage_metadata
        return Said(
            text=str(reply.text),
            prompt_tokens=None if usage is None else usage["input_tokens"],
            completion_tokens=None if usage is None else usage["output_tokens"],
            finish_reason=reply.response_metadata.get("finish_reason"),
        )


async def run_plan(
    plan: Plan,
    query: str,
    *,
    models: Mapping[str, BaseChatModel],
    call_options: CallOptions | None = None,
    **options: Unpack[ExecutionOptions],
) -> Run:
    """`aexecute` on LangChain chat models, by the plan's names of them. Raises what it raises."""
    llm = LangChainModel(models, catalog=options.get("catalog"), call_options=call_options)
    return await run_in_host(plan, query, llm, options)


def usual_call_options(request: ChatRequest) -> dict[str, Any]:
    """`max_tokens`, and `temperature` where there is one."""
    given = {"max_tokens": request.max_tokens, "temperature": request.temperature}
    return {name: value for name, value in given.items() if value is not None}


def last_human_text(messages: Sequence[BaseMessage]) -> str:
    """The text that a conversation is routed on; empty where no human said any."""
    human = [message for message in messages if isinstance(message, HumanMessage)]
    return str(human[-1].text) if human else ""


def _marked(response: ModelResponse[Any], choice: Choice) -> ModelResponse[Any]:
    for message in response.result:
        if isinstance(message, AIMessage):
            message.response_metadata[METADATA] = choice.as_metadata()
    return response
