"""smolagents: an agent on a model that routes, and a team on smolagents models.

    pip install 'masrouter[smolagents]'
    python examples/with_smolagents.py

Prints the model that was picked for the task, the agent's answer, and the team's.
"""

from __future__ import annotations

import asyncio
from typing import Any

from smolagents import ToolCallingAgent
from smolagents.models import (
    ChatMessage,
    ChatMessageToolCall,
    ChatMessageToolCallFunction,
    MessageRole,
    Model,
)
from smolagents.monitoring import LogLevel
from stand_ins import MODELS, PLAN, QUESTION, answer_now, show_decision, show_run, trained_router

from masrouter.hosts.smolagents import RoutingModel, run_plan


class StandIn(Model):
    """In place of `OpenAIModel(...)`, `InferenceClientModel(...)` and the like."""

    def generate(
        self, messages: list[ChatMessage], *_: Any, tools_to_call_from: Any = None, **__: Any
    ) -> ChatMessage:
        texts = [message.content[0]["text"] for message in messages]
        if not tools_to_call_from:
            said = answer_now(self.model_id, texts[0] if len(texts) > 1 else None, texts[-1])
            return ChatMessage(MessageRole.ASSISTANT, said.text)
        said = answer_now(self.model_id, None, QUESTION)
        final = ChatMessageToolCallFunction(name="final_answer", arguments={"answer": said.text})
        call = ChatMessageToolCall(function=final, id="1", type="function")
        return ChatMessage(MessageRole.ASSISTANT, "", tool_calls=[call])


def main() -> None:
    models = {name: StandIn(model_id=name) for name in MODELS}
    model = RoutingModel(trained_router(), models, on_decision=show_decision)
    agent = ToolCallingAgent([], model=model, verbosity_level=LogLevel.OFF)
    print("it says:", agent.run(QUESTION))

    show_run(asyncio.run(run_plan(PLAN, QUESTION, models=models)))


if __name__ == "__main__":
    main()
