"""Stream logs: files in, checked batches of schema 1 out, and a report of all that was met."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from masrouter.errors import LogError
from masrouter.logs.hashing import HashIndex, hash_rows, hash_text
from masrouter.logs.lines import Block
from masrouter.logs.report import LogReport, Reject, RejectsFile, Tally, quote
from masrouter.logs.schema import refuse_version
from masrouter.logs.sources import PathLike, find_files, read_blocks, row_text
from masrouter.logs.validate import check

BATCH_ROWS = 65_536

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all."""


class Sieve:
    """Blocks of raw rows in, valid rows out; it remembers the runs and queries that it has seen.

    24 to 48 bytes a row are kept, whatever the rows hold.
    """

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self._runs = HashIndex()
        self._queries = HashIndex()

    def sift(self, block: Block) -> Any:
        """The block's rows that are valid and new, as a pyarrow.RecordBatch of `SCHEMA`.

        Raises LogError for a row of a later schema version, and when strict for the first bad row.
        """
        tally = self.tally
        try:
            checked = check(block.batch)
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise LogError(f"{block.file}: damaged values: {error}") from error
        if checked.later_version is not None:
            row, version = checked.later_version
            raise refuse_version(f"{block.file}:{_where(block, row)}", version)
        tally.rows_read += block.read
        tally.unknown(block.unknown)
        tally.unknown(checked.unknown)
        rejects = [(reject, _as_text(raw)) for reject, raw in block.refused]
        first = checked.first_faults()
        for row in np.flatnonzero(first >= 0).tolist():
            fault = checked.faults[first[row]]
            place, detail = fault.find(row)
            where = _where(block, row)
            reject = Reject(block.file, where, fault.field, fault.why, place, detail)
            rejects.append((reject, _raw(block, row)))
        rejects.sort(key=lambda item: _line(item[0]))
        for reject, raw in rejects:
            tally.reject(reject, raw)
        kept = np.flatnonzero(first < 0)
        batch = checked.batch if len(kept) == len(first) else checked.batch.take(pa.array(kept))
        new = self._new_runs(block, batch, kept)
        if len(new) < len(kept):
            batch, kept = batch.take(pa.array(new)), kept[new]
        self._check_texts(block, batch, kept)
        tally.rows_kept += batch.num_rows
        return batch

    def _new_runs(self, block: Block, batch: Any, rows: Any) -> Any:
        """Indices of the rows whose run is new; a run with other content is rejected."""
        match = self._runs.match(hash_text(batch.column("run_id")), hash_rows(batch))
        self.tally.duplicates += int((match.known & match.same).sum())
        for index in np.flatnonzero(match.known & ~match.same):
            row = int(rows[index])
            run = batch.column("run_id")[int(index)].as_py()
            reject = Reject(
                block.file,
                _where(block, row),
                "run_id",
                "the run_id of an earlier row with other content",
                "run_id",
                f"got {quote(run)}",
            )
            self.tally.reject(reject, _raw(block, row))
        return np.flatnonzero(~match.known)

    def _check_texts(self, block: Block, batch: Any, rows: Any) -> None:
        """One query_id, one text; a row that says otherwise is kept and reported."""
        ids, texts = batch.column("query_id"), batch.column("query")
        match = self._queries.match(hash_text(ids), hash_text(texts))
        for index in np.flatnonzero(~match.same):
            query_id = ids[int(index)].as_py()
            self.tally.conflict(
                query_id,
                f"{block.file}:{_where(block, int(rows[index]))}: query: another text than an "
                f"earlier row gives query_id {quote(query_id)}",
            )


def _where(block: Block, row: int) -> str:
    return f"{block.unit}{block.numbers[row]}"


def _line(reject: Reject) -> int:
    return int(reject.where.rsplit(" ", 1)[-1])


def _as_text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _raw(block: Block, row: int) -> str:
    if block.raw is not None:
        return _as_text(block.raw[row])
    return json.dumps(row_text(block.batch, row), default=str)


class LogReader(Iterator[Any]):
    """An iterator of pyarrow.RecordBatch of `SCHEMA`; `report` says what it met so far.

    Made by `iter_logs`.
    """

    def __init__(
        self,
        paths: PathLike | Iterable[PathLike],
        *,
        strict: bool = False,
        batch_size: int = BATCH_ROWS,
        rejects: PathLike | None = None,
        progress: Progress | None = None,
    ) -> None:
        if batch_size < 1:
            raise LogError(f"batch_size: expected at least 1, got {batch_size}")
        self._files = find_files(paths)
        if rejects is not None and Path(rejects).resolve() in {
            path.resolve() for path in self._files.paths
        }:
            raise LogError(f"{rejects}: the rejects file is one of the logs; name another")
        self._progress = progress
        self._batch_size = batch_size
        self._rejects = None if rejects is None else RejectsFile(rejects)
        self._tally = Tally(
            tuple(map(str, self._files.paths)),
            tuple(map(str, self._files.ignored)),
            strict=strict,
            rejects=self._rejects,
        )
        self._batches = self._read()

    def __next__(self) -> Any:
        return next(self._batches)

    @property
    def report(self) -> LogReport:
        """What was met so far; complete once the iterator is at its end."""
        return self._tally.report()

    def _read(self) -> Iterator[Any]:
        sieve = Sieve(self._tally)
        total, before = self._files.total_bytes, 0
        with ExitStack() as stack:
            if self._rejects is not None:
                stack.enter_context(self._rejects)
            for path in self._files.paths:
                for block in read_blocks(path, self._batch_size):
                    batch = sieve.sift(block)
                    for start in range(0, batch.num_rows, self._batch_size):
                        yield batch.slice(start, self._batch_size)
                    if self._progress is not None:
                        self._progress(before + block.bytes_done, total)
                before += path.stat().st_size
        if self._progress is not None:
            self._progress(total, total)


def iter_logs(
    paths: PathLike | Iterable[PathLike],
    *,
    strict: bool = False,
    batch_size: int = BATCH_ROWS,
    rejects: PathLike | None = None,
    progress: Progress | None = None,
) -> LogReader:
    """Read logs in batches, in bounded memory (24 to 48 bytes a row stay, to find duplicates).

    Args:
        paths: .jsonl, .jsonl.gz and .parquet files, or folders that hold them.
        strict: Raise LogError at the first bad row instead of counting it.
        batch_size: Most rows in a batch.
        rejects: A JSONL file to write the bad rows to, each with what is wrong with it.
        progress: Called with the bytes done and the bytes in all.

    Returns:
        An iterator of pyarrow.RecordBatch of `SCHEMA`, with the report as `.report`.

    Raises:
        LogError: No such file, a damaged file, a later schema version, or a bad row when strict.
    """
    return LogReader(
        paths, strict=strict, batch_size=batch_size, rejects=rejects, progress=progress
    )
