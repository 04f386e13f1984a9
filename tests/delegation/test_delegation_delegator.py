"""Who does a task, and what its parent gets: names, order, isolation, errors."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest
from tests.delegation.scripted import DOWN, PRICE, PROMPT_TOKENS, ScriptedModel

from masrouter.delegation.delegator import Delegator, delegate_task, delegate_tasks
from masrouter.delegation.naming.offers import Offer
from masrouter.delegation.naming.settings import Settings
from masrouter.delegation.query import read_query
from masrouter.delegation.tasks import Batch, DelegationError, Task
from masrouter.delegation.workers.worker import Worker
from masrouter.errors import CallError, ConfigError, MasRouterError
from masrouter.llms.chat import Price
from masrouter.types import Agent, Plan, Usage


def delegated(
    llm: ScriptedModel, *tasks: Task, settings: Settings | None = None, **options: Any
) -> Batch:
    return delegate_tasks(tasks, llm=llm, settings=settings, **options)


def shown(llm: ScriptedModel, model: str) -> str:
    """All that a model was shown."""
    return "\n".join(m.content for request in llm.requests_of(model) for m in request.messages)


def test_results_come_in_the_order_of_the_tasks_whoever_is_first() -> None:
    llm = ScriptedModel({"slow": "1", "fast": "2"}, delays_s={"slow": 0.05})
    batch = delegated(llm, Task("a", model="slow"), Task("b", model="fast"))
    assert [(r.id, r.answer, r.goal) for r in batch.results] == [
        ("task-1", "1", "a"), ("task-2", "2", "b"),
    ]  # fmt: skip
    assert [r.source for r in batch.results] == ["task", "task"]


def test_a_task_sees_its_own_goal_and_context_and_nothing_of_the_others() -> None:
    llm = ScriptedModel({"one": "the secret is 41", "two": "ok"})
    batch = delegated(
        llm,
        Task("alpha goal", "alpha context", model="one"),
        Task("beta goal", "beta context", model="two"),
        Task("gamma goal", model="two"),
    )
    assert not batch.failed
    (message,) = [m.content for r in llm.requests_of("one") for m in r.messages[1:]]
    query = read_query(message)
    assert (query.goal, query.context, query.results) == ("alpha goal", "alpha context", {})
    for request in llm.requests_of("two"):
        told = str(request.messages)
        assert "alpha" not in told
        assert "41" not in told
        assert ("beta" in told) != ("gamma" in told)


@pytest.mark.parametrize(
    ("task", "call", "default", "parent", "model", "source"),
    [
        ("m1", "m2", "m3", "m4", "m1", "task"),
        (None, "m2", "m3", "m4", "m2", "call"),
        (None, None, "m3", "m4", "m3", "default"),
        (None, None, None, "m4", "m4", "parent"),
    ],
)
def test_the_first_who_named_a_model_decides(
    task: str | None,
    call: str | None,
    default: str | None,
    parent: str | None,
    model: str,
    source: str,
) -> None:
    llm = ScriptedModel({f"m{i}": f"I am m{i}" for i in range(1, 5)})
    settings = Settings(default=default)
    batch = delegated(
        llm, Task("a", model=task), settings=settings, model=call, parent_model=parent
    )
    (result,) = batch.results
    assert (result.answer, result.asked, result.source) == (f"I am {model}", model, source)
    assert result.plan == Plan("cot", (Agent(None, model),))


@pytest.mark.parametrize("where", ["task", "call", "default", "parent"])
def test_a_name_that_leads_nowhere_is_an_error_and_nothing_is_asked_in_its_place(
    where: str,
) -> None:
    llm = ScriptedModel({"mini": "4", "large-one": "4"})
    below = {"task": "mini", "call": "mini", "default": "mini", "parent": "mini"}
    order = list(below)
    names = dict.fromkeys(order[: order.index(where)]) | {where: "minni"}
    given = {**below, **names}
    batch = delegated(
        llm,
        Task("a", model=given["task"]),
        settings=Settings(default=given["default"]),
        model=given["call"],
        parent_model=given["parent"],
    )
    (result,) = batch.results
    assert result.error is not None
    assert result.error.type == "unknown_model"
    assert result.error.asked == result.asked == "minni"
    assert "mini" in result.error.nearest
    assert llm.requests == []
    assert result.models == ()
    assert result.usage == Usage(0, 0, 0.0)


def test_nobody_named_a_model_is_an_error_too() -> None:
    (result,) = delegated(ScriptedModel({"mini": "4"}), Task("a")).results
    assert result.error is not None
    assert result.error.type == "unknown_model"
    assert result.error.nearest
    assert result.asked is None


def test_the_models_that_really_answered_are_named_as_their_providers_name_them() -> None:
    llm = ScriptedModel(
        {"mini": "4", "judge": "4"}, calls_itself={"mini": "mini-2026-01-31", "judge": "judge-v2"}
    )
    team = Plan("debate", (Agent(None, "mini"), Agent(None, "judge"), Agent(None, "mini")))
    single, three = delegated(
        llm,
        Task("a", model="mini"),
        Task("b", model="team"),
        settings=Settings(plans={"team": team}),
    ).results
    assert single.models == ("mini-2026-01-31",)
    assert set(three.models) == {"mini-2026-01-31", "judge-v2"}
    assert three.plan == team


def test_usage_and_cost_are_those_of_all_calls() -> None:
    llm = ScriptedModel({"mini": "four", "big": "x" * 400}, prices={"big": Price(10, 30, "test")})
    small, large = (
        batch := delegated(llm, Task("a", model="mini"), Task("b", model="big"))
    ).results
    assert small.usage == Usage(PROMPT_TOKENS, 1, PRICE.cost_usd(PROMPT_TOKENS, 1))
    assert large.usage == Usage(PROMPT_TOKENS, 100, (10 * PROMPT_TOKENS + 30 * 100) / 1e6)
    assert batch.usage.cost_usd == pytest.approx(llm.billed_usd)
    assert batch.usage.prompt_tokens == 2 * PROMPT_TOKENS


def test_what_is_unknown_is_not_zero() -> None:
    llm = ScriptedModel({"mini": "4", "free?": "4"}, prices={"free?": None})
    batch = delegated(llm, Task("a", model="mini"), Task("b", model="free?"))
    assert not batch.failed
    assert batch.usage.cost_usd is None
    assert batch.results[1].usage == Usage(PROMPT_TOKENS, 1, None)


def test_under_a_budget_a_model_of_unknown_price_is_refused_and_the_others_go_on() -> None:
    llm = ScriptedModel({"mini": "4", "free?": "4"}, prices={"free?": None})
    batch = delegated(llm, Task("a", model="mini"), Task("b", model="free?"), budget_usd=1.0)
    good, refused = batch.results
    assert good.answer == "4"
    assert batch.budget_usd == 1.0
    assert refused.error is not None
    assert refused.error.type == "unknown_price"
    assert refused.error.nearest
    assert not llm.requests_of("free?")


def failing(kind: Any, attempts: int = 1) -> CallError:
    return CallError("it says no", kind=kind, model="bad", attempts=attempts)


@pytest.mark.parametrize(
    ("failure", "type", "retryable"),
    [
        (DOWN, "provider", True),
        (failing("rate_limited"), "provider", True),
        (failing("server_error"), "provider", True),
        (failing("timeout"), "provider", True),
        (failing("circuit_open", 0), "provider", True),
        (failing("empty"), "provider", True),
        (failing("rejected"), "provider", False),
        (failing("unauthorised"), "provider", False),
        (failing("unauthorised", 0), "no_credential", False),
        (failing("unknown_model", 0), "unknown_model", False),
        (RuntimeError("/home/user/secret"), "internal", False),
        (asyncio.CancelledError(), "internal", False),
        (MasRouterError("odd"), "internal", False),
    ],
)
def test_a_failure_is_the_error_of_its_own_task_alone(
    failure: Exception, type: str, retryable: bool
) -> None:
    def fail(request: object) -> Exception:
        raise failure

    llm = ScriptedModel({"bad": fail, "good": "4"})
    good, bad, last = delegated(
        llm, Task("a", model="good"), Task("b", model="bad"), Task("c", model="good")
    ).results
    assert (good.answer, last.answer) == ("4", "4")
    assert bad.error is not None
    assert bad.answer is None
    assert bad.summary is None
    assert (bad.error.type, bad.error.retryable, bad.error.asked) == (type, retryable, "bad")
    assert "secret" not in json.dumps(bad.to_json())
    if isinstance(failure, CallError):
        # Where a key lies is no business of a language model.
        told = "bad: its key is not set" if type == "no_credential" else str(failure)
        assert told in bad.error.message


def test_what_a_parent_is_told_is_json() -> None:
    llm = ScriptedModel({"mini": "x" * 5000, "bad": DOWN})
    batch = delegated(llm, Task("a", model="mini"), Task("b", model="bad"), budget_usd=1.0)
    told = json.loads(json.dumps(batch.to_json(), allow_nan=False))
    done, failed = told["results"]
    assert done["status"] == "done"
    assert done["error"] is None
    assert done["models"] == ["mini"]
    assert "3000 characters left out" in done["summary"]
    assert failed["status"] == "failed"
    assert failed["error"]["type"] == "provider"
    assert batch.results[0].answer == "x" * 5000


def test_a_worker_is_asked_by_its_name_and_given_what_it_needs() -> None:
    worker = Worker(name="shout", description="Writes in capitals.", run=str.upper, usd_per_call=0)
    llm = ScriptedModel({"mini": "it is raining"})
    batch = delegated(
        llm,
        Task("What is the weather?", model="mini", id="weather"),
        Task("Shout it.", model="shout", needs=("weather",)),
        workers=[worker],
        budget_usd=0.1,
    )
    assert [result.answer for result in batch.results] == ["it is raining", "IT IS RAINING"]
    assert batch.results[1].models == ("shout",)


def test_a_workers_fault_is_an_error_of_type_worker() -> None:
    def broken(text: str) -> str:
        raise ValueError("no such language")

    worker = Worker(name="translate", description="Translates.", run=broken)
    llm = ScriptedModel({"mini": "4"})
    (result,) = delegated(llm, Task("a", model="translate"), workers=[worker]).results
    assert result.error is not None
    assert result.error.type == "worker"
    assert "no such language" in result.error.message


# the call as a whole


def test_a_text_is_a_task() -> None:
    result = delegate_task("What is 2 + 2?", llm=ScriptedModel({"mini": "4"}), model="mini")
    assert (result.id, result.goal, result.answer) == ("task-1", "What is 2 + 2?", "4")


def test_no_tasks_are_an_empty_batch() -> None:
    batch = delegated(ScriptedModel({"mini": "4"}))
    assert batch.results == ()
    assert batch.usage == Usage(0, 0, 0.0)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("budget_usd", -1, "budget_usd: expected US dollars >= 0"),
        ("budget_usd", float("nan"), "budget_usd"),
        ("deadline_s", 0, "deadline_s: expected seconds > 0"),
        ("deadline_s", float("inf"), "deadline_s"),
        ("deadline_s", "soon", "deadline_s"),
        ("deadline_s", 10**400, "deadline_s: expected seconds > 0"),
        ("budget_usd", 10**400, "budget_usd: expected US dollars >= 0"),
        ("cost_weight", -1, "cost_weight: expected at least 0"),
        ("max_concurrency", 0, "max_concurrency"),
        ("seed", 1.5, "seed: expected a whole number"),
        ("under", "node", "under: 'node' is a node of an episode; give the episode too"),
        ("episode", object(), "episode: there is no log of episodes"),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused_before_anything_is_sent(
    option: str, value: object, message: str
) -> None:
    llm = ScriptedModel({"mini": "4"})
    with pytest.raises(MasRouterError, match=message):
        delegated(llm, Task("a", model="mini"), **{option: value})
    assert llm.requests == []


def test_finding_out_what_names_mean_holds_up_no_event_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: list[threading.Thread] = []

    def offers(self: Delegator) -> tuple[Offer, ...]:
        threads.append(threading.current_thread())
        return seen(self)

    seen = Delegator.offers
    monkeypatch.setattr(Delegator, "offers", offers)
    delegated(ScriptedModel({"mini": "4"}), Task("a", model="mini"), Task("b", model="mimi"))
    assert len(threads) == 1  # once for the whole batch
    assert threads[0] is not threading.main_thread()


def test_more_tasks_than_the_settings_allow_are_refused_as_a_whole() -> None:
    llm = ScriptedModel({"mini": "4"})
    with pytest.raises(DelegationError, match="3 tasks, and 2 are allowed at once"):
        delegated(llm, *(Task("a", model="mini") for _ in range(3)), settings=Settings(max_tasks=2))
    assert llm.requests == []


def test_a_task_has_the_completion_tokens_that_it_or_the_settings_give_it() -> None:
    llm = ScriptedModel({"mini": "4"})
    delegated(
        llm, Task("a", model="mini", max_tokens=7), Task("b", model="mini"),
        settings=Settings(max_tokens=99), max_concurrency=1,
    )  # fmt: skip
    assert [request.max_tokens for request in llm.requests] == [7, 99]


def test_the_seed_decides_what_is_sent_and_each_task_has_its_own() -> None:
    def seeds(seed: int) -> list[int | None]:
        llm = ScriptedModel({"mini": "4"})
        delegated(llm, *(Task("a", model="mini") for _ in range(3)), seed=seed, max_concurrency=1)
        return [request.seed for request in llm.requests]

    assert seeds(1) == seeds(1) != seeds(2)
    assert len(set(seeds(1))) == 3


def test_plain_functions_say_so_where_an_event_loop_is_running() -> None:
    async def inside() -> None:
        delegate_tasks([Task("a")], llm=ScriptedModel({"mini": "4"}))

    with pytest.raises(ConfigError, match=r"use `await Delegator\(...\).delegate_tasks\(...\)`"):
        asyncio.run(inside())


def test_settings_that_name_what_is_not_there_are_refused_before_anything_is_sent() -> None:
    llm = ScriptedModel({"mini": "4"})
    with pytest.raises(ConfigError, match="refused: nobody: "):
        delegated(llm, Task("a", model="mini"), settings=Settings(refused=("nobody",)))
    assert llm.requests == []
