"""What a delegation can hand tasks to: models, workers, plans, policies, the router, with prices.

An offer is a snapshot: prices, keys and settings as they were when it was made.

Where the settings name no tiers, three follow from the prices of the models that can be called:
`small` is the cheapest, `large` the dearest, `medium` the one in the middle of the order (of two in
the middle the cheaper one); a price counts three prompt tokens to one completion token, and equal
prices stand in the order of their ids. A model of unknown price has no such tier.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from masrouter.catalog import Catalog, ModelEntry
from masrouter.delegation.naming.allowance import Allowance
from masrouter.delegation.naming.lookup import Lookup
from masrouter.delegation.naming.settings import AUTO, TIERS, Settings, name_problem, normal_name
from masrouter.delegation.naming.unresolved import unresolved
from masrouter.delegation.policies.specs import Match, PolicySpec
from masrouter.delegation.tasks import TargetKind
from masrouter.delegation.workers.worker import Worker
from masrouter.errors import ConfigError, PlanError
from masrouter.llms import ChatModel, OpenAICompatible, Price, Providers
from masrouter.strict_yaml import describe
from masrouter.topologies import topology
from masrouter.topologies.registry import check_plan
from masrouter.types import Plan

if TYPE_CHECKING:
    from masrouter.router import Router

NO_WORKERS = "there is no worker that steps could be matched with; give some"
"""Why a policy that matches cannot be used."""

_AUTO_DESCRIPTION = "The trained router chooses a model or a team for each task."


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One thing that a task may be given to."""

    id: str
    """`provider/model`; of a chat model without providers, and of anything else, the name."""
    kind: TargetKind
    provider: str | None = None
    """As the provider file names it; None where there is none."""
    name: str
    """Without the provider."""
    own_name: str | None = None
    """The provider's own name for it, where that is another."""
    aliases: tuple[str, ...] = ()
    tiers: tuple[str, ...] = ()
    description: str = ""
    """What it is good at; empty where nobody says."""
    context_window: int | None = None
    """Tokens; None is unknown."""
    price: Price | None = None
    """None is unknown; of a plan, a policy and `auto` it depends on the task."""
    credential: str | None = None
    """Why it cannot be called now: mostly a key that is not set. None where nothing is missing."""
    refused: str | None = None
    """Why the settings do not allow it; None where they do."""
    plan: Plan | None = None
    """Of a fixed plan: its team as the settings have it."""
    policy: PolicySpec | None = None
    """Of a policy: what the settings say of it."""


def offers_of(
    llm: ChatModel,
    settings: Settings,
    catalog: Catalog | None = None,
    workers: Sequence[Worker] = (),
    router: Router | None = None,
) -> tuple[Offer, ...]:
    """All there is: models in the chat model's order, then workers, plans, policies and `auto`.

    llm: `Providers`, an `OpenAICompatible`, or any with a `models` or `names` that lists what it
    can be asked for; without such a list it offers nothing. Of models that are not listed, those
    are offered that the settings name. catalog: descriptions and context lengths; None is the
    default one. What the settings refuse is among them, and says so.

    Raises ConfigError where two things have one name, or the settings name what is not there.
    """
    known = Catalog.default() if catalog is None else catalog
    models = list(_models(llm, known))
    found = [
        *(_worker(worker) for worker in workers),
        *(_plan(name, plan, known) for name, plan in settings.plans.items()),
        *(_policy(name, spec) for name, spec in settings.policies.items()),
    ]
    if router is not None:
        found.append(Offer(id=AUTO, kind="auto", name=AUTO, description=_AUTO_DESCRIPTION))
    look_up = partial(
        Lookup,
        settings,
        providers=providers_of(llm),
        unlisted=partial(unlisted_offer, llm, catalog=known) if settings.unlisted else None,
    )
    found = [*models, *_unlisted(settings, look_up([*models, *found])), *found]
    lookup = look_up(found)
    allowance = Allowance(settings, lookup)
    descriptions = _descriptions(settings, lookup)
    found = [
        replace(
            offer,
            refused=allowance.problem(offer),
            description=descriptions.get(offer.id, offer.description),
        )
        for offer in found
    ]
    if not settings.tiers:
        found = _with_tiers(found, settings, lookup)
    lookup = look_up(found)
    found = [_with_seats(offer, lookup) for offer in found]
    lookup = look_up(found)  # a policy's part may be a plan
    aliases = lookup.leading(settings.aliases)
    tiers = lookup.leading(settings.tiers)
    return tuple(
        replace(
            _with_parts(offer, lookup),
            aliases=aliases.get(offer.id, ()),
            tiers=tiers.get(offer.id, offer.tiers),
        )
        for offer in found
    )


def providers_of(llm: ChatModel) -> tuple[str, ...]:
    """The providers that may stand before a model's name; empty where it has none."""
    return tuple(endpoint.name for endpoint in _endpoints(llm))


def unlisted_offer(
    llm: ChatModel, provider: str | None, name: str, *, catalog: Catalog | None = None
) -> Offer | None:
    """A model that the chat model does not list; None where it could not be asked for it.

    provider: None for a chat model that has no providers, and then lists nothing at all. catalog:
    what it is good at; None is an empty one.
    """
    known = Catalog.empty() if catalog is None else catalog
    if provider is None:
        lists = _endpoints(llm) or _plain_names(llm) is not None
        return None if lists else _model(llm, known, None, name, None)
    if provider not in providers_of(llm):
        return None
    return _model(llm, known, provider, name, None)


def _endpoints(llm: ChatModel) -> tuple[OpenAICompatible, ...]:
    if isinstance(llm, Providers):
        return tuple(llm.endpoints.values())
    return (llm,) if isinstance(llm, OpenAICompatible) else ()


def _plain_names(llm: ChatModel) -> tuple[str, ...] | None:
    """What a chat model without providers lists; None where it has no list."""
    for attribute in ("models", "names"):
        listed = getattr(llm, attribute, None)
        if isinstance(listed, Collection) and not isinstance(listed, str | bytes):
            return tuple(listed)
    return None


def _models(llm: ChatModel, catalog: Catalog) -> Iterator[Offer]:
    endpoints = _endpoints(llm)
    for endpoint in endpoints:
        for name, options in endpoint.models.items():
            _check_listed(f"{endpoint.name}/{name}")
            if f"{endpoint.name}/{name}" in endpoint.models:
                both = f"{name!r} and {f'{endpoint.name}/{name}'!r}"
                raise ConfigError(
                    f"provider {endpoint.name!r} lists {both}: the latter would mean both; rename "
                    "one with `name:`"
                )
            own = options.name if options.name != name else None
            yield _model(llm, catalog, endpoint.name, name, own)
    if not endpoints:
        for name in _plain_names(llm) or ():
            _check_listed(name)
            yield _model(llm, catalog, None, name, None)


def _unlisted(settings: Settings, lookup: Lookup) -> list[Offer]:
    """Models that no file lists, but the settings name: they are offered as those that are."""
    seats = [model for plan in settings.plans.values() for model in plan.models]
    parts = [name for spec in settings.policies.values() for name in spec.parts.values()]
    default = [] if settings.default is None else [settings.default]
    names = (*settings.aliases, *settings.tiers, *seats, *parts, *default)
    named = [lookup.find(name) for name in names]
    listed = {offer.id for offer in lookup.offers}
    return list({o.id: o for o in named if o is not None and o.id not in listed}.values())


def _check_listed(identity: str) -> None:
    why = name_problem(identity)
    if identity == AUTO:
        why = "this is the router's own name"
    elif why is None and identity != normal_name(identity):
        why = "it has spaces around it, or several in a row"
    if why is not None:
        raise ConfigError(f"model {describe(identity)}: nobody could ask for it: {why}; rename it")


def _model(
    llm: ChatModel, catalog: Catalog, provider: str | None, name: str, own_name: str | None
) -> Offer:
    identity = name if provider is None else f"{provider}/{name}"
    credential: Callable[[str], str | None] = getattr(llm, "credential_problem", lambda _: None)
    missing = credential(identity)
    entry = _entry(catalog, (name, identity, own_name))
    return Offer(
        id=identity,
        kind="model",
        provider=provider,
        name=name,
        own_name=own_name,
        description="" if entry is None else entry.description,
        context_window=None if entry is None else entry.context_window,
        price=llm.price(identity),
        credential=missing and missing.removeprefix(f"{identity}: "),
    )


def _entry(catalog: Catalog, names: Sequence[str | None]) -> ModelEntry | None:
    found = (catalog.find_model(name or "") for name in names)
    return next((entry for entry in found if entry is not None), None)


def _worker(worker: Worker) -> Offer:
    return Offer(
        id=worker.name,
        kind="worker",
        name=worker.name,
        description=worker.description,
        context_window=worker.context_window,
        price=worker.price,
    )


def _plan(name: str, plan: Plan, catalog: Catalog) -> Offer:
    try:
        check_plan(plan, catalog, topology(plan.topology))
    except PlanError as error:
        why = str(error).removeprefix("plan: ")
        raise ConfigError(f"plans: {name}: {why}") from None
    return Offer(id=name, kind="plan", name=name, description=f"A fixed team: {plan}.", plan=plan)


def _policy(name: str, spec: PolicySpec) -> Offer:
    return Offer(id=name, kind="policy", name=name, description=spec.description, policy=spec)


def _with_seats(offer: Offer, lookup: Lookup) -> Offer:
    """A plan's offer with what stands in the way of the first model that has anything there."""
    if offer.plan is None:
        return offer
    return _hindered(offer, [("model", model) for model in offer.plan.models], lookup)


def _with_parts(offer: Offer, lookup: Lookup) -> Offer:
    """The same of a policy's offer and its parts."""
    if offer.policy is None:
        return offer
    found = _hindered(offer, offer.policy.parts.items(), lookup)
    workers = [other for other in lookup.offers if other.kind == "worker" and not other.refused]
    if isinstance(offer.policy, Match) and not workers:
        return replace(found, credential=found.credential or NO_WORKERS)
    return found


def _hindered(offer: Offer, parts: Iterable[tuple[str, str]], lookup: Lookup) -> Offer:
    for part, name in parts:
        found = lookup.find(name)
        if found is None:
            why = unresolved(lookup, name).why
            return replace(offer, credential=f"its {part} {name!r}: {why}")
        if found.refused is not None:
            refused = offer.refused or f"its {part} {name!r}: {found.refused}"
            return replace(offer, refused=refused)
        if found.credential is not None:
            return replace(offer, credential=f"its {part} {name!r}: {found.credential}")
    return offer


def _descriptions(settings: Settings, lookup: Lookup) -> dict[str, str]:
    """By id; raises ConfigError for a name that leads nowhere."""
    found: dict[str, str] = {}
    for name, text in settings.descriptions.items():
        meant = lookup.all_of(name)
        if not meant:
            raise ConfigError(f"descriptions: {name}: nothing has this name")
        found |= {offer.id: text for offer in meant}
    return found


def _with_tiers(found: Sequence[Offer], settings: Settings, lookup: Lookup) -> list[Offer]:
    """With the tiers that follow from prices; a name that means something else is no tier."""
    priced = [
        (3 * offer.price.input_usd_per_mtok + offer.price.output_usd_per_mtok, offer.id)
        for offer in found
        if offer.kind == "model"
        and offer.price is not None
        and offer.credential is None
        and offer.refused is None
    ]
    if not priced:
        return list(found)
    order = [name for _, name in sorted(priced)]
    chosen = dict(zip(TIERS, (order[0], order[(len(order) - 1) // 2], order[-1]), strict=True))
    free = [tier for tier in TIERS if tier not in settings.aliases and not lookup.all_of(tier)]
    return [
        replace(offer, tiers=tuple(tier for tier in free if chosen[tier] == offer.id))
        for offer in found
    ]
