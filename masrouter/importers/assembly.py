"""A trace becomes a record: its calls a team, its outermost input the query.

What a run is, by definition here:
    seat      a pair of agent name and model, in the order of their first calls. Calls of one agent
              to one model are one seat, their tokens summed; calls that name no agent share a seat
              for each model.
    io        a run of one call; calls of the same seat that failed before it are its retries.
    query     the text (or the user's last message) of the outermost span that stands around every
              call; where none is readable, the user's last message in the first call.
    latency   from the first start to the last end of the trace's spans, evaluators left out.
A model that failed, and another that the same agent asked, may be a fallback, which is no plan.
A run of several calls needs a topology: nothing in a trace says how its agents talk.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from masrouter.importers.messages import CUT_OFF, REDACTED
from masrouter.importers.options import UNSCORED, ImportOptions
from masrouter.importers.report import Account
from masrouter.importers.spool import Spool
from masrouter.importers.traces import Span, Trace
from masrouter.importers.values import BadValue, integer, iso, name_of, number
from masrouter.logs.report import quote
from masrouter.types import Agent, LogRecord, Plan, Usage


@dataclass(slots=True)
class _Seat:
    agent: str | None
    model: str
    calls: list[Span]

    def usage(self) -> Usage:
        prompt = [call.prompt_tokens for call in self.calls]
        completion = [call.completion_tokens for call in self.calls]
        return Usage(_total(prompt), _total(completion))


class Assembly:
    """Makes records out of traces."""

    def __init__(self, options: ImportOptions, account: Account, spool: Spool) -> None:
        self._options, self._account, self._spool = options, account, spool

    def record(self, trace: Trace, calls: Sequence[Span], run_id: str) -> LogRecord:
        """The record of a run with these calls, not yet scored; raises BadValue where it cannot
        be mapped."""
        options = self._options
        if trace.broken is not None:
            raise BadValue("trace", "a row of this run was rejected", f"at {trace.broken}")
        facts = self._facts(trace)
        seats = self._seats(trace, calls)
        self._refuse_fallback(seats)
        plan = Plan(
            self._topology(facts.get("topology"), seats, calls),
            tuple(Agent(seat.agent, seat.model) for seat in seats),
        )
        if plan.topology != "io" and any(agent.role is None for agent in plan.agents):
            self._account.notes["teams where calls name no agent: a seat for each model"] += 1
        if len(seats) > 1 and any(call.start is None for call in calls):
            self._account.notes["teams without start times: in the order of the files"] += 1
        if not all(span.parent is None or trace.has(span.parent) for span in trace.rows()):
            self._account.notes["runs with rows whose parent is not in the files"] += 1
        query = self._query(trace, calls)
        dataset = facts.get("dataset") or options.dataset
        if dataset is None:
            raise BadValue("dataset", f"no value at the key {options.dataset_key!r}")
        task = facts.get("task") or options.task
        policy = facts.get("policy") or options.policy
        usage = [seat.usage() for seat in seats]
        rows = [span for span in trace.rows() if trace.of_team(span)]
        starts = [span.start for span in rows if span.start is not None]
        return LogRecord(
            run_id=run_id,
            query_id=name_of(facts.get("query_id"), "query_id") or query_id(query),
            query=query,
            dataset=name_of(dataset, "dataset") or "",
            plan=plan,
            score=None,
            score_source=options.score_source or UNSCORED,
            usage=Usage(
                _total([u.prompt_tokens for u in usage]),
                _total([u.completion_tokens for u in usage]),
                _sum([call.cost_usd for call in calls]),
            ),
            agent_usage=tuple(usage),
            task=name_of(task, "task"),
            latency_s=_latency(rows, calls),
            propensity=number(facts.get("propensity"), "propensity"),
            policy=name_of(policy, "policy"),
            seed=integer(facts.get("seed"), "seed"),
            error=_error(trace, calls),
            timestamp=iso(min(starts)) if starts else None,
        )

    def _facts(self, trace: Trace) -> dict[str, object]:
        """What the metadata of the trace's rows say of the run; they must agree."""
        facts: dict[str, object] = {}
        for span in filter(trace.of_team, trace.rows()):
            for name, value in span.facts.items():
                if facts.setdefault(name, value) != value:
                    told = f"{quote(facts[name])} and {quote(value)}"
                    raise BadValue(name, "rows of one run say different things", told)
        return facts

    def _seats(self, trace: Trace, calls: Sequence[Span]) -> list[_Seat]:
        seats: dict[tuple[str | None, str], _Seat] = {}
        for call in calls:
            agent = next((s.agent for s in trace.above(call) if s.agent is not None), None)
            if call.model is None:
                raise BadValue("model", "a call names no model", f"call {quote(call.id)}")
            model = self._options.models.get(call.model, call.model)
            seats.setdefault((agent, model), _Seat(agent, model, [])).calls.append(call)
        return list(seats.values())

    def _refuse_fallback(self, seats: Sequence[_Seat]) -> None:
        """Raise BadValue where a model may have been asked in place of another that failed."""
        models = Counter(seat.agent for seat in seats)
        for seat in seats:
            if models[seat.agent] > 1 and all(call.error is not None for call in seat.calls):
                raise BadValue(
                    "model",
                    "every call of a model failed, and its agent asked another: a fallback or a "
                    "team is not said; name the agents (--agent-key), or pass --runs call",
                    str(Agent(seat.agent, seat.model)),
                )

    def _topology(self, named: object, seats: Sequence[_Seat], calls: Sequence[Span]) -> str:
        if named is not None:
            return name_of(named, "topology") or ""
        if len(seats) == 1 and all(call.error is not None for call in calls[:-1]):
            return "io"
        if self._options.topology is not None:
            return self._options.topology
        if self._options.topology_key is not None:
            raise BadValue("topology", f"no value at the key {self._options.topology_key!r}")
        raise BadValue(
            "topology",
            "several calls and no topology named: pass --topology or --topology-key, or "
            "--runs call where each call is a run of its own",
            f"{len(calls)} calls by {', '.join(str(Agent(s.agent, s.model)) for s in seats)}",
        )

    def _query(self, trace: Trace, calls: Sequence[Span]) -> str:
        first = list(trace.above(calls[0]))
        common = set.intersection(*({id(span) for span in trace.above(call)} for call in calls))
        shared = [span for span in reversed(first[1:]) if id(span) in common]
        sources = [*shared, calls[0]]
        source = next((span for span in sources if span.text is not None), None)
        if source is None or source.text is None:
            told = Counter(kind for s in sources if s.asked for kind in s.asked.left_out)
            detail = f"only parts of type {', '.join(told)}" if told else ""
            raise BadValue("query", "no text and no user message in the run's input", detail)
        query = self._spool.get(source.text)
        if query == REDACTED:
            raise BadValue("query", "the text was redacted before it was logged")
        if query.endswith(CUT_OFF):
            raise BadValue("query", "the text was cut off before it was logged")
        notes = self._account.notes
        if source is calls[0] and any(span.asked is not None for span in shared):
            notes["the outermost input is no text: the first call's user message was taken"] += 1
        if source.asked is not None:
            for kind in source.asked.left_out:
                notes[f"parts of queries that are no text, left out: {kind}"] += 1
            if source.asked.earlier_turns:
                notes["queries that follow earlier turns, which the text does not show"] += 1
        return query


def query_id(query: str) -> str:
    """The same text has the same id, in every import."""
    return f"q-{hashlib.sha256(query.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}"


def _sum(values: Sequence[float | None]) -> float | None:
    """The total, unknown where a part is unknown."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _total(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _latency(rows: Sequence[Span], calls: Sequence[Span]) -> float | None:
    """Seconds from the first start to the last end; unknown where a call's times are."""
    if any(call.start is None or call.end is None for call in calls):
        return None
    start = min(span.start for span in rows if span.start is not None)
    end = max(span.end for span in rows if span.end is not None)
    # Microseconds are what a float of seconds since 1970 holds.
    return round(end - start, 6) if end >= start else None


def _error(trace: Trace, calls: Sequence[Span]) -> str | None:
    """Why the run failed: its last call did, or what stands around all calls did."""
    last = calls[-1]
    return next((span.error for span in trace.above(last) if span.error is not None), None)
