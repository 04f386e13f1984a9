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
          engine: torch                         # or onnx, openvino: see Router.from_pretrained
          model: auto                           # or a model, alias or tier
          per_task_model: true                  # whether the parent may choose a task's model
          settings: ~/delegation.yaml           # aliases, tiers, ...: see delegation.Settings
          cost_weight: 20                       # or max_cost_usd
          routes:                               # the models there are, as the router names them
            gpt-4o-mini: {provider: openrouter, model: openai/gpt-4o-mini}
            claude-3-5-haiku: {provider: anthropic, reasoning_effort: low}

A child is one agent with Hermes' own prompts and tools, so of a plan only the model of a single
agent is used. Keys stay with Hermes; money is counted there too. A changed configuration holds from
the next task on; Hermes shows a changed list of models to the next session.

A provider may give `delegate_task` parameters of its own: with `per_task_model` that is `model`, an
enum of `auto` and the routes, which holds for the task that carries it. Hermes' public texts name
neither the method that declares such parameters nor the arguments of `route_task`. So the method is
taken to be the one of the interface that speaks of parameters or a schema and gives none by itself,
and is left alone where that is not plain; and the task is taken to be what has a `goal`, in
whatever place or under whatever name it comes.
"""

from __future__ import annotations

import abc
import inspect
import logging
from collections.abc import Mapping
from typing import Any

from masrouter.delegation.tasks import DelegationError
from masrouter.errors import MasRouterError, RoutingError
from masrouter.hosts.hermes_routes import BACKEND, MODEL, WHERE, Route, TaskRouter

NEEDS = "0.22.5"
"""The first Hermes with pluggable delegation providers."""

_KNOWN = ("name", "display_name", "is_available", "route_task", "get_setup_schema")
"""What the interface has besides; the last is the form that Hermes' own set-up shows."""

_SPEAKS_OF = ("param", "schema", "propert")
_SPEAKS_OF_OTHERS = ("setup", "config", "setting")

_logger = logging.getLogger(__name__)


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
    provider = _provider(DelegationProvider, DelegationRouteError, TaskRouter(_hermes_config))
    if lacking := sorted(getattr(provider, "__abstractmethods__", ())):
        _logger.warning(
            "masrouter: this Hermes wants more of a delegation provider (%s); update masrouter, "
            "and until then `delegation.backend: %s` is refused",
            ", ".join(lacking),
            BACKEND,
        )
        return
    add(provider())


def _provider(base: Any, refusal: Any, router: TaskRouter) -> Any:
    """The provider's class: one of its own in every Hermes, since its base is Hermes'."""

    class MasRouterDelegation(base):  # type: ignore[misc]
        """Routes each task by masrouter."""

        name = BACKEND
        display_name = "masrouter"
        _told: str | None = None

        def is_available(self) -> bool:
            """Whether the configuration is sound; the log says what is not."""
            problem = router.problem()
            if problem is not None and problem != self._told:
                _logger.warning("masrouter: %s", problem)
            self._told = problem  # it is asked often, and says it once
            return problem is None

        def route_task(self, *given: Any, **named: Any) -> Route:
            """The route of the task, found in what Hermes hands over, all of it plain data."""
            try:
                return router.route(*_task_in(_by_name(base, given, named)))
            except (DelegationError, RoutingError) as error:
                raise refusal(f"masrouter: {error}") from error
            except MasRouterError as error:
                # The parent's model reads the refusal, and has no use for paths of this machine.
                _logger.warning("masrouter: a task could not be routed: %s", error)
                raise refusal(
                    f"masrouter: its configuration ({WHERE}) is at fault; the log says why"
                ) from error
            except Exception as error:
                _logger.exception("masrouter: a task could not be routed")
                raise refusal(f"masrouter: {type(error).__name__} within masrouter") from error

    def parameters(self: Any, *_given: Any, **_named: Any) -> dict[str, Any]:
        try:
            return router.parameters()
        except MasRouterError as error:
            _logger.warning("masrouter: tasks cannot choose their model: %s", error)
            return {}

    hook = _parameters_hook(base, MasRouterDelegation)
    if hook is None:
        _logger.info("masrouter: this Hermes shows no place for a task's own `%s`", MODEL)
    else:
        is_property = isinstance(inspect.getattr_static(base, hook), property)
        setattr(MasRouterDelegation, hook, property(parameters) if is_property else parameters)
        abc.update_abstractmethods(MasRouterDelegation)
    return MasRouterDelegation


def _parameters_hook(base: Any, provider: Any) -> str | None:
    """The name under which Hermes asks for the parameters of a task; None where none is plain."""
    found = [
        name
        for name, member in inspect.getmembers_static(base)
        if not name.startswith("_")
        and name not in _KNOWN
        and any(word in name for word in _SPEAKS_OF)
        and not any(word in name for word in _SPEAKS_OF_OTHERS)
        and (inspect.isfunction(member) or isinstance(member, property))
    ]
    if len(found) != 1:
        return None
    if found[0] in getattr(base, "__abstractmethods__", ()):
        return found[0]
    try:
        default = getattr(provider(), found[0])
        default = default() if callable(default) else default
    except Exception:
        return None
    return found[0] if default is None or default == {} else None


def _by_name(base: Any, given: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, Any]:
    """What Hermes hands over under the names that its own `route_task` has for it."""
    signature = inspect.signature(base.route_task)
    try:
        bound = signature.bind(None, *given, **named).arguments
    except TypeError:  # called otherwise than it is declared
        return {str(place): value for place, value in enumerate(given)} | dict(named)
    for parameter in signature.parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            bound |= bound.pop(parameter.name, {})
    return dict(bound)


def _task_in(given: Mapping[str, Any]) -> tuple[str, str, str | None]:
    """Goal, context and model of the task, which is the mapping that has a goal."""
    for part in (given, *given.values()):
        if isinstance(part, Mapping) and "goal" in part:
            goal, context, model = part["goal"], part.get("context") or "", part.get(MODEL)
            break
    else:
        raise RoutingError(
            "Hermes handed over no task with a `goal`, so that nothing can be routed"
        )
    for name, part in given.items():
        # Never of a mapping that may be the parent's: its model is not what the task asks for.
        if model is None and "param" in name and isinstance(part, Mapping):
            model = part.get(MODEL)
    if not isinstance(goal, str) or not goal.strip():
        raise RoutingError(f"goal: expected a text, got {type(goal).__name__}")
    if not isinstance(context, str):
        raise RoutingError(f"context: expected a text, got {type(context).__name__}")
    if model is not None and not isinstance(model, str):
        raise RoutingError(f"{MODEL}: expected a name, got {type(model).__name__}")
    return goal, context, model or None


def _hermes_config() -> Mapping[str, Any] | None:
    """The plugin's section of Hermes' own configuration."""
    from hermes_cli import config

    found: Any = getattr(config, "load_config_readonly", config.load_config)()
    for key in ("delegation", "backends", BACKEND):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if found is None or isinstance(found, Mapping) else {"": found}
