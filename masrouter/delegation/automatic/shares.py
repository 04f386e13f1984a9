"""What a batch's tasks weigh on its budget before any has run: for dividing it, not for the books.

The books are the ledger's, which holds whatever is said here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from masrouter.catalog import Catalog
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


def committed_usd(
    router: Router,
    plans: Sequence[tuple[str, Plan]],
    learned: Mapping[str, str],
    most: Callable[[str, Plan], float | None],
) -> float:
    """What plans that are settled already are going to cost on their queries.

    learned: what the router calls models, by their ids. Where it knows the plan its expectation
    counts, else the most that one call of each seat may cost. A plan of unknown cost adds nothing:
    under a budget it cannot be called.
    """
    if not plans:
        return 0.0
    known = {plan: column for column, plan in enumerate(router.plans)}
    columns = [known.get(renamed(plan, learned)) for _, plan in plans]
    expected = [math.nan] * len(plans)
    rows = [row for row, column in enumerate(columns) if column is not None]
    if rows:
        read = router.read([plans[row][0] for row in rows])
        costs = router.expect(*read, 0.0).cost  # (rows, plans of the router)
        for at, row in enumerate(rows):
            expected[row] = float(costs[at, columns[row]])
    total = 0.0
    for (query, plan), cost in zip(plans, expected, strict=True):
        call = most(query, plan) or 0.0
        total += cost if math.isfinite(cost) else call * len(plan.agents)
    return total
