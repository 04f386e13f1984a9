"""Outcomes, the records that keep them, and the log that the next router learns from."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.server.serving import MakeService, ask, post

from masrouter.errors import ConfigError, LogError
from masrouter.evaluation.off_policy.rounds import LoggedRounds
from masrouter.importers.assembly import query_id
from masrouter.logs import LogKind, detect_kind, read_logs
from masrouter.server import Service
from masrouter.server.keys import KeyEntry, key_digest
from masrouter.server.records import DecisionRecord, Outcome, Records, UnknownDecisionError
from masrouter.server.served_log import export, served_records, summary
from masrouter.types import Agent, Call, LogRecord, Plan, Run, Usage

PLAN = Plan("io", (Agent(None, "gpt-4o"),))
QUERY = "What is 1 plus 5?"


def record(name: str = "1", **given: Any) -> DecisionRecord:
    values: dict[str, Any] = {
        "id": f"dec_{name}", "caller": "anonymous", "query": QUERY, "dataset": "served",
        "task": None, "plan": PLAN, "policy": "a", "propensity": None, "stages": None,
    }  # fmt: skip
    return DecisionRecord(**values | given)


def outcome(name: str = "1", score: float | None = 1.0, **given: Any) -> Outcome:
    return Outcome(decision_id=f"dec_{name}", score=score, score_source="human", **given)


def a_run(cost: float | None, error: str | None = None) -> Run:
    usage = Usage(10, 5, cost)
    call = Call(0, "answer", "gpt-4o", (("user", QUERY),), "6", usage, 0.0, 0.5, 1)
    answer = None if error else "6"
    charged = 0.25 if cost is None else 0.0
    return Run(PLAN, QUERY, answer, usage, (usage,), (call,), 0.5, error, reserved_usd=charged)


def decide(service: Service, query: str = QUERY, **body: Any) -> str:
    reply = post(service, "/v1/decision", {"query": query} | body)
    found: str = reply.json()["id"]
    return found


def exported(service: Service, folder: Path, **options: Any) -> list[LogRecord]:
    service.records.flush()
    target = folder / "log.jsonl"
    assert isinstance(service.settings.records, Path)
    export(service.settings.records, target, **options)
    logs = read_logs(target, strict=True)
    assert logs.report.rejected == 0
    return list(logs)


def test_an_outcome_joins_its_decision_in_a_log(make_service: MakeService, tmp_path: Path) -> None:
    service = make_service(records=tmp_path / "r.sqlite")
    first = decide(service, dataset="shop", task="math")
    decide(service, "Another query")
    body = {"decision_id": first, "score": 0.75, "score_source": "tests", "cost_usd": 0.01,
            "prompt_tokens": 7, "completion_tokens": 3, "latency_s": 1.5}  # fmt: skip
    reply = post(service, "/v1/outcomes", body)
    assert reply.json() == {
        "object": "masrouter.outcome", "decision_id": first, "score": 0.75,
        "score_source": "tests", "recorded": True,
    }  # fmt: skip
    told, silent = exported(service, tmp_path)
    assert (told.run_id, told.query, told.query_id) == (first, QUERY, query_id(QUERY))
    assert (told.dataset, told.task, told.score, told.score_source) == (
        "shop",
        "math",
        0.75,
        "tests",
    )
    assert told.usage == Usage(7, 3, 0.01)
    assert told.latency_s == 1.5
    assert told.policy == service.router.checkpoint
    assert told.plan in service.router.plans
    assert told.timestamp is not None
    assert abs((datetime.fromisoformat(told.timestamp) - datetime.now(UTC)).total_seconds()) < 60
    assert (silent.score, silent.score_source, silent.dataset) == (None, "none", "served")
    assert silent.usage == Usage()


def test_the_same_outcome_again_is_fine_and_another_is_a_conflict(
    make_service: MakeService, tmp_path: Path
) -> None:
    service = make_service(records=tmp_path / "r.sqlite")
    body = {"decision_id": decide(service), "score": 1}
    first, again = (post(service, "/v1/outcomes", body) for _ in range(2))
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json() == again.json()
    other = post(service, "/v1/outcomes", body | {"score": 0.5})
    assert (other.status_code, other.json()["error"]["code"]) == (409, "outcome_conflict")
    [kept] = exported(service, tmp_path)
    assert kept.score == 1.0


def test_one_of_many_different_outcomes_at_once_is_kept(
    make_service: MakeService, tmp_path: Path
) -> None:
    service = make_service(records=tmp_path / "r.sqlite")
    decision = decide(service)

    async def work(client: httpx.AsyncClient) -> list[tuple[int, float]]:
        scores = [i / 20 for i in range(20)]
        bodies = [{"decision_id": decision, "score": score} for score in scores]
        replies = await asyncio.gather(*(client.post("/v1/outcomes", json=b) for b in bodies))
        return [(reply.status_code, s) for reply, s in zip(replies, scores, strict=True)]

    statuses = ask(service, work)
    assert sorted(status for status, _ in statuses) == [200] + [409] * 19
    service = make_service(records=tmp_path / "r.sqlite")
    [kept] = exported(service, tmp_path)
    assert (200, kept.score) in statuses


def test_an_outcome_needs_a_decision_of_its_own_key(make_service: MakeService) -> None:
    keys = tuple(KeyEntry(name, key_digest(name)) for name in ("ann", "bob"))
    service = make_service(keys=keys)
    body: dict[str, Any] = {"decision_id": "dec_unknown", "score": 1}
    reply = post(service, "/v1/outcomes", body, **{"x-api-key": "ann"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "unknown_decision")
    made = post(service, "/v1/decision", {"query": QUERY}, **{"x-api-key": "ann"})
    body["decision_id"] = made.json()["id"]
    statuses = [
        post(service, "/v1/outcomes", body, **{"x-api-key": key}).status_code
        for key in ("bob", "ann")
    ]
    assert statuses == [404, 200]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"score": 1.5}, "score: input should be less than or equal to 1"),
        ({"score": None}, "null needs an error"),
        ({}, "score: field required"),
        ({"score": 1, "cost_usd": -1}, "cost_usd: input should be greater than or equal to 0"),
        ({"score": 1, "prompt_tokens": 1.5}, "prompt_tokens: input should be a valid integer"),
        ({"score": 1, "score_source": ""}, "score_source: string should have at least 1"),
        ({"score": "1"}, "score: input should be a valid number"),
    ],
)
def test_an_outcome_that_cannot_be_meant_is_refused(
    make_service: MakeService, body: dict[str, Any], told: str
) -> None:
    reply = post(make_service(), "/v1/outcomes", {"decision_id": "dec_1"} | body)
    assert reply.status_code == 400
    assert told in reply.json()["error"]["message"]


def test_without_records_nothing_is_kept_and_outcomes_say_so(make_service: MakeService) -> None:
    service = make_service(records="none")
    reply = post(service, "/v1/outcomes", {"decision_id": decide(service), "score": 1})
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "no_records")
    assert "--records" in reply.json()["error"]["message"]


def test_decisions_with_exploration_are_a_randomised_log(
    make_service: MakeService, tmp_path: Path
) -> None:
    service = make_service(records=tmp_path / "r.sqlite", exploration=0.5)
    for i in range(30):
        decide(service, f"Query {i}")
    ask(
        service,
        lambda c: c.post("/v1/decision", json={"query": "x"}),
        **{"x-masrouter-session": "s"},
    )
    again = make_service(records=tmp_path / "r.sqlite")
    decide(again, "Chosen, without exploration")
    assert len(exported(again, tmp_path)) == 32
    rows = exported(again, tmp_path, randomised=True)
    assert len(rows) == 31
    logs = read_logs(tmp_path / "log.jsonl")
    assert detect_kind(logs).kind is LogKind.RANDOMISED
    rounds = LoggedRounds.from_logs(logs)
    assert rounds.stages is not None  # each product is the propensity, or this would raise
    assert {row.policy for row in rows} == {f"epsilon 0.5 around {service.router.checkpoint}"}


def test_runs_tell_what_they_really_cost_and_the_client_what_nobody_knew(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    records = Records(path)
    for name in ("priced", "unpriced", "failed", "elsewhere"):
        records.add_decision(record(name))
    records.add_run("dec_priced", a_run(0.5))
    records.add_run("dec_unpriced", a_run(None))
    records.add_run("dec_failed", a_run(0.125, "deadline: over"))
    records.add_run("dec_unheard_of", a_run(9.0))

    async def tell() -> None:
        for name in ("priced", "unpriced", "elsewhere"):
            given = outcome(name, usage=Usage(1, 1, 2.0), latency_s=9.0)
            await records.add_outcome(given, caller="anonymous")
        failed = outcome("failed", None, error="no answer")
        await records.add_outcome(failed, caller="anonymous")

    asyncio.run(tell())
    assert records.spending() == {"anonymous": pytest.approx(0.5 + 0.25 + 0.125)}
    records.close()
    found = {row.run_id.removeprefix("dec_"): row for row in served_records(path)}
    assert found["priced"].usage == Usage(10, 5, 0.5)
    assert found["priced"].agent_usage == (Usage(10, 5),)
    assert found["priced"].latency_s == 0.5
    assert found["unpriced"].usage == Usage(10, 5, 2.0)
    assert found["elsewhere"].usage == Usage(1, 1, 2.0)
    assert found["elsewhere"].latency_s == 9.0
    assert (found["failed"].score, found["failed"].error) == (None, "deadline: over")
    told = summary(path)
    assert (told.decisions, told.runs, told.failed, told.outcomes, told.scored) == (4, 3, 1, 4, 3)


def test_what_was_spent_outlives_the_server_and_the_rows(
    make_service: MakeService, tmp_path: Path
) -> None:
    path = tmp_path / "r.sqlite"
    records = Records(path)
    records.add_decision(record())
    records.add_run("dec_1", a_run(0.5))
    records.add_spending("anonymous", 0.25)
    records.close()
    cleaned = Records(path, keep_days=0.0)
    cleaned.flush()
    cleaned.close()
    assert summary(path).decisions == 0
    assert summary(path).runs == 0
    service = make_service(records=path, budget_usd=1.0)
    assert service.budgets.spent() == pytest.approx(0.75)


def test_no_answer_and_no_key_is_on_the_disk(make_service: MakeService, tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    key = "mr-very-secret-key-of-ann"
    service = make_service(records=path, keys=(KeyEntry("ann", key_digest(key)),))
    said = {"model": "masrouter/auto", "messages": [{"role": "user", "content": QUERY}]}
    reply = post(service, "/v1/chat/completions", said, authorization=f"Bearer {key}")
    answer = reply.json()["choices"][0]["message"]["content"]
    assert reply.status_code == 200
    service.records.close()
    stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert QUERY.encode() in stored
    assert answer.encode() not in stored
    assert key.encode() not in stored
    assert all(file.stat().st_mode & 0o077 == 0 for file in tmp_path.iterdir())


def test_texts_that_utf8_cannot_hold_are_kept_as_well_as_it_can(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    records = Records(path)
    for i, text in enumerate(("half \ud83d", "half \ud83e", "nul \x00 and\n lines", "ünï 💡")):
        records.add_decision(record(str(i), query=text, task="\udc00"))
    records.close()
    export(path, tmp_path / "log.parquet")
    rows = list(read_logs(tmp_path / "log.parquet", strict=True))
    assert [row.query for row in rows] == ["half ?", "half ?", "nul \x00 and\n lines", "ünï 💡"]
    assert rows[0].query_id == rows[1].query_id  # one text, one query


def test_an_export_replaces_its_file_as_a_whole(tmp_path: Path) -> None:
    path, target = tmp_path / "r.sqlite", tmp_path / "deep" / "log.jsonl"
    records = Records(path)
    records.add_decision(record("1"))
    records.flush()
    assert export(path, target).rows == 1
    records.add_decision(record("2"))
    records.flush()  # the server still runs
    done = export(path, target)
    assert (done.rows, done.scored, done.left_out) == (2, 0, 0)
    before = target.read_bytes()
    with pytest.raises(ConfigError, match="nothing to export: all 2 are left out"):
        export(path, target, scored=True)
    with pytest.raises(ConfigError, match="nothing to export: there is no decision"):
        export(path, target, since=datetime(2100, 1, 1, tzinfo=UTC))
    with pytest.raises(LogError, match="expected a name that ends in"):
        export(path, tmp_path / "log.csv")
    assert target.read_bytes() == before
    assert [p.name for p in target.parent.iterdir()] == ["log.jsonl"]
    records.close()


def test_servers_may_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(Records, [path, path])
    for i in range(50):
        (one if i % 2 else other).add_decision(record(str(i)))
    one.flush()
    other.flush()
    asyncio.run(one.add_outcome(outcome("0"), caller="anonymous"))
    one.close()
    other.close()
    assert summary(path).decisions == 50
    assert (one.lost, other.lost) == (0, 0)


def test_in_memory_the_oldest_decisions_make_place() -> None:
    records = Records("memory", most_in_memory=10)
    for i in range(25):
        records.add_decision(record(str(i)))
    asyncio.run(records.add_outcome(outcome("24"), caller="anonymous"))
    with pytest.raises(UnknownDecisionError):
        asyncio.run(records.add_outcome(outcome("3"), caller="anonymous"))
    records.close()


def test_what_cannot_be_written_is_told_and_does_not_stop_decisions(
    make_service: MakeService, tmp_path: Path
) -> None:
    path = tmp_path / "r.sqlite"
    service = make_service(records=path)
    decision = decide(service)
    service = make_service(records=path)
    with sqlite3.connect(path) as broken:
        broken.execute("ALTER TABLE outcomes RENAME TO elsewhere")
    broken.close()
    body = {"decision_id": decision, "score": 1}

    async def work(client: httpx.AsyncClient) -> tuple[httpx.Response, httpx.Response]:
        refused = await client.post("/v1/outcomes", json=body)
        with sqlite3.connect(path) as mended:
            mended.execute("ALTER TABLE elsewhere RENAME TO outcomes")
        mended.close()
        return refused, await client.post("/v1/outcomes", json=body)

    refused, taken = ask(service, work)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "records_unavailable")
    assert refused.headers["retry-after"]
    assert taken.status_code == 200


def test_a_decision_that_cannot_be_recorded_is_counted(tmp_path: Path) -> None:
    records = Records(tmp_path / "r.sqlite")
    records.add_decision(record("1"))
    records.add_decision(record("1"))
    records.flush()
    assert records.lost == 1
    records.close()
    assert summary(tmp_path / "r.sqlite").decisions == 1


def test_what_cannot_be_kept_takes_nothing_else_along(tmp_path: Path) -> None:
    records = Records(tmp_path / "r.sqlite")
    begun, go_on = threading.Event(), threading.Event()

    def wait(_: sqlite3.Connection) -> None:
        begun.set()
        assert go_on.wait(20)

    records._post(wait)
    assert begun.wait(20)
    records.add_decision(record("1"))  # from here on all is one transaction
    beyond = Usage(2**70, 5, 0.1)
    records.add_run("dec_1", replace(a_run(0.1), usage=beyond, agent_usage=(beyond,)))
    records.add_decision(record("2"))
    go_on.set()
    records.flush()
    assert records.lost == 1
    records.close()
    assert summary(tmp_path / "r.sqlite").decisions == 2


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as database:
        database.execute("CREATE TABLE t (x)")
    database.close()
    with pytest.raises(ConfigError, match="not of a server's records"):
        Records(other)
    text = tmp_path / "text"
    text.write_text("not a database, but long enough to be taken for one " * 20)
    with pytest.raises(ConfigError, match="cannot be used"):
        Records(text)
    with pytest.raises(ConfigError, match="cannot be read"):
        summary(text)
    with pytest.raises(ConfigError, match="no such file"):
        summary(tmp_path / "none.sqlite")
