"""What a server keeps of decisions, runs and outcomes: an SQLite file that survives a kill.

Kept are the query's text, the plan and how it was picked, what a run cost, and the outcome: about
700 bytes a decision and its text. Never an answer, a message of a team or a key. One thread writes,
and joins what waits into one transaction: what a future has ended for is on the disk. Not here:
the file (`records_file`), and reading it as a log of schema 1 (`served_log`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from masrouter.collection.store import storable
from masrouter.errors import MasRouterError
from masrouter.importers.assembly import query_id
from masrouter.server.records_file import Place, opened
from masrouter.types import Plan, Run, Usage

MOST_IN_MEMORY = 10_000
"""Decisions that are kept where no file holds them; then the oldest go."""
_MOST_AT_ONCE = 512
_MOST_WAITING = 50_000
_CLEAN_EVERY_S = 600.0
_DAY_S = 86_400.0
_ITS_OWN_FAULT = (sqlite3.IntegrityError, sqlite3.DataError, OverflowError, ValueError)
"""What a job fails with that others in its transaction have no part in."""

_log = logging.getLogger("masrouter.server")

T = TypeVar("T")


class RecordsError(MasRouterError):
    """The records cannot be written, read, or are not kept."""


class UnknownDecisionError(RecordsError):
    """No decision of this id is kept for this caller."""


class OutcomeConflictError(RecordsError):
    """The decision has another outcome already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRecord:
    """A decision as it is kept."""

    id: str
    caller: str
    query: str
    dataset: str
    task: str | None
    plan: Plan
    policy: str
    propensity: float | None
    stages: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How good an answer was, as a client told."""

    decision_id: str
    score: float | None
    score_source: str
    usage: Usage = field(default_factory=Usage)
    latency_s: float | None = None
    error: str | None = None

    def digest(self) -> str:
        """The same for the same outcome."""
        parts = [
            self.score, self.score_source, self.usage.cost_usd, self.usage.prompt_tokens,
            self.usage.completion_tokens, self.latency_s, self.error,
        ]  # fmt: skip
        return json.dumps(parts)


@dataclass(slots=True)
class _Job(Generic[T]):
    work: Callable[[sqlite3.Connection], T]
    done: Future[T]
    result: T | None = None
    error: Exception | None = None


class Records:
    """Open records. Safe to use from many threads and tasks.

    place: a file, made if absent; `memory` keeps the latest decisions until `close`; `none` keeps
    nothing. keep_days: older decisions are deleted, with their runs and outcomes; what was spent
    stays known. Raises ConfigError where the file cannot be opened or is something else.
    """

    def __init__(
        self,
        place: Place,
        *,
        keep_days: float | None = None,
        most_in_memory: int = MOST_IN_MEMORY,
    ) -> None:
        self.place = place
        self.failure: str | None = None
        """Why something could not be written last; None while all is well."""
        self.lost = 0
        """Decisions and runs that could not be written."""
        self._keep_days = keep_days
        self._most_in_memory = most_in_memory
        self._cleaned = -_CLEAN_EVERY_S
        self._waiting: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._closed = self.kept is False
        self._connection: sqlite3.Connection | None = None
        self._thread: threading.Thread | None = None
        if self.kept:
            self._connection = opened(place)
            self._thread = threading.Thread(target=self._serve, name="masrouter-records")
            self._thread.daemon = True
            self._thread.start()

    @property
    def kept(self) -> bool:
        """Whether anything is kept at all."""
        return self.place != "none"

    def close(self) -> None:
        """Write what waits and let the file go. Twice does nothing."""
        if self._closed:
            return
        self._closed = True
        self._waiting.put(None)
        assert self._thread is not None
        assert self._connection is not None
        self._thread.join()
        self._connection.close()

    def add_decision(self, decision: DecisionRecord) -> None:
        """Keep a decision; returns before it is on the disk. What is added later comes after it."""
        row = (
            decision.id,
            time.time(),
            decision.caller,
            query_id(storable(decision.query)),
            storable(decision.query),
            storable(decision.dataset),
            None if decision.task is None else storable(decision.task),
            json.dumps(decision.plan.to_json()),
            decision.policy,
            decision.propensity,
            None if decision.stages is None else json.dumps(decision.stages),
        )
        self._post(lambda db: _insert(db, "decisions", row))

    def add_run(self, decision_id: str, run: Run) -> None:
        """Keep what a decision's run cost, and count it as spent; returns before it is written."""
        spent = sum(call.usage.cost_usd or 0.0 for call in run.calls) + run.reserved_usd
        tokens = [[usage.prompt_tokens, usage.completion_tokens] for usage in run.agent_usage]
        row = (
            decision_id,
            run.usage.cost_usd,
            run.usage.prompt_tokens,
            run.usage.completion_tokens,
            json.dumps(tokens),
            run.latency_s,
            None if run.error is None else storable(run.error[:2000]),
        )

        def work(db: sqlite3.Connection) -> None:
            found = db.execute("SELECT caller FROM decisions WHERE id = ?", (decision_id,))
            if (known := found.fetchone()) is not None:
                _insert(db, "runs", row)
                _spend(db, known[0], spent)

        self._post(work)

    def add_spending(self, caller: str, usd: float) -> None:
        """Count money that no run tells of, such as that of one which was cancelled."""
        self._post(lambda db: _spend(db, caller, usd))

    async def add_outcome(self, outcome: Outcome, *, caller: str) -> None:
        """Keep an outcome; it is on the disk when this returns. The same again changes nothing.

        Raises UnknownDecisionError for a decision that is not kept, or that another caller was
        given; OutcomeConflictError where another outcome is kept; RecordsError where it cannot be
        written, or where nothing is kept.
        """
        usage = outcome.usage
        row = (
            outcome.decision_id, time.time(), outcome.digest(), outcome.score,
            storable(outcome.score_source), usage.cost_usd, usage.prompt_tokens,
            usage.completion_tokens, outcome.latency_s,
            None if outcome.error is None else storable(outcome.error),
        )  # fmt: skip

        def work(db: sqlite3.Connection) -> None:
            found = db.execute(
                "SELECT digest FROM decisions LEFT JOIN outcomes ON decision_id = id"
                " WHERE id = ? AND caller = ?",
                (outcome.decision_id, caller),
            ).fetchone()
            if found is None:
                raise UnknownDecisionError(f"no decision {outcome.decision_id!r} is kept")
            if found[0] is None:
                _insert(db, "outcomes", row)
            elif found[0] != outcome.digest():
                raise OutcomeConflictError(f"{outcome.decision_id!r} has another outcome already")

        await asyncio.wrap_future(self._submit(work))

    def spending(self) -> dict[str, float]:
        """US dollars by caller that all servers on this file have spent; waits for the writer."""
        if not self.kept:
            return {}
        rows = self._submit(lambda db: db.execute("SELECT caller, usd FROM spending").fetchall())
        return dict(rows.result())

    def flush(self) -> None:
        """Return when all that was added before is on the disk, or has failed."""
        if self.kept and not self._closed:
            self._submit(lambda db: None).result()

    def _post(self, work: Callable[[sqlite3.Connection], None]) -> None:
        """Have something written, in order, without waiting; what fails is counted."""
        if not self.kept:
            return
        if self._waiting.qsize() >= _MOST_WAITING:
            self._lose("the disk does not keep up")
            return
        self._submit(work).add_done_callback(
            lambda done: None if (why := done.exception()) is None else self._lose(str(why))
        )

    def _lose(self, why: str) -> None:
        self.lost += 1
        if self.failure is None:
            _log.error("records: what is served is not recorded: %s", why)
        self.failure = why

    def _submit(self, work: Callable[[sqlite3.Connection], T]) -> Future[T]:
        done: Future[T] = Future()
        if self._closed:
            why = "the server keeps no records" if not self.kept else "the records are closed"
            done.set_exception(RecordsError(why))
        else:
            self._waiting.put(_Job(work, done))
        return done

    def _serve(self) -> None:
        while batch := self._next_batch():
            failed = self._commit(batch)
            if failed is None:
                self.failure = None
            for job in batch:
                error = job.error or failed
                if error is not None:
                    job.done.set_exception(error)
                else:
                    job.done.set_result(job.result)

    def _next_batch(self) -> list[_Job[Any]]:
        """All that waits, at least one; nothing at the end."""
        batch: list[_Job[Any]] = []
        while len(batch) < _MOST_AT_ONCE:
            try:
                job = self._waiting.get(block=not batch)
            except queue.Empty:
                break
            if job is None:
                if batch:
                    self._waiting.put(None)
                break
            # From here on nobody can cancel it, so that it can be ended below.
            if not job.done.set_running_or_notify_cancel():
                job = _Job(job.work, Future())
            batch.append(job)
        return batch

    def _commit(self, batch: list[_Job[Any]]) -> RecordsError | None:
        """Do the jobs in one transaction; why none of them is on the disk, None where all are."""
        db = self._connection
        assert db is not None
        try:
            db.execute("BEGIN IMMEDIATE")
            for job in batch:
                db.execute("SAVEPOINT job")
                try:
                    job.result = job.work(db)
                except (RecordsError, *_ITS_OWN_FAULT) as error:
                    db.execute("ROLLBACK TO job")
                    known = isinstance(error, RecordsError)
                    job.error = error if known else RecordsError(f"cannot be kept: {error}")
                db.execute("RELEASE job")
            self._clean(db)
            db.execute("COMMIT")
        except Exception as error:  # the thread has to live on, or everybody waits for ever
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            return RecordsError(f"{self.place}: cannot be written: {error}")
        return None

    def _clean(self, db: sqlite3.Connection) -> None:
        """Delete what is too old, now and then."""
        now = time.monotonic()
        if self.place == "memory":
            db.execute(
                "DELETE FROM decisions WHERE rowid <= (SELECT MAX(rowid) FROM decisions) - ?",
                (self._most_in_memory,),
            )
        if self._keep_days is not None and now - self._cleaned >= _CLEAN_EVERY_S:
            self._cleaned = now
            oldest = time.time() - self._keep_days * _DAY_S
            db.execute("DELETE FROM decisions WHERE time < ?", (oldest,))


def _insert(db: sqlite3.Connection, table: str, row: tuple[Any, ...]) -> None:
    marks = ", ".join("?" for _ in row)
    db.execute(f"INSERT INTO {table} VALUES ({marks})", row)


def _spend(db: sqlite3.Connection, caller: str, usd: float) -> None:
    db.execute(
        "INSERT INTO spending VALUES (?, ?) ON CONFLICT DO UPDATE SET usd = usd + excluded.usd",
        (caller, usd),
    )
