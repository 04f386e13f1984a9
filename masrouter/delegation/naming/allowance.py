"""What the settings allow and refuse: one gate that every form of name comes through.

The lists mean models, not spellings: an alias or tier there stands for the model that it leads to,
a bare name for that model of every provider, `provider/*` for all of a provider, and
`workers/*` for all workers. A plan may run where all of its models may, and a policy where all of
its parts may.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from masrouter.delegation.naming.lookup import Lookup
from masrouter.delegation.naming.settings import AUTO, TIERS, Settings, normal_name
from masrouter.errors import ConfigError

if TYPE_CHECKING:
    from masrouter.delegation.naming.offers import Offer

_ALL = "/*"
_WORKERS = "workers"
"""`workers/*` means all workers, unless a provider is called so."""
_MADE_OF_OTHERS = ("plan", "policy", "auto")
"""Kinds that may run where what they are made of may."""


class Allowance:
    """The two lists, as ids, bare names and providers."""

    def __init__(self, settings: Settings, lookup: Lookup) -> None:
        """Raises ConfigError for an entry that means nothing: a typo would let things through."""
        self._limited = bool(settings.allowed)
        self._allowed = _meant("allowed", settings, lookup)
        self._refused = _meant("refused", settings, lookup)
        self._refused_ids = {name.casefold() for name in self._refused.ids}

    def problem(self, offer: Offer) -> str | None:
        """Why an offer may not be called; None where it may. Of a plan or policy the parts are
        not looked at."""
        # Other letters, or another name in the file, may lead to the same model.
        own = offer.own_name or offer.name
        ids = {offer.id.casefold(), _id(offer.provider, own).casefold()}
        if (
            ids & self._refused_ids
            or {offer.name.casefold(), own.casefold()} & self._refused.bare
            or self._refused.whole(offer)
        ):
            return "the settings refuse it"
        if not self._limited or offer.kind in _MADE_OF_OTHERS:
            return None
        if offer.id in self._allowed.ids or self._allowed.whole(offer):
            return None
        return "it is not among what the settings allow"


@dataclass(frozen=True, slots=True)
class _Meant:
    """What a list means."""

    ids: frozenset[str]
    bare: frozenset[str]
    """Names that are refused at every provider, in small letters."""
    providers: frozenset[str]
    workers: bool
    """Whether all of them are meant."""

    def whole(self, offer: Offer) -> bool:
        """Whether all offers of this one's provider, or all workers, are meant."""
        return offer.provider in self.providers or (self.workers and offer.kind == "worker")


def _meant(key: str, settings: Settings, lookup: Lookup) -> _Meant:
    ids: set[str] = set()
    bare: set[str] = set()
    providers: set[str] = set()
    workers = False
    last = " or workers" if _WORKERS in lookup.providers else f", workers or `{_WORKERS}{_ALL}`"
    forms = f"name models, tiers, `provider{_ALL}`{last}"
    listed = {offer.id for offer in lookup.offers}
    for name in (normal_name(entry) for entry in getattr(settings, key)):
        if name.endswith(_ALL):
            provider = name.removesuffix(_ALL)
            if provider in lookup.providers:
                providers.add(provider)
            elif provider == _WORKERS:
                workers = True
            else:
                there = ", ".join(lookup.providers) or "none"
                why = f"there is no such provider, only {there}"
                raise ConfigError(f"{key}: {name}: {why}; {forms}")
            continue
        if name == AUTO and key == "refused":
            ids.add(name)
            continue
        if name in TIERS and not (settings.tiers or name in settings.aliases):
            raise ConfigError(
                f"{key}: {name}: this tier follows from prices, and from this list; name models, "
                "or set `tiers`"
            )
        found = lookup.all_of(name)
        if not found and not (settings.unlisted and key == "refused"):
            raise ConfigError(f"{key}: {name}: this leads to nothing that is offered; {forms}")
        if key == "allowed" and found[0].kind in _MADE_OF_OTHERS:
            kind = "policy" if found[0].kind == "policy" else "plan"
            raise ConfigError(
                f"allowed: {name}: name models instead; a {kind} may run where all its models may"
            )
        for offer in found:
            ids.add(offer.id)
            own = _id(offer.provider, offer.own_name or offer.name)
            ids |= {own} - listed
        if not found or (name not in listed and lookup.models_named(name)):
            bare.add(name.casefold())
    return _Meant(frozenset(ids), frozenset(bare), frozenset(providers), workers)


def _id(provider: str | None, name: str) -> str:
    return name if provider is None else f"{provider}/{name}"
