"""One model, two names: what the router learned it as, and how the chat model is asked for it.

A router knows `gpt-4o-mini`; here it may be `openai/gpt-4o-mini`, or `gpt-4o-mini --provider azure`
by an alias. Plans are run under the names of offers, and logged under those that are learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from masrouter.catalog import Catalog
from masrouter.delegation.naming.names import Names
from masrouter.delegation.tasks import DelegationError
from masrouter.router import Router
from masrouter.types import Plan


def callable_models(names: Names, router: Router, *, budgeted: bool) -> dict[str, str]:
    """Ids of the router's models that may and can be called now, by the router's names.

    A name that leads to another model, as an alias may, is not that model's.
    """
    offers = {offer.id: offer for offer in names.offers}
    found: dict[str, str] = {}
    for model in sorted({model for plan in router.plans for model in plan.models}):
        if not names.usable(model, budgeted=budgeted):
            continue
        try:
            plan = names.resolve(model, budgeted=budgeted).plan
        except DelegationError:
            continue
        id = plan.models[0] if plan is not None else model
        offer = offers.get(id)
        if offer is None or model in (offer.id, offer.name, offer.own_name):
            found[model] = id
    return found


def learned_names(names: Names, router: Router | None, catalog: Catalog) -> dict[str, str]:
    """What the router, or else the catalog, calls the models that are offered, by their ids."""
    known = set(catalog.models)
    if router is not None:
        known = {model for plan in router.plans for model in plan.models} | set(
            router.catalog.models
        )
    return {
        offer.id: name
        for offer in names.offers
        for name in (offer.own_name, offer.name, offer.id)
        if name is not None and name in known and offer.kind == "model"
    }


def renamed(plan: Plan, names: Mapping[str, str]) -> Plan:
    """The plan with other names for its models; those that are not in `names` stay."""
    seats = (replace(seat, model=names.get(seat.model, seat.model)) for seat in plan.agents)
    return Plan(plan.topology, tuple(seats))
