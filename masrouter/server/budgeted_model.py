"""A chat model that spends for one caller: between a run's own ledger and the provider.

A run's ledger keeps the run's budget; this keeps the books of all runs (`budgets`). Every attempt
of a call is reserved in both before it is sent, and settled in both after it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Self

from masrouter.llms.chat import ChatModel, ChatRequest, Completion, Meter, Price
from masrouter.server.budgets import Budgets, Reservation
from masrouter.types import Usage


class BudgetedModel:
    """A ChatModel that spends for one caller: no attempt is sent that the budgets cannot hold.

    A first attempt waits up to `patience_s` for room. Made for one run: `charged_usd` is the worst
    cost of its attempts that may have been billed though nothing said what they cost.
    """

    def __init__(
        self, llm: ChatModel, budgets: Budgets, caller: str, *, patience_s: float = 0.0
    ) -> None:
        self.charged_usd = 0.0
        self._llm = llm
        self._budgets = budgets
        self._caller = caller
        self._patience_s = patience_s

    def price(self, model: str) -> Price | None:
        """See ChatModel."""
        return self._llm.price(model)

    async def complete(
        self,
        request: ChatRequest,
        *,
        timeout_s: float | None = None,
        meter: Meter | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Completion:
        """See ChatModel."""
        clock = asyncio.get_running_loop().time
        began = clock()
        price = self._llm.price(request.model)
        worst = None
        if price is not None:
            worst = price.cost_usd(request.most_prompt_tokens, request.max_tokens)
        held = await self._budgets.hold(self._caller, worst, patience_s=self._patience_s)
        attempts = _Attempts(self, price, worst, meter, held)
        left = None if timeout_s is None else max(0.0, timeout_s - (clock() - began))
        with attempts:
            completion = await self._llm.complete(
                request, timeout_s=left, meter=attempts, on_text=on_text
            )
            attempts.count_unmetered(completion.usage)
        return completion


class _Attempts:
    """The meter of one call: passes on to the run's own, and keeps the server's books."""

    def __init__(
        self,
        model: BudgetedModel,
        price: Price | None,
        worst_usd: float | None,
        meter: Meter | None,
        held: Reservation,
    ) -> None:
        self.count = 0
        self._model = model
        self._price = price
        self._worst_usd = worst_usd
        self._meter = meter
        self._held: Reservation | None = held
        self._sent = False

    def reserve(self) -> None:
        if self._sent:  # the client told nothing of the attempt before
            self._end_of_attempt("settle").settle(self._known(None))
        if self._held is None:
            self._held = self._model._budgets.reserve(self._model._caller, self._worst_usd)
        if self._meter is not None:
            self._meter.reserve()
        self._sent = True
        self.count += 1

    def settle(self, usage: Usage | None) -> None:
        if self._meter is not None:
            self._meter.settle(usage)
        self._end_of_attempt("settle").settle(self._known(usage))

    def release(self) -> None:
        if self._meter is not None:
            self._meter.release()
        self._end_of_attempt("release").release()

    def count_unmetered(self, usage: Usage) -> None:
        """A client gave a completion without asking a meter: its cost counts all the same."""
        if self.count == 0:
            self._sent = True
            self._end_of_attempt("settle").settle(self._known(usage))

    def _end_of_attempt(self, what: str) -> Reservation:
        held = self._held
        if held is None or not self._sent:
            raise RuntimeError(f"meter: {what} without reserve")
        self._held, self._sent = None, False
        return held

    def _known(self, usage: Usage | None) -> float | None:
        usd = _billed_usd(usage, self._price)
        if usd is None:
            self._model.charged_usd += self._worst_usd or 0.0
        return usd

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """The call is over: what is held is free, an attempt left open is charged as unknown."""
        if self._sent:
            self._end_of_attempt("settle").settle(self._known(None))
        elif self._held is not None:
            self._held.release()
            self._held = None


def _billed_usd(usage: Usage | None, price: Price | None) -> float | None:
    """What an attempt cost: as the client says, else by its tokens, else unknown."""
    if usage is None:
        return None
    if usage.cost_usd is not None and math.isfinite(usage.cost_usd) and usage.cost_usd >= 0:
        return usage.cost_usd
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    if price is None or prompt is None or completion is None or min(prompt, completion) < 0:
        return None
    return price.cost_usd(prompt, completion)
