"""Budgets: the books are exact whoever spends at once; nothing is sent that they cannot hold."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from masrouter.errors import BudgetError, CallError, ConfigError, ExecutionError
from masrouter.execution import aexecute
from masrouter.llms.chat import ChatRequest, Completion, Message, Meter, Price
from masrouter.server.budgeted_model import BudgetedModel
from masrouter.server.budgets import BudgetBusyError, Budgets, Reservation
from masrouter.types import Agent, Plan, Usage

PRICE = Price(1.0, 2.0, "test")
UNIT = 1e-15
IO = Plan("io", (Agent(None, "m"),))
SAMPLES = Plan("self_consistency", (Agent(None, "m"),) * 3)


def test_a_call_is_refused_where_its_worst_cost_does_not_fit() -> None:
    budgets = Budgets(1.0, {"ann": 0.5, "bob": None})
    held = budgets.reserve("ann", 0.4)
    assert budgets.left("ann") == pytest.approx(0.1)
    with pytest.raises(BudgetBusyError, match="key 'ann' is left while other calls are under way"):
        budgets.reserve("ann", 0.2)
    held.settle(0.4)
    with pytest.raises(BudgetError, match="key 'ann' is left") as refused:
        budgets.reserve("ann", 0.2)
    assert not isinstance(refused.value, BudgetBusyError)
    budgets.reserve("bob", 0.6).settle(0.6)
    assert budgets.left("ann") == 0.0
    assert budgets.spent() == 1.0
    with pytest.raises(BudgetError, match="the server is left"):
        budgets.reserve("ann", 0.01)


def test_what_nobody_knows_the_cost_of_is_charged_at_its_worst() -> None:
    budgets = Budgets(None, {"ann": 1.0})
    budgets.reserve("ann", 0.7).settle(None)
    assert budgets.spent("ann") == 0.7
    budgets.reserve("ann", 0.2).settle(float("nan"))
    assert budgets.spent("ann") == 0.9
    assert budgets.reserved("ann") == 0.0


def test_a_call_that_was_not_billed_costs_nothing() -> None:
    budgets = Budgets(1.0)
    held = budgets.reserve("ann", 1.0)
    assert budgets.reserved() == 1.0
    held.release()
    assert (budgets.spent(), budgets.reserved(), budgets.left("ann")) == (0.0, 0.0, 1.0)
    with pytest.raises(RuntimeError, match="before"):
        held.settle(0.1)


def test_an_unknown_price_is_refused_where_anything_is_limited_and_only_there() -> None:
    free = Budgets(None, {"ann": 1.0})
    with pytest.raises(BudgetError, match="no price is known"):
        free.reserve("ann", None)
    free.reserve("bob", None).settle(None)
    assert free.spent("bob") == 0.0
    with pytest.raises(BudgetError, match="no price is known"):
        Budgets(1.0).reserve("bob", None)


def test_a_provider_that_bills_more_than_the_worst_stops_the_spending() -> None:
    budgets = Budgets(1.0)
    budgets.reserve("ann", 0.5).settle(3.0)
    assert budgets.spent() == 3.0
    assert budgets.left("ann") == 0.0
    with pytest.raises(BudgetError):
        budgets.reserve("ann", UNIT)


def test_what_was_spent_before_counts() -> None:
    budgets = Budgets(1.0, {"ann": 0.5}, spent={"ann": 0.3, "gone": 0.6})
    assert budgets.spent() == pytest.approx(0.9)
    assert budgets.left("ann") == pytest.approx(0.1)
    with pytest.raises(BudgetError, match="the server"):
        budgets.reserve("ann", 0.15)


@pytest.mark.parametrize("usd", [-1.0, float("nan"), float("inf"), True, "1"])
def test_what_is_no_amount_is_refused(usd: float) -> None:
    with pytest.raises(ConfigError, match="budget_usd: expected US dollars"):
        Budgets(usd)
    with pytest.raises(ConfigError, match="keys: 'ann': budget_usd"):
        Budgets(None, {"ann": usd})
    with pytest.raises(ConfigError, match="spent: 'ann'"):
        Budgets(None, spent={"ann": usd})


AMOUNTS = st.one_of(
    st.integers(0, 10**16).map(lambda units: units * UNIT), st.floats(0, 2, allow_subnormal=False)
)
CALLERS = st.sampled_from(["ann", "bob", "eve"])


class Books(RuleBasedStateMachine):
    """Whatever is reserved, settled and released: no budget is ever overdrawn."""

    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.limits = {"ann": 0.7, "bob": 1.1}
        self.budgets = Budgets(1.5, {**self.limits, "eve": None})

    @rule(target=held, caller=CALLERS, worst=AMOUNTS)
    def reserve(self, caller: str, worst: float) -> Reservation | None:
        try:
            return self.budgets.reserve(caller, worst)
        except BudgetError:
            # It was refused for a reason: with it, one of the two would be overdrawn.
            left = self.budgets.left(caller)
            assert left is not None
            assert worst > left - 2 * UNIT
            return None

    @rule(reservation=consumes(held), share=st.floats(0, 1))
    def settle(self, reservation: Reservation | None, share: float) -> None:
        if reservation is not None:
            reservation.settle(reservation.worst_usd * share)

    @rule(reservation=consumes(held))
    def lose(self, reservation: Reservation | None) -> None:
        if reservation is not None:
            reservation.settle(None)

    @rule(reservation=consumes(held))
    def release(self, reservation: Reservation | None) -> None:
        if reservation is not None:
            reservation.release()

    @invariant()
    def nothing_is_overdrawn(self) -> None:
        for name, limit in self.limits.items():
            assert self.budgets.spent(name) + self.budgets.reserved(name) <= limit + UNIT
        assert self.budgets.spent() + self.budgets.reserved() <= 1.5 + UNIT

    @invariant()
    def the_sum_of_the_callers_is_the_total(self) -> None:
        callers = ("ann", "bob", "eve")
        assert sum(map(self.budgets.spent, callers)) == pytest.approx(self.budgets.spent())
        assert sum(map(self.budgets.reserved, callers)) == pytest.approx(self.budgets.reserved())


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@given(st.lists(st.tuples(CALLERS, st.integers(1, 10**14)), min_size=1, max_size=60))
@settings(max_examples=30, deadline=None)
def test_threads_that_spend_at_once_never_overdraw(calls: list[tuple[str, int]]) -> None:
    budgets = Budgets(10**15 * UNIT, {"ann": 3 * 10**14 * UNIT, "bob": None})
    began = threading.Barrier(4)

    def spend(mine: list[tuple[str, int]]) -> int:
        began.wait()
        spent = 0
        for caller, units in mine:
            try:
                held = budgets.reserve(caller, units * UNIT)
            except BudgetError:
                continue
            assert budgets.spent() + budgets.reserved() <= 1.0
            assert budgets.spent("ann") + budgets.reserved("ann") <= 0.3
            held.settle(units * UNIT)
            spent += units
        return spent

    with ThreadPoolExecutor(4) as pool:
        spent = sum(pool.map(spend, [calls[part::4] for part in range(4)]))
    assert budgets.spent() == spent / 10**15
    assert budgets.reserved() == 0.0


def test_who_waits_gets_room_when_calls_under_way_end_cheaply() -> None:
    async def work() -> None:
        budgets = Budgets(1.0)
        first = budgets.reserve("ann", 0.9)
        waiting = asyncio.create_task(budgets.hold("ann", 0.5, patience_s=30))
        await asyncio.sleep(0)
        assert not waiting.done()
        first.settle(0.1)
        (await waiting).settle(0.5)
        assert budgets.spent() == 0.6

    asyncio.run(work())


def test_who_waits_is_told_when_it_can_never_fit() -> None:
    async def work() -> None:
        budgets = Budgets(1.0)
        first = budgets.reserve("ann", 0.9)
        waiting = asyncio.create_task(budgets.hold("ann", 0.5, patience_s=30))
        await asyncio.sleep(0)
        first.settle(0.9)
        with pytest.raises(BudgetError) as refused:
            await waiting
        assert not isinstance(refused.value, BudgetBusyError)

    asyncio.run(work())


def test_patience_ends() -> None:
    async def work() -> None:
        budgets = Budgets(1.0)
        budgets.reserve("ann", 0.9)
        with pytest.raises(BudgetBusyError):
            await budgets.hold("ann", 0.5, patience_s=0.02)

    asyncio.run(work())


def test_a_room_that_another_thread_makes_wakes_who_waits() -> None:
    budgets = Budgets(1.0)
    first = budgets.reserve("ann", 1.0)

    async def work() -> None:
        waiting = asyncio.create_task(budgets.hold("ann", 1.0, patience_s=30))
        await asyncio.sleep(0)
        await asyncio.to_thread(first.release)
        (await waiting).release()

    asyncio.run(work())
    assert budgets.left("ann") == 1.0


class Provider:
    """Answers for a price; notes what it billed and the most that was under way at once."""

    def __init__(
        self,
        *,
        price: Price | None = PRICE,
        fails: Callable[[], bool] | None = None,
    ) -> None:
        self.billed = 0.0
        self.sent = 0
        self._price = price
        self._fails = fails or (lambda: False)

    def price(self, model: str) -> Price | None:
        return self._price

    async def complete(
        self,
        request: ChatRequest,
        *,
        timeout_s: float | None = None,
        meter: Meter | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Completion:
        assert meter is not None
        for _ in range(3):
            meter.reserve()
            self.sent += 1
            try:
                await asyncio.sleep(random.Random(self.sent).random() * 0.002)
            except asyncio.CancelledError:
                meter.settle(None)
                raise
            if not self._fails():
                break
            meter.release()
        else:
            raise CallError("no", kind="server_error", model="m")
        usage = Usage(20, 10)
        if self._price is not None:
            self.billed += self._price.cost_usd(20, 10)
        meter.settle(usage)
        return Completion("the answer", usage, model="m", finish_reason="stop")


def test_200_runs_at_once_spend_no_more_than_there_is() -> None:
    provider = Provider(fails=lambda: random.random() < 0.3)
    budgets = Budgets(0.05, {"ann": 0.02, "bob": 0.04})

    async def run(caller: str) -> bool:
        llm = BudgetedModel(provider, budgets, caller, patience_s=10)
        try:
            await aexecute(SAMPLES, "a question", llm=llm, max_tokens=200)
        except ExecutionError:
            return False
        return True

    async def work() -> list[bool]:
        return await asyncio.gather(*(run("ann" if n % 2 else "bob") for n in range(200)))

    answered = asyncio.run(work())
    assert any(answered)
    assert budgets.reserved() == 0.0
    assert budgets.spent() == pytest.approx(provider.billed)
    assert budgets.spent("ann") <= 0.02
    assert budgets.spent("bob") <= 0.04
    assert budgets.spent() <= 0.05


def test_runs_wait_for_room_rather_than_fail_as_long_as_there_will_be_some() -> None:
    provider = Provider()
    budgets = Budgets(0.01)  # the worst of a call is about 0.0009, and it costs 0.00004

    async def work() -> None:
        llms = [BudgetedModel(provider, budgets, "ann", patience_s=30) for _ in range(60)]
        runs = [aexecute(IO, "a question", llm=llm, max_tokens=200) for llm in llms]
        assert all(run.answer for run in await asyncio.gather(*runs))

    asyncio.run(work())
    assert budgets.spent() == pytest.approx(60 * 0.00004)


def test_nothing_is_sent_where_the_worst_of_the_first_call_does_not_fit() -> None:
    provider = Provider()
    budgets = Budgets(1e-6)
    llm = BudgetedModel(provider, budgets, "ann", patience_s=10)
    with pytest.raises(ExecutionError, match="budget: "):
        asyncio.run(aexecute(IO, "a question", llm=llm))
    assert provider.sent == 0
    assert budgets.spent() == 0.0


def test_a_run_that_is_cancelled_is_charged_for_what_was_under_way() -> None:
    provider = Provider()
    budgets = Budgets(1.0)
    llm = BudgetedModel(provider, budgets, "ann")

    async def work() -> None:
        running = asyncio.create_task(aexecute(SAMPLES, "a question", llm=llm, max_tokens=10))
        while provider.sent < 3:
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(work())
    assert budgets.reserved() == 0.0
    assert budgets.spent() == pytest.approx(llm.charged_usd)
    assert llm.charged_usd > 0


def test_a_client_that_asks_no_meter_is_counted_all_the_same() -> None:
    class Careless(Provider):
        async def complete(self, request: ChatRequest, **_: object) -> Completion:  # type: ignore[override]
            return Completion("the answer", Usage(20, 10), model="m")

    budgets = Budgets(1.0)
    request = ChatRequest("m", (Message("user", "a question"),), 10)
    asyncio.run(BudgetedModel(Careless(), budgets, "ann").complete(request))
    assert budgets.spent() == pytest.approx(0.00004)
    assert budgets.reserved() == 0.0


def test_an_attempt_that_a_client_leaves_open_is_charged_at_its_worst() -> None:
    class Forgetful(Provider):
        async def complete(  # type: ignore[override]
            self, request: ChatRequest, *, meter: Meter, **_: object
        ) -> Completion:
            meter.reserve()
            meter.reserve()
            raise CallError("no", kind="connection", model="m")

    budgets = Budgets(1.0)
    llm = BudgetedModel(Forgetful(), budgets, "ann")
    request = ChatRequest("m", (Message("user", "a question"),), 10)
    with pytest.raises(CallError):
        asyncio.run(llm.complete(request))
    worst = PRICE.cost_usd(request.most_prompt_tokens, 10)
    assert budgets.spent() == pytest.approx(2 * worst)
    assert llm.charged_usd == pytest.approx(2 * worst)
    assert budgets.reserved() == 0.0
