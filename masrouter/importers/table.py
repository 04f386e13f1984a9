"""A generic table, one run a row: CSV, JSON Lines or Parquet with a mapping file.

A column that no field is mapped from is told, and a mapped one that is not there is an error. A
run without an id of its own gets one from its row's content, so that a table imported again gives
the same runs.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from masrouter.errors import LogError, PlanError
from masrouter.importers.assembly import query_id
from masrouter.importers.drafts import Draft
from masrouter.importers.mapping import SEAT_FIELDS, Source, TableMapping
from masrouter.importers.messages import asked
from masrouter.importers.options import FACT_KEYS, UNSCORED, ImportOptions
from masrouter.importers.report import Account
from masrouter.importers.rows import Row
from masrouter.importers.traces import Kind, Span, Trace, Traces
from masrouter.importers.values import (
    BadValue,
    amount,
    count,
    decoded,
    has_no_zone,
    integer,
    iso,
    lookup,
    mapping,
    moment,
    name_of,
    number,
)  # fmt: skip
from masrouter.logs.report import quote
from masrouter.strict_yaml import did_you_mean
from masrouter.types import Agent, LogRecord, Plan, Usage

_OF_TRACES = ("agent_key", "cost_key", "topology")


class Table:
    """Makes drafts out of a table's rows."""

    def __init__(
        self,
        columns: TableMapping,
        options: ImportOptions,
        account: Account,
        traces: Traces,
        *,
        joined: bool,
    ) -> None:
        """joined: whether scores of a side file will look for the rows.

        Raises LogError for an option that has no meaning here.
        """
        self._joined = joined
        self._mapping, self._options = columns, options
        self._account, self._traces = account, traces
        self._times: Counter[bytes] = Counter()
        self._refuse_options()

    def drafts(self, rows: Iterable[Row]) -> Iterator[Draft]:
        """A draft for each row; rows that cannot be mapped are rejected.

        Raises LogError where a mapped column is not there.
        """
        wanted = self._mapping.columns()
        missing, there, file = set(wanted), set[str](), ""
        for row in rows:
            self._account.rows_read += 1
            if not isinstance(row.data, Mapping):
                self._account.reject(row, "row", "expected an object", f"got {quote(row.data)}")
                continue
            if row.same_columns and row.file != file:
                file = row.file
                self._need(_absent(wanted, row.data), set(row.data))
            if missing:
                missing = _absent(missing, row.data)
                there |= set(row.data)
            try:
                draft = self._draft(row)
            except (BadValue, PlanError) as error:
                bad = error if isinstance(error, BadValue) else BadValue("plan", str(error))
                self._account.reject(row, bad.name, bad.why, bad.detail)
                continue
            unread = {n: 1 for n, v in row.data.items() if v is not None and n not in wanted}
            self._account.unmapped(unread)
            yield draft
        if there:
            self._need(missing, there)

    def _need(self, missing: set[str], there: set[str]) -> None:
        names = sorted(missing)
        if names:
            raise LogError(
                f"{self._mapping.source}: no column {', '.join(map(repr, names))} in the table"
                f"{did_you_mean(names[0], there)}; its columns are {', '.join(sorted(there))}"
            )

    def _refuse_options(self) -> None:
        options = self._options
        for name in (*(f"{fact}_key" for fact in FACT_KEYS), *_OF_TRACES):
            if getattr(options, name) is not None:
                raise LogError(f"{name}: of no use for a table; the mapping file says it")
        if options.runs != "trace":
            raise LogError("runs: of no use for a table; each row is a run")
        fields = self._mapping.fields
        if "dataset" not in fields and options.dataset is None:
            raise LogError(
                f"{self._mapping.source}: dataset is missing: map it, or name it with --dataset"
            )
        if "score" in fields and "score_source" not in fields and options.score_source is None:
            raise LogError(
                f"{self._mapping.source}: score_source is missing: map it, or name what scored "
                "with --score-source"
            )

    def _draft(self, row: Row) -> Draft:
        run_id = self._name(row, "run_id") or f"table:{self._content_id(row)}"
        record = self._record(row, run_id)
        span = Span(run_id, Kind.CALL, places=[self._traces.place(row)])
        trace = Trace(run_id, {run_id: span})
        if self._joined:
            self._traces.by_id.setdefault(run_id, trace)
        return Draft(record, span.places, trace, [[span]], 0)

    def _record(self, row: Row, run_id: str) -> LogRecord:
        query = self._query(row)
        seats = list(self._seats(row))
        score = self._score(row)
        source = self._name(row, "score_source") or self._options.score_source
        if source is None and score is not None:
            raise BadValue("score_source", "a score, and nothing says what scored")
        usage = tuple(usage for _, usage in seats)
        prompt = self._count(row, "prompt_tokens", [u.prompt_tokens for u in usage])
        completion = self._count(row, "completion_tokens", [u.completion_tokens for u in usage])
        at = self._timestamp(row)
        stages = self._value(row, "stage_propensities")
        return LogRecord(
            run_id=run_id,
            query_id=self._name(row, "query_id") or query_id(query),
            query=query,
            dataset=self._name(row, "dataset") or self._options.dataset or "",
            plan=Plan(self._name(row, "topology") or "", tuple(agent for agent, _ in seats)),
            score=score,
            score_source=source or UNSCORED,
            usage=Usage(prompt, completion, self._amount(row, "cost_usd")),
            agent_usage=usage if any(u != Usage() for u in usage) else (),
            task=self._name(row, "task") or self._options.task,
            latency_s=self._amount(row, "latency_s"),
            propensity=number(self._value(row, "propensity"), "propensity"),
            stage_propensities=mapping(stages, "stage_propensities") or None,
            policy=self._name(row, "policy") or self._options.policy,
            seed=integer(self._value(row, "seed"), "seed"),
            error=self._name(row, "error"),
            timestamp=None if at is None else iso(at),
        )

    def _value(self, row: Row, name: str) -> Any:
        source = self._mapping.fields.get(name)
        return None if source is None else _found(row, source)

    def _name(self, row: Row, name: str) -> str | None:
        return name_of(self._value(row, name), name)

    def _query(self, row: Row) -> str:
        found = asked(self._value(row, "query"))
        if found.text is None:
            raise BadValue("query", "no text and no user message")
        for kind in found.left_out:
            self._account.notes[f"parts of queries that are no text, left out: {kind}"] += 1
        if found.earlier_turns:
            note = "queries that follow earlier turns, which the text does not show"
            self._account.notes[note] += 1
        return found.text

    def _seats(self, row: Row) -> Iterator[tuple[Agent, Usage]]:
        if not self._mapping.seats:
            team = decoded(self._value(row, "agents"))
            for index, seat in enumerate(team if isinstance(team, list) else ()):
                if not isinstance(seat, Mapping) or set(seat) - set(SEAT_FIELDS):
                    told = f"got {quote(seat)}"
                    raise BadValue(f"agents[{index}]", "expected {role, model}", told)
                yield _agent(dict(seat), index)
            if not isinstance(team, list):
                raise BadValue("agents", "expected a list of {role, model}", f"got {quote(team)}")
            return
        for index, entry in enumerate(self._mapping.seats):
            values = {name: _found(row, source) for name, source in entry.fields.items()}
            if not (entry.optional and values["model"] is None):
                yield _agent(values, index)

    def _score(self, row: Row) -> float | None:
        source = self._mapping.fields.get("score")
        value = None if source is None else _found(row, source)
        if source is None or value is None:
            return None
        if source.labels is not None:
            label = name_of(str(value).lower() if isinstance(value, bool) else value, "score")
            if label is None or label not in source.labels:
                told = f"got {quote(value)}, and the map has {', '.join(source.labels)}"
                raise BadValue("score", "a label that the mapping does not value", told)
            return source.labels[label]
        words = {"true": 1.0, "false": 0.0}
        found = words.get(str(value).lower())
        found = number(value, "score") if found is None else found
        low, high = source.range or (0.0, 1.0)
        if found is None or not low <= found <= high:
            if source.range is None:
                # A 1 is the best of some scales and the worst of others: no row can be believed.
                raise LogError(
                    f"{row.file}:{row.where}: score: got {quote(value)}, not from 0 to 1; say the "
                    f"scale in {self._mapping.source} with `range: [LOW, HIGH]`"
                )
            why = f"outside the range {low:g} to {high:g}; does the mapping's fit?"
            raise BadValue("score", why, f"got {quote(value)}")
        return (found - low) / (high - low)

    def _count(self, row: Row, name: str, seats: list[int | None]) -> int | None:
        """The mapped total, or that of the seats where each is known."""
        if name in self._mapping.fields:
            return count(self._value(row, name), name)
        known = [value for value in seats if value is not None]
        return sum(known) if known and len(known) == len(seats) else None

    def _amount(self, row: Row, name: str) -> float | None:
        source = self._mapping.fields.get(name)
        value = None if source is None else amount(_found(row, source), name)
        return None if source is None or value is None else value * source.factor

    def _timestamp(self, row: Row) -> float | None:
        source = self._mapping.fields.get("timestamp")
        value = None if source is None else _found(row, source)
        if source is None or value is None:
            return None
        if source.unit_s is None and _is_number(value):
            why = "a number is no time without its unit; add `unit: s` (or ms, us, ns)"
            raise BadValue("timestamp", why, f"got {quote(value)}")
        if has_no_zone(value):
            self._account.notes["timestamps without a zone, taken as UTC"] += 1
        return moment(value, "timestamp", unit_s=source.unit_s or 1.0)

    def _content_id(self, row: Row) -> str:
        """An id by the row's content and, of rows that are the same, by how many came before."""
        content = json.dumps(row.data, sort_keys=True, default=str).encode("utf-8", "surrogatepass")
        digest = hashlib.sha256(content).digest()[:16]
        self._times[digest] += 1
        return f"{digest.hex()}-{self._times[digest]}"


def _absent(columns: set[str], data: Mapping[str, Any]) -> set[str]:
    """The columns that a row does not have, nor what a path begins with."""
    return {name for name in columns if name not in data and name.split(".")[0] not in data}


def _found(row: Row, source: Source) -> Any:
    if source.column is None:
        return source.value
    value = lookup([row.data], source.column)
    return None if value == "" else value


def _agent(values: Mapping[str, Any], index: int) -> tuple[Agent, Usage]:
    place = f"agents[{index}]"
    model = name_of(values.get("model"), f"{place}.model")
    if model is None:
        raise BadValue(f"{place}.model", "a seat without a model")
    usage = Usage(
        count(values.get("prompt_tokens"), f"{place}.prompt_tokens"),
        count(values.get("completion_tokens"), f"{place}.completion_tokens"),
    )
    return Agent(name_of(values.get("role"), f"{place}.role"), model), usage


def _is_number(value: object) -> bool:
    try:
        return not isinstance(value, bool) and number(value, "timestamp") is not None
    except BadValue:
        return False
