"""What a read met: rows kept, rows refused and why, duplicates, unknown fields.

A bad row never stops a read and never vanishes: it is counted here, shown as
`file:line: field: why`, and written to a rejects file on request.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from masrouter.errors import LogError

_SHOWN = 200
"""Longest value or line that a message quotes, in characters."""


def quote(value: object) -> str:
    """A value for a message: JSON's null, and long values cut."""
    text = "null" if value is None else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"


@dataclass(frozen=True, slots=True)
class Reject:
    """One row that breaks the schema."""

    file: str
    where: str
    """`12` for line 12, `row 12` for a row of a Parquet file."""
    field: str
    """The field's name, without an index; what rejects are counted by."""
    why: str
    place: str
    """The field's full name, such as `agents[1].model`."""
    detail: str = ""
    """What was found; empty where `why` says it all."""

    def __str__(self) -> str:
        tail = f", {self.detail}" if self.detail else ""
        return f"{self.file}:{self.where}: {self.place}: {self.why}{tail}"


@dataclass(frozen=True, slots=True)
class ReasonCount:
    """How many rows one rule refused."""

    field: str
    why: str
    rows: int


@dataclass(frozen=True, slots=True)
class LogReport:
    """What a read met. Rows read = kept + rejected + duplicates."""

    files: tuple[str, ...] = ()
    ignored_files: tuple[str, ...] = ()
    """Files of the given folders that are not logs by their name."""
    rows_read: int = 0
    rows_kept: int = 0
    rejected: int = 0
    duplicates: int = 0
    """Rows whose run was there already, word for word; each run counts once."""
    reasons: tuple[ReasonCount, ...] = ()
    """Rejected rows by rule, most frequent first."""
    examples: tuple[str, ...] = ()
    """The first rejects, as `file:line: field: why`."""
    unknown_fields: Mapping[str, int] | None = None
    """Fields that schema 1 does not have, with the rows that fill them; they are not read."""
    text_conflicts: int = 0
    """Rows whose query_id came with another text before. They are kept: which text is right is
    not known, and a split by query_id keeps both on one side."""
    conflict_examples: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """True when no row breaks the schema."""
        return self.rejected == 0 and self.text_conflicts == 0

    def to_json(self) -> dict[str, Any]:
        """The report as JSON-ready data."""
        return {"ok": self.ok} | asdict(self) | {"unknown_fields": dict(self.unknown_fields or {})}

    def lines(self) -> tuple[str, ...]:
        """The report in words, one finding a line; empty when there is nothing to tell."""
        out: list[str] = []
        if self.rejected:
            out.append(f"{self.rejected:,} of {self.rows_read:,} rows rejected:")
            out += [f"  {r.field}: {r.why}: {r.rows:,} rows" for r in self.reasons]
            out += [f"  {example}" for example in self.examples]
        if self.duplicates:
            out.append(f"{self.duplicates:,} rows repeat a run word for word; each counts once")
        if self.text_conflicts:
            out.append(
                f"{self.text_conflicts:,} rows give a query_id another text than before (kept):"
            )
            out += [f"  {example}" for example in self.conflict_examples]
        for name, rows in (self.unknown_fields or {}).items():
            out.append(f"unknown field {name!r} in {rows:,} rows: not in schema 1, not read")
        if self.ignored_files:
            out.append(f"not logs by their names, ignored: {', '.join(self.ignored_files)}")
        return tuple(out)


class Tally:
    """Counts a read as it goes; with `strict` the first bad row is an error."""

    def __init__(
        self,
        files: tuple[str, ...] = (),
        ignored_files: tuple[str, ...] = (),
        *,
        strict: bool = False,
        rejects: RejectsFile | None = None,
        examples: int = 10,
    ) -> None:
        self.rows_read = 0
        self.rows_kept = 0
        self.duplicates = 0
        self._files, self._ignored = files, ignored_files
        self._strict, self._rejects, self._limit = strict, rejects, examples
        self._reasons: Counter[tuple[str, str]] = Counter()
        self._examples: list[str] = []
        self._unknown: Counter[str] = Counter()
        self._conflicts = 0
        self._conflict_examples: dict[str, str] = {}

    def reject(self, reject: Reject, raw: str) -> None:
        """Count one bad row; raises LogError when strict."""
        if self._strict:
            raise LogError(str(reject))
        self._reasons[reject.field, reject.why] += 1
        if len(self._examples) < self._limit:
            self._examples.append(str(reject))
        if self._rejects is not None:
            self._rejects.write(reject, raw)

    def conflict(self, query_id: str, message: str) -> None:
        """Count a row whose query has another text than before; raises LogError when strict."""
        if self._strict:
            raise LogError(message)
        self._conflicts += 1
        if len(self._conflict_examples) < self._limit:
            self._conflict_examples.setdefault(query_id, message)

    def unknown(self, fields: Mapping[str, int]) -> None:
        """Count rows that fill fields that the schema does not have."""
        for name, rows in fields.items():
            # A stranger's file may name a new field in every row: the list stays readable.
            if name in self._unknown or len(self._unknown) < 100:
                self._unknown[name] += rows
            else:
                self._unknown["(other fields)"] += rows

    def report(self) -> LogReport:
        """All that was counted so far."""
        return LogReport(
            files=self._files,
            ignored_files=self._ignored,
            rows_read=self.rows_read,
            rows_kept=self.rows_kept,
            rejected=self._reasons.total(),
            duplicates=self.duplicates,
            reasons=tuple(
                ReasonCount(name, why, rows) for (name, why), rows in self._reasons.most_common()
            ),
            examples=tuple(self._examples),
            unknown_fields=dict(sorted(self._unknown.items())),
            text_conflicts=self._conflicts,
            conflict_examples=tuple(self._conflict_examples.values()),
        )


class RejectsFile:
    """A JSONL file of bad rows: where each was, what is wrong, and its text as it stood.

    Bytes that are not UTF-8 are kept as lone surrogates (`surrogateescape`), so that
    `raw.encode("utf-8", "surrogateescape")` gives the line back.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file: IO[str] | None = None

    def __enter__(self) -> RejectsFile:
        try:
            self._file = self.path.open("w", encoding="ascii")
        except OSError as error:
            raise LogError(f"{self.path}: cannot write the rejects: {error.strerror}") from error
        return self

    def write(self, reject: Reject, raw: str) -> None:
        """Add one bad row."""
        if self._file is None:
            raise LogError(f"{self.path}: the rejects file is not open")
        entry = {
            "file": reject.file,
            "where": reject.where,
            "field": reject.place,
            "why": reject.why,
            "detail": reject.detail,
            "raw": raw,
        }
        self._file.write(json.dumps(entry) + "\n")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
