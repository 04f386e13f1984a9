"""What a delegation provider meets in Hermes Agent, as far as Hermes' public texts say it.

No release with delegation providers could be installed. What is known is marked below by the text
that says it:

    guide     docs/developer-guide/delegation-provider-plugin
    api       docs/developer-guide/plugins/public-api
    abc       agent/delegation_provider.py, the head of its docstring
    registry  agent/delegation_registry.py, docstring and imports
    backends  agent/delegation_backends.py, docstring
    engine    agent/provider_registry.py, all of it

Which arguments `route_task` gets, and which method declares a task's own parameters, is in none of
them: for these the double has many forms.
"""

from __future__ import annotations

import abc
import json
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import pytest

# abc, guide: shaped as the `delegation` section is, or a profile.
ROUTE_WORDS = {
    "model", "provider", "base_url", "api_key", "api_mode", "request_overrides",
    "reasoning_effort", "fallback_providers", "service_tier", "profile",
}  # fmt: skip

# What `delegate_task` has of its own for each task (hermes-agent 0.22.2, tools/delegate_tool.py).
OWN_PARAMETERS = {"goal", "context", "output_schema", "images", "group", "role"}

PARENT = {"provider": "openrouter", "model": "synthetic-medium"}


class Form(NamedTuple):
    """A way to hand a task over: how Hermes declares it, and how it calls."""

    declared: Callable[..., Any]
    call: Callable[[Any, dict[str, Any]], Any]


def _apart(task: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Hermes' own parameters of a task, and those that the provider has declared."""
    own = {name: value for name, value in task.items() if name in OWN_PARAMETERS}
    return own, {name: value for name, value in task.items() if name not in own}


FORMS: dict[str, Form] = {
    "one mapping": Form(lambda self, task: None, lambda p, task: p.route_task(task)),
    "by keyword": Form(lambda self, *, task: None, lambda p, task: p.route_task(task=task)),
    "behind a number": Form(lambda self, index, task: None, lambda p, t: p.route_task(0, t)),
    "before the parent's route": Form(
        lambda self, task, parent: None, lambda p, task: p.route_task(task, PARENT)
    ),
    "behind the parent's route": Form(
        lambda self, parent, *, task: None, lambda p, task: p.route_task(PARENT, task=task)
    ),
    "with the settings": Form(
        lambda self, task, settings: None, lambda p, task: p.route_task(task, {"routes": {}})
    ),
    "with its parameters apart": Form(
        lambda self, task, params: None, lambda p, task: p.route_task(*_apart(task))
    ),
    "spread out": Form(
        lambda self, goal, context, parameters, parent: None,
        lambda p, t: p.route_task(t["goal"], t["context"], _apart(t)[1], PARENT),
    ),
    "spread out as anything": Form(
        lambda self, **words: None, lambda p, task: p.route_task(**task)
    ),
    "otherwise than declared": Form(lambda self: None, lambda p, task: p.route_task(task)),
}


class Hermes:
    """As much of Hermes as a delegation provider meets.

    members: of the interface, besides what is documented.
    """

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        form: str = "one mapping",
        **members: Any,
    ) -> None:
        # engine: every provider interface has an abstract property `name`, its key.
        @property  # type: ignore[misc]
        @abc.abstractmethod
        def name(self: Any) -> str:
            raise NotImplementedError

        documented = {
            "name": name,
            # guide: a backend may report itself unavailable. engine: `is_available()`.
            "is_available": lambda self: True,
            # abc: `DelegationProvider.route_task` returns a dict.
            "route_task": abc.abstractmethod(FORMS[form].declared),
        }
        # registry: imports both names from this module. api: all of it is public.
        self.base = abc.ABCMeta("DelegationProvider", (), {**documented, **members})
        self.error = type("DelegationRouteError", (ValueError,), {})
        self.form = FORMS[form]
        self.members = members
        self.providers: dict[str, Any] = {}
        self.config: Any = {"delegation": {"backend": "masrouter"}}
        interface = ModuleType("agent.delegation_provider")
        interface.__dict__.update(DelegationProvider=self.base, DelegationRouteError=self.error)
        config = ModuleType("hermes_cli.config")
        config.__dict__["load_config_readonly"] = lambda: self.config  # engine: reads it by this
        config.__dict__["load_config"] = lambda: self.config
        for module, found in (
            ("agent", ModuleType("agent")),
            ("agent.delegation_provider", interface),
            ("hermes_cli", ModuleType("hermes_cli")),
            ("hermes_cli.config", config),
        ):
            monkeypatch.setitem(sys.modules, module, found)

    def register_delegation_provider(self, provider: Any) -> None:
        # engine, `register`: an instance of the interface, under its name in lower case (registry).
        if not isinstance(provider, self.base):
            raise TypeError(f"expected a DelegationProvider, got {type(provider).__name__}")
        if not isinstance(provider.name, str) or not provider.name.strip():
            raise ValueError("name must be a non-empty string")
        self.providers[provider.name.strip().lower()] = provider

    def configure(self, **section: Any) -> None:
        # guide: a provider's own settings live under `delegation.backends.<backend name>`.
        self.config["delegation"]["backends"] = {"masrouter": section}

    def active(self) -> Any:
        # guide: `delegation.backend`; not installed or not available fails closed.
        provider = self.providers.get(self.config["delegation"]["backend"])
        return provider if provider is not None and self._available(provider) else None

    def _available(self, provider: Any) -> bool:
        # engine, `is_available_safe`: one that raises is not available.
        try:
            return bool(provider.is_available())
        except Exception:
            return False

    def parameters(self) -> dict[str, Any]:
        """What `delegate_task` shows for a task besides its own parameters."""
        # registry: absent where the backend is not available.
        provider = self.active()
        found: dict[str, Any] = {}
        for member in self.members if provider is not None else ():
            declared = getattr(provider, member)
            declared = declared() if callable(declared) else declared
            found |= json.loads(json.dumps(declared or {}))
        return found

    def delegate_task(self, **task: Any) -> dict[str, Any]:
        """The route that a child takes, or the tool error."""
        provider = self.active()
        if provider is None:
            return {"error": f"delegation backend {self.config['delegation']['backend']!r}: no"}
        # backends: parameters that the session's backend does not declare are refused.
        undeclared = set(task) - OWN_PARAMETERS - set(self.parameters())
        if undeclared:
            return {"error": f"undeclared: {', '.join(sorted(undeclared))}"}
        return self.route(**task)

    def route(self, **task: Any) -> dict[str, Any]:
        # abc: everything that crosses is plain JSON data.
        provider = self.providers["masrouter"]
        try:
            route = json.loads(json.dumps(self.form.call(provider, json.loads(json.dumps(task)))))
        except self.error as error:
            return {"error": str(error)}
        assert set(route) <= ROUTE_WORDS
        assert route  # abc: an empty route would be the parent's
        return route


def task_parameters(self: Any) -> dict[str, Any]:
    """The double's own name for what declares a task's parameters."""
    return {}
