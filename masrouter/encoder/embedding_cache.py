"""Embeddings kept on disk, so that no text is embedded twice by the same model.

One SQLite file per encoder identity, keyed by a hash of the text: the texts themselves are not
stored. Any number of processes may read and write at once, and a killed one loses at most the
batch that it was writing. The cache never decides an outcome: a damaged row is a miss, and a
damaged or unreachable file is a warning and no cache.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import sys
import threading
import time
import warnings
import weakref
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
_T = TypeVar("_T")

_ROWS_PER_QUERY = 500  # below SQLite's oldest limit of 999 variables
_BUSY_SECONDS = 30.0
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What a cache holds on disk, and how this object's look-ups went."""

    folder: Path
    files: int
    entries: int
    size_bytes: int
    hits: int
    misses: int


class EmbeddingCache:
    """Vectors on disk by (encoder identity, text).

    `folder` defaults to `embeddings/` in the folder that the environment variable
    `MASROUTER_CACHE` names, else in masrouter's folder of the platform's cache
    (`~/.cache/masrouter` on Linux). It is created at the first write.

    An object may be shared by threads, and used on both sides of a fork.
    """

    def __init__(self, folder: Path | str | None = None) -> None:
        self._folder = None if folder is None else Path(folder)
        self._hits = 0
        self._misses = 0
        self._unusable: set[str] = set()
        self._open = _Connections()
        weakref.finalize(self, self._open.close)

    @property
    def folder(self) -> Path:
        """Where the files are."""
        if self._folder is None:
            self._folder = cache_folder() / "embeddings"
        return self._folder

    def path(self, identity: str) -> Path:
        """The file that holds the vectors of the encoder `identity`."""
        return self.folder / f"{_hash(identity).hex()}.sqlite"

    def get_many(
        self, texts: Sequence[str], identity: str, dimension: int
    ) -> list[FloatArray | None]:
        """The vector (E,) of each text, bit for bit as it was put; None where there is none.

        A row whose checksum or dimension is wrong counts as a miss, and the next put repairs it.
        """
        found: dict[bytes, FloatArray] = {}
        keys = [_hash(text) for text in texts]

        def look_up(connection: sqlite3.Connection) -> None:
            for chunk in _chunks(list(dict.fromkeys(keys))):
                marks = ",".join("?" * len(chunk))
                rows = connection.execute(
                    f"SELECT key, vector, checksum FROM embeddings WHERE key IN ({marks})", chunk
                )
                for key, blob, checksum in rows:
                    vector = _unpack(key, blob, checksum, dimension)
                    if vector is not None:
                        found[key] = vector

        if self.path(identity).exists():
            self._run(identity, look_up)
        vectors = [found.get(key) for key in keys]
        hits = sum(vector is not None for vector in vectors)
        self._hits += hits
        self._misses += len(vectors) - hits
        return vectors

    def put_many(self, texts: Sequence[str], vectors: FloatArray, identity: str) -> None:
        """Store `vectors` (N, E), one row a text; what was there under the same text is replaced.

        Each chunk of 500 rows is one transaction: after a kill it is there whole or not at all.
        """
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise ValueError(f"expected ({len(texts)}, E) vectors, got shape {vectors.shape}")
        rows = []
        for text, vector in zip(texts, vectors, strict=True):
            key, blob = _hash(text), np.asarray(vector, dtype="<f4").tobytes()
            rows.append((key, blob, _checksum(key, blob)))

        def write(connection: sqlite3.Connection) -> None:
            for chunk in _chunks(rows):
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?)", chunk)
                connection.execute("COMMIT")

        self._run(identity, write)

    def stats(self) -> CacheStats:
        """Count the files and their rows; a file that cannot be read counts no rows."""
        entries = size = files = 0
        for file in sorted(self.folder.glob("*.sqlite")):
            files += 1
            # The write-ahead log beside the file is part of what the cache occupies.
            for part in (file, Path(f"{file}-wal")):
                size += part.stat().st_size if part.exists() else 0
            try:
                connection = sqlite3.connect(file, timeout=_BUSY_SECONDS)
                try:
                    entries += connection.execute("SELECT COUNT(*) FROM embeddings").fetchone()[0]
                finally:
                    connection.close()
            except sqlite3.Error as error:
                _warn(file, error)
        return CacheStats(self.folder, files, entries, size, self._hits, self._misses)

    def close(self) -> None:
        """Close the files; a later use opens them again."""
        self._open.close()

    def _run(self, identity: str, work: Callable[[sqlite3.Connection], None]) -> None:
        """Do `work` on the identity's file; where that fails, warn once and go without it."""
        if identity in self._unusable:
            return
        file = self.path(identity)
        with self._open.lock():
            try:
                work(self._open.get(file, identity))
            except (sqlite3.Error, OSError) as error:
                self._unusable.add(identity)
                self._open.close()
                _warn(file, error)
            except BaseException:
                self._open.close()  # an interrupted transaction is rolled back, not left open
                raise


class _Connections:
    """The open connections of one cache. SQLite forbids using one across a fork."""

    def __init__(self) -> None:
        self._start()
        self._inherited: list[object] = []

    def _start(self) -> None:
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._by_file: dict[Path, sqlite3.Connection] = {}

    def lock(self) -> threading.RLock:
        if os.getpid() != self._process:
            # Held for ever, since closing them here would touch the parent's files; and a thread
            # that the fork left behind may own the old lock.
            self._inherited.append(self._by_file)
            self._start()
        return self._lock

    def get(self, file: Path, identity: str) -> sqlite3.Connection:
        connection = self._by_file.get(file)
        if connection is None:
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            connection = sqlite3.connect(
                file, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            connection.text_factory = bytes  # text where a blob belongs must not stop a read
            self._by_file[file] = connection
            _prepare(connection, identity)
        return connection

    def close(self) -> None:
        with self.lock():
            while self._by_file:
                self._by_file.popitem()[1].close()  # rolls back what was not committed


def _prepare(connection: sqlite3.Connection, identity: str) -> None:
    """Create the tables where they are missing; refuse another encoder's or a later file."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > _FORMAT:
        raise sqlite3.DatabaseError(f"written by a later masrouter (format {version})")
    # NORMAL in WAL mode survives a killed process; after a power cut the last rows may be missing.
    connection.execute("PRAGMA synchronous = NORMAL")
    if version < _FORMAT:
        _use_write_ahead_log(connection)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("CREATE TABLE IF NOT EXISTS about (identity TEXT NOT NULL)")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS embeddings "
            "(key BLOB PRIMARY KEY, vector BLOB NOT NULL, checksum INTEGER NOT NULL)"
        )
        if connection.execute("SELECT COUNT(*) FROM about").fetchone()[0] == 0:
            connection.execute("INSERT INTO about VALUES (?)", (identity,))
        connection.execute(f"PRAGMA user_version = {_FORMAT}")
        connection.execute("COMMIT")
    owners = connection.execute("SELECT identity FROM about").fetchall()
    if owners != [(identity.encode(),)]:
        raise sqlite3.DatabaseError(f"holds embeddings of {owners}, not of {identity!r}")


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Switch to WAL. SQLite's busy timeout does not cover this step, so it is retried here."""
    give_up = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > give_up:
                raise
            time.sleep(0.01)


def cache_folder() -> Path:
    """The user's cache of masrouter: what `MASROUTER_CACHE` names, else the platform's folder."""
    named = os.environ.get("MASROUTER_CACHE")
    if named:
        return Path(named).expanduser()
    if sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Caches"
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "masrouter"


def _hash(text: str) -> bytes:
    # Logs may hold lone surrogates, which plain UTF-8 cannot write.
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _checksum(key: bytes, blob: bytes) -> int:
    return zlib.crc32(blob, zlib.crc32(key))


def _unpack(key: bytes, blob: object, checksum: object, dimension: int) -> FloatArray | None:
    if not isinstance(blob, bytes) or len(blob) != 4 * dimension:
        return None
    if checksum != _checksum(key, blob):
        return None
    return np.frombuffer(blob, dtype="<f4").astype(np.float32)  # (E,) a writable copy


def _chunks(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), _ROWS_PER_QUERY):
        yield items[start : start + _ROWS_PER_QUERY]


def _warn(file: Path, error: Exception) -> None:
    warnings.warn(
        f"{file}: the embedding cache cannot be used ({error}); going on without it. "
        "Delete the file to start afresh.",
        RuntimeWarning,
        stacklevel=4,
    )
