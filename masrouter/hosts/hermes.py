"""Hermes Agent: a delegation provider that asks masrouter which model each `delegate_task` runs on.

Hermes 0.22.5 and newer let a plugin decide the route of every delegated task: `register(ctx)` calls
`ctx.register_delegation_provider`, and the provider's `route_task` gives back a dict in the words
of Hermes' own `delegation` section (`provider`, `model`, ...), which Hermes resolves to credentials
and runs. An error here refuses that task: no child starts, and none falls back to the parent's
model. On an older Hermes `register` logs one warning and does nothing.

It is found by the entry point group `hermes_agent.plugins` where masrouter is installed beside
Hermes, or as the folder `examples/hermes/masrouter` in `~/.hermes/plugins/`. In `config.yaml`:

    plugins: {enabled: [masrouter]}
    delegation:
      backend: masrouter
      backends:
        masrouter:
          checkpoint: ~/checkpoints/mine        # the router that `auto` asks
          model: auto                           # or a model, alias or tier
          settings: ~/delegation.yaml           # aliases, tiers, ...: see delegation.Settings
          cost_weight: 20                       # or max_cost_usd
          routes:                               # the models there are, as the router names them
            gpt-4o-mini: {provider: openrouter, model: openai/gpt-4o-mini}
            claude-3-5-haiku: {provider: anthropic, reasoning_effort: low}

A child is one agent with Hermes' own prompts and tools, so of a plan only the model of a single
agent is used. Keys stay with Hermes; money is counted there too. Where a task carries a `model`,
that one holds for it. What Hermes hands to `route_task` is plain data; the task is taken to be the
mapping in it that has a `goal`, in whatever place or under whatever name it comes.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from masrouter.catalog import Catalog
from masrouter.delegation.naming.names import Names
from masrouter.delegation.naming.offers import offers_of
from masrouter.delegation.naming.settings import AUTO, Settings
from masrouter.delegation.query import task_query
from masrouter.delegation.tasks import DelegationError
from masrouter.errors import ConfigError, MasRouterError, RoutingError
from masrouter.hosts.calling import HostModel, Said
from masrouter.hosts.choosing import Chooser, RouteOptions
from masrouter.llms.chat import ChatRequest
from masrouter.router import Router
from masrouter.strict_yaml import did_you_mean

BACKEND = "masrouter"
"""The value of `delegation.backend`, and the key under `delegation.backends`."""

NEEDS = "0.22.5"
"""The first Hermes with pluggable delegation providers."""

ROUTE_FIELDS = (
    "provider", "model", "base_url", "api_mode", "request_overrides", "reasoning_effort",
    "fallback_providers", "service_tier",
)  # fmt: skip
"""What a route may say. Hermes knows `api_key` too, which has no place in a list of models."""

_OPTIONS = ("checkpoint", "model", "settings", "routes", "cost_weight", "max_cost_usd")
_WHERE = f"delegation.backends.{BACKEND}"

_logger = logging.getLogger(__name__)

Route = dict[str, Any]
ReadConfig = Callable[[], Mapping[str, Any] | None]
"""Gives the section `delegation.backends.masrouter` as it is now; None where there is none."""


def register(ctx: Any) -> None:
    """Hermes' entry into the plugin."""
    try:
        from agent.delegation_provider import DelegationProvider, DelegationRouteError

        add = ctx.register_delegation_provider
    except (ImportError, AttributeError) as error:
        _logger.warning(
            "masrouter: this Hermes has no delegation providers (%s); it needs %s or newer, and "
            "until then tasks are delegated without masrouter",
            error,
            NEEDS,
        )
        return
    add(_provider(DelegationProvider, DelegationRouteError, TaskRouter(_hermes_config)))


class TaskRouter:
    """Finds the route of a task by the configuration; follows it where it changes.

    Safe to use from several threads, one at a time.
    """

    def __init__(self, read_config: ReadConfig) -> None:
        self._read_config = read_config
        self._lock = threading.Lock()
        self._backend: _Backend | None = None
        self._built_from = ""

    def problem(self) -> str | None:
        """Why no task can be routed; None where nothing is wrong. Loads no router."""
        try:
            _options(self._read_config())
        except MasRouterError as error:
            return str(error)
        return None

    def route(self, goal: str, context: str = "", asked: str | None = None) -> Route:
        """The route of one task, in Hermes' words. Raises MasRouterError, which refuses the task.

        asked: the model that the task itself names.
        """
        with self._lock:
            backend = self._current()
            return backend.route(goal, context, asked)

    def _current(self) -> _Backend:
        found = _options(self._read_config())
        text = json.dumps(found, sort_keys=True)
        if self._backend is None or text != self._built_from:
            self._backend, self._built_from = _Backend.of(found), text
        return self._backend


@dataclass(frozen=True, slots=True)
class _Backend:
    """A configuration, read and checked."""

    routes: Mapping[str, Route]
    model: str
    """For tasks that name none."""
    names: Names
    chooser: Chooser | None
    choosable: tuple[str, ...]
    """Models that `auto` may take: those with a route that the settings allow."""

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> _Backend:
        routes = _routes(options)
        settings = _settings(options)
        router = _router(options)
        catalog = Catalog.default()
        llm = HostModel(tuple(routes), _never_asked, catalog=catalog)
        offers = offers_of(llm, settings, catalog, (), router)
        chooser = None
        if router is not None:
            how = RouteOptions()
            if "cost_weight" in options:
                how["cost_weight"] = options["cost_weight"]
            if "max_cost_usd" in options:
                how["max_cost_usd"] = options["max_cost_usd"]
            chooser = Chooser(router, None, how)
        model = settings.default or AUTO
        if options.get("model") is not None:
            model = _text(options, "model")
        names = Names(settings, offers, has_router=router is not None)
        refused = {offer.id for offer in offers if offer.refused is not None}
        choosable = tuple(name for name in routes if name not in refused)
        return cls(routes, model, names, chooser, choosable)

    def route(self, goal: str, context: str, asked: str | None) -> Route:
        target = self.names.resolve(task=asked, call=self.model, parent=None, budgeted=False)
        if target.kind == "auto":
            assert self.chooser is not None  # `names` refuses `auto` without a router
            choice = self.chooser.choose(task_query(goal, context), among=self.choosable)
            decision = choice.decision
            _logger.info(
                "masrouter: %s, expected score %.2f%s",
                choice.model,
                decision.expected_score,
                " (fallback: too little evidence)" if decision.fallback else "",
            )
            return _copy(self.routes[choice.model])
        plan = target.plan
        if plan is None or len(plan.agents) != 1:
            raise RoutingError(
                f"{target.asked!r} is the team {plan}, and a Hermes child is one agent; name a "
                f"model: {', '.join(self.routes)}"
            )
        return _copy(self.routes[plan.agents[0].model])


def _provider(base: Any, refusal: Any, router: TaskRouter) -> Any:
    """The provider itself: a class of its own in every Hermes, since its base is Hermes'."""

    class MasRouterDelegation(base):  # type: ignore[misc]
        """Routes each task by masrouter."""

        name = BACKEND
        display_name = "masrouter"
        told: str | None = None

        def is_available(self) -> bool:
            """Whether the configuration is sound; the log says what is not."""
            problem = router.problem()
            if problem is not None and problem != self.told:
                _logger.warning("masrouter: %s", problem)
            self.told = problem  # it is asked often, and says it once
            return problem is None

        def route_task(self, *given: Any, **named: Any) -> Route:
            """The route of the task, found in what Hermes hands over, all of it plain data."""
            try:
                return router.route(*_task_in(given, named))
            except (DelegationError, RoutingError) as error:
                raise refusal(f"masrouter: {error}") from error
            except MasRouterError as error:
                # The parent's model reads the refusal, and has no use for paths of this machine.
                _logger.warning("masrouter: a task could not be routed: %s", error)
                raise refusal(
                    f"masrouter: its configuration ({_WHERE}) is at fault; the log says why"
                ) from error
            except Exception as error:
                _logger.exception("masrouter: a task could not be routed")
                raise refusal(f"masrouter: {type(error).__name__} within masrouter") from error

    return MasRouterDelegation()


def _task_in(given: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[str, str, str | None]:
    """Goal, context and model of the task, which is the mapping that has a goal."""
    for part in (*given, *named.values(), named):
        if isinstance(part, Mapping) and "goal" in part:
            goal, context, model = part["goal"], part.get("context") or "", part.get("model")
            if not isinstance(goal, str) or not goal.strip():
                raise RoutingError(f"goal: expected a text, got {type(goal).__name__}")
            if not isinstance(context, str):
                raise RoutingError(f"context: expected a text, got {type(context).__name__}")
            if model is not None and not isinstance(model, str):
                raise RoutingError(f"model: expected a name, got {type(model).__name__}")
            return goal, context, model or None
    raise RoutingError("Hermes handed over no task with a `goal`, so that nothing can be routed")


def _hermes_config() -> Mapping[str, Any] | None:
    """The plugin's section of Hermes' own configuration."""
    from hermes_cli import config

    found: Any = getattr(config, "load_config_readonly", config.load_config)()
    for key in ("delegation", "backends", BACKEND):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if found is None or isinstance(found, Mapping) else {"": found}


def _options(section: Mapping[str, Any] | None) -> dict[str, Any]:
    """The section with its keys and routes checked; raises ConfigError."""
    if not isinstance(section, Mapping):
        raise ConfigError(
            f"{_WHERE}: is not set; name at least `routes`, and a `checkpoint` for `auto`"
        )
    for key in section:
        if key not in _OPTIONS:
            near = did_you_mean(str(key), _OPTIONS)
            raise ConfigError(f"{_WHERE}: unknown key {str(key)!r}{near}")
    try:
        options = _copy(dict(section))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{_WHERE}: expected plain data: {error}") from None
    _routes(options)
    for key in ("cost_weight", "max_cost_usd"):
        value = options.get(key)
        if value is None:
            options.pop(key, None)
        elif isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise ConfigError(f"{_WHERE}.{key}: expected a number >= 0, got {value!r}")
    return options


def _routes(options: Mapping[str, Any]) -> dict[str, Route]:
    routes = options.get("routes")
    if not isinstance(routes, Mapping) or not routes:
        raise ConfigError(
            f"{_WHERE}.routes: expected at least one `model: {{provider: ...}}`, got "
            f"{'nothing' if not routes else type(routes).__name__}"
        )
    return {str(name): _route(str(name), route) for name, route in routes.items()}


def _route(name: str, route: object) -> Route:
    where = f"{_WHERE}.routes.{name}"
    if not isinstance(route, Mapping):
        raise ConfigError(f"{where}: expected a mapping with `provider`, got {route!r:.80}")
    for key in route:
        if key == "api_key":
            raise ConfigError(f"{where}: a key does not belong here; give it to Hermes' provider")
        if key not in ROUTE_FIELDS:
            near = did_you_mean(str(key), ROUTE_FIELDS)
            raise ConfigError(f"{where}: unknown key {str(key)!r}{near}")
    if not any(_is_text(route.get(key)) for key in ("provider", "base_url")):
        # Without either, Hermes would call the parent's provider.
        raise ConfigError(f"{where}: expected `provider`, as Hermes names it, or `base_url`")
    if "model" in route and not _is_text(route["model"]):
        raise ConfigError(f"{where}.model: expected a name, got {route['model']!r:.80}")
    return {"model": name, **route}


def _settings(options: Mapping[str, Any]) -> Settings:
    if options.get("settings") is None:
        return Settings()
    path = Path(_text(options, "settings")).expanduser()
    settings = Settings.load(path)
    if settings.unlisted:
        raise ConfigError(f"{path}: unlisted: every model needs a route in {_WHERE}.routes here")
    return settings


def _router(options: Mapping[str, Any]) -> Router | None:
    if options.get("checkpoint") is None:
        return None
    name = _text(options, "checkpoint")
    return Router.from_pretrained(str(Path(name).expanduser()) if name.startswith("~") else name)


def _text(options: Mapping[str, Any], key: str) -> str:
    value = options[key]
    if not _is_text(value):
        raise ConfigError(f"{_WHERE}.{key}: expected a text, got {value!r:.80}")
    return str(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _copy(data: dict[str, Any]) -> dict[str, Any]:
    """Hermes may change what it is given."""
    copied: dict[str, Any] = json.loads(json.dumps(data, allow_nan=False))
    return copied


async def _never_asked(request: ChatRequest) -> Said:
    raise ConfigError(f"{request.model}: Hermes calls the models, not masrouter")
