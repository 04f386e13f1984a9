"""Which of a host's models a text is given; and frameworks that are not there."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from tests.hosts.host_samples import MODELS, PLANS, picks

from masrouter.errors import ConfigError, ConstraintError, RoutingError
from masrouter.hosts.choosing import Chooser
from masrouter.router import Router
from masrouter.types import RoutingDecision

HOSTS = {
    "langchain": ("langchain", "langchain"),
    "langgraph": ("langgraph", "langchain"),
    "openai_agents": ("agents", "openai-agents"),
    "pydantic_ai": ("pydantic_ai", "pydantic-ai"),
    "smolagents": ("smolagents", "smolagents"),
    "ag2": ("ag2", "ag2"),
    "litellm": ("litellm", "litellm"),
}
"""Each host's framework, and the extra that installs it."""


def test_the_choice_is_the_routers_among_plans_of_one_call(
    one_call_router: Router, some_texts: list[str]
) -> None:
    told: list[RoutingDecision] = []
    chooser = Chooser(one_call_router, MODELS, {}, on_decision=told.append)
    chosen = [chooser.choose(text) for text in some_texts]
    assert [choice.model for choice in chosen] == picks(one_call_router, some_texts)
    assert [choice.decision for choice in chosen] == told
    assert {decision.plan.topology for decision in told} <= {"io", "cot"}
    assert asyncio.run(chooser.achoose(some_texts[0])) == chosen[0]


def test_options_are_kept_to(one_call_router: Router, some_texts: list[str]) -> None:
    dear = Chooser(one_call_router, MODELS, {"willingness_to_pay": 0.001, "topologies": ["io"]})
    for text in some_texts:
        decision = dear.choose(text).decision
        assert (decision.cost_weight, decision.plan.topology) == (1000.0, "io")
    with pytest.raises(ConstraintError, match="max_cost_usd"):
        Chooser(one_call_router, MODELS, {"max_cost_usd": 1e-9}).choose(some_texts[0])


def test_only_what_is_there_is_chosen(one_call_router: Router, some_texts: list[str]) -> None:
    everything = Chooser(one_call_router, None, {})
    assert set(everything.names) == set(MODELS)
    for text in some_texts:
        among = ("synthetic-small", "gpt-9")
        assert everything.choose(text, among=among).model == "synthetic-small"
    with pytest.raises(RoutingError, match=r"none of .*synthetic-small.* is available here"):
        everything.choose("Hello.", among=["gpt-9"])


def test_what_goes_with_a_response_is_json_without_the_text(
    one_call_router: Router, some_texts: list[str]
) -> None:
    choice = Chooser(one_call_router, MODELS, {}).choose(some_texts[0])
    written = json.dumps(choice.as_metadata(), allow_nan=False)
    assert some_texts[0] not in written
    read = json.loads(written)
    assert read["model"] == read["plan"]["agents"][0]["model"] == choice.model
    assert read["score_interval"][0] <= read["expected_score"] <= read["score_interval"][1]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "models: expected at least one model"),
        (["gpt-9", "synthetic-small"], "no plan that makes one call of 'gpt-9'"),
    ],
)
def test_models_that_cannot_be_chosen_are_refused(
    one_call_router: Router, names: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Chooser(one_call_router, names, {})


@pytest.mark.parametrize("topologies", [["io", "debate"], "io"])
def test_topologies_that_no_single_call_has_are_refused(
    one_call_router: Router, topologies: Any
) -> None:
    with pytest.raises(ConfigError, match="topologies: this router has no plan of one agent with"):
        Chooser(one_call_router, None, {"topologies": topologies})


def test_a_router_of_teams_alone_cannot_choose_a_model() -> None:
    teams: Any = SimpleNamespace(plans=(PLANS["debate"], PLANS["panel"]))
    with pytest.raises(ConfigError, match="no plan of one agent with the topology io or cot"):
        Chooser(teams, None, {})


@pytest.mark.parametrize("text", ["", " \n"])
def test_nothing_to_read_is_nothing_to_route_on(one_call_router: Router, text: str) -> None:
    with pytest.raises(RoutingError, match="the last user message holds no text"):
        Chooser(one_call_router, MODELS, {}).choose(text)


@pytest.mark.parametrize("host", HOSTS)
def test_a_framework_that_is_not_installed_is_named_with_its_extra(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    framework, extra = HOSTS[host]
    for name in [name for name in sys.modules if name.split(".")[0] == framework]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, framework, None)
    monkeypatch.delitem(sys.modules, f"masrouter.hosts.{host}", raising=False)
    with pytest.raises(ConfigError, match=rf"{framework}.* pip install 'masrouter\[{extra}\]'"):
        importlib.import_module(f"masrouter.hosts.{host}")
