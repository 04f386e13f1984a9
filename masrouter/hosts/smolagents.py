"""smolagents: a model that routes among models, and teams on smolagents models.

agent = ToolCallingAgent(tools, model=RoutingModel(router, {"gpt-4o": OpenAIModel("gpt-4o"), ...}))
run = await run_plan(plan, query, models=models)
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from masrouter.errors import ConfigError
from masrouter.hosts.calling import ExecutionOptions, HostModel, Said, run_in_host
from masrouter.hosts.choosing import AUTO, Chooser, OnDecision, RouteOptions, missing_host
from masrouter.llms.chat import ChatRequest
from masrouter.types import Plan, Run

if TYPE_CHECKING:
    from masrouter.router import Router

try:
    from smolagents.models import ChatMessage, ChatMessageStreamDelta, MessageRole, Model
except ImportError as missing:
    raise missing_host("smolagents", missing) from None

TASK = "New task:\n"
"""What an agent of smolagents puts before its task."""


class RoutingModel(Model):  # type: ignore[misc]
    """Passes each request, with its tools and stop sequences, to the model that the router picks.

    models: smolagents models by the names that the router knows.
    Routed on the agent's task, which all steps of a run share, or on the last user message where
    there is no task: without an agent, and for the first plan of an agent that makes plans, which
    smolagents asks for in a prompt around the task.
    """

    def __init__(
        self,
        router: Router,
        models: Mapping[str, Model],
        *,
        on_decision: OnDecision | None = None,
        **options: Unpack[RouteOptions],
    ) -> None:
        """Raises ConfigError for a model that the router could never choose."""
        super().__init__(model_id=AUTO)
        self.models = dict(models)
        self._chooser = Chooser(router, self.models, options, on_decision=on_decision)

    def generate(
        self, messages: Sequence[ChatMessage], *arguments: Any, **more: Any
    ) -> ChatMessage:
        """Route, and ask the chosen model."""
        return self._model(messages).generate(messages, *arguments, **more)

    def generate_stream(
        self, messages: Sequence[ChatMessage], *arguments: Any, **more: Any
    ) -> Iterator[ChatMessageStreamDelta]:
        """Route, and stream from the chosen model. Raises ConfigError where it cannot."""
        model = self._model(messages)
        if not hasattr(model, "generate_stream"):
            raise ConfigError(
                f"smolagents: the model chosen, {type(model).__name__}, cannot stream; make the "
                "agent with stream_outputs=False"
            )
        yield from model.generate_stream(messages, *arguments, **more)

    def _model(self, messages: Sequence[ChatMessage]) -> Model:
        return self.models[self._chooser.choose(task_text(messages)).model]


async def run_plan(
    plan: Plan,
    query: str,
    *,
    models: Mapping[str, Model],
    **options: Unpack[ExecutionOptions],
) -> Run:
    """`aexecute` on smolagents models, by the plan's names of them. Raises what it raises.

    The models block, so each call has a thread; one that is cancelled ends in its thread all the
    same. Seeds are not passed on: not every model of smolagents takes one.
    """

    def generate(request: ChatRequest) -> Said:
        messages = [
            ChatMessage(
                role=MessageRole(message.speaker),
                content=[{"type": "text", "text": message.content}],
            )
            for message in request.messages
        ]
        settings: dict[str, Any] = {"max_tokens": request.max_tokens}
        if request.temperature is not None:
            settings["temperature"] = request.temperature
        reply = models[request.model].generate(messages, **settings)
        usage = reply.token_usage
        return Said(
            text=_text(reply),
            prompt_tokens=None if usage is None else usage.input_tokens,
            completion_tokens=None if usage is None else usage.output_tokens,
        )

    async def ask(request: ChatRequest) -> Said:
        return await asyncio.to_thread(generate, request)

    llm = HostModel(models, ask, catalog=options.get("catalog"))
    return await run_in_host(plan, query, llm, options)


def task_text(messages: Sequence[ChatMessage]) -> str:
    """The text that a request is routed on; empty where no user said any."""
    said = [_text(message) for message in messages if message.role == MessageRole.USER]
    tasks = [text.removeprefix(TASK) for text in said if text.startswith(TASK)]
    return (tasks or said or [""])[-1]


def _text(message: ChatMessage) -> str:
    if isinstance(message.content, list):
        return "\n".join(part["text"] for part in message.content if part.get("type") == "text")
    return message.content or ""
