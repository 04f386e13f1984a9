"""OpenAI Agents SDK: an agent on the model `masrouter/auto`, and a team of SDK agents.

    pip install 'masrouter[openai-agents]'
    python examples/with_openai_agents.py

Prints the model that was picked for the question, what it said, and the team's answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from agents import Agent, Model, ModelProvider, ModelResponse, RunConfig, Runner, Usage
from openai.types.responses import ResponseOutputMessage, ResponseOutputText
from stand_ins import MODELS, PLAN, QUESTION, answer, show_decision, show_run, trained_router

from masrouter.hosts.openai_agents import RoutingProvider, run_plan


class StandIn(Model):
    """In place of the models of `OpenAIProvider`."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def get_response(
        self, system_instructions: str | None, input: Any, *_: Any, **__: Any
    ) -> ModelResponse:
        text = input if isinstance(input, str) else input[-1]["content"]
        said = await answer(self.name, system_instructions, text)
        part = ResponseOutputText(annotations=[], text=said.text, type="output_text")
        message = ResponseOutputMessage(
            id="1", content=[part], role="assistant", status="completed", type="message"
        )
        return ModelResponse(output=[message], usage=Usage(), response_id=None)

    def stream_response(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        raise NotImplementedError("the stand-in does not stream; the SDK's models do")


class StandIns(ModelProvider):
    """In place of `MultiProvider`, the SDK's own."""

    def get_model(self, model_name: str | None) -> Model:
        return StandIn(str(model_name))


async def main() -> None:
    # Without this the SDK sends traces of each run to OpenAI.
    offline = {"tracing_disabled": True}

    routing = RoutingProvider(
        trained_router(), MODELS, provider=StandIns(), on_decision=show_decision
    )
    tutor = Agent(name="Tutor", model="masrouter/auto")
    config = RunConfig(model_provider=routing, **offline)
    result = await Runner.run(tutor, QUESTION, run_config=config)
    print("it says:", result.final_output)

    untraced = RunConfig(**offline)
    show_run(await run_plan(PLAN, QUESTION, models=StandIns(), run_config=untraced))


if __name__ == "__main__":
    asyncio.run(main())
