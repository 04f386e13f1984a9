"""AG2: an agent on a model config that routes, and a team of AG2 agents.

    pip install 'masrouter[ag2]'
    python examples/with_ag2.py

Prints the model that was picked for the question, what it said, and the team's answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ag2 import Agent, Context
from ag2.config import LLMClient
from ag2.events import BaseEvent, ModelMessage, ModelRequest, ModelResponse, TextInput
from stand_ins import MODELS, PLAN, QUESTION, answer, show_decision, show_run, trained_router

from masrouter.hosts.ag2 import RoutingConfig, run_plan


@dataclass
class StandIn:
    """In place of `OpenAIConfig(...)`, `AnthropicConfig(...)` and the like."""

    model: str

    def create(self) -> LLMClient:
        async def reply(messages: Sequence[BaseEvent], context: Context, **_: Any) -> ModelResponse:
            request = messages[-1]
            assert isinstance(request, ModelRequest)
            text = request.parts[-1]
            assert isinstance(text, TextInput)
            said = await answer(self.model, "\n".join(context.prompt) or None, text.content)
            return ModelResponse(ModelMessage(said.text))

        return reply


async def main() -> None:
    models = {name: StandIn(name) for name in MODELS}
    tutor = Agent(
        "tutor", config=RoutingConfig(trained_router(), models, on_decision=show_decision)
    )
    reply = await tutor.ask(QUESTION)
    print("it says:", reply.body)

    show_run(await run_plan(PLAN, QUESTION, models=models))


if __name__ == "__main__":
    asyncio.run(main())
