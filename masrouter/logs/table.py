"""Logs in memory: a compact Arrow table, and the integer codes that learning needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from masrouter.errors import LogError
from masrouter.logs.lines import BadLine, Block, typed_row
from masrouter.logs.read import BATCH_ROWS, Progress, Sieve, iter_logs
from masrouter.logs.report import LogReport, Reject, Tally
from masrouter.logs.schema import (
    SCHEMA,
    SCHEMA_VERSION,
    record_to_json,
    refuse_version,
    row_to_record,
)
from masrouter.logs.sources import PathLike
from masrouter.types import Agent, LogRecord, Plan

CODED = ("query_id", "query", "dataset", "task", "topology", "score_source", "policy")
"""Columns kept as dictionary codes: their values repeat."""

_TEXT_CODES = pa.dictionary(pa.int32(), pa.large_string())
TABLE_SCHEMA = pa.schema(
    [item.with_type(_TEXT_CODES) if item.name in CODED else item for item in SCHEMA]
)
"""`SCHEMA` with the columns of `CODED` as dictionaries."""


@dataclass(frozen=True, slots=True)
class PlanIndex:
    """The distinct plans of some logs, and which of them each row ran."""

    plans: tuple[Plan, ...]
    """Sorted by topology, then by the seats, so that the order of rows does not matter."""
    row_plan: npt.NDArray[np.int32]
    """Index into `plans`, shape (rows,)."""


@dataclass(frozen=True, slots=True)
class Codes:
    """The distinct values of a column, and which of them each row holds."""

    values: tuple[str, ...]
    """In order of first appearance."""
    rows: npt.NDArray[np.int32]
    """Index into `values`, -1 for null; shape (rows,)."""


@dataclass(frozen=True, eq=False)
class Logs:
    """Checked log rows, and the report of how they were read. Made by `read_logs`."""

    table: Any
    """pyarrow.Table of `TABLE_SCHEMA`."""
    report: LogReport = field(default_factory=LogReport)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __iter__(self) -> Iterator[LogRecord]:
        for batch in self.batches(4096):
            for row in batch.to_pylist():
                yield row_to_record(row)

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[Any]:
        """The rows as pyarrow.RecordBatch of `SCHEMA`, at most `rows` in each."""
        for start in range(0, len(self), rows):
            part = self.table.slice(start, rows)
            yield part.cast(SCHEMA).combine_chunks().to_batches()[0]

    def to_pandas(self) -> pd.DataFrame:
        """A frame with one row a run; repeated texts are categories, unknown numbers NaN."""
        frame: pd.DataFrame = self.table.to_pandas()
        return frame

    def numbers(self, name: str) -> npt.NDArray[np.float64]:
        """A numeric column as float64, NaN where it is not known; shape (rows,)."""
        column = self.table.column(name).cast(pa.float64(), safe=False)
        values: npt.NDArray[np.float64] = column.fill_null(np.nan).to_numpy()
        return values

    def codes(self, name: str) -> Codes:
        """A text column as integer codes."""
        column = self.table.column(name)
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        merged = column.unify_dictionaries().combine_chunks()
        merged = merged.combine_chunks() if isinstance(merged, pa.ChunkedArray) else merged
        raw = merged.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        rows, used = pd.factorize(np.where(raw < 0, np.nan, raw) if (raw < 0).any() else raw)
        values = merged.dictionary.take(pa.array(used.astype(np.int64))).to_pylist()
        return Codes(tuple(values), rows.astype(np.int32))

    def select(self, mask: npt.NDArray[np.bool_]) -> Logs:
        """The rows where `mask`, of shape (rows,), is True; the report stays that of the read."""
        if mask.dtype != np.bool_ or mask.shape != (len(self),):
            raise LogError(
                f"select: expected a boolean mask of shape ({len(self)},), "
                f"got {mask.dtype} of shape {mask.shape}"
            )
        return Logs(self.table.filter(pa.array(mask)), self.report)

    def concat(self, *others: Logs) -> Logs:
        """These rows and then those of `others`; a run that both hold counts once.

        The report is that of the joining: runs met twice, queries with two texts.
        """
        tally = Tally(tuple(f"logs {i}" for i in range(1 + len(others))))
        sieve, collected = Sieve(tally), _Collector()
        for index, logs in enumerate((self, *others)):
            first = 1
            for batch in logs.batches():
                numbers = np.arange(first, first + batch.num_rows)
                first += batch.num_rows
                block = Block(f"logs {index}", "row ", batch, numbers, read=batch.num_rows)
                collected.add(sieve.sift(block))
        return Logs(collected.table(), tally.report())

    @classmethod
    def from_records(
        cls, records: Iterable[LogRecord], *, strict: bool = True, source: str = "records"
    ) -> Logs:
        """Logs of records made in memory, checked by the same rules as files.

        Raises LogError at the first bad record; with `strict=False` bad ones are counted.
        """
        tally = Tally((source,), strict=strict)
        sieve, collected = Sieve(tally), _Collector()
        rows: list[dict[str, Any]] = []
        numbers: list[int] = []
        refused: list[tuple[Reject, bytes]] = []

        def flush() -> None:
            batch = pa.RecordBatch.from_pylist(rows, schema=SCHEMA)
            block = Block(
                source,
                "row ",
                batch,
                np.array(numbers, dtype=np.int64),
                refused=tuple(refused),
                read=len(rows) + len(refused),
            )
            collected.add(sieve.sift(block))
            for filled in (rows, numbers, refused):
                filled.clear()

        for number, record in enumerate(records, 1):
            version = record.schema_version
            if type(version) is int and version > SCHEMA_VERSION:
                raise refuse_version(f"{source}:row {number}", version)
            try:
                rows.append(typed_row(record_to_json(record)))
                numbers.append(number)
            except BadLine as bad:
                where = f"row {number}"
                reject = Reject(source, where, bad.name, bad.why, bad.place, bad.detail)
                refused.append((reject, repr(record).encode("utf-8", "surrogatepass")))
            if len(rows) + len(refused) >= BATCH_ROWS:
                flush()
        flush()
        return cls(collected.table(), tally.report())

    def plan_index(self) -> PlanIndex:
        """Every row's plan as an index into the distinct plans.

        Rows are grouped seat by seat on integer codes, so only distinct plans become objects.
        """
        n = len(self)
        if n == 0:
            return PlanIndex((), np.zeros(0, dtype=np.int32))
        agents = self.table.column("agents").combine_chunks()
        agents = agents.combine_chunks() if isinstance(agents, pa.ChunkedArray) else agents
        lengths = pc.list_value_length(agents).to_numpy(zero_copy_only=False)
        starts = np.concatenate(([0], np.cumsum(lengths)[:-1]))
        flat = agents.flatten()
        roles, _ = _factorize(flat.field("role"))
        models, model_count = _factorize(flat.field("model"))
        seats, _ = pd.factorize(roles * model_count + models)
        seat_count = int(seats.max()) + 1
        keys = self.codes("topology").rows.astype(np.int64)  # (rows,)
        for position in range(int(lengths.max())):
            # The group so far and this seat make the finer group; 0 where the team is smaller.
            seat = np.zeros(n, dtype=np.int64)
            filled = lengths > position
            seat[filled] = seats[starts[filled] + position] + 1
            keys = pd.factorize(keys * (seat_count + 1) + seat)[0]
        _, first = np.unique(keys, return_index=True)
        table = self.table.select(["topology", "agents"]).take(pa.array(first))
        plans = [
            Plan(row["topology"], tuple(Agent(a["role"], a["model"]) for a in row["agents"]))
            for row in table.to_pylist()
        ]
        order = sorted(range(len(plans)), key=lambda index: _plan_key(plans[index]))
        rank = np.empty(len(plans), dtype=np.int32)
        rank[order] = np.arange(len(plans), dtype=np.int32)
        return PlanIndex(tuple(plans[index] for index in order), rank[keys])


def _plan_key(plan: Plan) -> tuple[str, list[tuple[str, str]]]:
    return plan.topology, [(agent.role or "", agent.model) for agent in plan.agents]


def _factorize(column: Any) -> tuple[npt.NDArray[np.int64], int]:
    """Codes of a text array and how many there are; null is a code of its own."""
    encoded = column.dictionary_encode()
    count = len(encoded.dictionary)
    codes = encoded.indices.fill_null(count).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes, count + 1


class _Interner:
    """Text columns as one dictionary over all batches.

    Texts are known by a 128-bit digest: a text is held once, and never as a Python string.
    """

    def __init__(self) -> None:
        self._codes: dict[bytes, int] = {}
        self._texts: list[Any] = []
        self._rows: list[Any] = []

    def add(self, column: Any) -> None:
        encoded = column.dictionary_encode()
        codes = np.zeros(len(encoded.dictionary) + 1, dtype=np.int32)
        new: list[int] = []
        for index, text in enumerate(encoded.dictionary.to_pylist()):
            digest = blake2b(text.encode("utf-8"), digest_size=16).digest()
            code = self._codes.get(digest)
            if code is None:
                code = self._codes[digest] = len(self._codes)
                new.append(index)
            codes[index] = code
        if new:
            self._texts.append(encoded.dictionary.take(pa.array(new)))
        known = encoded.indices.is_valid().to_numpy(zero_copy_only=False)
        index_or_zero = encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)
        self._rows.append(pa.array(codes[index_or_zero], mask=~known))

    def column(self) -> Any:
        texts = pa.concat_arrays([*self._texts, pa.array([], pa.large_string())])
        self._texts.clear()
        rows = pa.concat_arrays([*self._rows, pa.array([], pa.int32())])
        return pa.DictionaryArray.from_arrays(rows, texts)


class _Collector:
    """Joins batches of `SCHEMA` into a table of `TABLE_SCHEMA`."""

    def __init__(self) -> None:
        self._coded = {name: _Interner() for name in CODED}
        self._plain: dict[str, list[Any]] = {n: [] for n in SCHEMA.names if n not in CODED}

    def add(self, batch: Any) -> None:
        for name, interner in self._coded.items():
            interner.add(batch.column(name))
        for name, parts in self._plain.items():
            parts.append(batch.column(name))

    def table(self) -> Any:
        columns = [
            self._coded[item.name].column()
            if item.name in CODED
            else pa.chunked_array(self._plain[item.name], type=item.type)
            for item in SCHEMA
        ]
        return pa.Table.from_arrays(columns, schema=TABLE_SCHEMA)


def read_logs(
    paths: PathLike | Iterable[PathLike],
    *,
    strict: bool = False,
    rejects: PathLike | None = None,
    progress: Progress | None = None,
) -> Logs:
    """Read logs into memory: .jsonl, .jsonl.gz and .parquet files, or folders of them.

    Args:
        paths: Files and folders, alone or together.
        strict: Raise LogError at the first bad row instead of counting it.
        rejects: A JSONL file to write the bad rows to, each with what is wrong with it.
        progress: Called with the bytes done and the bytes in all.

    Returns:
        The valid rows and, as `.report`, all that was not kept and why.

    Raises:
        LogError: No such file, a damaged file, a later schema version, or a bad row when strict.
    """
    reader = iter_logs(paths, strict=strict, rejects=rejects, progress=progress)
    collected = _Collector()
    for batch in reader:
        collected.add(batch)
    return Logs(collected.table(), reader.report)
