"""Rows of one run, gathered: who was asked under whom, what each call used.

A `Span` is one row that says something of a run: a model call, or what stands around calls (an
agent, a function, the trace itself). Spans of a trace come in any order, from any file.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from masrouter.importers.messages import Asked
from masrouter.importers.report import Account
from masrouter.importers.rows import Row
from masrouter.importers.spool import Ref, Spool
from masrouter.importers.values import BadValue
from masrouter.logs.report import quote


class Kind(StrEnum):
    """What a span is."""

    CALL = "call"
    """A model was asked; around other calls, another account of them."""
    AROUND = "around"
    """Something that calls stand in: an agent, a function, a trace."""
    REMOTE = "remote"
    """An agent that names a model and tokens: a call where no call stands below it."""
    ASIDE = "aside"
    """Something whose calls are no part of the team: an evaluator."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row stands, and its text where rejects are kept."""

    file: str
    where: str
    spool: Spool
    ref: Ref | None

    def as_text(self) -> str:
        """Its text as it stood."""
        return "" if self.ref is None else self.spool.get(self.ref)


@dataclass(slots=True)
class Span:
    """One row of a run. Times are seconds since 1970; None is unknown, never zero."""

    id: str
    kind: Kind
    parent: str | None = None
    agent: str | None = None
    model: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float | None = None
    start: float | None = None
    end: float | None = None
    error: str | None = None
    also: str | None = None
    """Another id that scores may name it by."""
    facts: dict[str, object] = field(default_factory=dict)
    """What metadata say of the run, by the record's field."""
    asked: Asked | None = None
    """What is known of its input; the text itself is moved to `text`."""
    text: Ref | None = None
    places: list[Place] = field(default_factory=list)
    """Its own row first, then events that belong to it."""


@dataclass(slots=True)
class Trace:
    """The spans of one trace, in the order in which they were met."""

    id: str
    spans: dict[str, Span] = field(default_factory=dict)
    links: dict[str, Span] = field(default_factory=dict)
    """Spans that are no part of the run, but stand between such that are."""
    head: Span | None = None
    """The row of the trace itself, around all others."""
    broken: str | None = None
    """Place of a row of this trace that was rejected: the run is not whole."""

    def above(self, span: Span) -> Iterator[Span]:
        """A span, then what stands around it, innermost first."""
        seen: set[str] = set()
        here: Span | None = span
        while here is not None and here.id not in seen:
            yield here
            seen.add(here.id)
            above = here.parent or ""
            here = self.spans.get(above) or self.links.get(above)
        if self.head is not None and self.head is not span:
            yield self.head

    def calls(self) -> list[Span]:
        """The team's model calls, in the order in which they began.

        Raises BadValue where a call stands around others and says other tokens than they do, or
        under itself.
        """
        asked = [s for s in self.rows() if s.kind in (Kind.CALL, Kind.REMOTE) and self.of_team(s)]
        around: defaultdict[str, list[Span]] = defaultdict(list)
        for span in asked:
            for other in self.above(span):
                if other is not span:
                    around[other.id].append(span)
        found = [span for span in asked if not around[span.id]]
        for span in asked:
            below = [other for other in around[span.id] if not around[other.id]]
            if around[span.id] and not below:
                raise BadValue("parent", "a call stands under itself", f"call {quote(span.id)}")
            # An agent sums its calls; two instrumentations of one call give its tokens twice.
            if below and span.kind is Kind.CALL and not _repeats(span, below):
                raise BadValue(
                    "usage",
                    "a call stands around others, and its tokens are not theirs: what counts twice "
                    "is not said; leave out the rows of one of the two instrumentations",
                    f"call {quote(span.id)}",
                )
        if all(span.start is not None for span in found):
            found.sort(key=lambda span: (span.start or 0.0, span.id))
        return found

    def of_team(self, span: Span) -> bool:
        """Whether a span is neither an evaluator nor under one."""
        return all(other.kind is not Kind.ASIDE for other in self.above(span))

    def alone(self, call: Span) -> Trace:
        """A call as a run of its own; what stands around it says who made it and of what."""
        around = list(self.above(call))
        agent = next((span.agent for span in around if span.agent is not None), None)
        origin = {
            name: value
            for span in reversed(around)
            for name, value in span.facts.items()
            if span is call or name in ("dataset", "task")
        }
        span = replace(call, parent=None, agent=agent, facts=origin)
        return Trace(self.id, {call.id: span}, broken=self.broken)

    def has(self, span_id: str) -> bool:
        """Whether a span of this id was met."""
        return span_id in self.spans or span_id in self.links

    def rows(self) -> list[Span]:
        """Every span, the trace's own row first."""
        return [*([self.head] if self.head is not None else ()), *self.spans.values()]


class Traces:
    """All traces of an import."""

    def __init__(self, account: Account, spool: Spool) -> None:
        self.by_id: dict[str, Trace] = {}
        self._account, self._spool = account, spool
        self._digests: dict[tuple[str, str], bytes] = {}

    def trace(self, trace_id: str) -> Trace:
        """The trace of this id, made when it is first met."""
        return self.by_id.setdefault(trace_id, Trace(trace_id))

    def add(self, trace_id: str, span: Span, row: Row, *, head: bool = False) -> None:
        """Gather a span; one that says what an earlier one said is counted, one that contradicts
        it is rejected, and the trace with it."""
        trace = self.trace(trace_id)
        key = (trace_id, "" if head else span.id)
        digest = _digest(span)
        if self._digests.setdefault(key, digest) != digest:
            self._account.reject(row, "id", "an earlier row has this id and says otherwise")
            self.spoil(trace_id, row)
            return
        if (trace.head is not None) if head else (span.id in trace.spans):
            self._account.duplicates += 1
            return
        span.places.append(self.place(row))
        if span.asked is not None:
            self.attach(span, span.asked)
        if head:
            trace.head = span
        else:
            trace.spans[span.id] = span

    def attach(self, span: Span, asked: Asked) -> None:
        """Say what a span was asked; of several messages the last one stands."""
        if asked.text is not None:
            span.text = self._spool.put(asked.text)
        span.asked = Asked(None, asked.left_out, asked.earlier_turns)

    def link(self, trace_id: str, span: Span) -> None:
        """Keep the place in the tree of a row that is no part of a run."""
        self.trace(trace_id).links.setdefault(span.id, span)

    def place(self, row: Row) -> Place:
        """Where a row stands."""
        ref = self._spool.put(row.as_text()) if self._account.keeps_rejects else None
        return Place(row.file, row.where, self._spool, ref)

    def spoil(self, trace_id: str | None, row: Row) -> None:
        """Note that a row of a trace was rejected."""
        if trace_id:
            trace = self.trace(trace_id)
            trace.broken = trace.broken or f"{row.file}:{row.where}"

    def __iter__(self) -> Iterator[Trace]:
        return iter(self.by_id.values())


def _repeats(span: Span, below: Sequence[Span]) -> bool:
    """Whether a call says no other tokens than the calls under it."""
    pairs = (
        (span.prompt_tokens, [call.prompt_tokens for call in below]),
        (span.completion_tokens, [call.completion_tokens for call in below]),
    )
    return all(own in (None, sum(n for n in theirs if n is not None)) for own, theirs in pairs)


def _digest(span: Span) -> bytes:
    """Of all that was read of a row; what else it holds may differ between two exports."""
    return hashlib.blake2b(repr(span).encode("utf-8", "surrogatepass"), digest_size=16).digest()
