"""The Hermes plugin, against a double of what Hermes documents, and against Hermes where it is.

Documented: the provider is an instance of `agent.delegation_provider.DelegationProvider`, found by
its name in lower case; `delegation.backend` names the active one; a backend that is not registered
or not available is a tool error, and no child starts; a route is plain data in the words of the
`delegation` section; a provider refuses a task by `DelegationRouteError`. How `route_task` is given
its task is documented as plain data only, so that every form is tried.
"""

from __future__ import annotations

import abc
import importlib.util
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from tests.hosts.host_samples import MODELS, picks

from masrouter.hosts import hermes
from masrouter.router import Router
from masrouter.strict_yaml import load_strict

ROUTE_WORDS = {
    "model", "provider", "base_url", "api_key", "api_mode", "request_overrides",
    "reasoning_effort", "fallback_providers", "service_tier", "profile",
}  # fmt: skip

FORMS: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "one mapping": lambda provider, task: provider.route_task(task),
    "by keyword": lambda provider, task: provider.route_task(task=task),
    "with the settings": lambda provider, task: provider.route_task(task, {"routes": {}}),
    "after the parent": lambda provider, task: provider.route_task({"model": "gpt-4o"}, task=task),
    "spread out": lambda provider, task: provider.route_task(**task),
}

ROUTES = {
    name: {"provider": "openrouter", "model": f"lab/{name}", "reasoning_effort": "low"}
    for name in MODELS
}


class Hermes:
    """As much of Hermes as a delegation provider meets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class DelegationProvider(abc.ABC):
            @property
            @abc.abstractmethod
            def name(self) -> str: ...

            def is_available(self) -> bool:
                return True

            @abc.abstractmethod
            def route_task(self, task: dict[str, Any]) -> dict[str, Any]: ...

        class DelegationRouteError(ValueError):
            pass

        self.error = DelegationRouteError
        self.base = DelegationProvider
        self.config: Any = {"delegation": {"backend": "masrouter"}}
        self.providers: dict[str, Any] = {}
        interface = ModuleType("agent.delegation_provider")
        interface.__dict__.update(
            DelegationProvider=DelegationProvider, DelegationRouteError=DelegationRouteError
        )
        config = ModuleType("hermes_cli.config")
        config.__dict__["load_config"] = lambda: self.config
        for name, module in (
            ("agent", ModuleType("agent")),
            ("agent.delegation_provider", interface),
            ("hermes_cli", ModuleType("hermes_cli")),
            ("hermes_cli.config", config),
        ):
            monkeypatch.setitem(sys.modules, name, module)

    def register_delegation_provider(self, provider: Any) -> None:
        if not isinstance(provider, self.base):
            raise TypeError(type(provider).__name__)
        self.providers[provider.name.strip().lower()] = provider

    def configure(self, **section: Any) -> None:
        self.config["delegation"]["backends"] = {"masrouter": section}

    def delegate_task(self, form: str = "one mapping", **task: Any) -> dict[str, Any]:
        """The route that a child takes, or the tool error."""
        name = self.config["delegation"]["backend"]
        provider = self.providers.get(name)
        if provider is None or not provider.is_available():
            return {"error": f"delegation backend {name!r} is not available"}
        try:
            route = json.loads(json.dumps(FORMS[form](provider, json.loads(json.dumps(task)))))
        except self.error as error:
            return {"error": str(error)}
        assert set(route) <= ROUTE_WORDS
        return route


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Hermes:
    found = Hermes(monkeypatch)
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
def test_the_task_is_found_in_whatever_form_it_is_handed_over(installed: Hermes, form: str) -> None:
    installed.configure(model="synthetic-small", routes=ROUTES)
    task = {"goal": "Look it up.", "context": "the river", "role": "leaf"}
    assert installed.delegate_task(form, **task)["model"] == "lab/synthetic-small"
    asked = installed.delegate_task(form, **task, model="synthetic-large")
    assert asked["model"] == "lab/synthetic-large"


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
    assert installed.delegate_task(goal="a") == {
        "provider": "ollama",
        "model": "synthetic-small",
    }


def test_hermes_gets_a_route_of_its_own_that_it_may_change(installed: Hermes) -> None:
    overrides = {"extra_body": {"top_k": 1}}
    routes = {"small": {"provider": "p", "request_overrides": overrides}}
    installed.configure(model="small", routes=routes)
    provider = installed.providers["masrouter"]
    provider.route_task({"goal": "a"})["request_overrides"]["extra_body"]["top_k"] = 9
    assert provider.route_task({"goal": "a"})["request_overrides"] == overrides


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
    refused = installed.delegate_task(**task)
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


def test_a_team_is_refused_since_a_child_is_one_agent(installed: Hermes, tmp_path: Path) -> None:
    settings = tmp_path / "delegation.yaml"
    settings.write_text("plans:\n  both: {debate: [synthetic-small, synthetic-large]}\n")
    installed.configure(settings=str(settings), model="both", routes=ROUTES)
    assert "a Hermes child is one agent" in installed.delegate_task(goal="a")["error"]


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
        ({"routes": {"a": {"provider": "p", "modell": "b"}}}, "did you mean 'model'?"),
        ({"routes": {"a": {"provider": "p", "model": 3}}}, "routes.a.model: expected a name"),
        ({"routes": {"a": {"provider": "p", "api_key": "s3cret"}}}, "a key does not belong here"),
        ({"routes": ROUTES, "cost_weight": "much"}, "cost_weight: expected a number >= 0"),
        ({"routes": ROUTES, "max_cost_usd": float("nan")}, "expected plain data"),
    ],
)
def test_with_a_wrong_configuration_the_backend_is_not_available_and_the_log_says_why(
    installed: Hermes, caplog: pytest.LogCaptureFixture, section: Any, expected: str
) -> None:
    installed.config["delegation"]["backends"] = {"masrouter": section}
    with caplog.at_level(logging.WARNING, hermes.__name__):
        assert "not available" in installed.delegate_task(goal="a")["error"]
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
    installed.configure(model="synthetic-small", routes=ROUTES)

    def broken(*given: Any) -> Any:
        raise ZeroDivisionError("s3cret")

    monkeypatch.setattr(hermes, "offers_of", broken)
    refused = installed.delegate_task(goal="a")
    assert refused == {"error": "masrouter: ZeroDivisionError within masrouter"}


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


def test_the_plugin_as_a_folder_is_the_same_plugin() -> None:
    folder = Path(__file__).parents[2] / "examples/hermes/masrouter"
    manifest = load_strict((folder / "plugin.yaml").read_bytes(), "plugin.yaml").value
    assert manifest["name"] == hermes.BACKEND
    assert manifest["requires_hermes"] == f">={hermes.NEEDS}"
    found = importlib.util.spec_from_file_location("folder_plugin", folder / "__init__.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    assert module.register is hermes.register


def test_it_registers_with_the_real_hermes() -> None:
    interface = pytest.importorskip("agent.delegation_provider")
    registry = importlib.import_module("agent.delegation_registry")
    context = SimpleNamespace(register_delegation_provider=registry._registry.register)
    hermes.register(context)
    found = registry._registry.get_provider("masrouter")
    assert isinstance(found, interface.DelegationProvider)
