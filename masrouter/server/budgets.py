"""What callers may spend: each key its budget, and all of them together the server's.

A call's worst cost is reserved before it is sent, in whole units of 1e-15 US dollars, so that
`spent + charged + reserved <= budget` holds exactly, from any number of tasks and threads. As with
a run's own ledger it can break only where a provider bills more than was possible; then nothing
more is sent. The books are kept in memory: what earlier processes spent is given at the start.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from masrouter.errors import BudgetError, ConfigError

_UNITS = 10**15


class SpentError(BudgetError):
    """A caller's budget, or the server's, has no room for a call."""


class BudgetBusyError(SpentError):
    """There is room only once calls under way have ended below their worst cost: try again."""


@dataclass(slots=True)
class _Book:
    """One budget. Whoever touches it holds the lock."""

    owner: str
    limit: int | None
    spent: int = 0
    charged: int = 0
    reserved: int = 0

    def lacks(self, worst: int) -> bool:
        """Whether a call of this worst cost does not fit now."""
        total = self.spent + self.charged + self.reserved + worst
        return self.limit is not None and total > self.limit

    def can_never_hold(self, worst: int) -> bool:
        """Whether it does not fit even where calls under way cost nothing."""
        return self.limit is not None and self.spent + self.charged + worst > self.limit

    def left(self) -> int | None:
        if self.limit is None:
            return None
        return max(0, self.limit - self.spent - self.charged - self.reserved)


class Budgets:
    """The books of a server. Safe to use from many tasks and threads at once."""

    def __init__(
        self,
        total_usd: float | None = None,
        by_key: Mapping[str, float | None] | None = None,
        *,
        spent: Mapping[str, float] | None = None,
    ) -> None:
        """total_usd: of all callers together; by_key: of callers by name. None is no limit, and a
        caller without an entry has none of its own. spent: what was spent before, in US dollars by
        caller, those too that have no key any more. Raises ConfigError for what is no amount.
        """
        self._lock = threading.Lock()
        self._total = _Book("the server", _limit("budget_usd", total_usd))
        self._books = {
            name: _Book(f"key {name!r}", _limit(f"keys: {name!r}: budget_usd", limit))
            for name, limit in (by_key or {}).items()
        }
        self._waiting: dict[asyncio.Future[None], asyncio.AbstractEventLoop] = {}
        for name, usd in (spent or {}).items():
            units = _limit(f"spent: {name!r}", usd) or 0
            self._total.spent += units
            self._book(name).spent += units

    def spent(self, caller: str | None = None) -> float:
        """US dollars that count as spent: known costs, and the worst of unknown ones.

        caller: None is all callers together.
        """
        with self._lock:
            book = self._total if caller is None else self._book(caller)
            return (book.spent + book.charged) / _UNITS

    def reserved(self, caller: str | None = None) -> float:
        """US dollars that calls under way may cost at worst."""
        with self._lock:
            book = self._total if caller is None else self._book(caller)
            return book.reserved / _UNITS

    def left(self, caller: str) -> float | None:
        """US dollars that can be reserved now, by the caller's budget and the server's.

        None where neither is limited.
        """
        with self._lock:
            lefts = [book.left() for book in (self._total, self._book(caller))]
        known = [left for left in lefts if left is not None]
        return min(known) / _UNITS if known else None

    def most(self, caller: str) -> float | None:
        """US dollars that are neither spent nor charged, though calls under way may take them.

        What no single run can go beyond; None where nothing is limited.
        """
        with self._lock:
            books = (self._total, self._book(caller))
            mosts = [b.limit - b.spent - b.charged for b in books if b.limit is not None]
        return max(0, min(mosts)) / _UNITS if mosts else None

    def reserve(self, caller: str, worst_usd: float | None) -> Reservation:
        """Hold what a call may cost at worst, in the caller's budget and the server's.

        worst_usd: None where no price is known, which no budget allows. Raises SpentError where
        it does not fit, BudgetBusyError where it may once calls under way have ended, and
        BudgetError for an unknown price.
        """
        if worst_usd is not None and not (math.isfinite(worst_usd) and worst_usd >= 0):
            raise BudgetError(f"a call's worst cost: expected US dollars >= 0, got {worst_usd!r}")
        with self._lock:
            books = (self._total, self._book(caller))
            if worst_usd is None:
                if any(book.limit is not None for book in books):
                    raise BudgetError(
                        "no price is known for the call, so that no budget can be kept; give the "
                        "model's price in a catalog or provider file"
                    )
                worst = 0
            else:
                worst = _units(worst_usd)
            for book in books:
                if book.can_never_hold(worst):
                    raise SpentError(_told(book, worst, "is left"))
            for book in books:
                if book.lacks(worst):
                    raise BudgetBusyError(
                        _told(book, worst, "is left while other calls are under way; try again")
                    )
            for book in books:
                book.reserved += worst
        return Reservation(self, books, worst)

    async def hold(
        self, caller: str, worst_usd: float | None, *, patience_s: float = 0.0
    ) -> Reservation:
        """`reserve`, waiting so long for calls under way, which mostly end below their worst."""
        loop = asyncio.get_running_loop()
        until = loop.time() + patience_s
        while True:
            change: asyncio.Future[None] = loop.create_future()
            # Listed before the attempt, so that no change in between is missed.
            with self._lock:
                self._waiting[change] = loop
            try:
                return self.reserve(caller, worst_usd)
            except BudgetBusyError:
                if loop.time() >= until:
                    raise
                await asyncio.wait([change], timeout=until - loop.time())
            finally:
                with self._lock:
                    self._waiting.pop(change, None)

    def _book(self, caller: str) -> _Book:
        return self._books.setdefault(caller, _Book(f"key {caller!r}", None))

    def _end(self, books: tuple[_Book, ...], worst: int, *, spent: int, charged: int) -> None:
        with self._lock:
            for book in books:
                book.reserved -= worst
                book.spent += spent
                book.charged += charged
            woken = list(self._waiting.items())
            self._waiting.clear()
        for change, loop in woken:
            if not loop.is_closed():
                loop.call_soon_threadsafe(_wake, change)


class Reservation:
    """What one call may cost at worst, held until it is settled or released, once."""

    def __init__(self, budgets: Budgets, books: tuple[_Book, ...], worst: int) -> None:
        self._budgets = budgets
        self._books = books
        self._worst = worst
        self._open = True

    @property
    def worst_usd(self) -> float:
        """US dollars; 0 where no price is known."""
        return self._worst / _UNITS

    def settle(self, actual_usd: float | None) -> None:
        """The call may have been billed. None: nobody knows how much, so its worst is charged."""
        self._close()
        known = actual_usd is not None and math.isfinite(actual_usd) and actual_usd >= 0
        if actual_usd is None or not known:
            self._budgets._end(self._books, self._worst, spent=0, charged=self._worst)
        else:
            self._budgets._end(self._books, self._worst, spent=_units(actual_usd), charged=0)

    def release(self) -> None:
        """The call was certainly not billed."""
        self._close()
        self._budgets._end(self._books, self._worst, spent=0, charged=0)

    def _close(self) -> None:
        if not self._open:
            raise RuntimeError("reservation: it was settled or released before")
        self._open = False


def _told(book: _Book, worst: int, what: str) -> str:
    return (
        f"the next call may cost up to {worst / _UNITS:.6f} US$, and less of the budget of "
        f"{book.owner} {what}"
    )


def _wake(change: asyncio.Future[None]) -> None:
    if not change.done():
        change.set_result(None)


def _limit(name: str, usd: float | None) -> int | None:
    if usd is None:
        return None
    number = isinstance(usd, int | float) and not isinstance(usd, bool)
    if not number or not math.isfinite(usd) or usd < 0:
        raise ConfigError(f"{name}: expected US dollars >= 0, or nothing for no limit, got {usd!r}")
    return _units(usd)


def _units(usd: float) -> int:
    return round(usd * _UNITS)
