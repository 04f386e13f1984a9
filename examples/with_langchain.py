"""LangChain: an agent whose model is routed, and a team on LangChain chat models.

    pip install 'masrouter[langchain]'
    python examples/with_langchain.py

Prints the model that was picked for the question, what it said, and the team's answer.
"""

from __future__ import annotations

import asyncio
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from stand_ins import MODELS, PLAN, QUESTION, answer_now, show_decision, show_run, trained_router

from masrouter.hosts.langchain import RoutingMiddleware, run_plan


class StandIn(BaseChatModel):
    """In place of `ChatOpenAI(model=...)`, `init_chat_model(...)` and the like."""

    model: str

    @property
    def _llm_type(self) -> str:
        return "stand-in"

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        system = str(messages[0].text) if len(messages) > 1 else None
        said = answer_now(self.model, system, str(messages[-1].text))
        return ChatResult(generations=[ChatGeneration(message=AIMessage(said.text))])


def chat_models() -> dict[str, BaseChatModel]:
    return {name: StandIn(model=name) for name in MODELS}


def main() -> None:
    models = chat_models()
    routing = RoutingMiddleware(trained_router(), models, on_decision=show_decision)
    agent = create_agent(models["gpt-4o-mini"], middleware=[routing])
    state = agent.invoke({"messages": [{"role": "user", "content": QUESTION}]})
    print("it says:", state["messages"][-1].text)

    show_run(asyncio.run(run_plan(PLAN, QUESTION, models=models)))


if __name__ == "__main__":
    main()
