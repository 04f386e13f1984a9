"""Which model a task gets: the first name that anybody gave, and nothing else in its place.

The task's own name comes first, then the call's, then the configured default, then the parent's
model. A name that leads nowhere, or to what may not or cannot be called, is an error that says what
was asked, why not, and which names that come near do work. See `lookup` for the forms of a name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from masrouter.delegation.naming.allowance import Allowance
from masrouter.delegation.naming.lookup import Lookup
from masrouter.delegation.naming.near import MOST, nearest
from masrouter.delegation.naming.offers import (
    NO_WORKERS,
    Offer,
    providers_of,
    unlisted_offer,
)
from masrouter.delegation.naming.settings import (
    AUTO,
    MOST_NAME,
    PROVIDER_FLAG,
    TIERS,
    Settings,
    normal_name,
)
from masrouter.delegation.naming.unresolved import unresolved
from masrouter.delegation.policies.specs import Match, PolicySpec
from masrouter.delegation.tasks import DelegationError, ErrorType, Source, Target, TaskError
from masrouter.errors import ConfigError
from masrouter.llms import ChatModel
from masrouter.types import Agent, Plan

_ASKED_BY: dict[Source, str] = {
    "task": "the task's model",
    "call": "the call's model",
    "default": "the configured default model",
    "parent": "the parent's model",
}


@dataclass(frozen=True, slots=True)
class _Obstacle:
    """Why a name is of no use."""

    type: ErrorType
    why: str
    nearest: tuple[str, ...] = ()


class Names:
    """Resolves names to what will run."""

    def __init__(
        self,
        settings: Settings,
        offers: Sequence[Offer],
        *,
        has_router: bool,
        llm: ChatModel | None = None,
    ) -> None:
        """offers: of `offers_of`. llm: the chat model itself, for models that it does not list.

        Raises ConfigError where names clash or the lists of the settings mean nothing.
        """
        if settings.unlisted and llm is None:
            raise ConfigError("unlisted: needs the chat model; give `llm`")
        self.settings = settings
        self.offers = tuple(o for o in offers if has_router or o.kind != "auto")
        if has_router and all(offer.kind != "auto" for offer in self.offers):
            self.offers += (Offer(id=AUTO, kind="auto", name=AUTO),)
        self._lookup = Lookup(
            settings,
            self.offers,
            providers=() if llm is None else providers_of(llm),
            unlisted=partial(unlisted_offer, llm)
            if settings.unlisted and llm is not None
            else None,
        )
        self._allowance = Allowance(settings, self._lookup)

    def resolve(
        self,
        task: str | None = None,
        call: str | None = None,
        parent: str | None = None,
        *,
        budgeted: bool,
    ) -> Target:
        """What a task is to run on; budgeted: whether there is a budget, so that prices count.

        Raises DelegationError: unknown_model, not_allowed, no_credential, unknown_price, no_router,
        or invalid_task where a name is no text.
        """
        given: tuple[tuple[Source, str | None], ...] = (
            ("task", task),
            ("call", call),
            ("default", self.settings.default),
            ("parent", parent),
        )
        for source, name in given:
            if name is not None:
                return self._target(name, source, budgeted)
        near = self._some(budgeted)
        raise DelegationError(
            TaskError(
                "unknown_model",
                f"nobody named a model: give `model`{_or_one_of(near)}, or configure a default",
                nearest=near,
            )
        )

    def usable(self, model: str, *, budgeted: bool) -> bool:
        """Whether a model of a plan, such as one of the router's, may and can be called."""
        found = self._lookup.find(model)
        if found is None or found.kind not in ("model", "worker"):
            return False
        return self._obstacle(found, budgeted) is None

    def _target(self, asked: str, source: Source, budgeted: bool) -> Target:
        if not isinstance(asked, str):
            obstacle = _Obstacle("invalid_task", f"expected a name, got {type(asked).__name__}")
            raise self._error(repr(asked), source, obstacle, budgeted)
        name = normal_name(asked)
        found = self._lookup.find(name)
        if found is None:
            missing = unresolved(self._lookup, name)
            obstacle = _Obstacle(missing.type, missing.why, missing.perhaps)
            raise self._error(asked, source, obstacle, budgeted)
        blocked = self._obstacle(found, budgeted)
        if blocked is not None:
            if self._lookup.step_from(name) is not None:
                why = f"it leads to {found.id!r}, and there: {blocked.why}"
                blocked = _Obstacle(blocked.type, why, blocked.nearest)
            raise self._error(asked, source, blocked, budgeted)
        policy = found.id if found.kind == "policy" else None
        return Target(name, source, found.kind, self._plan_of(found), policy)

    def _plan_of(self, offer: Offer) -> Plan | None:
        if offer.kind in ("auto", "policy"):
            return None
        if offer.plan is not None:
            seats = [(agent.role, self._lookup.find(agent.model)) for agent in offer.plan.agents]
            agents = [Agent(role, found.id) for role, found in seats if found is not None]
            return Plan(offer.plan.topology, tuple(agents))
        topology = "io" if offer.kind == "worker" else self.settings.topology
        return Plan(topology, (Agent(None, offer.id),))

    def _obstacle(self, offer: Offer, budgeted: bool) -> _Obstacle | None:
        """Why what was found cannot be called; None where it can."""
        refused = self._allowance.problem(offer)
        same = tuple(o.id for o in self._lookup.models_named(offer.name) if o.id != offer.id)
        if refused is not None:
            return _Obstacle("not_allowed", refused, same)
        if offer.plan is not None:
            return self._obstacle_of_seats(offer.plan, budgeted)
        if offer.policy is not None:
            return self._obstacle_of_parts(offer.policy, budgeted)
        if offer.credential is not None:
            return _Obstacle("no_credential", offer.credential, same)
        if budgeted and offer.kind != "auto" and offer.price is None:
            why = (
                "there is a budget, and its price is unknown; set no budget, or have its price "
                "put into the catalog or provider file"
            )
            return _Obstacle("unknown_price", why, same)
        return None

    def _obstacle_of_seats(self, plan: Plan, budgeted: bool) -> _Obstacle | None:
        for model in plan.models:
            found = self._lookup.find(model)
            if found is None:
                missing = unresolved(self._lookup, model)
                return _Obstacle(missing.type, f"its model {model!r}: {missing.why}")
            if found.kind not in ("model", "worker"):
                why = f"its model {model!r} is none: a seat takes a model or a worker"
                return _Obstacle("unknown_model", why)
            blocked = self._obstacle(found, budgeted)
            if blocked is not None:
                return _Obstacle(blocked.type, f"its model {model!r}: {blocked.why}")
        return None

    def _obstacle_of_parts(self, policy: PolicySpec, budgeted: bool) -> _Obstacle | None:
        for part, name in policy.parts.items():
            found = self._lookup.find(name)
            if found is None:
                missing = unresolved(self._lookup, name)
                return _Obstacle(missing.type, f"its {part} {name!r}: {missing.why}")
            if found.kind == "policy":
                why = f"its {part} {name!r} is a policy, and none stands within another"
                return _Obstacle("unknown_model", why)
            blocked = self._obstacle(found, budgeted)
            if blocked is not None:
                return _Obstacle(blocked.type, f"its {part} {name!r}: {blocked.why}")
        if isinstance(policy, Match):
            workers = [offer for offer in self.offers if offer.kind == "worker"]
            why_not = [self._obstacle(worker, budgeted) for worker in workers]
            if None not in why_not:
                first = next((why for why in why_not if why is not None), None)
                if first is None:
                    return _Obstacle("unknown_model", NO_WORKERS)
                return _Obstacle(first.type, f"its worker {workers[0].id!r}: {first.why}")
        return None

    def _error(
        self, asked: str, source: Source, obstacle: _Obstacle, budgeted: bool
    ) -> DelegationError:
        near = self._nearest(asked, obstacle.nearest, budgeted)
        message = f"{_ASKED_BY[source]} {shown(asked)}: {obstacle.why}"
        if near:
            message += f"; names that work: {', '.join(near)}"
        return DelegationError(TaskError(obstacle.type, message, asked=_plain(asked), nearest=near))

    def _nearest(self, asked: str, perhaps: Sequence[str], budgeted: bool) -> tuple[str, ...]:
        """At most `MOST` names that resolve: what was perhaps meant, what is like it, any."""
        found: dict[str, None] = {}
        meant: set[str] = set()
        for name in perhaps:
            offer = self._lookup.find(name)
            if offer is None or self._obstacle(offer, budgeted) is not None:
                continue
            if offer.id not in meant or PROVIDER_FLAG in name:
                found[normal_name(name)] = None
            meant.add(offer.id)
        groups = [group for group in self._groups(budgeted) if group[0] not in meant]
        if len(asked) <= MOST_NAME:
            model = asked.partition(PROVIDER_FLAG)[0].strip() or asked.strip()
            found |= dict.fromkeys(nearest(model, groups))
        return tuple(found)[:MOST] or self._some(budgeted)

    def _some(self, budgeted: bool) -> tuple[str, ...]:
        """Names to begin with, where nothing says which: tiers by size, aliases, the rest."""
        groups = list(self._groups(budgeted))
        short = [group[-1] for group in groups if self._lookup.step_from(group[-1]) is not None]
        whole = [group[0] for group in groups if group[-1] not in short]
        short.sort(key=lambda name: TIERS.index(name) if name in TIERS else len(TIERS))
        return (*short, *whole)[:MOST]

    def _groups(self, budgeted: bool) -> Iterator[list[str]]:
        """All names of each thing that can be called: the id first, then bare, aliases, tiers."""
        for offer in self.offers:
            if self._obstacle(offer, budgeted) is None:
                yield list(self._lookup.names_of(offer))


def shown(name: str) -> str:
    """A name for a message: quoted, with what cannot be shown escaped, and cut where it is long."""
    text = repr(name[: MOST_NAME // 2])
    return text if len(name) <= MOST_NAME // 2 else f"{text}... ({len(name)} characters)"


def _plain(name: str) -> str:
    """A name as it was asked for, where it can be shown; else as `shown` has it."""
    return name if len(name) <= MOST_NAME and name.isprintable() else shown(name)


def _or_one_of(names: Sequence[str]) -> str:
    return f" (one of {', '.join(names)})" if names else ""
