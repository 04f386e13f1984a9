"""LiteLLM: its router led by the trained one, and plans on its deployments.

LiteLLM's table of prices is the one in its package, and its models are functions of this process.
Its own log of calls is off: a worker keeps it, which does not end with an event loop.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from tests.hosts.host_samples import (
    MODELS,
    PLANS,
    QUERY,
    expected,
    picks,
    say,
    told,
)

from masrouter.errors import ConstraintError, PlanError, RoutingError
from masrouter.router import Router
from masrouter.types import RoutingDecision, Usage

# LiteLLM reads it when it is imported; without it, it would fetch a table of prices.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
from litellm import CustomLLM, ModelResponse
from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER

from masrouter.hosts.litellm import run_plan, use_routing


class Scripted(CustomLLM):  # type: ignore[misc]
    """A provider that says by script; the models of `down` fail."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self.down: set[str] = set()
        self.metadata: list[dict[str, Any]] = []
        self.tells_no_usage = False

    def completion(self, *, model: str, messages: Any, **more: Any) -> ModelResponse:
        model = model.removeprefix("the-")
        self.seen.append((model, more["optional_params"]))
        self.metadata.append(more["litellm_params"]["metadata"])
        if model in self.down:
            raise litellm.ServiceUnavailableError("down", llm_provider="scripted", model=model)
        system = messages[0]["content"] if len(messages) > 1 else ""
        reply = say(model.split("+")[0], system, messages[-1]["content"])
        if self.tells_no_usage:
            message = {"role": "assistant", "content": reply}
            return ModelResponse(choices=[{"message": message, "finish_reason": "stop"}])
        return litellm.completion(  # type: ignore[no-any-return]
            model="gpt-4o", messages=messages, mock_response=reply
        )

    async def acompletion(self, *, model: str, messages: Any, **more: Any) -> ModelResponse:
        return self.completion(model=model, messages=messages, **more)

    @property
    def called(self) -> list[str]:
        return [model for model, _ in self.seen]


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    made = Scripted()
    logged = "ensure_initialized_and_enqueue"
    monkeypatch.setattr(
        GLOBAL_LOGGING_WORKER, logged, lambda async_coroutine: async_coroutine.close()
    )
    entry = [{"provider": "scripted", "custom_handler": made}]
    monkeypatch.setattr(litellm, "custom_provider_map", entry)
    for names in ("provider_list", "_custom_providers"):
        monkeypatch.setattr(litellm, names, [*getattr(litellm, names), "scripted"])
    return made


def deployed(*groups: str, times: int = 1, **settings: Any) -> litellm.Router:
    return litellm.Router(
        model_list=[
            # `the-`, as LiteLLM calls OpenAI for a model of OpenAI's, whatever the provider.
            {"model_name": name, "litellm_params": {"model": f"scripted/the-{name}{'+' * i}"}}
            for name in groups
            for i in range(times)
        ],
        num_retries=0,
        **settings,
    )


def user(text: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_each_question_goes_to_the_group_that_the_router_picks(
    provider: Scripted, one_call_router: Router, some_texts: list[str], asynchronous: bool
) -> None:
    routed = deployed(*MODELS, "an-embedding")
    use_routing(routed, one_call_router)
    answers = []
    for text in some_texts:
        ask = {"model": "masrouter/auto", "messages": user(text)}
        reply = asyncio.run(routed.acompletion(**ask)) if asynchronous else routed.completion(**ask)
        answers.append(reply.choices[0].message.content)
    chosen = picks(one_call_router, some_texts)
    assert provider.called == chosen
    assert answers == [say(m, "", text) for m, text in zip(chosen, some_texts, strict=True)]


def test_models_without_a_deployment_are_left_out_and_new_ones_are_seen(
    provider: Scripted, one_call_router: Router, some_texts: list[str]
) -> None:
    decisions: list[RoutingDecision] = []
    routed = deployed("synthetic-medium")
    use_routing(routed, one_call_router, on_decision=decisions.append, cost_weight=0.0)
    routed.completion("masrouter/auto", user(some_texts[0]))
    assert [decision.plan.models for decision in decisions] == [("synthetic-medium",)]
    assert decisions[0].cost_weight == 0.0
    routed.add_deployment(
        litellm.Deployment(
            model_name="synthetic-large",
            litellm_params=litellm.types.router.LiteLLM_Params(
                model="scripted/the-synthetic-large"
            ),
        )
    )
    for text in some_texts:
        routed.completion("masrouter/auto", user(text))
    assert set(provider.called) == {"synthetic-medium", "synthetic-large"}
    use_routing(routed, one_call_router, max_cost_usd=1e-9)
    with pytest.raises(ConstraintError, match="max_cost_usd"):
        routed.completion("masrouter/auto", user(some_texts[0]))


def test_other_names_are_left_to_litellm(provider: Scripted, one_call_router: Router) -> None:
    routed = deployed(*MODELS, "another")
    use_routing(routed, one_call_router)
    asyncio.run(routed.acompletion(model="another", messages=user("Hello.")))
    routed.completion("synthetic-coder", user("Hello."))
    assert provider.called == ["another", "synthetic-coder"]


def test_litellm_balances_the_load_of_the_chosen_group(
    provider: Scripted, one_call_router: Router, some_texts: list[str]
) -> None:
    routed = deployed(*MODELS, times=2)
    use_routing(routed, one_call_router)
    for _ in range(20):
        routed.completion("masrouter/auto", user(some_texts[0]))
    pick = picks(one_call_router, some_texts)[0]
    assert set(provider.called) == {pick, f"{pick}+"}


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_group_in_cooldown_is_passed_over_and_fallbacks_work(
    provider: Scripted, one_call_router: Router, some_texts: list[str], asynchronous: bool
) -> None:
    text, pick = some_texts[0], picks(one_call_router, some_texts)[0]
    others = [name for name in MODELS if name != pick]
    second = one_call_router.route(text, models=others, max_agents=1, topologies=("io", "cot"))
    provider.down = {pick}
    routed = deployed(*MODELS, "spare", fallbacks=[{"masrouter/auto": ["spare"]}], allowed_fails=0)
    use_routing(routed, one_call_router)

    async def ask_twice() -> None:
        for _ in range(2):
            await routed.acompletion(model="masrouter/auto", messages=user(text))

    if asynchronous:
        asyncio.run(ask_twice())
    else:
        routed.completion("masrouter/auto", user(text))
        routed.completion("masrouter/auto", user(text))
    assert provider.called == [pick, "spare", second.plan.agents[0].model]


def test_the_last_user_message_is_routed_on_and_one_without_text_is_refused(
    provider: Scripted, one_call_router: Router, some_texts: list[str]
) -> None:
    routed = deployed(*MODELS)
    use_routing(routed, one_call_router)
    last = [{"type": "text", "text": some_texts[0]}]
    said = [*user("Hello."), {"role": "assistant", "content": "Write a haiku."}, *user(last)]
    chosen: list[RoutingDecision] = []
    use_routing(routed, one_call_router, on_decision=chosen.append)
    asyncio.run(routed.async_get_available_deployment("masrouter/auto", messages=said))
    assert chosen[0].plan.agents[0].model == picks(one_call_router, some_texts)[0]
    with pytest.raises(RoutingError, match="no text"):
        asyncio.run(routed.async_get_available_deployment("masrouter/auto", messages=[]))


def test_the_decision_is_in_the_requests_metadata_beside_the_callers_own(
    provider: Scripted, one_call_router: Router, some_texts: list[str]
) -> None:
    routed = deployed(*MODELS)
    use_routing(routed, one_call_router)
    asked = {"messages": user(some_texts[0]), "metadata": {"mine": 1}}
    asyncio.run(routed.acompletion("masrouter/auto", **asked))
    routed.completion("masrouter/auto", **asked)
    pick = picks(one_call_router, some_texts)[0]
    for metadata in provider.metadata:
        assert metadata["masrouter"]["model"] == pick
        assert metadata["mine"] == 1
    assert len(provider.metadata) == 2


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_runs_on_deployments_as_it_does_without_litellm(
    provider: Scripted, name: str
) -> None:
    plan = PLANS[name]
    run = asyncio.run(run_plan(plan, QUERY, models=deployed(*plan.models)))
    assert told(run) == told(expected(plan))
    assert run.usage.completion_tokens


def test_settings_and_failures_of_a_member_are_those_of_the_team(provider: Scripted) -> None:
    plan = PLANS["self_consistency"]
    provider.down = {"m2"}
    run = asyncio.run(run_plan(plan, QUERY, models=deployed(*plan.models), max_tokens=99))
    assert told(run) == told(expected(plan, down="m2"))
    settings = dict(provider.seen)["m1"]
    assert (settings["max_tokens"], settings["temperature"]) == (99, 0.7)
    assert next(call.error for call in run.calls if call.error).startswith("server_error: m2: ")
    with pytest.raises(PlanError, match="needs 'm3'"):
        asyncio.run(run_plan(plan, QUERY, models=deployed("m1", "m2")))


def test_a_provider_that_tells_no_usage_leaves_it_unknown(provider: Scripted) -> None:
    provider.tells_no_usage = True
    plan = PLANS["examples/plan.json"]
    run = asyncio.run(run_plan(plan, QUERY, models=deployed(*plan.models)))
    assert told(run) == told(expected(plan))
    assert run.usage == Usage(None, None, None)
