"""Import logs of other tools: rows in, checked records out, and an account of every row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from masrouter.catalog import Catalog
from masrouter.errors import CatalogError, LogError, PlanError
from masrouter.importers.assembly import Assembly
from masrouter.importers.drafts import Draft, Finisher, reject
from masrouter.importers.langfuse import Langfuse
from masrouter.importers.litellm import LiteLLM
from masrouter.importers.mapping import read_mapping
from masrouter.importers.options import ImportOptions
from masrouter.importers.otel import OpenTelemetry
from masrouter.importers.report import Account, ImportReport
from masrouter.importers.rows import Progress, Row, find_inputs, read_rows
from masrouter.importers.scores import ScoreBook
from masrouter.importers.spool import Spool
from masrouter.importers.table import Table
from masrouter.importers.traces import Kind, Place, Span, Traces
from masrouter.importers.values import BadValue
from masrouter.logs import Logs
from masrouter.logs.report import RejectsFile


class Format(StrEnum):
    """Whose logs are imported."""

    litellm = "litellm"
    langfuse = "langfuse"
    otel = "otel"
    table = "table"


class Reader(Protocol):
    """Takes the rows of a tool, and gathers what they say of traces."""

    def leaves(self, row: Row) -> Iterator[Row]:
        """The rows that a row holds."""

    def trace_of(self, row: Row) -> str | None:
        """The trace that a row says it is of, as far as it can be read."""

    def take(self, row: Row) -> None:
        """Take one; raises BadValue where it cannot be mapped."""

    def finish(self) -> None:
        """Join what waited for the end."""


@dataclass(frozen=True)
class Imported:
    """What an import gave."""

    logs: Logs
    report: ImportReport


def import_logs(
    source: Format,
    inputs: Iterable[str | Path],
    options: ImportOptions,
    *,
    mapping: str | Path | None = None,
    scores: Sequence[str | Path] = (),
    catalog: Catalog | None = None,
    strict: bool = False,
    rejects: str | Path | None = None,
    progress: Progress | None = None,
) -> Imported:
    """Turn another tool's logs into log records; nothing is guessed, and no row is lost.

    Args:
        source: Whose files they are.
        inputs: .jsonl, .ndjson, .json and .csv files (also .gz), .parquet, or folders of them.
        options: What the files do not say.
        mapping: The YAML file that says what a table's columns are; needed for tables alone.
        scores: Files of scores, columns id, score and, if there, score_source and name.
        catalog: Where models have their prices; the shipped one by default.
        strict: Raise LogError at the first bad row instead of counting it.
        rejects: A JSONL file to write the rows to that were rejected, each with its reason.
        progress: Called with the bytes done and the bytes in all.

    Returns:
        The records as logs, and where every row went.

    Raises:
        LogError: No such file, a damaged file, options that leave open what the outcome is, or a
            bad row when strict.
    """
    found = find_inputs(inputs)
    files, score_files = found.files, find_inputs(scores).files if scores else ()
    read = {file.resolve() for file in (*files, *score_files)}
    if rejects is not None and Path(rejects).resolve() in read:
        raise LogError(f"{rejects}: the rejects file is one of the inputs; name another")
    if (mapping is not None) != (source is Format.table):
        raise LogError(
            "a table needs a mapping file that says what its columns are: --mapping FILE"
            if mapping is None
            else f"--mapping is for tables; the fields of {source} are known"
        )
    with ExitStack() as stack:
        rejected = None if rejects is None else stack.enter_context(RejectsFile(rejects))
        account = Account(tuple(map(str, files)), strict=strict, rejects=rejected)
        for suffix, count in found.skipped.items():
            account.notes[f"files of the folders not read, as their names end in {suffix}"] = count
        spool = stack.enter_context(Spool())
        rows = stack.enter_context(closing(read_rows(files, account, progress)))
        scored = stack.enter_context(closing(read_rows(score_files, account)))
        traces = Traces(account, spool)
        book = ScoreBook(account, options)
        if mapping is not None:
            table = Table(read_mapping(mapping), options, account, traces, joined=bool(score_files))
            drafts = table.drafts(rows)
            if score_files:
                held = list(drafts)  # each score needs to find its row
                book.read(scored, traces)
                book.settle(traces)
                drafts = iter(held)
        else:
            options.need_dataset()
            reader = _reader(source)(traces, book, options, account)
            _gather(reader, rows, account, traces)
            book.read(scored, traces)
            book.settle(traces)
            drafts = _drafts(source, traces, options, account, spool)
        finisher = Finisher(account, book)
        logs = Logs.from_records(finisher.records(drafts), strict=strict, source="import")
        for trace in traces:
            made = trace.id in finisher.traces
            why = "no run has just the calls that it judges" if made else "its run is no record"
            book.drop(trace, why)
    if len(logs) != finisher.count:
        raise LogError(f"{finisher.count} records were made and {len(logs)} kept; please report it")
    report = account.report(
        records=finisher.count,
        scored=finisher.scored,
        failed=finisher.failed,
        unpriced_models=_unpriced(finisher.models, catalog),
        text_conflicts=logs.report.text_conflicts,
    )
    return Imported(logs, report)


def _reader(source: Format) -> Callable[[Traces, ScoreBook, ImportOptions, Account], Reader]:
    if source is Format.litellm:
        return LiteLLM
    return Langfuse if source is Format.langfuse else OpenTelemetry


def _gather(reader: Reader, rows: Iterable[Row], account: Account, traces: Traces) -> None:
    for row in rows:
        for leaf in reader.leaves(row):
            account.rows_read += 1
            try:
                reader.take(leaf)
            except BadValue as bad:
                account.reject(leaf, bad.name, bad.why, bad.detail)
                traces.spoil(reader.trace_of(leaf), leaf)
            except RecursionError:
                account.reject(leaf, "row", "nested too deeply")
                traces.spoil(reader.trace_of(leaf), leaf)
    reader.finish()


def _drafts(
    source: Format,
    traces: Traces,
    options: ImportOptions,
    account: Account,
    spool: Spool,
) -> Iterator[Draft]:
    """A draft for each run; the rows of what is no run are ignored or rejected here."""
    assembly = Assembly(options, account, spool)
    for trace in traces:
        try:
            calls = trace.calls()
        except BadValue as bad:
            reject(account, _places(trace.rows()), bad)
            continue
        kept = {span.id for span in calls}
        rest = [span for span in trace.rows() if span.id not in kept]
        if not calls:
            if trace.broken is None:
                account.ignore("row of a trace without a model call", _rows(rest))
            else:
                why = "a row of this run was rejected"
                reject(account, _places(rest), BadValue("trace", why, f"at {trace.broken}"))
            continue
        aside = [span for span in rest if not trace.of_team(span)]
        around = [span for span in rest if trace.of_team(span)]
        repeated = sum(span.kind is Kind.CALL for span in around)
        if repeated:
            account.notes["calls around calls of the same tokens, which count once"] += repeated
        runs = [calls]
        if options.runs == "call":
            runs = [[call] for call in calls]
            account.ignore("row around calls that are runs of their own", _rows(around))
        if aside:
            account.ignore("row of an evaluator", _rows(aside))
        for index, run in enumerate(runs):
            if options.runs == "call":
                part, places = trace.alone(run[0]), _places(run)
                run_id, run = f"{source}:{trace.id}/{run[0].id}", part.calls()
            else:
                part, run_id = trace, f"{source}:{trace.id}"
                places = _places([*run, *around])
            try:
                record = assembly.record(part, run, run_id)
            except BadValue as bad:
                reject(account, places, bad)
            except PlanError as bad:
                reject(account, places, BadValue("plan", str(bad)))
            else:
                yield Draft(record, places, trace, runs, index)


def _rows(spans: Iterable[Span]) -> int:
    return sum(len(span.places) for span in spans)


def _places(spans: Iterable[Span]) -> list[Place]:
    return [place for span in spans for place in span.places]


def _unpriced(models: Counter[str], catalog: Catalog | None) -> dict[str, int]:
    """The models that the catalog does not have, with their records."""
    found: dict[str, int] = {}
    known = (catalog or Catalog.default()) if models else Catalog.empty()
    for model, records in models.most_common():
        try:
            known.resolve_model(model)
        except CatalogError:
            found[model] = records
    return found
