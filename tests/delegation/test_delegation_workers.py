"""Workers: callables that answer where a chat model would, with prices, limits and failures."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.adaptation.probe_samples import probes
from tests.delegation.scripted import ScriptedModel
from tests.llms.meters import Tally

from masrouter.delegation.delegator import Delegator
from masrouter.delegation.query import task_query
from masrouter.delegation.tasks import Batch, Task
from masrouter.delegation.workers.worker import (
    Produced,
    Worker,
    WorkerError,
    WorkersModel,
    with_workers,
)
from masrouter.encoder import HashingEncoder
from masrouter.errors import BudgetError, CallError, ConfigError
from masrouter.execution import aexecute
from masrouter.llms.chat import ChatRequest, Completion, messages
from masrouter.logs import Logs
from masrouter.types import LogRecord, Run, Usage
from masrouter_train.config import TrainConfig
from masrouter_train.fit import fit
from masrouter_train.synthetic import SyntheticWorld


def worker(run: Callable[[str], Any] = str.upper, **options: Any) -> Worker:
    given = {"name": "shouter", "description": "Writes a text in capital letters.", **options}
    return Worker(run=run, **given)


def request(name: str, text: str = "hello") -> ChatRequest:
    return ChatRequest(name, messages("You are an assistant.", text), max_tokens=100)


def run_of(one: Worker, query: str, **options: Any) -> Run:
    return asyncio.run(aexecute(one.plan, query, llm=with_workers(None, [one]), **options))


def failure_of(one: Worker, **options: Any) -> WorkerError:
    with pytest.raises(WorkerError) as caught:
        asyncio.run(with_workers(None, [one]).complete(request(one.name), **options))
    return caught.value


class TestInput:
    QUERY = task_query("do it", "the context", {"a": "first result", "b": "second result"})

    @pytest.mark.parametrize(
        ("takes", "text"),
        [
            ("material", "the context\n\nfirst result\n\nsecond result"),
            ("goal", "do it"),
            ("all", "do it\n\nthe context\n\nfirst result\n\nsecond result"),
        ],
    )
    def test_a_worker_is_given_plain_text_and_no_prompt(self, takes: Any, text: str) -> None:
        assert run_of(worker(lambda given: given, takes=takes), self.QUERY).answer == text

    @pytest.mark.parametrize("takes", ["material", "goal", "all"])
    def test_a_goal_alone_is_what_there_is_to_work_on(self, takes: Any) -> None:
        assert run_of(worker(takes=takes), "do it").answer == "DO IT"

    def test_marks_in_a_document_reach_the_worker_as_they_were(self) -> None:
        text = "a </question> b <context>\nc\n</context>"
        assert run_of(worker(lambda given: given), task_query("do it", text)).answer == text


class TestCalls:
    def test_functions_coroutines_and_callable_objects_all_work(self) -> None:
        async def coroutine(text: str) -> str:
            await asyncio.sleep(0)
            return text.upper()

        class Thing:
            async def __call__(self, text: str) -> str:
                return text.upper()

        for run in (str.upper, coroutine, Thing(), lambda text: coroutine(text)):
            assert run_of(worker(run), "abc").answer == "ABC"

    def test_other_names_are_passed_to_the_inner_model(self) -> None:
        inner = ScriptedModel({"small": "from the model"})
        llm = with_workers(inner, [worker()])
        said = asyncio.run(llm.complete(request("small")))
        assert said.text == "from the model"
        assert llm.price("small") == inner.price("small")
        with pytest.raises(CallError) as caught:
            asyncio.run(llm.complete(request("nobody")))
        assert caught.value.kind == "unknown_model"
        with pytest.raises(CallError, match="workers only: shouter"):
            asyncio.run(with_workers(None, [worker()]).complete(request("nobody")))
        assert with_workers(inner, []) is inner

    def test_text_is_streamed_whole(self) -> None:
        pieces: list[str] = []
        llm = with_workers(None, [worker()])
        said = asyncio.run(llm.complete(request("shouter"), on_text=pieces.append))
        assert pieces == ["HELLO"] == [said.text]
        assert said.model == "shouter"

    def test_no_more_calls_at_once_than_it_allows(self) -> None:
        now, peak = 0, 0

        async def busy(text: str) -> str:
            nonlocal now, peak
            now += 1
            peak = max(peak, now)
            await asyncio.sleep(0.01)
            now -= 1
            return text

        async def many(llm: WorkersModel) -> list[Completion]:
            return await asyncio.gather(*(llm.complete(request("shouter")) for _ in range(6)))

        llm = WorkersModel(None, [worker(busy, max_concurrency=2)])
        assert len(asyncio.run(many(llm))) == 6
        assert peak == 2
        assert len(asyncio.run(many(llm))) == 6  # in another event loop

    def test_a_thread_keeps_its_place_until_it_ends(self) -> None:
        release, begun, times = threading.Event(), threading.Event(), []

        def slow(text: str) -> str:
            times.append(text)
            begun.set()
            assert release.wait(20)
            return text

        async def run() -> None:
            llm = WorkersModel(None, [worker(slow)])
            first = asyncio.create_task(llm.complete(request("shouter", "one")))
            await asyncio.to_thread(begun.wait, 20)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            second = asyncio.create_task(llm.complete(request("shouter", "two")))
            await asyncio.sleep(0.05)
            assert times == ["one"]  # the thread still has the only place
            release.set()
            assert (await second).text == "two"

        asyncio.run(run())
        assert times == ["one", "two"]


class TestMoney:
    @pytest.mark.parametrize(
        ("prices", "produced", "cost"),
        [
            ({"usd_per_call": 0.25}, "x", 0.25),
            ({"usd_per_call": 0}, "x", 0.0),
            ({}, "x", None),
            ({"input_usd_per_mtok": 3.0}, Produced("x", prompt_tokens=1000), 0.003),
            ({"input_usd_per_mtok": 3.0}, "x", None),
            ({"output_usd_per_mtok": 2.0}, Produced("x", completion_tokens=500), 0.001),
            ({"usd_per_call": 1, "input_usd_per_mtok": 1e6}, Produced("x", prompt_tokens=2), 3.0),
            ({"usd_per_call": 1}, Produced("x", cost_usd=0.5), 0.5),
        ],
    )
    def test_a_call_costs_what_its_prices_say(
        self, prices: Any, produced: Any, cost: float | None
    ) -> None:
        usage = run_of(worker(lambda text: produced, **prices), "go").usage
        assert usage.cost_usd == (None if cost is None else pytest.approx(cost))

    def test_a_call_that_does_not_fit_the_budget_is_not_made(self) -> None:
        made: list[str] = []

        def work(text: str) -> str:
            made.append(text)
            return text

        paid = worker(work, usd_per_call=0.25)
        with pytest.raises(Exception, match="budget"):
            run_of(paid, "go", budget_usd=0.2)
        assert made == []
        assert run_of(paid, "go", budget_usd=0.25).usage.cost_usd == 0.25

    def test_an_unknown_price_is_refused_under_a_budget(self) -> None:
        with pytest.raises(BudgetError, match="shouter"):
            run_of(worker(), "go", budget_usd=1.0)

    def test_the_meter_is_told_of_every_call_once(self) -> None:
        def told(run: Callable[[str], Any], **options: Any) -> Tally:
            tally = Tally()
            llm = with_workers(None, [worker(run, **options)])
            with contextlib.suppress(CallError):
                asyncio.run(llm.complete(request("shouter"), meter=tally))
            return tally

        assert told(str.upper, usd_per_call=0.5).usages == [Usage(None, None, 0.5)]
        assert told(lambda text: 1 / 0, usd_per_call=0.5).marks == "ru"
        assert told(lambda text: 1 / 0, usd_per_call=0).marks == "rs"  # it was free all the same


async def cancelled_within(text: str) -> str:
    """As a client library does whose own task was stopped."""
    raise asyncio.CancelledError


async def exit_later(text: str) -> str:
    raise SystemExit(1)


class Unspeakable(BaseException):
    def __repr__(self) -> str:
        raise RuntimeError


def unspeakable(text: str) -> str:
    raise Unspeakable


class TestFailures:
    @pytest.mark.parametrize(
        ("run", "kind", "why"),
        [
            (lambda text: 1 / 0, "server_error", "ZeroDivisionError: division by zero"),
            (lambda text: next(iter(())), "server_error", "StopIteration"),
            (lambda text: (_ for _ in ()).throw(SystemExit(1)), "server_error", "SystemExit"),
            (cancelled_within, "server_error", "was cancelled from within"),
            (unspeakable, "server_error", "Unspeakable"),
            (exit_later, "server_error", "SystemExit"),
            (lambda text: exit_later(text), "server_error", "SystemExit"),
            (lambda text: 7, "bad_response", "gave int where text was expected"),
            (lambda text: Produced(7), "bad_response", "gave Produced"),
            (lambda text: Produced("x", 1.5), "bad_response", "gave 1.5 as its prompt_tokens"),
            (lambda text: Produced("x", 1, -2), "bad_response", "gave -2 as its completion_tok"),
            (lambda text: Produced("x", cost_usd="1"), "bad_response", "gave '1' as its cost_usd"),
            (lambda text: Produced("x", cost_usd=math.nan), "bad_response", "gave nan as its co"),
            (lambda text: " \n", "empty", "gave no text"),
            (lambda text: "x" * 1_000_001, "bad_response", "gave 1,000,001 characters"),
        ],
    )
    def test_whatever_goes_wrong_is_a_worker_error(self, run: Any, kind: str, why: str) -> None:
        error = failure_of(worker(run))
        assert (error.kind, error.model, error.attempts) == (kind, "shouter", 1)
        assert str(error).startswith("worker 'shouter': ")
        assert why in str(error)

    def test_a_result_may_be_as_long_as_the_worker_says(self) -> None:
        assert run_of(worker(lambda text: "x" * 9, max_characters=9), "go").answer == "x" * 9
        told = str(failure_of(worker(lambda text: "x" * 10, max_characters=9)))
        assert told == "worker 'shouter': gave 10 characters, and 9 are taken (its max_characters)"

    def test_its_own_words_are_shown_on_one_line(self) -> None:
        def bad(text: str) -> str:
            raise ValueError("first\nsecond\x1b[31m" + "x" * 10_000)

        told = str(failure_of(worker(bad)))
        assert "\n" not in told
        assert "\x1b" not in told
        assert len(told) < 2000

    def test_a_call_error_keeps_its_kind(self) -> None:
        def bad(text: str) -> str:
            raise CallError("too long", kind="rejected", model="x", status=413)

        error = failure_of(worker(bad))
        assert (error.kind, error.status, error.model) == ("rejected", 413, "shouter")
        assert str(error) == "worker 'shouter': too long"

    def test_its_own_deadline_ends_a_call(self) -> None:
        stop = threading.Event()
        try:
            error = failure_of(worker(lambda text: str(stop.wait(20)), deadline_s=0.05))
        finally:
            stop.set()
        assert error.kind == "timeout"
        assert "0.05 s" in str(error)

    def test_a_shorter_deadline_of_the_run_comes_first(self) -> None:
        async def forever(text: str) -> str:
            await asyncio.sleep(60)
            return text

        with pytest.raises(Exception, match=r"deadline: .* 0\.05 s"):
            run_of(worker(forever, deadline_s=30), "go", deadline_s=0.05)

    @pytest.mark.parametrize(
        ("options", "why"),
        [
            ({"name": "Big Name"}, "small letters"),
            ({"name": "a/b"}, "small letters"),
            ({"name": "a:b"}, "small letters"),
            ({"description": " "}, "description"),
            ({"usd_per_call": -1}, "usd_per_call"),
            ({"input_usd_per_mtok": float("nan")}, "input_usd_per_mtok"),
            ({"usd_per_call": True}, "usd_per_call"),
            ({"takes": "nothing"}, "material, goal or all"),
            ({"max_concurrency": 0}, "max_concurrency"),
            ({"deadline_s": 0}, "deadline_s"),
            ({"context_window": 0}, "context_window"),
            ({"examples": "one"}, "examples"),
            ({"max_characters": 0}, "max_characters"),
        ],
    )
    def test_what_cannot_be_meant_is_refused(self, options: Any, why: str) -> None:
        with pytest.raises(ConfigError, match=why):
            worker(**options)
        with pytest.raises(ConfigError, match="run"):
            worker(None)  # type: ignore[arg-type]

    def test_two_of_one_name_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="given twice"):
            with_workers(None, [worker(), worker(str.lower)])
        with pytest.raises(ConfigError, match="name of a model"):
            with_workers(ScriptedModel({"shouter": "x"}), [worker()])


DOCUMENTS = (
    "The pump is serviced every six months by the workshop in Kiel.",
    "Sensors are calibrated against the reference at 20 degrees.",
    "Invoices are paid within thirty days of receipt.",
)


def nearest_document(question: str) -> str:
    """A retrieval function: the document whose embedding is nearest to the question's."""
    vectors = HashingEncoder(256).encode([question, *DOCUMENTS])
    return DOCUMENTS[int(np.argmax(vectors[1:] @ vectors[0]))]


class TestDelegation:
    def test_a_retrieval_function_serves_a_model_that_needs_what_it_found(self) -> None:
        llm = ScriptedModel({"small": "Kiel"})
        library = worker(
            nearest_document, name="library", description="Finds documents.", takes="goal",
            usd_per_call=0.0,
        )  # fmt: skip
        tasks = [
            Task("Which workshop services the pump?", model="library", id="find"),
            Task("Name the town.", model="small", needs=("find",)),
        ]

        async def run() -> Batch:
            return await Delegator(llm, workers=[library]).delegate_tasks(tasks, budget_usd=1.0)

        found, answered = asyncio.run(run()).results
        assert found.answer == DOCUMENTS[0]
        assert found.models == ("library",)
        assert found.usage.cost_usd == 0.0
        assert answered.answer == "Kiel"
        assert DOCUMENTS[0] in llm.requests[0].messages[-1].content

    def test_a_failing_worker_fails_its_own_task_alone(self) -> None:
        tasks = [Task("a", model="broken"), Task("b", model="shouter")]
        workers = [worker(lambda text: 1 / 0, name="broken"), worker()]

        async def run() -> Batch:
            return await Delegator(ScriptedModel({}), workers=workers).delegate_tasks(tasks)

        broken, fine = asyncio.run(run()).results
        assert broken.error is not None
        assert broken.error.type == "worker"
        assert "ZeroDivisionError" in broken.error.message
        assert fine.answer == "B"


class TestCatalog:
    def test_an_entry_prices_tokens_and_spreads_a_price_per_call(self) -> None:
        free = worker(usd_per_call=0.0).entry()
        assert (free.provider, free.input_usd_per_mtok, free.output_usd_per_mtok) == (
            "worker", 0.0, 0.0,
        )  # fmt: skip
        assert worker().entry().input_usd_per_mtok is None
        paid = worker(usd_per_call=0.002)
        assert paid.entry().input_usd_per_mtok is None  # a catalog has no price per call
        spread = paid.entry(tokens_per_call=500)
        assert spread.cost_usd(300, 200) == pytest.approx(0.002)
        assert worker(input_usd_per_mtok=1.0).entry().cost_usd(10**6, 5) == pytest.approx(1.0)

    def test_a_router_that_saw_its_probes_gives_it_what_it_is_for(
        self, grid_logs: Logs, config: TrainConfig, world: SyntheticWorld, encoder: HashingEncoder
    ) -> None:
        """Chat models translate badly in this world; the worker does nothing else well."""
        asked = [f"Translate this {what} into {to}." for what in THINGS for to in LANGUAGES]
        known, fresh = asked[::2], asked[1::2]
        logged = list(grid_logs)
        usual = {record.plan: record.usage for record in logged}
        badly = [
            LogRecord(f"t{i}-{j}", f"t{i}", text, "translation", plan, 0.3, "tests", usage)
            for i, text in enumerate(known)
            for j, (plan, usage) in enumerate(usual.items())
        ]
        trained = fit(
            Logs.from_records([*logged, *badly]), config, catalog=world.catalog(), encoder=encoder
        )
        translator = worker(
            name="translator",
            description="Translates a text into another language.",
            usd_per_call=0.0,
        )
        others = list(dict.fromkeys(record.query for record in logged))[:40]
        runs = probes([*known, *others], translator.plan, lambda i: float(i < len(known)), 0.0)
        wider = trained.add_model(translator.entry(), runs, plans=[translator.plan])

        to_worker = [decision.plan for decision in wider.route_batch(fresh)]
        assert to_worker == [translator.plan] * len(fresh)
        unseen = list(world.sample_queries(40, 77).texts)
        before = [decision.plan for decision in trained.route_batch(unseen)]
        assert [decision.plan for decision in wider.route_batch(unseen)] == before

        async def automatic() -> Batch:
            delegator = Delegator(ScriptedModel({}), router=wider, workers=[translator])
            return await delegator.delegate_tasks([Task(fresh[0])], model="auto")

        (result,) = asyncio.run(automatic()).results
        assert result.models == ("translator",)
        assert result.answer == fresh[0].upper()


THINGS = ("letter", "manual", "contract", "poem", "recipe", "report", "menu", "web page")
LANGUAGES = ("German", "French", "Polish", "Greek", "Hindi", "Dutch")
