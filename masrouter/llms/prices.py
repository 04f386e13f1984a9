"""What a model costs at one endpoint: its provider file, else the catalog, else `genai-prices`.

Nothing is looked up over a network, and nothing is guessed: where none of them knows, it is None.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from masrouter.catalog import Catalog
from masrouter.errors import CatalogError
from masrouter.llms.chat import Price
from masrouter.llms.failures import missing_extra
from masrouter.types import Usage


class PriceBook:
    """Prices at one endpoint.

    genai-prices knows an endpoint by its URL alone, so a server of one's own has none from there.
    """

    def __init__(self, catalog: Catalog | None, base_url: str) -> None:
        self._catalog = catalog
        self._base_url = base_url
        self._catalogued: dict[str, Price | None] = {}
        self._unlisted: set[str] = set()

    def price(self, names: Iterable[str], own_name: str) -> Price | None:
        """US dollars per million tokens; of prices that rise with the prompt, the highest.

        names: as the catalog may know the model, best first. own_name: the provider's own.
        """
        return self._from_catalog(names) or self._from_genai_prices(own_name)

    def cost_usd(self, price: Price | None, own_name: str, usage: Usage) -> float | None:
        """Of one call; None where a price or a count is unknown."""
        prompt, completion = usage.prompt_tokens, usage.completion_tokens
        if price is None or prompt is None or completion is None:
            return None
        if price.source == "genai-prices":
            return float(self._genai(own_name, prompt, completion).total_price)
        return price.cost_usd(prompt, completion)

    def _from_catalog(self, names: Iterable[str]) -> Price | None:
        for name in names:
            if name not in self._catalogued:
                self._catalogued[name] = catalog_price(self._catalog, name)
            if price := self._catalogued[name]:
                return price
        return None

    def _from_genai_prices(self, own_name: str) -> Price | None:
        # Time of day may change a price, so what is kept is only that there is none.
        if own_name in self._unlisted:
            return None
        try:
            listed = self._genai(own_name, 1, 1).model_price
        except LookupError:
            self._unlisted.add(own_name)
            return None
        # Some bill each request besides, which tokens alone do not tell.
        dearest = [_dearest(getattr(listed, f"{way}_mtok", None)) for way in ("input", "output")]
        if getattr(listed, "requests_kcount", None) or None in dearest:
            return None
        return Price(float(dearest[0] or 0), float(dearest[1] or 0), "genai-prices")

    def _genai(self, own_name: str, prompt: int, completion: int) -> Any:
        try:
            from genai_prices import Usage as Tokens
            from genai_prices import calc_price
        except ImportError as missing:
            raise missing_extra(missing) from None
        tokens = Tokens(input_tokens=prompt, output_tokens=completion)
        return calc_price(tokens, own_name, provider_api_url=self._base_url)


def catalog_price(catalog: Catalog | None, name: str) -> Price | None:
    """The catalog's price of a model, by name or alias; None where it knows none."""
    if catalog is None:
        return None
    try:
        entry = catalog.resolve_model(name)
    except CatalogError:
        return None
    if entry.input_usd_per_mtok is None or entry.output_usd_per_mtok is None:
        return None
    return Price(entry.input_usd_per_mtok, entry.output_usd_per_mtok, "catalog")


def _dearest(listed: Any) -> Decimal | None:
    """A price, or the highest of its tiers."""
    if listed is None or isinstance(listed, Decimal):
        return listed
    prices: list[Decimal] = [listed.base, *(tier.price for tier in listed.tiers)]
    return max(prices)
