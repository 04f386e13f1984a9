"""The Hermes plugin, against a double of what Hermes documents, and against Hermes where it is."""

from __future__ import annotations

import abc
import importlib
import importlib.util
import inspect
import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.hosts.hermes_double import FORMS, Hermes, task_parameters
from tests.hosts.host_samples import MODELS, picks

from masrouter.hosts import hermes, hermes_routes
from masrouter.router import Router
from masrouter.strict_yaml import load_strict

EXAMPLE = Path(__file__).parents[2] / "examples/hermes"

ROUTES = {
    name: {"provider": "openrouter", "model": f"lab/{name}", "reasoning_effort": "low"}
    for name in MODELS
}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Hermes:
    found = Hermes(monkeypatch, task_parameters=task_parameters)
    hermes.register(found)
    return found


@pytest.fixture(scope="module")
def checkpoint(one_call_router: Router, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("hermes") / "router"
    one_call_router.save_pretrained(folder)
    return str(folder)


def test_each_task_runs_on_the_model_that_the_router_picks(
    installed: Hermes, checkpoint: str, one_call_router: Router, some_texts: list[str]
) -> None:
    installed.configure(checkpoint=checkpoint, routes=ROUTES)
    routes = [installed.delegate_task(goal=text) for text in some_texts]
    assert [route["model"] for route in routes] == [
        f"lab/{model}" for model in picks(one_call_router, some_texts)
    ]
    assert all(route["provider"] == "openrouter" for route in routes)


def test_the_context_of_a_task_is_routed_with_its_goal(
    installed: Hermes, checkpoint: str, some_texts: list[str]
) -> None:
    installed.configure(checkpoint=checkpoint, routes=ROUTES)
    goals = [installed.delegate_task(goal="Do this.", context=text) for text in some_texts]
    assert len({json.dumps(route) for route in goals}) > 1


@pytest.mark.parametrize("form", FORMS)
def test_the_task_and_its_model_are_found_in_whatever_form_they_are_handed_over(
    monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    double = Hermes(monkeypatch, form, task_parameters=task_parameters)
    hermes.register(double)
    double.configure(model="synthetic-small", routes=ROUTES)
    task = {"goal": "Look it up.", "context": "the river"}
    assert double.delegate_task(**task)["model"] == "lab/synthetic-small"
    asked = double.delegate_task(**task, model="synthetic-large")
    assert asked["model"] == "lab/synthetic-large"


def test_a_task_may_choose_among_the_routes_and_auto_and_sees_what_each_is_good_at(
    installed: Hermes, checkpoint: str, tmp_path: Path
) -> None:
    settings = tmp_path / "delegation.yaml"
    settings.write_text(
        "default: synthetic-small\nrefused: [synthetic-coder]\n"
        "descriptions: {synthetic-large: Proofs.}\n"
    )
    installed.configure(checkpoint=checkpoint, settings=str(settings), routes=ROUTES)
    parameter = installed.parameters()["model"]
    assert parameter["type"] == "string"
    assert parameter["enum"] == ["auto", "synthetic-small", "synthetic-medium", "synthetic-large"]
    lines = parameter["description"].splitlines()
    assert "left out: synthetic-small" in lines[0]
    assert len(lines) == 1 + len(parameter["enum"])
    assert lines[-1] == "- synthetic-large: Proofs."


@pytest.mark.parametrize("refused", ["[auto]", '["  auto "]'])
def test_auto_is_not_shown_where_it_would_be_refused(
    installed: Hermes, checkpoint: str, tmp_path: Path, refused: str
) -> None:
    settings = tmp_path / "delegation.yaml"
    settings.write_text(f"default: synthetic-small\nrefused: {refused}\n")
    installed.configure(checkpoint=checkpoint, settings=str(settings), routes=ROUTES)
    assert installed.parameters()["model"]["enum"] == list(MODELS)
    assert "refuse" in installed.delegate_task(goal="a", model="auto")["error"]
    installed.configure(model="synthetic-small", routes=ROUTES)
    assert installed.parameters()["model"]["enum"] == list(MODELS)


def test_every_model_that_is_shown_can_be_asked_for(installed: Hermes, checkpoint: str) -> None:
    installed.configure(checkpoint=checkpoint, routes=ROUTES)
    for name in installed.parameters()["model"]["enum"]:
        assert installed.delegate_task(goal="a", model=name)["provider"] == "openrouter"


def test_the_operator_can_keep_the_choice_from_tasks(installed: Hermes) -> None:
    installed.configure(model="synthetic-small", routes=ROUTES, per_task_model=False)
    assert installed.parameters() == {}
    assert "undeclared" in installed.delegate_task(goal="a", model="synthetic-large")["error"]
    told = installed.route(goal="a", model="synthetic-large")["error"]
    assert "tasks may not choose their model" in told
    assert installed.delegate_task(goal="a")["model"] == "lab/synthetic-small"


HOOKS: dict[str, dict[str, Any]] = {
    "a method": {"task_parameters": task_parameters},
    "another name": {"get_task_schema": task_parameters},
    "a method that gives nothing": {"schema_properties": lambda self: None},
    "a property": {"task_params": property(task_parameters)},
    "an abstract method": {"task_parameters": abc.abstractmethod(lambda self: {})},
    "an abstract property": {"task_params": property(abc.abstractmethod(lambda self: {}))},
}

NO_HOOKS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "the form of the set-up": {"get_setup_schema": lambda self: {}},
    "its configuration": {"config_schema": lambda self: {}},
    "two that might be it": {"task_schema": task_parameters, "task_parameters": task_parameters},
    "one that says something": {"task_parameters": lambda self: {"option": {"type": "string"}}},
    "one of another form": {"task_parameters": lambda self: []},
    "one that asks for more": {"task_parameters": lambda self, config: {}},
    "one that fails": {"task_parameters": lambda self: {}["a"]},
    "a value": {"task_parameters": {}},
}


@pytest.mark.parametrize("hook", HOOKS)
def test_the_place_for_a_tasks_parameters_is_found_whatever_its_name(
    monkeypatch: pytest.MonkeyPatch, hook: str
) -> None:
    double = Hermes(monkeypatch, **HOOKS[hook])
    hermes.register(double)
    double.configure(model="synthetic-small", routes=ROUTES)
    assert set(double.parameters()) == {"model"}
    assert double.delegate_task(goal="a", model="synthetic-large")["model"] == "lab/synthetic-large"


@pytest.mark.parametrize("hook", NO_HOOKS)
def test_where_the_place_is_not_plain_the_interface_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, hook: str
) -> None:
    double = Hermes(monkeypatch, **NO_HOOKS[hook])
    with caplog.at_level(logging.INFO, hermes.__name__):
        hermes.register(double)
    assert "no place for a task's own `model`" in caplog.text
    provider = double.providers["masrouter"]
    for name in NO_HOOKS[hook]:
        assert inspect.getattr_static(provider, name) is inspect.getattr_static(double.base, name)
    double.configure(model="synthetic-small", routes=ROUTES)
    assert double.route(goal="a")["model"] == "lab/synthetic-small"


def test_aliases_and_limits_of_the_settings_hold(
    installed: Hermes, checkpoint: str, tmp_path: Path, some_texts: list[str]
) -> None:
    settings = tmp_path / "delegation.yaml"
    settings.write_text(
        "default: quick\naliases: {quick: synthetic-small}\nrefused: [synthetic-large]\n"
    )
    installed.configure(checkpoint=checkpoint, settings=str(settings), routes=ROUTES)
    assert installed.delegate_task(goal="Look it up.")["model"] == "lab/synthetic-small"
    refused = installed.delegate_task(goal="Look it up.", model="synthetic-large")
    assert "synthetic-large" in refused["error"]
    for text in some_texts:
        route = installed.delegate_task(goal=text, model="auto")
        assert route["model"] != "lab/synthetic-large"


def test_a_changed_configuration_holds_from_the_next_task_on(installed: Hermes) -> None:
    installed.configure(model="synthetic-small", routes=ROUTES)
    assert installed.delegate_task(goal="a")["model"] == "lab/synthetic-small"
    installed.configure(model="synthetic-small", routes={"synthetic-small": {"provider": "ollama"}})
    assert installed.parameters()["model"]["enum"] == ["synthetic-small"]
    assert installed.delegate_task(goal="a") == {
        "provider": "ollama",
        "model": "synthetic-small",
    }


def test_hermes_gets_plain_data_of_its_own_that_it_may_change(installed: Hermes) -> None:
    overrides = {"extra_body": {"top_k": 1}}
    routes = {"small": {"provider": "p", "request_overrides": overrides}}
    installed.configure(model="small", routes=routes)
    provider = installed.providers["masrouter"]
    provider.route_task({"goal": "a"})["request_overrides"]["extra_body"]["top_k"] = 9
    assert provider.route_task({"goal": "a"})["request_overrides"] == overrides
    provider.task_parameters()["model"]["enum"].append("large")
    assert provider.task_parameters()["model"]["enum"] == ["small"]


def test_the_router_runs_on_the_engine_that_is_configured(
    installed: Hermes, monkeypatch: pytest.MonkeyPatch, one_call_router: Router
) -> None:
    asked = []

    def load(source: str, *, backend: str) -> Router:
        asked.append((source, backend))
        return one_call_router

    monkeypatch.setattr(hermes_routes.Router, "from_pretrained", load)
    installed.configure(checkpoint="lab/router", engine="onnx", routes=ROUTES)
    assert installed.delegate_task(goal="a")["provider"] == "openrouter"
    assert asked == [("lab/router", "onnx")]


@pytest.mark.parametrize(
    ("section", "task", "expected"),
    [
        ({"model": "synthetic-smal"}, {"goal": "a"}, "synthetic-small"),
        ({"model": "openrouter:gpt-4o"}, {"goal": "a"}, "openrouter"),
        ({}, {"goal": "a"}, "checkpoint"),
        ({"model": "synthetic-small"}, {"goal": " "}, "goal: expected a text, got str"),
        ({"model": "synthetic-small"}, {"goal": 3}, "goal: expected a text, got int"),
        ({"model": "synthetic-small"}, {"goal": "a", "context": ["b"]}, "context: expected a text"),
        ({"model": "synthetic-small"}, {"goal": "a", "model": 3}, "model: expected a name"),
        ({"model": "synthetic-small"}, {"text": "a"}, "no task with a `goal`"),
    ],
)
def test_a_task_that_cannot_be_routed_is_refused_and_never_inherits_the_parents_model(
    installed: Hermes, section: dict[str, Any], task: dict[str, Any], expected: str
) -> None:
    installed.configure(routes=ROUTES, **section)
    refused = installed.route(**task)
    assert set(refused) == {"error"}
    assert refused["error"].startswith("masrouter: ")
    assert expected in refused["error"]


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"checkpoint": "/nowhere/router"}, "/nowhere/router"),
        ({"settings": "/nowhere/s.yaml"}, "/nowhere/s.yaml: cannot be read"),
        ({"checkpoint": ["a"]}, "masrouter.checkpoint: expected a text"),
    ],
)
def test_what_is_wrong_with_the_configuration_stands_in_the_log_and_not_in_the_refusal(
    installed: Hermes, caplog: pytest.LogCaptureFixture, section: dict[str, Any], expected: str
) -> None:
    installed.configure(routes=ROUTES, **section)
    told = installed.delegate_task(goal="a")["error"]
    assert told.startswith("masrouter: its configuration")
    assert "/nowhere" not in told
    assert expected in caplog.text


def test_settings_that_cannot_be_read_take_the_choice_away_and_the_log_says_why(
    installed: Hermes, caplog: pytest.LogCaptureFixture
) -> None:
    installed.configure(routes=ROUTES, settings="/nowhere/s.yaml")
    assert installed.parameters() == {}
    assert "tasks cannot choose their model: /nowhere/s.yaml: cannot be read" in caplog.text


def test_a_team_is_refused_since_a_child_is_one_agent(installed: Hermes, tmp_path: Path) -> None:
    settings = tmp_path / "delegation.yaml"
    settings.write_text("plans:\n  both: {debate: [synthetic-small, synthetic-large]}\n")
    installed.configure(settings=str(settings), model="both", routes=ROUTES)
    assert "a Hermes child is one agent" in installed.delegate_task(goal="a")["error"]
    assert "both" not in installed.parameters()["model"]["enum"]


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        (None, "delegation.backends.masrouter: is not set"),
        ("yes", "unknown key"),
        ({}, "routes: expected at least one"),
        ({"routes": {}}, "routes: expected at least one"),
        ({"routes": ["a"]}, "routes: expected at least one"),
        ({"routes": ROUTES, "modle": "a"}, "unknown key 'modle'; did you mean 'model'?"),
        ({"routes": {"a": "b"}}, "routes.a: expected a mapping"),
        ({"routes": {"a": {"model": "b"}}}, "routes.a: expected `provider`"),
        ({"routes": {"a": {"provider": " "}}}, "routes.a.provider: expected a text"),
        ({"routes": {"a": {"provider": "p", "modell": "b"}}}, "did you mean 'model'?"),
        ({"routes": {"a": {"provider": "p", "model": 3}}}, "routes.a.model: expected a text"),
        (
            {"routes": {"a": {"provider": "p", "reasoning_effort": False}}},
            "routes.a.reasoning_effort: expected a text, got False",
        ),
        (
            {"routes": {"a": {"provider": "p", "service_tier": "cheap"}}},
            "service_tier: expected one of normal, fast, ultrafast, got 'cheap'",
        ),
        (
            {"routes": {"a": {"provider": "p", "request_overrides": "none"}}},
            "request_overrides: expected a mapping",
        ),
        (
            {"routes": {"a": {"provider": "p", "fallback_providers": "q"}}},
            "fallback_providers: expected a list",
        ),
        ({"routes": {"a": {"provider": "p", "api_key": "s3cret"}}}, "a key does not belong here"),
        ({"routes": ROUTES, "cost_weight": "much"}, "cost_weight: expected a number >= 0"),
        ({"routes": ROUTES, "max_cost_usd": float("nan")}, "expected plain data"),
        ({"routes": ROUTES, "per_task_model": "yes"}, "per_task_model: expected true or false"),
        ({"routes": ROUTES, "engine": "jax"}, "engine: expected torch or onnx or openvino"),
    ],
)
def test_with_a_wrong_configuration_the_backend_is_not_available_and_the_log_says_why(
    installed: Hermes, caplog: pytest.LogCaptureFixture, section: Any, expected: str
) -> None:
    installed.config["delegation"]["backends"] = {"masrouter": section}
    with caplog.at_level(logging.WARNING, hermes.__name__):
        assert installed.delegate_task(goal="a")["error"].endswith("'masrouter': no")
    assert installed.parameters() == {}
    assert expected in caplog.text
    assert "s3cret" not in caplog.text
    with pytest.raises(installed.error, match="masrouter: "):
        installed.providers["masrouter"].route_task({"goal": "a"})


def test_the_same_fault_of_the_configuration_is_logged_once(
    installed: Hermes, caplog: pytest.LogCaptureFixture
) -> None:
    for section in ({}, {}, {"routes": ROUTES}, {}):
        installed.configure(**section)
        installed.providers["masrouter"].is_available()
    assert len(caplog.records) == 2


def test_a_fault_of_the_plugin_itself_refuses_the_task_too(
    installed: Hermes, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed.configure(model="synthetic-small", routes=ROUTES, per_task_model=False)

    def broken(*given: Any) -> Any:
        raise ZeroDivisionError("s3cret")

    monkeypatch.setattr(hermes_routes, "offers_of", broken)
    refused = installed.delegate_task(goal="a")
    assert refused == {"error": "masrouter: ZeroDivisionError within masrouter"}


def test_nothing_of_the_provider_but_what_hermes_asks_for_is_public(installed: Hermes) -> None:
    # Where plugins run in a process of their own, every public attribute is fetched from there
    # (hermes-agent 0.22.2, hermes_cli/plugin_host_child.py).
    public = {name for name in dir(installed.providers["masrouter"]) if not name.startswith("_")}
    assert public == {"name", "display_name", "is_available", "route_task", "task_parameters"}


@pytest.mark.parametrize("lacking", ["the interface", "the context's method"])
def test_on_an_older_hermes_it_warns_once_and_does_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, lacking: str
) -> None:
    double = Hermes(monkeypatch)
    context: Any = double
    if lacking == "the interface":
        monkeypatch.setitem(sys.modules, "agent.delegation_provider", None)
    else:
        context = SimpleNamespace()
    with caplog.at_level(logging.WARNING, hermes.__name__):
        hermes.register(context)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "needs 0.22.5 or newer" in caplog.text
    assert double.providers == {}


def test_a_hermes_that_wants_more_is_told_what_the_plugin_lacks(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    double = Hermes(monkeypatch, route_batch=abc.abstractmethod(lambda self, tasks: []))
    with caplog.at_level(logging.WARNING, hermes.__name__):
        hermes.register(double)
    assert "wants more of a delegation provider (route_batch)" in caplog.text
    assert double.providers == {}
    double.configure(model="synthetic-small", routes=ROUTES)
    assert "error" in double.delegate_task(goal="a")


def test_the_plugin_as_a_folder_is_the_same_plugin() -> None:
    folder = EXAMPLE / "masrouter"
    manifest = load_strict((folder / "plugin.yaml").read_bytes(), "plugin.yaml").value
    assert manifest["name"] == hermes.BACKEND
    assert manifest["requires_hermes"] == f">={hermes.NEEDS}"
    found = importlib.util.spec_from_file_location("folder_plugin", folder / "__init__.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    assert module.register is hermes.register


def test_the_example_of_a_configuration_is_sound(installed: Hermes) -> None:
    installed.config = load_strict((EXAMPLE / "config.yaml").read_bytes(), "config.yaml").value
    assert installed.config["plugins"]["enabled"] == ["masrouter"]
    assert installed.parameters()["model"]["enum"] == ["auto", "gpt-4o-mini", "o3-mini", "gpt-4o"]
    installed.config["delegation"]["backends"]["masrouter"].pop("checkpoint")
    assert installed.delegate_task(goal="Prove it.", model="o3-mini") == {
        "provider": "openrouter",
        "model": "openai/o3-mini",
        "reasoning_effort": "medium",
    }


@pytest.mark.slow
def test_it_registers_with_the_real_hermes_and_routes_a_task_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    interface = pytest.importorskip("agent.delegation_provider")
    registry = importlib.import_module("agent.delegation_registry")
    config = importlib.import_module("hermes_cli.config")
    section = {"model": "synthetic-small", "routes": ROUTES}
    whole = {"delegation": {"backend": "masrouter", "backends": {"masrouter": section}}}
    monkeypatch.setattr(config, "load_config_readonly", lambda *given, **named: whole)
    hermes.register(SimpleNamespace(register_delegation_provider=registry.register_provider))
    provider = registry.get_provider("masrouter")
    assert isinstance(provider, interface.DelegationProvider)
    assert provider.is_available()
    wanted = list(inspect.signature(interface.DelegationProvider.route_task).parameters)[1:]
    assert "task" in wanted
    given: Mapping[str, Any] = {name: {} for name in wanted} | {"task": {"goal": "Look it up."}}
    assert provider.route_task(**given) == ROUTES["synthetic-small"]
    own = {name for name in vars(type(provider)) if not name.startswith("_")}
    declares = own - {"name", "display_name", "is_available", "route_task"}
    assert len(declares) == 1, f"the place for a task's parameters is not plain: {declares}"
