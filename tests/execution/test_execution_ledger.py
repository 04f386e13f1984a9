"""The ledger: what is spent, charged and reserved never exceeds the budget, whatever happens."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masrouter.errors import BudgetError, ConfigError
from masrouter.execution import Ledger
from masrouter.llms import ChatRequest, Price
from masrouter.llms.chat import messages
from masrouter.types import Usage

PRICE = Price(3.0, 7.0, "test")
REQUEST = ChatRequest("m", messages("system", "user"), max_tokens=100)
WORST = PRICE.cost_usd(REQUEST.most_prompt_tokens, 100)


@dataclass(frozen=True)
class Attempt:
    """One try of a call: what it used (a share of the worst), None unknown, or not billed."""

    end: str
    share: float
    turns: int


attempts = st.builds(
    Attempt,
    st.sampled_from(["settle", "unknown", "release", "left open", "cancelled"]),
    st.floats(0, 1),
    st.integers(0, 3),
)
calls = st.tuples(st.integers(1, 400), st.booleans(), st.lists(attempts, min_size=1, max_size=3))


@settings(max_examples=150, deadline=None)
@given(st.lists(calls, min_size=1, max_size=8), st.none() | st.floats(0, 0.01))
def test_the_books_balance_after_every_step_of_many_calls(
    plans: list[tuple[int, bool, list[Attempt]]], budget: float | None
) -> None:
    ledger = Ledger(budget)
    known: list[float] = []
    lost: list[float] = []

    def check() -> None:
        assert ledger.within_budget
        total = ledger.spent_usd + ledger.charged_usd + ledger.reserved_usd
        assert budget is None or total <= budget + 1e-12
        assert min(ledger.spent_usd, ledger.charged_usd, ledger.reserved_usd) >= 0

    async def call(max_tokens: int, waits: bool, tries: list[Attempt]) -> None:
        request = ChatRequest("m", REQUEST.messages, max_tokens)
        most = request.most_prompt_tokens
        worst = PRICE.cost_usd(most, max_tokens)
        meter = ledger.meter(request, PRICE)
        try:
            if waits:
                await meter.ready()
                check()
            for attempt in tries:
                meter.reserve()
                check()
                for _ in range(attempt.turns):
                    await asyncio.sleep(0)
                if attempt.end == "settle":
                    usage = Usage(int(most * attempt.share), int(max_tokens * attempt.share))
                    meter.settle(usage)
                    known.append(
                        PRICE.cost_usd(
                            *map(int, (usage.prompt_tokens or 0, usage.completion_tokens or 0))
                        )
                    )
                elif attempt.end == "release":
                    meter.release()
                else:
                    lost.append(worst)
                    if attempt.end == "unknown":
                        meter.settle(None)
                    elif attempt.end == "cancelled":
                        return
                check()
        except BudgetError:
            assert budget is not None
        finally:
            meter.close()
            check()

    async def all_of_them() -> None:
        await asyncio.gather(*(call(*plan) for plan in plans))

    asyncio.run(all_of_them())
    assert ledger.reserved_usd == 0
    assert ledger.spent_usd == pytest.approx(sum(known))
    assert ledger.charged_usd == pytest.approx(sum(lost))


nested = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 300), st.floats(0, 1)), max_size=12)
budgets = st.none() | st.floats(0, 0.01)


@settings(max_examples=100, deadline=None)
@given(nested, st.tuples(budgets, budgets, budgets))
def test_what_is_reserved_within_other_books_is_within_their_budget_too(
    plans: list[tuple[int, int, float]], limits: tuple[float | None, ...]
) -> None:
    whole = Ledger(limits[0])
    books = [whole, Ledger(limits[1], within=whole), Ledger(limits[2], within=whole)]
    known = [0.0, 0.0, 0.0]

    async def call(which: int, max_tokens: int, share: float) -> None:
        request = ChatRequest("m", REQUEST.messages, max_tokens)
        meter = books[which].meter(request, PRICE)
        try:
            await meter.ready()
            meter.reserve()
            await asyncio.sleep(0)
            assert all(book.within_budget for book in books)
            used = Usage(10, int(max_tokens * share))
            meter.settle(used)
            known[which] += PRICE.cost_usd(10, used.completion_tokens or 0)
        except BudgetError:
            pass
        finally:
            meter.close()

    async def all_of_them() -> None:
        await asyncio.gather(*(call(*plan) for plan in plans))

    asyncio.run(asyncio.wait_for(all_of_them(), 30))
    assert [book.reserved_usd for book in books] == [0, 0, 0]
    assert whole.spent_usd == pytest.approx(sum(known))
    assert books[1].spent_usd == pytest.approx(known[1])
    for book, limit in zip(books, limits, strict=True):
        assert limit is None or book.spent_usd <= limit


def test_room_in_the_books_around_lets_a_call_of_other_books_go_on() -> None:
    async def scenario() -> None:
        whole = Ledger(1.5 * WORST)
        one, other = (Ledger(within=whole).meter(REQUEST, PRICE) for _ in range(2))
        one.reserve()
        waiting = asyncio.create_task(other.ready())
        await asyncio.sleep(0)
        assert not waiting.done()
        assert whole.left_usd == pytest.approx(0.5 * WORST)
        one.settle(Usage(0, 0, 0.0))
        await asyncio.wait_for(waiting, 5)
        other.close()

    asyncio.run(scenario())


def test_a_refusal_names_the_budget_that_is_too_small() -> None:
    inner = Ledger(10 * WORST, within=Ledger(WORST / 2))
    with pytest.raises(BudgetError, match=f"of {WORST / 2:g} US"):
        inner.meter(REQUEST, PRICE).reserve()
    unlimited = Ledger(within=Ledger(1.0))
    with pytest.raises(BudgetError, match="budget_usd 1: no price is known for 'x'"):
        unlimited.check_prices({"x": None})


def test_a_call_that_does_not_fit_is_refused_with_what_is_left() -> None:
    ledger = Ledger(WORST * 1.5)
    ledger.meter(REQUEST, PRICE).reserve()
    with pytest.raises(BudgetError, match=r"up to 0.000\d+ US\$, and of 0.00\d+ US\$ only 0.0"):
        ledger.meter(REQUEST, PRICE).reserve()
    assert ledger.reserved_usd == pytest.approx(WORST)


def test_a_budget_of_exactly_the_worst_cost_is_enough() -> None:
    meter = Ledger(WORST).meter(REQUEST, PRICE)
    meter.reserve()
    meter.settle(Usage(REQUEST.most_prompt_tokens, 100))
    assert meter.usage.cost_usd == WORST


def test_a_call_waits_while_others_may_leave_room_and_not_when_they_cannot() -> None:
    async def wait_for_room(usage: Usage | None) -> bool:
        ledger = Ledger(WORST * 1.5)
        first, second = ledger.meter(REQUEST, PRICE), ledger.meter(REQUEST, PRICE)
        await first.ready()
        waiting = asyncio.create_task(second.ready())
        await asyncio.sleep(0)
        assert not waiting.done()
        first.reserve()
        assert ledger.reserved_usd == pytest.approx(WORST)
        first.settle(usage)
        try:
            await waiting
        except BudgetError:
            return False
        second.reserve()
        return True

    assert asyncio.run(wait_for_room(Usage(1, 1)))
    assert not asyncio.run(wait_for_room(None))


def test_a_waiting_call_that_is_cancelled_holds_nothing() -> None:
    async def cancelled() -> Ledger:
        ledger = Ledger(WORST)
        first, second = ledger.meter(REQUEST, PRICE), ledger.meter(REQUEST, PRICE)
        await first.ready()
        waiting = asyncio.create_task(second.ready())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        second.close()
        assert ledger.reserved_usd == pytest.approx(WORST)
        first.close()
        return ledger

    assert asyncio.run(cancelled()).reserved_usd == 0


@pytest.mark.parametrize(
    ("usages", "summed"),
    [
        ([Usage(10, 5, 0.25)], Usage(10, 5, 0.25)),
        ([Usage(10, 5)], Usage(10, 5, PRICE.cost_usd(10, 5))),
        ([Usage(10, None, 0.25)], Usage(10, None, 0.25)),
        ([Usage(10, None)], Usage(10, None, None)),
        ([None], Usage(None, None, None)),
        ([None, Usage(10, 5, 0.25)], Usage(None, None, None)),
        ([Usage(1, 2, 0.5), Usage(10, 5, 0.25)], Usage(11, 7, 0.75)),
        ([Usage(-1, 5, -3.0)], Usage(None, 5, None)),
        ([Usage(1, 5, float("nan"))], Usage(1, 5, PRICE.cost_usd(1, 5))),
        ([], Usage(0, 0, 0.0)),
    ],
)
def test_usage_is_what_is_known_of_all_attempts(usages: list[Usage | None], summed: Usage) -> None:
    ledger = Ledger()
    meter = ledger.meter(REQUEST, PRICE)
    for usage in usages:
        meter.reserve()
        meter.settle(usage)
    assert meter.usage == summed
    assert (ledger.charged_usd > 0) == (summed.cost_usd is None)
    assert meter.attempts == len(usages)


def test_an_unpriced_call_is_counted_without_a_budget_and_refused_with_one() -> None:
    meter = Ledger().meter(REQUEST, None)
    meter.reserve()
    meter.settle(Usage(10, 5))
    assert meter.usage == Usage(10, 5, None)
    with pytest.raises(BudgetError, match="budget_usd 2: no price is known for 'm'; give its"):
        Ledger(2).meter(REQUEST, None).reserve()


def test_a_client_that_settles_what_it_did_not_reserve_is_told() -> None:
    meter = Ledger().meter(REQUEST, PRICE)
    with pytest.raises(RuntimeError, match="settle without reserve"):
        meter.settle(None)
    meter.reserve()
    meter.release()
    with pytest.raises(RuntimeError, match="release without reserve"):
        meter.release()


def test_an_attempt_that_a_client_forgot_is_charged() -> None:
    ledger = Ledger()
    meter = ledger.meter(REQUEST, PRICE)
    meter.reserve()
    meter.reserve()
    meter.release()
    assert ledger.charged_usd == pytest.approx(WORST)
    assert (meter.attempts, meter.usage.cost_usd) == (2, None)


def test_books_in_use_in_one_event_loop_are_refused_in_another() -> None:
    ledger = Ledger(2 * WORST)
    refused: list[str] = []

    async def elsewhere() -> None:
        try:
            await ledger.meter(REQUEST, PRICE).ready()
        except BudgetError as error:
            refused.append(str(error))

    async def first() -> None:
        meter = Ledger(within=ledger).meter(REQUEST, PRICE)
        await meter.ready()
        await asyncio.to_thread(asyncio.run, elsewhere())
        meter.close()
        await asyncio.to_thread(asyncio.run, elsewhere())  # they are free again

    asyncio.run(first())
    assert len(refused) == 1
    assert "in use in another event loop" in refused[0]


@pytest.mark.parametrize("bad", [-1, float("nan"), float("inf"), "1", True])
def test_a_budget_that_is_no_amount_is_refused(bad: object) -> None:
    with pytest.raises(ConfigError, match="budget_usd: expected US dollars >= 0, or None for no"):
        Ledger(bad)  # type: ignore[arg-type]
