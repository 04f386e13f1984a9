"""What a batch's tasks weigh on its budget before any has run: for dividing it, not for the books.

The books are the ledger's, which holds whatever is said here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from masrouter.catalog import Catalog, ModelEntry
from masrouter.delegation.naming.model_names import renamed
from masrouter.llms.chat import ChatModel
from masrouter.router import Router
from masrouter.topologies.prompts import system_prompt
from masrouter.types import Plan

_TOPOLOGYS_OWN = 1024
"""Bytes that a topology's own words and the marks of a message take at most, about."""
_BYTES_PER_TOKEN = 4


def most_call_usd(
    llm: ChatModel, catalog: Catalog, max_tokens: Mapping[str, int], otherwise: int
) -> Callable[[str, Plan], float | None]:
    """About the most that one call of a plan on a query may cost; None for an unknown price.

    max_tokens: of an answer, by query. A prompt's bytes count as tokens, as the ledger counts them;
    in a team every other seat may have written a whole answer that the call is shown.
    """

    def most(query: str, plan: Plan) -> float | None:
        tokens = max_tokens.get(query, otherwise)
        read = _TOPOLOGYS_OWN + len(query.encode("utf-8", "surrogatepass"))
        read += (len(plan.agents) - 1) * tokens * _BYTES_PER_TOKEN
        costs = []
        for agent in plan.agents:
            price = llm.price(agent.model)
            if price is None:
                return None
            system = len(system_prompt(agent, catalog).encode("utf-8", "surrogatepass"))
            costs.append(price.cost_usd(read + system, tokens))
        return max(costs)

    return most


def at_prices_of(llm: ChatModel, router: Router, called: Mapping[str, str]) -> Router:
    """The router with the prices of the chat model: its own are those of a catalog.

    called: ids of models here, by the router's names. A price that is unknown here stays as it is.
    """
    entries: dict[str, ModelEntry] = {}
    for name, id in called.items():
        entry, price = router.catalog.find_model(name), llm.price(id)
        if entry is None or price is None:
            continue
        here = price.input_usd_per_mtok, price.output_usd_per_mtok
        if here != (entry.input_usd_per_mtok, entry.output_usd_per_mtok):
            read, written = here
            entries[name] = replace(
                entry, name=name, aliases=(), input_usd_per_mtok=read, output_usd_per_mtok=written
            )
    if not entries:
        return router
    return router.with_catalog(router.catalog.extended_with(Catalog(entries, {}, {})))


def committed_usd(
    llm: ChatModel,
    router: Router,
    plans: Sequence[tuple[str, Plan]],
    learned: Mapping[str, str],
    most: Callable[[str, Plan], float | None],
) -> float:
    """What plans that are settled already are going to cost on their queries.

    learned: what the router calls models, by their ids. Where it knows the plan its expectation
    counts; else each seat is taken to read and write as many tokens as the median plan of the
    router does by seat, and never costs more than `most` says of one call. A plan of unknown cost
    adds nothing: under a budget it cannot be called.
    """
    if not plans:
        return 0.0
    known = {plan: column for column, plan in enumerate(router.plans)}
    expected = router.expect(*router.read([query for query, _ in plans]), 0.0)  # (B, C) each
    seats = np.array([len(plan.agents) for plan in router.plans])
    total = 0.0
    for row, (query, plan) in enumerate(plans):
        column = known.get(renamed(plan, learned))
        cost = math.nan if column is None else float(expected.cost[row, column])
        if not math.isfinite(cost):
            call = most(query, plan) or 0.0
            read = _median(expected.prompt_tokens[row] / seats)
            written = _median(expected.completion_tokens[row] / seats)
            cost = sum(min(call, _cost(llm, seat.model, read, written)) for seat in plan.agents)
        total += cost
    return total


def _median(tokens: NDArray[np.floating]) -> float:
    """Infinite where nothing is known."""
    known = tokens[np.isfinite(tokens)]
    return float(np.median(known)) if known.size else math.inf


def _cost(llm: ChatModel, model: str, read: float, written: float) -> float:
    price = llm.price(model)
    if price is None or not (math.isfinite(read) and math.isfinite(written)):
        return math.inf
    return price.cost_usd(math.ceil(read), math.ceil(written))
