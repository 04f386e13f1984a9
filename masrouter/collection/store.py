"""The collection's file: an SQLite database of calls and runs that survives a kill at any moment.

Write-ahead log with synchronous=FULL: what `write` has returned from is on the disk. One thread
writes, and joins what waits into one transaction. A second collector of the same file is refused.

A call goes through two states: `sent`, recorded before it leaves, with the most it can cost, and
`answered` or `failed`. What is still `sent` after a kill may have been billed, and counts as spent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import shutil
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from masrouter.errors import CollectionError

FORMAT = 1
_APPLICATION_ID = 0x6D617352  # "masR"
_MOST_AT_ONCE = 512

_TABLES = """
CREATE TABLE pins (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE runs (
    run_id TEXT PRIMARY KEY,
    prompt_version TEXT NOT NULL,
    record TEXT NOT NULL,               -- the log record, as JSON of the log schema
    answer TEXT                         -- what the team answered
) STRICT;
CREATE TABLE calls (
    run_id TEXT NOT NULL,
    digest TEXT NOT NULL,               -- of the request
    state TEXT NOT NULL CHECK (state IN ('sent', 'answered', 'failed')),
    model TEXT NOT NULL,
    worst_usd REAL,                     -- the most that one attempt can cost; null: no known price
    spent_usd REAL NOT NULL,            -- by all attempts so far, of all sessions, as far as known
    lost_usd REAL NOT NULL,             -- the most that those may have cost which said nothing
    unpriced INTEGER NOT NULL,          -- attempts that may be billed at a price nobody knows
    cost_usd REAL,                      -- what follows: of the reply or the final failure
    prompt_tokens INTEGER,
    completion_tokens INTEGER,
    reply TEXT,
    billed_model TEXT,
    finish_reason TEXT,
    attempts INTEGER,
    error_kind TEXT,
    error TEXT,
    PRIMARY KEY (run_id, digest)
) STRICT;
"""

Statement = tuple[str, Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Spending:
    """What a collection has spent so far, in US dollars."""

    known_usd: float
    """Attempts with a known cost."""
    possible_usd: float
    """Worst cost of attempts that may have been billed though nothing is known of them."""
    unpriced_calls: int
    """Attempts that may have been billed at a price that nobody knows."""

    @property
    def most_usd(self) -> float:
        """Both together; unpriced calls are in neither."""
        return self.known_usd + self.possible_usd


@dataclass(frozen=True, slots=True)
class _Item:
    statements: Sequence[Statement]
    keep: bool
    done: Future[None]


class Store:
    """A collection's file, open for one collector. Use as a context manager."""

    def __init__(self, path: str | Path, *, disk_reserve_mib: float = 16.0) -> None:
        """Open or make the file; a `.lock` file is made beside it, and stays.

        disk_reserve_mib: `room` is False below this much free disk, so that calls which are under
        way can still be recorded. Raises CollectionError where another collector has the file, or
        where it is damaged or something else.
        """
        self.path = Path(path)
        self._reserve = disk_reserve_mib * 2**20
        self._lock = _locked(self.path)
        with contextlib.ExitStack() as opened:
            opened.callback(self._lock.close)
            self._reader = opened.enter_context(contextlib.closing(_connect(self.path)))
            _check(self._reader, self.path)
            _make(self._reader, self.path)
            self._writer = opened.enter_context(contextlib.closing(_connect(self.path)))
            self._opened = opened.pop_all()
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._closed = False
        self.failure: str | None = None
        """Why something could not be written; None while all is well."""
        self.unsaved = 0
        """After `close`: how many records could not be written to the end."""
        self._thread = threading.Thread(target=self._serve, name="collection-store", daemon=True)
        self._thread.start()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write what waits and let the file go; closing twice does nothing."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
            self._thread.join()
            self._opened.close()

    def post(self, *statements: Statement, keep: bool = True) -> Future[None]:
        """Queue statements for one transaction; the future ends when they are on the disk.

        keep: where they cannot be written now, they are tried again with what comes later and at
        the end. The future fails with a CollectionError all the same.
        """
        done: Future[None] = Future()
        if self._closed:
            done.set_exception(CollectionError(f"{self.path}: the collection is closed"))
        else:
            self._queue.put(_Item(statements, keep, done))
        return done

    async def write(self, *statements: Statement, keep: bool = True) -> None:
        """Write statements in one transaction; they are on the disk when this returns.

        Everything posted before is then on the disk too, or has failed. Cancelling does not take
        the statements back. Raises CollectionError; for `keep` see `post`.
        """
        await asyncio.wrap_future(self.post(*statements, keep=keep))

    def pin(self, key: str, value: str) -> None:
        """Hold the collection to one value of a setting; raises CollectionError for another."""
        rows = self.read("SELECT value FROM pins WHERE key = ?", key)
        if not rows:
            self.post(insert("pins", {"key": key, "value": value})).result()
        elif rows[0]["value"] != value:
            raise CollectionError(
                f"{self.path}: was collected with {key} {rows[0]['value']}, now it is {value}; "
                "one collection holds runs of one kind: collect into another file"
            )

    def read(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """Rows of a query; raises CollectionError where the file is damaged."""
        with _told(self.path):
            return self._reader.execute(sql, values).fetchall()

    def room(self) -> bool:
        """True while the disk has the reserve left and nothing has failed."""
        try:
            free = shutil.disk_usage(self.path.parent).free
        except OSError as error:
            self.failure = f"cannot be used: {error.strerror}"
            return False
        return self.failure is None and free >= self._reserve

    def finished(self) -> set[str]:
        """Run ids that need no more work."""
        return {row["run_id"] for row in self.read("SELECT run_id FROM runs")}

    def failed(self) -> set[str]:
        """Those of them that ended without an answer."""
        return {row["run_id"] for row in self.read("SELECT run_id FROM runs WHERE answer IS NULL")}

    def spending(self) -> Spending:
        """Of all sessions on this file."""
        with _told(self.path):
            return spending(self._reader)

    def _serve(self) -> None:
        # What is to be kept and could not be written is tried again with whatever comes next, and
        # at the end: a reply that was paid for is worth it. Statements replace whole rows, so that
        # it does no harm to repeat them; their order is kept.
        unsaved: list[Statement] = []
        while batch := self._next_batch():
            error = _commit(self._writer, [*unsaved, *(s for i in batch for s in i.statements)])
            if error is None:
                unsaved.clear()
            else:
                unsaved += [s for item in batch if item.keep for s in item.statements]
                self.failure = error
            for item in batch:
                if error is None:
                    item.done.set_result(None)
                else:
                    item.done.set_exception(CollectionError(f"{self.path}: {error}"))
        if unsaved and _commit(self._writer, unsaved) is not None:
            self.unsaved = len(unsaved)

    def _next_batch(self) -> list[_Item]:
        """All that waits, at least one; nothing at the end."""
        batch: list[_Item] = []
        while len(batch) < _MOST_AT_ONCE:
            try:
                item = self._queue.get(block=not batch)
            except queue.Empty:
                break
            if item is None:
                if batch:
                    self._queue.put(None)
                break
            # From here on nobody can cancel it, so that it can be ended below.
            if not item.done.set_running_or_notify_cancel():
                item = _Item(item.statements, item.keep, Future())
            batch.append(item)
        return batch


@contextlib.contextmanager
def reading(path: str | Path) -> Iterator[sqlite3.Connection]:
    """A collection's file for reading alone, also while it is being collected.

    Raises CollectionError where it is missing, damaged or something else, also for what goes wrong
    inside the `with`.
    """
    source = Path(path)
    if not source.is_file():
        raise CollectionError(f"{source}: no such file; `masrouter collect` makes it")
    with _told(source), contextlib.closing(_connect(source, mode="rw")) as connection:
        # Opened for writing all the same: else SQLite would leave its side files behind.
        connection.execute("PRAGMA query_only = ON")
        if not _check(connection, source):
            raise CollectionError(f"{source}: empty, no collection; `masrouter collect` makes it")
        yield connection


def spending(connection: sqlite3.Connection) -> Spending:
    """What all sessions of a collection have spent."""
    row = connection.execute(
        "SELECT TOTAL(spent_usd) AS known,"
        " TOTAL(lost_usd) + TOTAL(CASE WHEN state = 'sent' THEN worst_usd END) AS possible,"
        " COALESCE(SUM(unpriced + (state = 'sent' AND worst_usd IS NULL)), 0) AS unpriced"
        " FROM calls"
    ).fetchone()
    return Spending(row["known"], row["possible"], row["unpriced"])


def insert(table: str, row: Mapping[str, Any]) -> Statement:
    """`INSERT OR REPLACE` of named values; names are this package's own, never a user's."""
    columns = ", ".join(row)
    marks = ", ".join("?" for _ in row)
    values = [storable(value) if isinstance(value, str) else value for value in row.values()]
    return f"INSERT OR REPLACE INTO {table} ({columns}) VALUES ({marks})", values


def storable(text: str) -> str:
    """The text as UTF-8 can hold it: halves of a surrogate pair come from models and providers."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _connect(path: Path, mode: str = "rwc") -> sqlite3.Connection:
    with _told(path):
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=30,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.row_factory = sqlite3.Row
        try:
            connection.execute("PRAGMA synchronous = FULL")
        except sqlite3.Error:
            connection.close()
            raise
        return connection


def _check(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether there is a collection in the file; raises CollectionError for anything else."""
    with _told(path):
        (identity,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        if not tables:
            return False
        if identity != _APPLICATION_ID:
            raise CollectionError(f"{path}: a database, but not of a collection; name another file")
        if version != FORMAT:
            raise CollectionError(
                f"{path}: format {version}, this masrouter knows {FORMAT}; update masrouter"
            )
        (state,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if state != "ok":
            raise CollectionError(f"{path}: {_DAMAGED}: {' '.join(state.split())}")
        return True


def _make(connection: sqlite3.Connection, path: Path) -> None:
    with _told(path):
        connection.execute("PRAGMA journal_mode = WAL")
        (tables,) = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        if not tables:
            connection.executescript(
                f"BEGIN; PRAGMA application_id = {_APPLICATION_ID};"
                f" PRAGMA user_version = {FORMAT}; {_TABLES} COMMIT;"
            )


def _commit(connection: sqlite3.Connection, statements: Sequence[Statement]) -> str | None:
    """Run statements as one transaction; what went wrong, None when all are on the disk."""
    try:
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            for sql, values in statements:
                connection.execute(sql, values)
    except sqlite3.Error as error:
        return _why(error)
    except Exception as error:  # the thread has to live on, or everybody waits for ever
        return f"cannot be written: {type(error).__name__}: {error}"
    return None


def _locked(path: Path) -> IO[bytes]:
    """A lock beside the file; the kernel lets it go when this process ends, however it ends."""
    import fcntl  # Unix alone, as is the sandbox; the rest of masrouter is not

    target = path.resolve()
    beside = target.with_name(target.name + ".lock")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle = beside.open("ab")
    except OSError as error:
        raise CollectionError(f"{beside}: cannot be made: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        handle.close()
        raise CollectionError(f"{path}: another collector is at work on this file") from error
    except OSError as error:
        handle.close()
        raise CollectionError(
            f"{beside}: cannot be locked ({error.strerror}); collect into a local folder"
        ) from error
    os.set_inheritable(handle.fileno(), False)
    return handle


_DAMAGED = "damaged; go on from a copy, or collect into another file"


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """SQLite's errors as CollectionErrors."""
    try:
        yield
    except sqlite3.Error as error:
        raise CollectionError(f"{path}: {_why(error)}") from error


def _why(error: sqlite3.Error) -> str:
    name = getattr(error, "sqlite_errorname", None) or ""
    if name == "SQLITE_FULL":
        return "the disk is full"
    if name in ("SQLITE_CORRUPT", "SQLITE_NOTADB"):
        return f"{_DAMAGED} ({error})"
    if name.startswith("SQLITE_IOERR"):
        return f"cannot be written or read ({error}); is the disk full or gone?"
    return f"cannot be used: {error}"
