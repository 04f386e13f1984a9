"""The SQLite file of a server's records: its tables, opening it to write, opening it to read.

Write-ahead log with synchronous=FULL, so that what is committed survives a kill and a power cut.
Several servers may share a file.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias

from masrouter.errors import ConfigError

Place: TypeAlias = Path | Literal["memory", "none"]
"""Where records are: a file, in memory, or nowhere."""

FORMAT = 1
APPLICATION_ID = 0x6D617376  # "masv"

_OPTIONS: dict[str, Any] = {"timeout": 30, "isolation_level": None, "check_same_thread": False}

_TABLES = """
CREATE TABLE IF NOT EXISTS decisions (
    id TEXT PRIMARY KEY,
    time REAL NOT NULL,                 -- seconds since 1970, UTC
    caller TEXT NOT NULL,               -- name of the key
    query_id TEXT NOT NULL,
    query TEXT NOT NULL,
    dataset TEXT NOT NULL,
    task TEXT,
    plan TEXT NOT NULL,                 -- JSON
    policy TEXT NOT NULL,
    propensity REAL,
    stages TEXT                         -- JSON
) STRICT;
CREATE INDEX IF NOT EXISTS decisions_by_time ON decisions (time);
CREATE TABLE IF NOT EXISTS runs (
    decision_id TEXT PRIMARY KEY REFERENCES decisions (id) ON DELETE CASCADE,
    cost_usd REAL,
    prompt_tokens INTEGER,
    completion_tokens INTEGER,
    agents TEXT NOT NULL,               -- JSON: [prompt, completion] tokens of each agent
    latency_s REAL NOT NULL,
    error TEXT
) STRICT;
CREATE TABLE IF NOT EXISTS outcomes (
    decision_id TEXT PRIMARY KEY REFERENCES decisions (id) ON DELETE CASCADE,
    time REAL NOT NULL,
    digest TEXT NOT NULL,               -- the whole of it as canonical JSON
    score REAL,
    score_source TEXT NOT NULL,
    cost_usd REAL,
    prompt_tokens INTEGER,
    completion_tokens INTEGER,
    latency_s REAL,
    error TEXT
) STRICT;
CREATE TABLE IF NOT EXISTS spending (caller TEXT PRIMARY KEY, usd REAL NOT NULL) STRICT;
"""


@contextlib.contextmanager
def reading(path: str | Path) -> Iterator[sqlite3.Connection]:
    """A records file for reading alone, also while it is being served.

    Raises ConfigError where it is missing, damaged or something else, also for what goes wrong
    inside the `with`.
    """
    source = Path(path)
    if not source.is_file():
        raise ConfigError(f"{source}: no such file; `masrouter serve --records` makes it")
    try:
        # Opened for writing all the same: else SQLite would leave its side files behind.
        with contextlib.closing(_connected(source, "rw")) as connection:
            if not _is_ours(connection, source):
                raise ConfigError(f"{source}: empty, no records of a server")
            connection.execute("PRAGMA query_only = ON")
            yield connection
    except sqlite3.Error as error:
        raise ConfigError(f"{source}: cannot be read: {error}") from error


def opened(place: Place) -> sqlite3.Connection:
    """Records for writing, made if absent; raises ConfigError where that cannot be."""
    try:
        if isinstance(place, Path):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch(mode=0o600)  # what users asked is nobody else's to read
            connection = _connected(place, "rwc")
        else:
            connection = sqlite3.connect(":memory:", **_OPTIONS)
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            if not _is_ours(connection, place):
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript(
                    f"BEGIN IMMEDIATE; PRAGMA application_id = {APPLICATION_ID};"
                    f" PRAGMA user_version = {FORMAT}; {_TABLES} COMMIT;"
                )
        except BaseException:
            connection.close()
            raise
    except (sqlite3.Error, OSError) as error:
        raise ConfigError(f"records: {place}: cannot be used: {error}") from error
    return connection


def _connected(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    connection: sqlite3.Connection = sqlite3.connect(uri, uri=True, **_OPTIONS)
    try:
        connection.execute("PRAGMA synchronous = FULL")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _is_ours(connection: sqlite3.Connection, place: object) -> bool:
    """Whether there are records in the file; raises ConfigError for anything else but emptiness."""
    (identity,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    if not tables:
        return False
    if identity != APPLICATION_ID:
        raise ConfigError(f"{place}: a database, but not of a server's records; name another file")
    if version != FORMAT:
        raise ConfigError(
            f"{place}: format {version}, this masrouter knows {FORMAT}; update masrouter"
        )
    return True
