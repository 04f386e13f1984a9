"""What a run may spend: a call's worst cost is reserved before it is sent.

The books keep whole units of 1e-15 US dollars, so that sums do not depend on the order in which
calls end, and `spent + charged + reserved <= budget` holds exactly. It can break only where a
provider bills more than `max_tokens` and the prompt's bytes allow; then nothing more is sent.

Ledgers nest: what is reserved in one `within` another is reserved in both, so that a run keeps its
own budget and, with all others, that of the batch. A ledger belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Literal

from masrouter.errors import BudgetError, ConfigError
from masrouter.llms.chat import ChatRequest, Price
from masrouter.types import Usage

_UNITS = 10**15
_NOTHING = Usage(0, 0, 0.0)
_MOST_USD = 1e15


class Ledger:
    """The books of one run. Without a budget nothing is refused, and all is counted."""

    def __init__(self, budget_usd: float | None = None, *, within: Ledger | None = None) -> None:
        """within: the books that this one is a part of.

        Raises ConfigError for a budget that is not a number of US dollars >= 0.
        """
        if budget_usd is not None:
            number = isinstance(budget_usd, int | float) and not isinstance(budget_usd, bool)
            if not number or not 0 <= budget_usd <= _MOST_USD:
                raise ConfigError(
                    f"budget_usd: expected US dollars >= 0, or None for no limit (at "
                    f"most {_MOST_USD:g}), got {budget_usd!r:.80}"
                )
        self.budget_usd = budget_usd
        self._budget = None if budget_usd is None else _units(budget_usd)
        self._spent = self._charged = self._reserved = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._books: tuple[Ledger, ...] = (self,) if within is None else (self, *within._books)
        # Room in any of the books may let anybody go on who waits in one of them.
        self._waiting: list[asyncio.Future[None]] = [] if within is None else within._waiting

    @property
    def spent_usd(self) -> float:
        """What ended attempts are known to have cost."""
        return self._spent / _UNITS

    @property
    def charged_usd(self) -> float:
        """Worst cost of ended attempts that may have been billed, nobody knows how much."""
        return self._charged / _UNITS

    @property
    def reserved_usd(self) -> float:
        """Worst cost of the attempts under way."""
        return self._reserved / _UNITS

    @property
    def within_budget(self) -> bool:
        """Whether all of it together is at most the budget, here and in the books around."""
        return self._fits(0)

    @property
    def left_usd(self) -> float | None:
        """What may still be reserved, by this budget and those around it; None without any."""
        left = [
            book._budget - book._spent - book._charged - book._reserved
            for book in self._books
            if book._budget is not None
        ]
        return max(min(left), 0) / _UNITS if left else None

    def meter(self, request: ChatRequest, price: Price | None) -> CallMeter:
        """The meter of one call."""
        return CallMeter(self, request, price)

    def check_prices(self, prices: Mapping[str, Price | None]) -> None:
        """Raises BudgetError, naming the models, where there is a budget and a price unknown."""
        unpriced = [model for model, price in prices.items() if price is None]
        budget = next((b.budget_usd for b in self._books if b.budget_usd is not None), None)
        if budget is not None and unpriced:
            names = ", ".join(map(repr, unpriced))
            raise BudgetError(
                f"budget_usd {budget:g}: no price is known for {names}; give its price "
                "in a catalog or provider file, leave it out of the plan, or set no budget"
            )

    async def _wait(self, worst: int) -> None:
        """Reserve when there is room; others' attempts mostly end below their worst cost."""
        outermost, loop = self._books[-1], asyncio.get_running_loop()
        if outermost._reserved and outermost._loop not in (None, loop):
            raise BudgetError("these books are in use in another event loop; give each its own")
        outermost._loop = loop
        while not self._fits(worst) and self._may_fit_later(worst):
            change = loop.create_future()
            self._waiting.append(change)
            try:
                await change
            finally:
                self._waiting.remove(change)
        self._reserve(worst)

    def _reserve(self, worst: int) -> None:
        for book in self._books:
            total = book._spent + book._charged + book._reserved
            if book._budget is not None and total + worst > book._budget:
                raise BudgetError(
                    f"the next call may cost up to {worst / _UNITS:.6f} US$, and of "
                    f"{book.budget_usd:g} US$ only {max(book._budget - total, 0) / _UNITS:.6f} "
                    "are left; raise the budget, or allow the call fewer tokens"
                )
        self._hold(worst)

    def _hold(self, worst: int) -> None:
        for book in self._books:
            book._reserved += worst

    def _end(self, worst: int, *, spent: int = 0, charged: int = 0) -> None:
        for book in self._books:
            book._reserved -= worst
            book._spent += spent
            book._charged += charged
        for change in self._waiting:
            if not change.done():
                change.set_result(None)

    def _fits(self, worst: int) -> bool:
        return all(
            book._budget is None
            or book._spent + book._charged + book._reserved + worst <= book._budget
            for book in self._books
        )

    def _may_fit_later(self, worst: int) -> bool:
        return all(
            book._budget is None or book._spent + book._charged + worst <= book._budget
            for book in self._books
        )


class CallMeter:
    """One call's page in the ledger: a `Meter` for its client.

    `usage` sums the attempts; a part of it is None where any attempt may have been billed and
    that part is unknown.
    """

    def __init__(self, ledger: Ledger, request: ChatRequest, price: Price | None) -> None:
        self.attempts = 0
        self.usage = _NOTHING
        self._ledger = ledger
        self._price = price
        self._model = request.model
        self._worst = 0
        if price is not None:
            worst = price.cost_usd(request.most_prompt_tokens, request.max_tokens)
            self._worst = _units(worst)
        self._state: Literal["idle", "held", "sent"] = "idle"

    async def ready(self) -> None:
        """Wait until the first attempt's worst cost fits, and hold it.

        Raises BudgetError where it cannot fit, whatever the calls under way will cost.
        """
        self._check_price()
        if self._state == "idle":
            await self._ledger._wait(self._worst)
            self._state = "held"

    def reserve(self) -> None:
        """An attempt is about to be sent. Raises BudgetError where its worst cost does not fit."""
        self._check_price()
        if self._state == "sent":
            self.settle(None)  # the client told nothing of the attempt before
        if self._state == "idle":
            self._ledger._reserve(self._worst)
        self._state = "sent"
        self.attempts += 1

    def settle(self, usage: Usage | None) -> None:
        """The attempt may have been billed: its usage, None where that is unknown."""
        self._check_sent("settle")
        self._state = "idle"
        billed = self._billed(usage)
        self.usage = _sum(self.usage, billed)
        if billed.cost_usd is None:
            self._ledger._end(self._worst, charged=self._worst)
        else:
            self._ledger._end(self._worst, spent=_units(billed.cost_usd))

    def release(self) -> None:
        """The attempt was certainly not billed."""
        self._check_sent("release")
        self._state = "idle"
        self._ledger._end(self._worst)

    def close(self) -> None:
        """The call is over: what was held is free, an attempt left open is charged as unknown."""
        if self._state == "held":
            self._state = "idle"
            self._ledger._end(self._worst)
        elif self._state == "sent":
            self.settle(None)

    def count_unmetered(self, usage: Usage) -> None:
        """A client gave a completion without asking the meter: count it all the same.

        Raises BudgetError where there is a budget, since such a client keeps none.
        """
        self.close()
        self.attempts = 1
        self._state = "sent"
        self._ledger._hold(self._worst)
        self.settle(usage)
        if self._ledger.left_usd is not None:
            raise BudgetError(
                f"model {self._model!r}: its client answered without asking the meter, so that no "
                "budget can be kept; mend the client, or set no budget"
            )

    def _billed(self, usage: Usage | None) -> Usage:
        """What a client said, with the cost where it follows, without what cannot be."""
        if usage is None:
            return Usage()
        prompt, completion = _count(usage.prompt_tokens), _count(usage.completion_tokens)
        cost = usage.cost_usd
        if cost is not None and not (math.isfinite(cost) and cost >= 0):
            cost = None
        if cost is None and self._price and prompt is not None and completion is not None:
            cost = self._price.cost_usd(prompt, completion)
        return Usage(prompt, completion, cost)

    def _check_price(self) -> None:
        if self._price is None:
            self._ledger.check_prices({self._model: None})

    def _check_sent(self, what: str) -> None:
        if self._state != "sent":
            raise RuntimeError(
                f"meter: {what} without reserve; a client reserves before every attempt and "
                "settles or releases it once"
            )


def total_usage(usages: list[Usage]) -> Usage:
    """The sum of several calls, in any order; a part is None where it is None for any of them."""
    total = _NOTHING
    for usage in usages:
        total = _sum(total, usage)
    return total


def _sum(one: Usage, other: Usage) -> Usage:
    cost = None
    if one.cost_usd is not None and other.cost_usd is not None:
        cost = (_units(one.cost_usd) + _units(other.cost_usd)) / _UNITS
    return Usage(
        _plus(one.prompt_tokens, other.prompt_tokens),
        _plus(one.completion_tokens, other.completion_tokens),
        cost,
    )


def _plus(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def _count(tokens: int | None) -> int | None:
    return None if tokens is None or tokens < 0 else tokens


def _units(usd: float) -> int:
    return round(usd * _UNITS)
