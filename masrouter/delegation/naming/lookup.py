"""Where a name leads, by its text alone: not whether it may be called, or can be paid for.

A name is one of, and is read in this order: the id of an offer (`provider/model`, a worker, a plan,
a policy, `auto`), an alias or tier, which leads to another name, `model --provider provider`, and
the bare name of a model, or the provider's own name of it, that means one model alone. What stands
before the first slash is the provider's name, where there is one of that name. Colons mean nothing
here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from masrouter.delegation.naming.settings import AUTO, Settings, name_problem, normal_name
from masrouter.errors import ConfigError

if TYPE_CHECKING:
    from masrouter.delegation.naming.offers import Offer

_SWITCH = re.compile(r"(?:^|\s+)--provider(?=\s|=|$)=?")

Unlisted = Callable[[str | None, str], "Offer | None"]
"""The offer of a model that no file lists, by provider and name; None where it cannot be asked."""


@dataclass(frozen=True, slots=True)
class Switch:
    """`model --provider provider`, as it was written: either part may be empty."""

    model: str
    providers: tuple[str, ...]
    """More than one where the flag stands more than once."""


class Lookup:
    """Names and what they lead to."""

    def __init__(
        self,
        settings: Settings,
        offers: Sequence[Offer],
        *,
        providers: Sequence[str] = (),
        unlisted: Unlisted | None = None,
    ) -> None:
        """providers: those that list nothing too. unlisted: where such models may be named.

        Raises ConfigError where one name means two things.
        """
        self.offers = tuple(offers)
        listing = (offer.provider for offer in offers if offer.provider is not None)
        self.providers = tuple(dict.fromkeys([*providers, *listing]))
        self.aliases = settings.aliases
        self.tiers = settings.tiers or {tier: offer.id for offer in offers for tier in offer.tiers}
        self._steps = {**self.tiers, **self.aliases}
        self._unlisted = unlisted
        self._by_id: dict[str, Offer] = {}
        self._bare: dict[str, list[Offer]] = {}
        self._own: dict[str, list[Offer]] = {}
        for offer in self.offers:
            if offer.id in self._by_id:
                raise ConfigError(f"{offer.kind} {offer.id!r}: the name is given twice; rename one")
            self._by_id[offer.id] = offer
            if offer.provider is not None:
                self._bare.setdefault(offer.name, []).append(offer)
            if offer.own_name is not None:
                self._own.setdefault(offer.own_name, []).append(offer)
        self._check_names()
        self._leading = self.leading((*self.aliases, *self.tiers))

    @property
    def takes_unlisted(self) -> bool:
        """Whether models that no file lists may be named."""
        return self._unlisted is not None

    def find(self, name: str) -> Offer | None:
        """What a name leads to; None where it leads nowhere, or may mean several things."""
        text = normal_name(name)
        if name_problem(text) is not None:
            return None
        if (offer := self._by_id.get(text)) is not None:
            return offer
        if (following := self._steps.get(text)) is not None:
            return self.find(following)
        if text == AUTO:
            return None
        if (switch := self.switch_of(text)) is not None:
            return self._switched(switch)
        provider, slash, model = text.partition("/")
        if slash and provider in self.providers:
            return self.at(provider, model) or self._from_outside(provider, model)
        if meant := self.models_named(text):
            return meant[0] if len(meant) == 1 else None
        return self._from_outside(None, text)

    def step_from(self, name: str) -> str | None:
        """The name that an alias or tier leads to."""
        return self._steps.get(name)

    def all_of(self, name: str) -> tuple[Offer, ...]:
        """Every offer that a name may mean: a bare name means each provider's model."""
        text = normal_name(name)
        if text in self._by_id or text in self._steps:
            found = self.find(text)
            return () if found is None else (found,)
        if meant := self.models_named(text):
            return meant
        found = self.find(text)
        return () if found is None else (found,)

    def models_named(self, model: str) -> tuple[Offer, ...]:
        """Models of a bare name; where no provider's file has it, of a provider's own name."""
        return tuple(self._bare.get(model) or self._own.get(model) or ())

    def at(self, provider: str, model: str) -> Offer | None:
        """A provider's model by its listed name, or by its own where one model alone has it."""
        if (offer := self._by_id.get(f"{provider}/{model}")) is not None:
            return offer
        owned = [offer for offer in self._own.get(model, ()) if offer.provider == provider]
        return owned[0] if len(owned) == 1 else None

    def switch_of(self, text: str) -> Switch | None:
        """A name with `--provider` in it, taken apart; None for any other."""
        model, *providers = (part.strip() for part in _SWITCH.split(text))
        return Switch(model, tuple(providers)) if providers else None

    def spelled_otherwise(self, text: str) -> tuple[str, ...]:
        """Names that differ from a text in small and capital letters alone."""
        names = (*self._by_id, *self._steps, *self._bare, *self._own)
        wanted = text.casefold()
        return tuple(dict.fromkeys(name for name in names if name.casefold() == wanted))

    def names_of(self, offer: Offer) -> Iterator[str]:
        """Every name that leads to an offer, `--provider` aside: id, bare names, aliases, tiers."""
        yield offer.id
        leading = self._leading.get(offer.id, ())
        bare = {offer.name: None, offer.own_name or offer.name: None}
        for name in bare:
            if name not in (offer.id, *leading) and self.find(name) is offer:
                yield name
        yield from leading

    def leading(self, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """Of names, those that lead to each offer, by its id."""
        leading: dict[str, tuple[str, ...]] = {}
        for name in names:
            found = self.find(name)
            if found is not None:
                leading[found.id] = (*leading.get(found.id, ()), name)
        return leading

    def _switched(self, switch: Switch) -> Offer | None:
        if len(switch.providers) != 1 or not switch.model:
            return None
        model, provider = switch.model, switch.providers[0]
        if provider not in self.providers:
            return None
        if (offer := self.at(provider, model)) is not None:
            return offer
        listed = self._by_id.get(model)
        if listed is not None and listed.provider == provider:
            return listed
        # An alias, a tier, a plan, a policy or a worker is no model that another provider may have.
        if model in self._steps or model == AUTO or (listed and listed.provider is None):
            return None
        return self._from_outside(provider, model)

    def _from_outside(self, provider: str | None, model: str) -> Offer | None:
        if self._unlisted is None or not model or any(sign.isspace() for sign in model):
            return None
        return self._unlisted(provider, model)

    def _check_names(self) -> None:
        """Refuse a name that would take what it says away from what else has it."""
        for table, names in (("aliases", self.aliases), ("tiers", self.tiers)):
            for name in names:
                if name in self._by_id:
                    kind = self._by_id[name].kind
                    raise ConfigError(
                        f"{table}: {name}: this is the name of a {kind}; take another"
                    )
                # It may settle which provider's model a bare name means, and nothing else.
                if self.find(name) not in (meant := self.models_named(name)) or not meant:
                    self._check_new(f"{table}: {name}", name)
        for offer in self.offers:
            if offer.kind in ("plan", "policy", "worker"):
                self._check_new(f"{offer.kind} {offer.id}", offer.id)

    def _check_new(self, where: str, name: str) -> None:
        if name == AUTO:
            raise ConfigError(f"{where}: this is the router's own name; take another")
        if meant := self.models_named(name):
            ids = ", ".join(offer.id for offer in meant)
            raise ConfigError(f"{where}: this is the name of {ids}; take another")
        provider, slash, _ = name.partition("/")
        if slash and provider in self.providers:
            raise ConfigError(f"{where}: this reads as a model of {provider}; take another")
