"""Where every row of an import went, and the words for it.

Rows read = in records + ignored (by kind) + duplicates + rejected. Nothing else can happen to one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from masrouter.logs.report import ReasonCount, Reject, RejectsFile, Tally

EXAMPLES = 20


class Found(Protocol):
    """A row, as far as a reject tells of it."""

    @property
    def file(self) -> str: ...
    @property
    def where(self) -> str: ...
    def as_text(self) -> str: ...


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import met."""

    files: tuple[str, ...] = ()
    rows_read: int = 0
    """Payloads, observations, spans, events, scores, table rows; and lines that are none."""
    rows_in_records: int = 0
    ignored: Mapping[str, int] = field(default_factory=dict)
    """Rows that are no part of any run, by what they are."""
    duplicates: int = 0
    """Rows that say what an earlier one of their id said; exporters send again what may be lost."""
    rejected: int = 0
    reasons: tuple[ReasonCount, ...] = ()
    """Rejected rows by reason, most frequent first."""
    examples: tuple[str, ...] = ()
    """The first rejects, as `source:position: field: why`."""
    records: int = 0
    scored: int = 0
    failed: int = 0
    """Records with an error."""
    unmapped_fields: Mapping[str, int] = field(default_factory=dict)
    """Fields that no field of a log stands for, with the rows that fill them."""
    unpriced_models: Mapping[str, int] = field(default_factory=dict)
    """Models that are not in the catalog, with their records."""
    notes: Mapping[str, int] = field(default_factory=dict)
    """What was decided by a rule, and how often."""
    text_conflicts: int = 0
    """Records that give a query id another text than an earlier one."""

    @property
    def accounted(self) -> bool:
        """Whether every row that was read is accounted for."""
        known = self.rows_in_records + sum(self.ignored.values()) + self.duplicates + self.rejected
        return known == self.rows_read

    def to_json(self) -> dict[str, Any]:
        """The report as JSON-ready data."""
        return asdict(self)

    def lines(self) -> tuple[str, ...]:
        """The report in words, one finding a line."""
        ignored = sum(self.ignored.values())
        out = [
            f"{self.rows_read:,} rows read: {self.rows_in_records:,} in {self.records:,} records, "
            f"{ignored:,} ignored, {self.duplicates:,} repeated, {self.rejected:,} rejected",
            f"{self.scored:,} of {self.records:,} records have a score; {self.failed:,} failed",
        ]
        out += [f"ignored: {kind}: {rows:,}" for kind, rows in self.ignored.items()]
        if self.rejected:
            out.append(f"{self.rejected:,} rows rejected:")
            out += [f"  {r.field}: {r.why}: {r.rows:,} rows" for r in self.reasons]
            out += [f"  {example}" for example in self.examples]
        out += [f"note: {note}: {times:,}" for note, times in self.notes.items()]
        if self.text_conflicts:
            out.append(
                f"{self.text_conflicts:,} records give a query id another text than an earlier "
                "one does; `masrouter logs check` shows them"
            )
        if self.unmapped_fields:
            named = (f"{name} ({rows:,})" for name, rows in self.unmapped_fields.items())
            out.append(f"fields not mapped: {', '.join(named)}")
        if self.unpriced_models:
            named = (f"{name} ({rows:,})" for name, rows in self.unpriced_models.items())
            out.append(
                f"models not in the catalog, so their price is unknown: {', '.join(named)}; "
                "--model-map leads a name to a catalog's"
            )
        return tuple(_printable(line) for line in out)


def _printable(line: str) -> str:
    """A line whose names cannot steer a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


class Account:
    """Counts an import as it goes; with `strict` the first bad row is an error."""

    def __init__(
        self, files: tuple[str, ...], *, strict: bool = False, rejects: RejectsFile | None = None
    ) -> None:
        self.rows_read = 0
        self.rows_in_records = 0
        self.duplicates = 0
        self.ignored: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()
        self.keeps_rejects = rejects is not None
        self._files = files
        self._tally = Tally(files, strict=strict, rejects=rejects, examples=EXAMPLES)

    def ignore(self, kind: str, rows: int = 1) -> None:
        """Count rows that are no part of a run; kinds beyond the hundredth share a name."""
        kind = kind if kind in self.ignored or len(self.ignored) < 100 else "other kinds"
        self.ignored[kind] += rows

    def reject(self, row: Found, name: str, why: str, detail: str = "") -> None:
        """Count and tell one bad row that was read; raises LogError when strict."""
        reject = Reject(row.file, row.where, name, why, name, detail)
        self._tally.reject(reject, row.as_text() if self.keeps_rejects else "")

    def bad_row(self, row: Found, name: str, why: str, detail: str = "") -> None:
        """Count what should have been a row, and reject it."""
        self.rows_read += 1
        self.reject(row, name, why, detail)

    def unmapped(self, names: Mapping[str, int]) -> None:
        """Count filled fields that nothing in a log stands for."""
        self._tally.unknown(names)

    def report(self, **figures: Any) -> ImportReport:
        """All that was counted; `figures` are the fields that only the records know."""
        tally = self._tally.report()
        return ImportReport(
            files=self._files,
            rows_read=self.rows_read,
            rows_in_records=self.rows_in_records,
            ignored=dict(self.ignored.most_common()),
            duplicates=self.duplicates,
            rejected=tally.rejected,
            reasons=tally.reasons,
            examples=tally.examples,
            unmapped_fields=dict(tally.unknown_fields or {}),
            notes=dict(self.notes.most_common()),
            **figures,
        )
