"""Spans of runs: their shape, their names, and nothing of what was said."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from masrouter.errors import ConfigError
from masrouter.execution import aexecute
from masrouter.importers import Format, ImportOptions, import_logs
from masrouter.llms.simulated import SimulatedProvider
from masrouter.server.tracing import Tracing
from masrouter.types import Agent, Call, Plan, Run, Usage

ENDED = 1_800_000_000_000_000_000
QUERY = "What is 1 plus 5?"


@dataclass(frozen=True)
class Decided:
    id: str = "dec_1"
    plan: Plan = Plan("debate", (Agent("Math Solver", "a"), Agent(None, "b")))  # noqa: RUF009
    policy: str = "router"
    propensity: float | None = None
    expected_cost_usd: float | None = 0.25


class Spans:
    """A tracer provider, and what it was told."""

    def __init__(self) -> None:
        self.provider = TracerProvider()
        self._exporter = InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def by_name(self) -> dict[str, ReadableSpan]:
        found = self._exporter.get_finished_spans()
        assert len({span.name for span in found}) == len(found)
        return {span.name: span for span in found}

    def otlp(self) -> dict[str, object]:
        """What a file exporter writes."""
        made = [
            {
                "traceId": f"{span.context.trace_id:032x}",
                "spanId": f"{span.context.span_id:016x}",
                **({"parentSpanId": f"{span.parent.span_id:016x}"} if span.parent else {}),
                "name": span.name,
                "startTimeUnixNano": str(span.start_time),
                "endTimeUnixNano": str(span.end_time),
                "attributes": [
                    {"key": key, "value": otlp_value(value)}
                    for key, value in (span.attributes or {}).items()
                ],
            }
            for span in self._exporter.get_finished_spans()
        ]
        return {"resourceSpans": [{"scopeSpans": [{"spans": made}]}]}

    def text(self) -> str:
        return " ".join(span.to_json() for span in self._exporter.get_finished_spans())


def otlp_value(value: object) -> dict[str, object]:
    if isinstance(value, tuple):
        return {"arrayValue": {"values": [otlp_value(item) for item in value]}}
    kinds = {str: "stringValue", int: "intValue", float: "doubleValue"}
    return {kinds[type(value)]: value}


@pytest.fixture
def spans() -> Iterator[Spans]:
    made = Spans()
    yield made
    made.provider.shutdown()


def a_run() -> Run:
    calls = (
        Call(0, "round 1", "a", (("user", QUERY),), "6", Usage(10, 2, 0.1), 0.5, 1.0, 1,
             finish_reason="stop"),
        Call(1, "round 1", "b", (), None, Usage(), 0.5, 2.0, 3, "timeout: it said " + QUERY),
    )  # fmt: skip
    return Run(Decided().plan, QUERY, "6", Usage(10, None, None), (), calls, 4.0)


def attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def test_a_run_is_a_workflow_of_agents_and_their_calls(spans: Spans) -> None:
    Tracing(spans.provider).run(a_run(), Decided(), ended_ns=ENDED)
    found = spans.by_name()
    assert set(found) == {
        "invoke_workflow debate", "invoke_agent Math Solver", "invoke_agent agent 2",
        "chat a", "chat b",
    }  # fmt: skip
    for child, parent in {
        "invoke_agent Math Solver": "invoke_workflow debate",
        "invoke_agent agent 2": "invoke_workflow debate",
        "chat a": "invoke_agent Math Solver",
        "chat b": "invoke_agent agent 2",
    }.items():
        context = found[child].parent
        assert context is not None
        assert context.span_id == found[parent].context.span_id
    assert found["invoke_workflow debate"].parent is None
    assert found["chat a"].kind is SpanKind.CLIENT
    assert found["invoke_agent agent 2"].kind is SpanKind.INTERNAL


def test_names_are_those_of_the_conventions_and_unknown_is_left_out(spans: Spans) -> None:
    Tracing(spans.provider).run(a_run(), Decided(), ended_ns=ENDED)
    found = spans.by_name()
    assert attributes(found["chat a"]) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "a",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 2,
        "masrouter.cost_usd": 0.1,
        "masrouter.step": "round 1",
        "masrouter.attempts": 1,
    }
    assert attributes(found["invoke_agent agent 2"])["gen_ai.agent.name"] == "agent 2"
    whole = attributes(found["invoke_workflow debate"])
    assert whole["gen_ai.workflow.name"] == "debate"
    assert whole["masrouter.decision.id"] == "dec_1"
    assert whole["masrouter.expected_cost_usd"] == 0.25
    assert not {"masrouter.propensity", "gen_ai.usage.output_tokens", "masrouter.cost_usd"} & set(
        whole
    )


def test_times_are_those_of_the_run(spans: Spans) -> None:
    Tracing(spans.provider).run(a_run(), ended_ns=ENDED)
    found = spans.by_name()
    began = ENDED - 4_000_000_000
    seconds = {
        name: ((span.start_time or 0) - began, (span.end_time or 0) - began)
        for name, span in found.items()
    }
    half = 500_000_000
    assert seconds["invoke_workflow debate"] == (0, 8 * half)
    assert seconds["chat a"] == seconds["invoke_agent Math Solver"] == (half, 3 * half)
    assert seconds["chat b"] == seconds["invoke_agent agent 2"] == (half, 5 * half)


def test_a_failure_is_told_by_its_kind_alone(spans: Spans) -> None:
    Tracing(spans.provider).run(a_run(), ended_ns=ENDED)
    failed = spans.by_name()["chat b"]
    assert failed.status.status_code is StatusCode.ERROR
    assert attributes(failed)["error.type"] == "timeout"
    assert QUERY not in spans.text()


def test_what_was_said_is_told_where_it_is_asked_for(spans: Spans) -> None:
    Tracing(spans.provider, content=True).run(a_run(), ended_ns=ENDED)
    said = attributes(spans.by_name()["chat a"])
    text = [{"type": "text", "content": QUERY}]
    assert json.loads(str(said["gen_ai.input.messages"])) == [{"role": "user", "parts": text}]
    assert '"assistant"' in str(said["gen_ai.output.messages"])


def test_a_decision_is_a_span_of_its_own(spans: Spans) -> None:
    Tracing(spans.provider).decision(Decided(), 0.25, ended_ns=ENDED)
    [span] = spans.by_name().values()
    assert (span.end_time or 0) - (span.start_time or 0) == 250_000_000
    assert attributes(span)["masrouter.policy"] == "router"


def test_a_real_run_makes_a_span_of_every_call(spans: Spans, simulated: SimulatedProvider) -> None:
    one, other = simulated.models[:2]
    plan = Plan("chain", (Agent(None, one), Agent(None, other)))
    run = asyncio.run(aexecute(plan, QUERY, llm=simulated))
    Tracing(spans.provider).run(run)
    found = spans.by_name()
    calls = [name for name in found if name.startswith("chat ")]
    assert len(calls) == len(run.calls)
    assert QUERY not in spans.text()


def test_what_is_traced_can_be_imported(
    spans: Spans, simulated: SimulatedProvider, tmp_path: Path
) -> None:
    """A team that ran, exported as OTLP JSON, read back as the record of that team."""
    one, other = simulated.models[:2]
    plan = Plan("chain", (Agent(None, one), Agent(None, other)))
    run = asyncio.run(aexecute(plan, QUERY, llm=simulated))
    Tracing(spans.provider, content=True).run(run)
    (tmp_path / "traces.jsonl").write_text(json.dumps(spans.otlp()) + "\n")
    options = ImportOptions(dataset="served", topology="chain", cost_key="masrouter.cost_usd")
    [record] = import_logs(Format.otel, [tmp_path / "traces.jsonl"], options).logs
    assert [agent.model for agent in record.plan.agents] == [one, other]
    assert record.plan.topology == "chain"
    assert record.usage.prompt_tokens == run.usage.prompt_tokens
    assert record.usage.cost_usd == pytest.approx(run.usage.cost_usd)


def test_without_a_provider_or_the_package_there_is_no_tracing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Tracing.configured() is None
    with pytest.raises(ConfigError, match=r"masrouter\[otel\]"):
        Tracing.required()
    provider = TracerProvider()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    assert Tracing.configured() is not None
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    assert Tracing.configured() is None
