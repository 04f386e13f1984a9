"""pydantic-ai: an agent on a model that routes, and a team of pydantic-ai agents.

    pip install 'masrouter[pydantic-ai]'
    python examples/with_pydantic_ai.py

Prints the model that was picked for the question, what it said, and the team's answer.
"""

from __future__ import annotations

import asyncio

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from stand_ins import MODELS, PLAN, QUESTION, answer, show_decision, show_run, trained_router

from masrouter.hosts.pydantic_ai import RoutingModel, run_plan


def stand_in(name: str) -> FunctionModel:
    """In place of `OpenAIChatModel(...)`, or of a name such as `openai:gpt-4o`."""

    async def reply(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        prompt = messages[-1].parts[-1]
        assert isinstance(prompt, UserPromptPart)
        said = await answer(name, info.instructions, str(prompt.content))
        return ModelResponse([TextPart(said.text)])

    return FunctionModel(reply, model_name=name)


async def main() -> None:
    models = {name: stand_in(name) for name in MODELS}
    agent = Agent(RoutingModel(trained_router(), models, on_decision=show_decision))
    result = await agent.run(QUESTION)
    print("it says:", result.output)

    show_run(await run_plan(PLAN, QUESTION, models=models))


if __name__ == "__main__":
    asyncio.run(main())
