"""Langfuse exports: observations, traces and scores, from blob storage, the API or the UI.

Fields: langfuse.com/docs/api-and-data-platform/features/blob-storage-export-fields (snake_case,
CSV cells of JSON text) and the public API's definition, fern/apis/server/definition/commons.yml
(camelCase). Pages (`{"data": [...]}`) and whole traces with their observations and scores inside
are taken apart.

Calls are observations of type GENERATION; an agent is the nearest AGENT observation above. Tokens
are counted as Langfuse counts them: every usage type whose name holds `input`, or `output`. Calls
under an EVALUATOR judge the run and are no part of it. A cost of 0 without cost details is a model
that Langfuse has no price for: unknown. Who scored: ANNOTATION is `human`, EVAL is `judge`; API
does not say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from masrouter.importers.messages import asked
from masrouter.importers.options import ImportOptions, facts
from masrouter.importers.report import Account
from masrouter.importers.rows import Row
from masrouter.importers.scores import Score, ScoreBook
from masrouter.importers.traces import Kind, Span, Traces
from masrouter.importers.values import (
    BadValue,
    amount,
    count,
    decoded,
    lookup,
    mapping,
    moment,
    name_of,
    needed,
    number,
    text,
)  # fmt: skip
from masrouter.logs.report import quote

KINDS: Mapping[str, Kind] = {
    "GENERATION": Kind.CALL,
    "SPAN": Kind.AROUND,
    "AGENT": Kind.AROUND,
    "CHAIN": Kind.AROUND,
    "TOOL": Kind.AROUND,
    "RETRIEVER": Kind.AROUND,
    "GUARDRAIL": Kind.AROUND,
    "EVALUATOR": Kind.ASIDE,
}
IGNORED = ("EVENT", "EMBEDDING")
"""Types that hold no call and stand around none."""
SOURCES = {"ANNOTATION": "human", "EVAL": "judge", "API": None}
NO_OUTCOME = ("TEXT", "CORRECTION")
"""Data types of scores that say no value."""

_READ = frozenset(
    {
        "id", "traceId", "trace_id", "type", "name", "parentObservationId",
        "parent_observation_id", "startTime", "start_time", "endTime", "end_time", "model",
        "providedModelName", "provided_model_name", "input", "usage", "usageDetails",
        "usage_details", "promptTokens", "completionTokens", "totalCost", "total_cost",
        "calculatedTotalCost", "costDetails", "cost_details", "level", "statusMessage",
        "status_message", "metadata", "tags", "timestamp", "observations", "scores",
        "observationId", "observation_id", "value", "stringValue", "string_value", "source",
        "dataType", "data_type", "sessionId", "session_id",
    }
)  # fmt: skip


class Langfuse:
    """Takes observations, traces and scores."""

    def __init__(
        self, traces: Traces, book: ScoreBook, options: ImportOptions, account: Account
    ) -> None:
        self._traces, self._book = traces, book
        self._options, self._account = options, account

    def leaves(self, row: Row) -> Iterator[Row]:
        """The rows of a page or of a whole trace, or the row itself."""
        data = row.data
        if not isinstance(data, Mapping):
            yield row
            return
        if isinstance(data.get("data"), list) and "id" not in data:
            for index, item in enumerate(data["data"]):
                yield from self.leaves(row.part(f"data[{index}]", item))
            return
        yield row
        for name in ("observations", "scores"):
            parts = data.get(name)
            for index, item in enumerate(parts if isinstance(parts, list) else ()):
                if not isinstance(item, str):  # a list of ids says nothing new
                    yield row.part(f"{name}[{index}]", item)

    def trace_of(self, row: Row) -> str | None:
        """The trace that an observation says it is of, as far as it can be read."""
        if not isinstance(row.data, Mapping) or "value" in row.data:
            return None
        found = _get(row.data, "traceId", "trace_id")
        return found if isinstance(found, str) else None

    def take(self, row: Row) -> None:
        """Take one observation, score or trace; raises BadValue."""
        data = row.data
        if not isinstance(data, Mapping):
            raise BadValue("row", "expected a JSON object", f"got {quote(data)}")
        if data.get("type") is not None:
            self._observation(row, data)
        elif _get(data, "name") is not None and (
            _get(data, "value", "stringValue", "string_value") is not None
        ):
            self._score(row, data)
        elif _get(data, "id") is not None and _get(data, "timestamp") is not None:
            self._trace(row, data)
        else:
            told = f"keys {quote(sorted(map(str, data))[:20])}"
            raise BadValue("row", "neither an observation, a score nor a trace", told)
        unknown = {n: 1 for n, v in data.items() if n not in _READ and v not in (None, "", [], {})}
        inside = ("observations", "scores")
        unknown |= {n: 1 for n in inside if data.get(n) and not isinstance(data[n], list)}
        self._account.unmapped(unknown)

    def finish(self) -> None:
        """Nothing waits for the end."""

    def _observation(self, row: Row, data: Mapping[str, Any]) -> None:
        kind_name = needed(data.get("type"), "type").upper()
        if kind_name in IGNORED:
            self._account.ignore(f"{kind_name} observation")
            return
        if kind_name not in KINDS:
            raise BadValue("type", "not a type of observation", f"got {quote(kind_name)}")
        kind = KINDS[kind_name]
        scopes = self._scopes(data)
        name = text(data.get("name"), "name")
        agent = name if kind_name == "AGENT" else None
        if self._options.agent_key is not None:
            agent = name_of(lookup(scopes, self._options.agent_key), self._options.agent_key)
        status = _get(data, "statusMessage", "status_message")
        span = Span(
            id=needed(data.get("id"), "id"),
            kind=kind,
            parent=text(
                _get(data, "parentObservationId", "parent_observation_id"), "parentObservationId"
            ),
            agent=agent,
            start=moment(_get(data, "startTime", "start_time"), "startTime"),
            end=moment(_get(data, "endTime", "end_time"), "endTime"),
            error=str(status or "ERROR") if data.get("level") == "ERROR" else None,
            facts=facts(scopes, self._options),
            asked=None if data.get("input") is None else asked(data["input"], encoded=True),
        )
        if kind is Kind.CALL:
            model = _get(data, "model", "providedModelName", "provided_model_name")
            span.model = needed(model, "model")
            span.prompt_tokens, span.completion_tokens = _tokens(data)
            span.cost_usd = self._cost(data, scopes)
        trace_id = needed(_get(data, "traceId", "trace_id"), "traceId")
        self._traces.add(trace_id, span, row)

    def _trace(self, row: Row, data: Mapping[str, Any]) -> None:
        scopes = self._scopes(data)
        trace_id = needed(data.get("id"), "id")
        span = Span(
            id="",
            kind=Kind.AROUND,
            facts=facts(scopes, self._options),
            asked=None if data.get("input") is None else asked(data["input"], encoded=True),
        )
        # What lies inside a whole trace is rows of its own.
        own = {n: v for n, v in data.items() if n not in ("observations", "scores")}
        self._traces.add(trace_id, span, Row(row.file, row.where, own, row.raw), head=True)

    def _score(self, row: Row, data: Mapping[str, Any]) -> None:
        kind = text(_get(data, "dataType", "data_type"), "dataType") or "NUMERIC"
        if kind in NO_OUTCOME:
            self._account.ignore(f"score of type {kind}")
            return
        trace_id = text(_get(data, "traceId", "trace_id"), "traceId")
        if trace_id is None:
            self._account.ignore("score of a session or dataset run")
            return
        source = text(data.get("source"), "source")
        if source is not None and source not in SOURCES:
            raise BadValue("source", "expected API, EVAL or ANNOTATION", f"got {quote(source)}")
        label = text(_get(data, "stringValue", "string_value"), "stringValue")
        # A category's value is its index, which says nothing of its worth.
        value = None if kind == "CATEGORICAL" else number(data.get("value"), "value")
        if value is None and label is None:
            raise BadValue("value", "the score has no value")
        self._book.add(
            Score(
                needed(data.get("name"), "name"), value, label,
                None if source is None else SOURCES[source], trace_id,
                text(_get(data, "observationId", "observation_id"), "observationId"),
                self._traces.place(row),
            )
        )  # fmt: skip

    def _scopes(self, data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        metadata = decoded(data.get("metadata"))
        return [data, metadata] if isinstance(metadata, Mapping) else [data]

    def _cost(self, data: Mapping[str, Any], scopes: list[Mapping[str, Any]]) -> float | None:
        if self._options.cost_key is not None:
            return amount(lookup(scopes, self._options.cost_key), self._options.cost_key)
        details = mapping(_get(data, "costDetails", "cost_details"), "costDetails")
        cost = amount(_get(data, "totalCost", "total_cost", "calculatedTotalCost"), "totalCost")
        cost = amount(details.get("total"), "costDetails.total") if cost is None else cost
        if cost == 0 and not details:
            self._account.notes[
                "calls of cost 0 without cost details, no price known: unknown"
            ] += 1
            return None
        return cost


def _get(data: Mapping[str, Any], *names: str) -> Any:
    """The first of these fields that is filled."""
    return next((data[n] for n in names if data.get(n) not in (None, "")), None)


def _tokens(data: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Tokens in and out."""
    details = mapping(_get(data, "usageDetails", "usage_details"), "usageDetails")
    if details:
        totals: list[int | None] = []
        for part in ("input", "output"):
            found = [
                count(value, f"usageDetails.{name}") or 0
                for name, value in details.items()
                if part in name.lower()
            ]
            totals.append(sum(found) if found else None)
        return totals[0], totals[1]
    usage = mapping(data.get("usage"), "usage")
    if usage.get("unit") not in (None, "TOKENS"):
        return None, None
    prompt = usage.get("input", data.get("promptTokens"))
    completion = usage.get("output", data.get("completionTokens"))
    tokens = count(prompt, "usage.input"), count(completion, "usage.output")
    # A prompt has tokens: 0 and 0 say that no usage came with the call.
    return (None, None) if not any(tokens) else tokens
