"""LangChain: an agent whose model is routed, and plans on LangChain's chat models."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from tests.hosts.host_samples import (
    MODELS,
    PLANS,
    QUERY,
    Down,
    expected,
    picks,
    say,
    told,
)

from masrouter.errors import ConfigError, ConstraintError, PlanError, RoutingError
from masrouter.hosts.langchain import LangChainModel, RoutingMiddleware, run_plan
from masrouter.router import Router
from masrouter.types import RoutingDecision


class Scripted(BaseChatModel):
    """Says by script what all hosts are to say; with tools, it calls the first one once."""

    name_here: str
    seen: list[dict[str, Any]] = []  # noqa: RUF012 a field of pydantic, copied for each model
    down: bool = False

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **options: Any) -> Any:
        return self.bind(tools=[t.name for t in tools])

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **options: Any,
    ) -> ChatResult:
        self.seen.append({"messages": messages, **options})
        if self.down:
            raise Down
        tools = options.get("tools")
        if tools and not any(isinstance(message, ToolMessage) for message in messages):
            reply = AIMessage("", tool_calls=[{"name": tools[0], "args": {"a": 2}, "id": "1"}])
        else:
            system = messages[0].text if len(messages) > 1 else ""
            text = say(self.name_here, str(system), str(messages[-1].text))
            usage = {"input_tokens": 7, "output_tokens": 5, "total_tokens": 12}
            reply = AIMessage(text, usage_metadata=usage)  # type: ignore[arg-type]
        return ChatResult(generations=[ChatGeneration(message=reply)])


def chat_models(*names: str) -> dict[str, BaseChatModel]:
    return {name: Scripted(name_here=name, seen=[]) for name in names}


def called(models: dict[str, BaseChatModel]) -> list[str]:
    return [name for name, model in models.items() if model.seen]  # type: ignore[attr-defined]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_each_question_goes_to_the_model_that_the_router_picks(
    one_call_router: Router, some_texts: list[str], asynchronous: bool
) -> None:
    for text, pick in zip(some_texts, picks(one_call_router, some_texts), strict=True):
        models = chat_models(*MODELS)
        decisions: list[RoutingDecision] = []
        routing = RoutingMiddleware(one_call_router, models, on_decision=decisions.append)
        agent = create_agent(models[MODELS[0]], middleware=[routing])
        question = {"messages": [HumanMessage(text)]}
        state = asyncio.run(agent.ainvoke(question)) if asynchronous else agent.invoke(question)
        assert called(models) == [pick]
        assert state["messages"][-1].text == say(pick, "", text)
        attached = state["messages"][-1].response_metadata["masrouter"]
        assert attached["model"] == pick
        assert attached["plan"] == decisions[0].plan.to_json()
        assert attached["expected_score"] == decisions[0].expected_score


def test_only_models_that_were_given_are_chosen_and_options_are_kept_to(
    one_call_router: Router, some_texts: list[str]
) -> None:
    for text in some_texts:
        models = chat_models("synthetic-small", "synthetic-medium")
        routing = RoutingMiddleware(one_call_router, models, cost_weight=1000.0)
        create_agent(models["synthetic-small"], middleware=[routing]).invoke(
            {"messages": [HumanMessage(text)]}
        )
        assert called(models) == ["synthetic-small"]
    too_dear = RoutingMiddleware(one_call_router, models, max_cost_usd=1e-9)
    with pytest.raises(ConstraintError, match="max_cost_usd"):
        create_agent(models["synthetic-small"], middleware=[too_dear]).invoke(
            {"messages": [HumanMessage(text)]}
        )


def test_tools_and_the_prompt_go_to_the_chosen_model_which_stays_the_same_for_a_turn(
    one_call_router: Router, some_texts: list[str]
) -> None:
    @tool
    def double(a: int) -> int:
        """Twice a number."""
        return 2 * a

    pick = picks(one_call_router, some_texts)[0]
    models = chat_models(*MODELS)
    agent = create_agent(
        models["synthetic-small"],
        [double],
        system_prompt="Be kind.",
        middleware=[RoutingMiddleware(one_call_router, models)],
    )
    state = agent.invoke({"messages": [HumanMessage(some_texts[0])]})
    assert called(models) == [pick]
    first, second = models[pick].seen  # type: ignore[attr-defined]
    assert first["tools"] == second["tools"] == ["double"]
    assert first["messages"][0].text == "Be kind."
    assert second["messages"][-1].text == "4"
    assert state["messages"][-1].text == say(pick, "Be kind.", "4")


def test_a_message_without_text_cannot_be_routed(one_call_router: Router) -> None:
    models = chat_models(*MODELS)
    routing = RoutingMiddleware(one_call_router, models)
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    with pytest.raises(RoutingError, match="last user message holds no text"):
        create_agent(models[MODELS[0]], middleware=[routing]).invoke(
            {"messages": [HumanMessage("Hello."), HumanMessage([image])]}
        )


def test_a_model_that_the_router_could_never_choose_is_refused(one_call_router: Router) -> None:
    with pytest.raises(ConfigError, match=r"'gpt-9', .*synthetic-small.*Router.add_model"):
        RoutingMiddleware(one_call_router, chat_models("synthetic-small", "gpt-9"))


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_runs_on_chat_models_as_it_does_without_langchain(name: str) -> None:
    plan = PLANS[name]
    run = asyncio.run(run_plan(plan, QUERY, models=chat_models(*plan.models)))
    assert told(run) == told(expected(plan))
    assert run.usage.prompt_tokens == 7 * len(run.calls)
    assert run.usage.completion_tokens == 5 * len(run.calls)


def test_a_chat_model_that_fails_is_a_member_that_fails() -> None:
    plan = PLANS["debate"]
    models = chat_models(*plan.models)
    models["m2"] = Scripted(name_here="m2", seen=[], down=True)
    run = asyncio.run(run_plan(plan, QUERY, models=models))
    assert told(run) == told(expected(plan, down="m2"))
    failed = [call for call in run.calls if call.error]
    assert [call.error for call in failed] == ["server_error: m2: Down: "]
    assert run.missing == (1,)


def test_max_tokens_and_temperature_are_passed_on_unless_the_caller_says_otherwise() -> None:
    plan = PLANS["self_consistency"]
    models = chat_models(*plan.models)
    asyncio.run(run_plan(plan, QUERY, models=models, max_tokens=99))
    assert {(m.seen[0]["max_tokens"], m.seen[0]["temperature"]) for m in models.values()} == {  # type: ignore[attr-defined]
        (99, 0.7)
    }
    asyncio.run(
        run_plan(plan, QUERY, models=models, call_options=lambda r: {"num_predict": r.max_tokens})
    )
    assert set(models["m1"].seen[-1]) == {"messages", "num_predict"}  # type: ignore[attr-defined]


def test_a_plan_with_a_model_that_was_not_given_is_refused_before_anything_is_sent() -> None:
    models = chat_models("m1", "m2")
    with pytest.raises(PlanError, match=r"needs 'm3', and the models given are m1, m2"):
        asyncio.run(run_plan(PLANS["debate"], QUERY, models=models))
    assert called(models) == []


def test_a_priced_model_costs_what_the_catalog_says() -> None:
    llm = LangChainModel(chat_models("gpt-4o-mini"))
    price = llm.price("gpt-4o-mini")
    assert price is not None
    assert (price.source, llm.price("no such model")) == ("catalog", None)
    plan = PLANS["examples/plan.json"]
    run = asyncio.run(run_plan(plan, QUERY, models=chat_models(*plan.models), budget_usd=0.1))
    assert run.usage.cost_usd is not None
    assert 0 < run.usage.cost_usd < 0.1
