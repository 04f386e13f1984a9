"""The routes of a Hermes plugin's configuration, and which of them a task takes.

It knows nothing of Hermes' classes: `hermes` is the plugin, and says how it is configured.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from masrouter.catalog import Catalog
from masrouter.delegation.naming.names import Names
from masrouter.delegation.naming.offers import Offer, offers_of
from masrouter.delegation.naming.settings import AUTO, Settings, normal_name
from masrouter.delegation.query import task_query
from masrouter.errors import ConfigError, MasRouterError, RoutingError
from masrouter.hosts.calling import HostModel, Said
from masrouter.hosts.choosing import Chooser, RouteOptions
from masrouter.llms.chat import ChatRequest
from masrouter.loading import BACKENDS, Backend
from masrouter.router import Router
from masrouter.strict_yaml import did_you_mean

BACKEND = "masrouter"
"""The value of `delegation.backend`, and the key under `delegation.backends`."""

WHERE = f"delegation.backends.{BACKEND}"

MODEL = "model"
"""The parameter that `delegate_task` gets for each task."""

ROUTE_FIELDS = (
    "provider", "model", "base_url", "api_mode", "request_overrides", "reasoning_effort",
    "fallback_providers", "service_tier",
)  # fmt: skip
"""What a route may say. Hermes knows `api_key` too, which has no place in a list of models; to a
`base_url` without `provider` it sends the parent's key, so any other endpoint wants a provider."""

SERVICE_TIERS = ("normal", "fast", "ultrafast")
"""What Hermes takes as `service_tier`."""

_TEXTS = ("provider", "model", "base_url", "api_mode", "reasoning_effort")
_OPTIONS = (
    "checkpoint", "engine", "model", "per_task_model", "settings", "routes", "cost_weight",
    "max_cost_usd",
)  # fmt: skip

_logger = logging.getLogger(__name__)

Route = dict[str, Any]
ReadConfig = Callable[[], Mapping[str, Any] | None]
"""Gives the section `delegation.backends.masrouter` as it is now; None where there is none."""


class TaskRouter:
    """Finds the route of a task by the configuration; follows it where it changes.

    Safe to use from several threads, one at a time.
    """

    def __init__(self, read_config: ReadConfig) -> None:
        self._read_config = read_config
        self._lock = threading.Lock()
        self._backend: tuple[str, _Backend] | None = None
        self._parameters: tuple[str, dict[str, Any]] | None = None

    def problem(self) -> str | None:
        """Why no task can be routed; None where nothing is wrong. Loads no router."""
        try:
            _options(self._read_config())
        except MasRouterError as error:
            return str(error)
        return None

    def parameters(self) -> dict[str, Any]:
        """JSON schemas of what a task may carry besides Hermes' own parameters, by name.

        That is `model` with the names to choose from and what each is good at; nothing where
        `per_task_model` is off. Loads no router. Raises MasRouterError.
        """
        with self._lock:
            options = _options(self._read_config())
            text = json.dumps(options, sort_keys=True)
            if self._parameters is None or self._parameters[0] != text:
                self._parameters = text, _parameters(options)
            return _copy(self._parameters[1])

    def route(self, goal: str, context: str = "", asked: str | None = None) -> Route:
        """The route of one task, in Hermes' words. Raises MasRouterError, which refuses the task.

        asked: the model that the task itself names.
        """
        with self._lock:
            options = _options(self._read_config())
            text = json.dumps(options, sort_keys=True)
            if self._backend is None or self._backend[0] != text:
                self._backend = text, _Backend.of(options)
            return self._backend[1].route(goal, context, asked)


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
    per_task: bool
    """Whether a task may name its model."""

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> _Backend:
        settings = _settings(options)
        router = _router(options)
        offers = _offers(options, settings, router)
        chooser = None
        if router is not None:
            how = RouteOptions()
            if "cost_weight" in options:
                how["cost_weight"] = options["cost_weight"]
            if "max_cost_usd" in options:
                how["max_cost_usd"] = options["max_cost_usd"]
            chooser = Chooser(router, None, how)
        return cls(
            routes=_routes(options),
            model=_default(options, settings),
            names=Names(settings, offers, has_router=router is not None),
            chooser=chooser,
            choosable=tuple(offer.id for offer in _allowed(offers)),
            per_task=options["per_task_model"],
        )

    def route(self, goal: str, context: str, asked: str | None) -> Route:
        if asked is not None and not self.per_task:
            raise RoutingError(
                f"{asked!r} was asked for, and tasks may not choose their model here; leave "
                f"`{MODEL}` out"
            )
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
        if plan is None or len(plan.agents) != 1 or plan.agents[0].model not in self.routes:
            raise RoutingError(
                f"{target.asked!r} is no single model, and a Hermes child is one agent; name one "
                f"of {', '.join(self.routes)}"
            )
        return _copy(self.routes[plan.agents[0].model])


def _parameters(options: Mapping[str, Any]) -> dict[str, Any]:
    if not options["per_task_model"]:
        return {}
    settings = _settings(options)
    choices = {offer.id: offer.description for offer in _allowed(_offers(options, settings, None))}
    if options.get("checkpoint") is not None and AUTO not in map(normal_name, settings.refused):
        choices = {AUTO: "The trained router chooses by the task.", **choices}
    if not choices:
        return {}
    lines = [f"- {name}: {text}" if text else f"- {name}" for name, text in choices.items()]
    about = f"The model that works on this task; left out: {_default(options, settings)}."
    return {
        MODEL: {
            "type": "string",
            "enum": list(choices),
            "description": "\n".join((about, *lines)),
        }
    }


def _offers(
    options: Mapping[str, Any], settings: Settings, router: Router | None
) -> tuple[Offer, ...]:
    catalog = Catalog.default()
    llm = HostModel(tuple(_routes(options)), _never_asked, catalog=catalog)
    return offers_of(llm, settings, catalog, (), router)


def _allowed(offers: Sequence[Offer]) -> list[Offer]:
    return [offer for offer in offers if offer.kind == "model" and offer.refused is None]


def _default(options: Mapping[str, Any], settings: Settings) -> str:
    return _text(options, "model") if "model" in options else settings.default or AUTO


def _options(section: Mapping[str, Any] | None) -> dict[str, Any]:
    """The section with its keys and routes checked; raises ConfigError."""
    if not isinstance(section, Mapping):
        raise ConfigError(
            f"{WHERE}: is not set; name at least `routes`, and a `checkpoint` for `auto`"
        )
    for key in section:
        if key not in _OPTIONS:
            near = did_you_mean(str(key), _OPTIONS)
            raise ConfigError(f"{WHERE}: unknown key {str(key)!r}{near}")
    try:
        options = _copy(dict(section))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{WHERE}: expected plain data: {error}") from None
    options = {key: value for key, value in options.items() if value is not None}
    _routes(options)
    for key in ("cost_weight", "max_cost_usd"):
        value = options.get(key, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise ConfigError(f"{WHERE}.{key}: expected a number >= 0, got {value!r}")
    if not isinstance(options.setdefault("per_task_model", True), bool):
        value = options["per_task_model"]
        raise ConfigError(f"{WHERE}.per_task_model: expected true or false, got {value!r:.80}")
    if options.setdefault("engine", "torch") not in BACKENDS:
        raise ConfigError(
            f"{WHERE}.engine: expected {' or '.join(BACKENDS)}, got {options['engine']!r:.80}"
        )
    return options


def _routes(options: Mapping[str, Any]) -> dict[str, Route]:
    routes = options.get("routes")
    if not isinstance(routes, Mapping) or not routes:
        raise ConfigError(
            f"{WHERE}.routes: expected at least one `model: {{provider: ...}}`, got "
            f"{'nothing' if not routes else type(routes).__name__}"
        )
    return {str(name): _route(str(name), route) for name, route in routes.items()}


def _route(name: str, route: object) -> Route:
    where = f"{WHERE}.routes.{name}"
    if not isinstance(route, Mapping):
        raise ConfigError(f"{where}: expected a mapping with `provider`, got {route!r:.80}")
    for key in route:
        if key == "api_key":
            raise ConfigError(f"{where}: a key does not belong here; give it to Hermes' provider")
        if key not in ROUTE_FIELDS:
            near = did_you_mean(str(key), ROUTE_FIELDS)
            raise ConfigError(f"{where}: unknown key {str(key)!r}{near}")
    for key in _TEXTS:
        # YAML reads `off` and `no` as false, which Hermes would take for no effort being named.
        if key in route and not _is_text(route[key]):
            raise ConfigError(f"{where}.{key}: expected a text, got {route[key]!r:.80}")
    # Hermes would take either for not being there.
    if not isinstance(route.get("request_overrides", {}), Mapping):
        value = route["request_overrides"]
        raise ConfigError(f"{where}.request_overrides: expected a mapping, got {value!r:.80}")
    if not isinstance(route.get("fallback_providers", []), list):
        value = route["fallback_providers"]
        raise ConfigError(f"{where}.fallback_providers: expected a list, got {value!r:.80}")
    if "provider" not in route and "base_url" not in route:
        # Without either, Hermes would call the parent's provider.
        raise ConfigError(f"{where}: expected `provider`, as Hermes names it, or `base_url`")
    if route.get("service_tier", "normal") not in SERVICE_TIERS:
        raise ConfigError(
            f"{where}.service_tier: expected one of {', '.join(SERVICE_TIERS)}, got "
            f"{route['service_tier']!r:.80}"
        )
    return {"model": name, **route}


def _settings(options: Mapping[str, Any]) -> Settings:
    if "settings" not in options:
        return Settings()
    path = Path(_text(options, "settings")).expanduser()
    settings = Settings.load(path)
    if settings.unlisted:
        raise ConfigError(f"{path}: unlisted: every model needs a route in {WHERE}.routes here")
    return settings


def _router(options: Mapping[str, Any]) -> Router | None:
    if "checkpoint" not in options:
        return None
    name = _text(options, "checkpoint")
    source = str(Path(name).expanduser()) if name.startswith("~") else name
    return Router.from_pretrained(source, backend=cast(Backend, options["engine"]))


def _text(options: Mapping[str, Any], key: str) -> str:
    value = options[key]
    if not _is_text(value):
        raise ConfigError(f"{WHERE}.{key}: expected a text, got {value!r:.80}")
    return str(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _copy(data: dict[str, Any]) -> dict[str, Any]:
    """Hermes may change what it is given."""
    copied: dict[str, Any] = json.loads(json.dumps(data, allow_nan=False))
    return copied


async def _never_asked(request: ChatRequest) -> Said:
    raise ConfigError(f"{request.model}: Hermes calls the models, not masrouter")
