"""OpenTelemetry GenAI spans and events, as OTLP JSON: a file exporter's lines, or one request.

Names: the GenAI semantic conventions (docs/gen-ai/gen-ai-spans.md, gen-ai-agent-spans.md,
gen-ai-events.md), and those of v1.26 to v1.36 where they differ (`gen_ai.system`,
`gen_ai.usage.prompt_tokens`, messages as events).

Calls are spans of the operations chat, text_completion and generate_content; the agent is the
nearest `gen_ai.agent.name` above. An invoke_agent span repeats the tokens of the calls under it, so
it is a call only where there are none (a remote agent). The model is the one that was asked for.
The conventions know no cost: it is unknown unless `cost_key` names an attribute. Outcomes are
`gen_ai.evaluation.result` events, as log records or on the span; they do not say who judged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from masrouter.importers.messages import Asked, asked
from masrouter.importers.options import ImportOptions, facts
from masrouter.importers.otlp import Leaf, any_value, attributes, identity, leaves, nanoseconds
from masrouter.importers.report import Account
from masrouter.importers.rows import Row
from masrouter.importers.scores import Score, ScoreBook
from masrouter.importers.traces import Kind, Span, Traces
from masrouter.importers.values import (
    BadValue,
    amount,
    count,
    lookup,
    name_of,
    needed,
    number,
    text,
)  # fmt: skip
from masrouter.logs.report import quote

CALLS = ("chat", "text_completion", "generate_content")
AROUND = ("invoke_agent", "invoke_workflow")
EVALUATION = "gen_ai.evaluation.result"
DETAILS = "gen_ai.client.inference.operation.details"
USER_MESSAGE = "gen_ai.user.message"
PROMPT = "gen_ai.content.prompt"

_READ = frozenset(
    {
        "gen_ai.operation.name", "gen_ai.agent.name", "gen_ai.request.model",
        "gen_ai.response.model", "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens",
        "gen_ai.usage.prompt_tokens", "gen_ai.usage.completion_tokens", "gen_ai.input.messages",
        "gen_ai.response.id", "error.type", "gen_ai.system", "gen_ai.prompt",
    }
)  # fmt: skip


_Message = tuple[int, Row, Asked]
"""When it was said, in nanoseconds since 1970 (0 where unknown), the event, and what it says."""


class OpenTelemetry:
    """Takes spans and log records."""

    def __init__(
        self, traces: Traces, book: ScoreBook, options: ImportOptions, account: Account
    ) -> None:
        self._traces, self._book = traces, book
        self._options, self._account = options, account
        self._waiting: defaultdict[tuple[str, str], list[_Message]] = defaultdict(list)

    def leaves(self, row: Row) -> Iterator[Row]:
        """The spans, evaluation events and log records of an export request."""
        return leaves(row)

    def trace_of(self, row: Row) -> str | None:
        """The trace that a span says it is of, as far as it can be read."""
        leaf: Leaf = row.data
        if leaf.kind != "span":
            return None
        try:
            return identity(leaf.data.get("traceId"), "traceId")
        except BadValue:
            return None

    def take(self, row: Row) -> None:
        """Take one span or log record; raises BadValue."""
        leaf: Leaf = row.data
        if leaf.kind == "broken":
            why = "expected resourceSpans or resourceLogs, with scopes and objects in lists"
            raise BadValue("row", why, f"got {quote(leaf.data)}")
        if leaf.kind in ("metrics", "empty"):
            self._account.ignore("metrics" if leaf.kind == "metrics" else "empty envelope")
            return
        found = attributes(leaf.data.get("attributes"))
        if leaf.kind == "span":
            self._span(row, leaf, found)
        elif leaf.kind == "event":
            assert leaf.span is not None
            self._evaluation(row, leaf.span, found)
        else:
            self._log(row, leaf.data, found)

    def finish(self) -> None:
        """Give spans the messages that came as events, the last by time."""
        for (trace_id, span_id), waiting in self._waiting.items():
            trace = self._traces.by_id.get(trace_id)
            span = trace.spans.get(span_id) if trace else None
            waiting.sort(key=lambda item: item[0])
            turns: list[Asked] = []
            for _, row, message in waiting:
                if span is None:
                    self._account.reject(row, "spanId", "an event of a span that is not there")
                    continue
                span.places.append(self._traces.place(row))
                if message not in turns:  # exporters send again what may be lost
                    turns.append(message)
            if span is not None:
                last = turns[-1]
                earlier = last.earlier_turns + len(turns) - 1
                self._traces.attach(span, replace(last, earlier_turns=earlier))

    def _span(self, row: Row, leaf: Leaf, found: dict[str, Any]) -> None:
        data = leaf.data
        trace_id = identity(data.get("traceId"), "traceId")
        span_id = identity(data.get("spanId"), "spanId")
        if trace_id is None or span_id is None:
            raise BadValue(
                "traceId" if trace_id is None else "spanId", "expected an id", "got none"
            )
        span = Span(
            id=span_id,
            kind=Kind.AROUND,
            parent=identity(data.get("parentSpanId"), "parentSpanId"),
        )
        if not any(name.startswith("gen_ai.") for name in found):
            # It stays in the tree: an agent may stand above it, a call below.
            self._account.ignore("span without gen_ai attributes")
            self._traces.link(trace_id, span)
            return
        operation = text(found.get("gen_ai.operation.name"), "gen_ai.operation.name")
        model = text(found.get("gen_ai.request.model"), "gen_ai.request.model") or text(
            found.get("gen_ai.response.model"), "gen_ai.response.model"
        )
        prompt = _tokens(found, "input_tokens", "prompt_tokens")
        completion = _tokens(found, "output_tokens", "completion_tokens")
        # v1.26 had no operation names: a span that names a model is a call.
        if operation in CALLS or (operation is None and model is not None):
            span.kind = Kind.CALL
        elif operation == "invoke_agent" and model is not None and prompt is not None:
            span.kind = Kind.REMOTE
        elif operation not in AROUND:
            self._account.ignore(f"span of operation {operation}")
            self._traces.link(trace_id, span)
            return
        if span.kind is Kind.CALL and model is None:
            raise BadValue("gen_ai.request.model", "a call names no model")
        scopes = [found, leaf.resource]
        key = self._options.agent_key or "gen_ai.agent.name"
        span.agent = name_of(lookup([found], key), key)
        span.start = nanoseconds(data.get("startTimeUnixNano"), "startTimeUnixNano")
        span.end = nanoseconds(data.get("endTimeUnixNano"), "endTimeUnixNano")
        span.error = _error(data.get("status"), found)
        span.also = text(found.get("gen_ai.response.id"), "gen_ai.response.id")
        span.facts = facts(scopes, self._options)
        span.asked = _asked(found, data.get("events"))
        if span.kind is not Kind.AROUND:
            span.model, span.prompt_tokens, span.completion_tokens = model, prompt, completion
            if self._options.cost_key is not None:
                cost = lookup([found], self._options.cost_key)
                span.cost_usd = amount(cost, self._options.cost_key)
        self._traces.add(trace_id, span, Row(row.file, row.where, data))
        known = {*_READ, key, self._options.cost_key, *self._options.keys().values()}
        self._account.unmapped({name: 1 for name in found if name not in known})

    def _log(self, row: Row, data: Mapping[str, Any], found: dict[str, Any]) -> None:
        name = data.get("eventName") or found.get("event.name")
        if name == EVALUATION:
            self._evaluation(row, data, found)
            return
        if name not in (DETAILS, USER_MESSAGE):
            of_genai = isinstance(name, str) and name.startswith("gen_ai.")
            self._account.ignore(f"event {name}" if of_genai else "log record not of GenAI")
            return
        trace_id = identity(data.get("traceId"), "traceId")
        span_id = identity(data.get("spanId"), "spanId")
        if trace_id is None or span_id is None:
            raise BadValue("spanId", "an event of messages that names no span")
        if name == DETAILS:
            message = asked(found.get("gen_ai.input.messages"), encoded=True)
        else:
            body = any_value(data.get("body"), "body")
            message = asked([{"role": "user", **body}] if isinstance(body, dict) else body)
        times = (count(data.get(n), n) for n in ("timeUnixNano", "observedTimeUnixNano"))
        self._waiting[trace_id, span_id].append((next(filter(None, times), 0), row, message))

    def _evaluation(self, row: Row, holder: Mapping[str, Any], found: dict[str, Any]) -> None:
        trace_id = identity(holder.get("traceId"), "traceId")
        span_id = identity(holder.get("spanId"), "spanId")
        response = text(found.get("gen_ai.response.id"), "gen_ai.response.id")
        if trace_id is None and response is None:
            raise BadValue("traceId", "an evaluation that names neither a trace nor a response")
        value = number(found.get("gen_ai.evaluation.score.value"), "gen_ai.evaluation.score.value")
        label = text(found.get("gen_ai.evaluation.score.label"), "gen_ai.evaluation.score.label")
        if value is None and label is None:
            why = "an evaluation without a value and a label"
            raise BadValue("gen_ai.evaluation.score.value", why)
        self._book.add(
            Score(
                name=needed(found.get("gen_ai.evaluation.name"), "gen_ai.evaluation.name"),
                value=value,
                label=label,
                source=None,
                # Without a span, the response's id is all that says what was judged.
                trace_id=trace_id if span_id or response is None else None,
                target=span_id or response,
                place=self._traces.place(row),
            )
        )


def _tokens(found: Mapping[str, Any], *names: str) -> int | None:
    values = (count(found.get(f"gen_ai.usage.{n}"), f"gen_ai.usage.{n}") for n in names)
    return next((value for value in values if value is not None), None)


def _error(status: Any, found: Mapping[str, Any]) -> str | None:
    kind = found.get("error.type")
    status = status if isinstance(status, Mapping) else {}
    if kind is None and status.get("code") not in (2, "STATUS_CODE_ERROR"):
        return None
    parts = [str(part) for part in (kind, status.get("message")) if part]
    return ": ".join(dict.fromkeys(parts)) or "error"


def _asked(found: Mapping[str, Any], events: Any) -> Asked | None:
    """What was asked, from the span's attributes, else from its events."""
    if found.get("gen_ai.input.messages") is not None:
        return asked(found["gen_ai.input.messages"], encoded=True)
    turns: list[Any] = []
    for event in events if isinstance(events, list) else ():
        if not isinstance(event, Mapping):
            continue
        inner = attributes(event.get("attributes"))
        if event.get("name") == DETAILS:
            return asked(inner.get("gen_ai.input.messages"), encoded=True)
        if event.get("name") == PROMPT:
            return asked(inner.get("gen_ai.prompt"))
        if event.get("name") == USER_MESSAGE:
            turns.append({"role": "user", **inner})
    return asked(turns) if turns else None
