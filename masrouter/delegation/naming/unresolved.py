"""Why a name leads nowhere, and what was perhaps meant: the mistakes that are seen, one by one."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from masrouter.delegation.naming.lookup import Lookup, Switch
from masrouter.delegation.naming.near import MOST
from masrouter.delegation.naming.settings import (
    AUTO,
    PROVIDER_FLAG,
    TIERS,
    name_problem,
    normal_name,
)
from masrouter.delegation.tasks import ErrorType

_COLON = "a colon is part of a model's id and never stands behind a provider"
_FORM = f"write `model {PROVIDER_FLAG} provider`"
_PLAIN_KEY = re.compile(r"[A-Za-z]([\w./:-]*\w)?", re.ASCII)
"""A key that YAML needs no quotes for."""


@dataclass(frozen=True, slots=True)
class Unresolved:
    """A name that leads nowhere."""

    why: str
    perhaps: tuple[str, ...] = ()
    """What was perhaps meant, best first; it may lead nowhere either."""
    type: ErrorType = "unknown_model"


def unresolved(lookup: Lookup, name: str) -> Unresolved:
    """Of a name that `lookup` does not find."""
    text = normal_name(name)
    if (why := name_problem(text)) is not None:
        return Unresolved(why)
    if (following := lookup.step_from(text)) is not None:
        inner = unresolved(lookup, following)
        why = f"it leads to {following!r}, and that leads nowhere: {inner.why}"
        return Unresolved(why, inner.perhaps, inner.type)
    if text == AUTO:
        why = "there is no router; give a trained checkpoint (-c), or name a model"
        return Unresolved(why, type="no_router")
    if (switch := lookup.switch_of(text)) is not None:
        return _switched(lookup, switch)
    provider, slash, model = text.partition("/")
    if slash and provider in lookup.providers:
        return _not_listed(lookup, provider, model, text)
    if meant := tuple(offer.id for offer in lookup.models_named(text)):
        return Unresolved(f"several models go by it; name one: {', '.join(meant)}", meant)
    if (why := _tier_without_keys(lookup, text)) is not None:
        return Unresolved(why, type="no_credential")
    return _colon(lookup, text) or _letters(lookup, text) or _unknown(lookup, text)


def _tier_without_keys(lookup: Lookup, text: str) -> str | None:
    """Where a name would be a tier by price if any model could be called."""
    if text not in TIERS or lookup.tiers:
        return None
    models = [o for o in lookup.offers if o.kind == "model" and o.refused is None]
    missing = [f"{o.provider or o.id}: {o.credential}" for o in models if o.credential]
    if not models or len(missing) < len(models):
        return None
    which = "the only model cannot" if len(models) == 1 else f"none of the {len(models)} models can"
    # One line for each provider, and no wall of them.
    return f"it is a tier, and {which} be called: {'; '.join(list(dict.fromkeys(missing))[:MOST])}"


def _switched(lookup: Lookup, switch: Switch) -> Unresolved:
    """Of `model --provider provider`."""
    model, providers = switch.model, tuple(name for name in switch.providers if name)
    forms = tuple(f"{model} {PROVIDER_FLAG} {name}" for name in providers)
    if not model or not providers:
        part = "provider behind" if model else "model before"
        return Unresolved(f"there is no {part} {PROVIDER_FLAG}; {_FORM}", (model,))
    if len(switch.providers) > 1:
        return Unresolved(f"{PROVIDER_FLAG} stands more than once; {_FORM}", forms)
    provider = providers[0]
    if not lookup.providers:
        return Unresolved(f"there are no providers here; leave {PROVIDER_FLAG} out", (model,))
    if provider not in lookup.providers:
        others = tuple(f"{model} {PROVIDER_FLAG} {name}" for name in lookup.providers)
        there = ", ".join(map(repr, lookup.providers))
        return Unresolved(f"there is no provider {provider!r}, only {there}", (*others, model))
    if (kind := _no_model(lookup, model)) is not None:
        found = lookup.find(model)
        same = () if found is None else (f"{provider}/{found.name}",)
        why = f"{PROVIDER_FLAG} goes with a model's id, and {model!r} is {kind}"
        return Unresolved(f"{why}; leave {PROVIDER_FLAG} out, or name the model", (model, *same))
    return _not_listed(lookup, provider, model, model)


def _no_model(lookup: Lookup, name: str) -> str | None:
    """What a name is that is none of a model."""
    if name == AUTO:
        return "the router"
    if name in lookup.aliases or name in lookup.tiers:
        return "an alias" if name in lookup.aliases else "a tier"
    found = lookup.find(name)
    return None if found is None or found.kind == "model" else f"a {found.kind}"


def _not_listed(lookup: Lookup, provider: str, model: str, text: str) -> Unresolved:
    """Of a provider that is there, and a model that it does not list."""
    bare = model.removeprefix(f"{provider}/")
    first, slash, rest = bare.partition("/")
    names = (text, bare, rest) if slash and first in lookup.providers else (text, bare)
    meant = [offer.id for name in names for offer in lookup.models_named(name)]
    perhaps = (f"{provider}/{names[-1]}", f"{provider}/{bare}", *meant, text)
    if not model:
        why = "the model is missing"
    elif not lookup.takes_unlisted and all(o.provider != provider for o in lookup.offers):
        key = bare if _PLAIN_KEY.fullmatch(bare) else json.dumps(bare, ensure_ascii=False)
        why = (
            f"provider {provider!r} lists no models: add `models: {{{key}: }}` to it in the "
            "providers file, or set `unlisted: true` in the settings"
        )
    else:
        why = f"provider {provider!r} does not list {model!r}"
    return Unresolved(why, perhaps)


def _colon(lookup: Lookup, text: str) -> Unresolved | None:
    """Where a colon stands as if it were the slash behind a provider."""
    for index in (i for i, sign in enumerate(text) if sign == ":"):
        before, behind = text[:index].strip(), text[index + 1 :].strip()
        forms = (f"{before}/{behind}", f"{behind} {PROVIDER_FLAG} {before}")
        if before in lookup.providers:
            model = "model" if lookup.find(forms[0]) is None else behind
            how = f"write `{before}/{model}` or `{model} {PROVIDER_FLAG} {before}`"
            return Unresolved(f"{_COLON}; {how}", (*forms, behind))
        if lookup.find(before) is None and lookup.find(behind) is not None:
            return Unresolved(f"nothing has this name; {_COLON}", (behind,))
    return None


def _letters(lookup: Lookup, text: str) -> Unresolved | None:
    """Where the name is right but for small and capital letters."""
    same = lookup.spelled_otherwise(text)
    if not same:
        return None
    why = f"nothing has this name; letters' case counts, and {same[0]!r} is there"
    return Unresolved(why, same)


def _unknown(lookup: Lookup, text: str) -> Unresolved:
    if any(sign.isspace() for sign in text):
        why = f"a name has no spaces, but for `model {PROVIDER_FLAG} provider`"
        return Unresolved(why, (*text.split(), "-".join(text.split())))
    before, slash, behind = text.partition("/")
    if slash and lookup.providers:
        there = ", ".join(map(repr, lookup.providers))
        why = f"there is no provider {before!r}, only {there}, and no model of this name"
        return Unresolved(why, (behind, behind.rpartition("/")[2]))
    if not lookup.offers:
        return Unresolved("the chat model lists no models that could be named")
    return Unresolved("nothing has this name")
