"""What `list_models` answers: a page of what tasks can be given to, as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from masrouter.delegation.tasks import DelegationError, TaskError
from masrouter.delegation.tools.schemas import invalid
from masrouter.delegation.workers.worker import WorkerPrice

if TYPE_CHECKING:
    from masrouter.delegation.naming.offers import Offer

_AT_ONCE = 50


def listing(
    offers: Sequence[Offer],
    default: str | None,
    *,
    query: str = "",
    kind: str | None = None,
    tier: str | None = None,
    callable_only: bool = False,
    limit: int = _AT_ONCE,
    cursor: str | None = None,
) -> dict[str, Any]:
    """The offers that fit all filters, from the one with the id `cursor` on, at most `limit`.

    query: words that all stand in an offer's id, provider, aliases, tiers or description. default:
    the name that holds where nobody names a model.

    Raises DelegationError of type `invalid_task` for a tier or cursor that is not there.
    """
    tiers = list(dict.fromkeys(name for offer in offers for name in offer.tiers))
    if tier is not None and tier not in tiers:
        raise DelegationError(
            TaskError(
                "invalid_task",
                f"tier: there is none called {tier[:120]!r}; there are "
                f"{', '.join(tiers) or 'none'}",
                asked=tier[:120],
                nearest=tuple(get_close_matches(tier[:120], tiers) or tiers[:5]),
            )
        )
    words = query.casefold().split()
    fitting = [
        offer
        for offer in offers
        if (kind is None or offer.kind == kind)
        and (tier is None or tier in offer.tiers)
        and (is_callable(offer) or not callable_only)
        and all(word in _searched(offer) for word in words)
    ]
    start = 0
    if cursor is not None:
        ids = [offer.id for offer in fitting]
        if cursor not in ids:
            raise invalid("cursor: is no next_cursor of these filters", asked=cursor[:120])
        start = ids.index(cursor)
    end = start + limit
    return {
        "models": [_offer_json(offer) for offer in fitting[start:end]],
        "total": len(fitting),
        "next_cursor": fitting[end].id if end < len(fitting) else None,
        "tiers": tiers,
        "default": default,
    }


def is_callable(offer: Offer) -> bool:
    """Whether it may and can be called now."""
    return offer.credential is None and offer.refused is None


def _searched(offer: Offer) -> str:
    parts = (offer.id, offer.provider or "", *offer.aliases, *offer.tiers, offer.description)
    return " ".join(parts).casefold()


def _offer_json(offer: Offer) -> dict[str, Any]:
    price = offer.price
    return {
        "id": offer.id,
        "kind": offer.kind,
        "provider": offer.provider,
        "aliases": list(offer.aliases),
        "tiers": list(offer.tiers),
        "description": offer.description,
        "context_window": offer.context_window,
        "price": None
        if price is None
        else {
            "input_usd_per_mtok": price.input_usd_per_mtok,
            "output_usd_per_mtok": price.output_usd_per_mtok,
            "usd_per_call": price.usd_per_call if isinstance(price, WorkerPrice) else 0.0,
            "source": price.source,
        },
        "plan": None if offer.plan is None else str(offer.plan),
        "callable": is_callable(offer),
        "why_not": offer.refused or offer.credential,
    }
