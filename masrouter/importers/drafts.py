"""Drafts of records: held against the log schema, scored, and counted.

A draft that the schema refuses is rejected with every row that it comes from, so that what is
written passes `masrouter logs check`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from masrouter.importers.report import Account
from masrouter.importers.scores import ScoreBook
from masrouter.importers.traces import Place, Span, Trace
from masrouter.importers.values import BadValue
from masrouter.logs import SCHEMA
from masrouter.logs.lines import BadLine, typed_row
from masrouter.logs.schema import record_to_json
from masrouter.logs.validate import check
from masrouter.types import LogRecord

_CHUNK = 1024


@dataclass(frozen=True, slots=True)
class Draft:
    """A record that is not yet checked, and the rows that it comes from."""

    record: LogRecord
    places: Sequence[Place]
    trace: Trace
    runs: Sequence[Sequence[Span]]
    """The calls of each run of the trace."""
    run: int
    """Which of them this record is."""


class Finisher:
    """Turns drafts into records."""

    def __init__(self, account: Account, book: ScoreBook) -> None:
        self.count = self.scored = self.failed = 0
        self.models: Counter[str] = Counter()
        self.traces: set[str] = set()
        """Ids of those that became a record."""
        self._account, self._book = account, book
        self._seen: dict[str, bytes] = {}

    def records(self, drafts: Iterable[Draft]) -> Iterator[LogRecord]:
        """The records that are valid and new, with their scores."""
        chunk: list[Draft] = []
        for draft in drafts:
            chunk.append(draft)
            if len(chunk) == _CHUNK:
                yield from self._finished(chunk)
                chunk = []
        yield from self._finished(chunk)

    def _finished(self, chunk: Sequence[Draft]) -> Iterator[LogRecord]:
        for draft in self._valid(chunk):
            record = draft.record
            digest = hashlib.blake2b(repr(record).encode("utf-8"), digest_size=16).digest()
            known = self._seen.setdefault(record.run_id, digest)
            if known is not digest:
                if known == digest:
                    self._account.duplicates += len(draft.places)
                else:
                    why = "an earlier row has this id and says otherwise"
                    reject(self._account, draft.places, BadValue("run_id", why))
                continue
            self._account.rows_in_records += len(draft.places)
            outcome = self._book.outcome(draft.trace, draft.runs, draft.run)
            if outcome is not None:
                record = replace(record, score=outcome.score, score_source=outcome.source)
            self.traces.add(draft.trace.id)
            self.count += 1
            self.scored += record.score is not None
            self.failed += record.error is not None
            self.models.update(record.plan.models)
            yield record

    def _valid(self, chunk: Sequence[Draft]) -> Iterator[Draft]:
        """Drafts that the log schema takes; the others are rejected with what it says."""
        rows, kept = [], []
        for draft in chunk:
            try:
                rows.append(typed_row(record_to_json(draft.record)))
                kept.append(draft)
            except BadLine as bad:
                why = BadValue(bad.place or bad.name, bad.why, bad.detail)
                reject(self._account, draft.places, why)
        checked = check(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))
        for index, (draft, fault) in enumerate(zip(kept, checked.first_faults(), strict=True)):
            if fault < 0:
                yield draft
                continue
            broken = checked.faults[fault]
            place, detail = broken.find(index)
            reject(self._account, draft.places, BadValue(place, broken.why, detail))


def reject(account: Account, places: Iterable[Place], bad: BadValue) -> None:
    """Reject every row that something was made of."""
    for place in places:
        account.reject(place, bad.name, bad.why, bad.detail)
