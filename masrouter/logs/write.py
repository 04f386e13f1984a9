"""Write logs: append single runs while collecting, and convert whole logs at once.

Whole files are written beside their destination and then moved there, so that a reader never meets
half of one.
"""

from __future__ import annotations

import gzip
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from masrouter.errors import LogError
from masrouter.logs.read import Progress, iter_logs
from masrouter.logs.report import LogReport
from masrouter.logs.schema import SCHEMA, SEAL, column_names, record_to_json, row_to_json
from masrouter.logs.sources import SUFFIXES, PathLike, is_log
from masrouter.logs.table import Logs
from masrouter.types import LogRecord


class LogWriter:
    """Appends records to a .jsonl file; several processes may append to one file at a time.

    Each record is checked and then written by a single write to the end of the file. Where the file
    ends in the middle of a line (a writer was killed), the next record starts on a line of its own.
    """

    def __init__(self, path: PathLike, *, fsync: bool = False) -> None:
        """Open `path` for appending, made if absent; `fsync` waits for the disk at each record.

        Raises LogError where the file cannot be opened, or is not named .jsonl.
        """
        self.path = Path(path)
        self._fsync = fsync
        if not self.path.name.endswith(".jsonl"):
            raise LogError(f"{self.path}: runs are appended to a file named .jsonl")
        try:
            self._fd: int | None = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            raise LogError(f"{self.path}: cannot be appended to: {error.strerror}") from error
        self._cut_off = self._ends_inside_a_line(self._fd)

    @staticmethod
    def _ends_inside_a_line(fd: int) -> bool:
        size = os.fstat(fd).st_size
        return size > 0 and os.pread(fd, 1, size - 1) != b"\n"

    def append(self, record: LogRecord) -> None:
        """Check and write one record; raises LogError where it is not valid or not stored."""
        if self._fd is None:
            raise LogError(f"{self.path}: the writer is closed")
        Logs.from_records([record], source=f"{self.path}: new record")
        line = (json.dumps(record_to_json(record), allow_nan=False) + "\n").encode("utf-8")
        if self._cut_off:
            line = b"\n" + line
        try:
            written = os.write(self._fd, line)
            if self._fsync:
                os.fsync(self._fd)
        except OSError as error:
            raise LogError(f"{self.path}: cannot be written: {error.strerror}") from error
        self._cut_off = written < len(line)
        if self._cut_off:
            raise LogError(
                f"{self.path}: only {written} of {len(line)} bytes of run {record.run_id!r} were "
                "written; is the disk full?"
            )

    def close(self) -> None:
        """Close the file; closing twice does nothing."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> LogWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def append_record(path: PathLike, record: LogRecord, *, fsync: bool = False) -> None:
    """Append one record to a .jsonl file; see `LogWriter`, which is faster for many."""
    with LogWriter(path, fsync=fsync) as writer:
        writer.append(record)


def write_jsonl(logs: Logs, path: PathLike) -> None:
    """Write logs as JSON Lines, packed where the name ends in .gz; raises LogError."""
    _write(logs.batches(), _destination(path, (".jsonl", ".jsonl.gz")))


def write_parquet(logs: Logs, path: PathLike) -> None:
    """Write logs as Parquet, with checksums; raises LogError."""
    _write(logs.batches(), _destination(path, (".parquet",)))


def convert(
    source: PathLike | Iterable[PathLike],
    destination: PathLike,
    *,
    strict: bool = False,
    rejects: PathLike | None = None,
    progress: Progress | None = None,
) -> LogReport:
    """Join logs into one file of the kind that `destination` names, in bounded memory.

    Bad rows are left out and told in the report. Raises LogError, and then writes nothing.
    """
    target = _destination(destination, SUFFIXES)
    reader = iter_logs(source, strict=strict, rejects=rejects, progress=progress)
    _write(reader, target)
    return reader.report


def _destination(path: PathLike, suffixes: tuple[str, ...]) -> Path:
    target = Path(path)
    if not is_log(target) or not target.name.endswith(suffixes):
        raise LogError(f"{target}: expected a name that ends in {' or '.join(suffixes)}")
    return target


def _write(batches: Iterable[Any], target: Path) -> None:
    with _replacing(target) as file:
        if target.name.endswith(".parquet"):
            # Checksums, so that a flipped bit is an error and not another score.
            schema = SCHEMA.with_metadata({SEAL: column_names(SCHEMA)})
            with pq.ParquetWriter(
                file, schema, compression="zstd", write_page_checksum=True
            ) as parquet:
                for batch in batches:
                    parquet.write_table(pa.Table.from_batches([batch]).cast(schema))
        elif target.name.endswith(".gz"):
            # No name and no time inside, so that the same logs give the same bytes.
            with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
                _write_lines(packed, batches)
        else:
            _write_lines(file, batches)


def _write_lines(file: IO[bytes] | gzip.GzipFile, batches: Iterable[Any]) -> None:
    for batch in batches:
        for start in range(0, batch.num_rows, 4096):
            rows = batch.slice(start, 4096).to_pylist()
            lines = [json.dumps(row_to_json(row), allow_nan=False) for row in rows]
            file.write(("\n".join(lines) + "\n").encode("utf-8"))


@contextmanager
def _replacing(target: Path) -> Iterator[IO[bytes]]:
    """A new file that takes the target's place when all went well, and else vanishes."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise LogError(f"{target}: cannot be written: {error.strerror}") from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp's own mode would hide it from others
        temporary.replace(target)
    except OSError as error:
        raise LogError(f"{target}: cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
