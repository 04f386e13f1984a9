"""LiteLLM: a `litellm.Router` led by the trained router, and a team on its deployments.

    pip install 'masrouter[litellm]'
    python examples/with_litellm.py

Prints the model group that was picked for the question, what it said, and the team's answer.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # otherwise LiteLLM fetches one at its import

import litellm
from litellm.utils import custom_llm_setup
from stand_ins import MODELS, PLAN, QUESTION, answer, show_decision, show_run, trained_router

from masrouter.hosts.litellm import run_plan, use_routing


class StandIns(litellm.CustomLLM):
    """In place of a provider. LiteLLM calls OpenAI for OpenAI's names, so they have `the-` here."""

    async def acompletion(self, *, model: str, messages: Any, **_: Any) -> litellm.ModelResponse:
        system = messages[0]["content"] if len(messages) > 1 else None
        said = await answer(model.removeprefix("the-"), system, messages[-1]["content"])
        message = {"role": "assistant", "content": said.text}
        return litellm.ModelResponse(choices=[{"message": message, "finish_reason": "stop"}])


async def main() -> None:
    litellm.custom_provider_map = [{"provider": "stand-ins", "custom_handler": StandIns()}]
    custom_llm_setup()
    deployments = litellm.Router(
        model_list=[
            {"model_name": name, "litellm_params": {"model": f"stand-ins/the-{name}"}}
            for name in MODELS
        ]
    )
    use_routing(deployments, trained_router(), on_decision=show_decision)
    messages = [{"role": "user", "content": QUESTION}]
    reply = await deployments.acompletion(model="masrouter/auto", messages=messages)
    print("it says:", reply.choices[0].message.content)

    show_run(await run_plan(PLAN, QUESTION, models=deployments))


if __name__ == "__main__":
    asyncio.run(main())
