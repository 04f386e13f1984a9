"""Spans of decisions and runs for OpenTelemetry, by the GenAI semantic conventions (extra `otel`).

    invoke_workflow TOPOLOGY          the run, with what was decided
    ├── invoke_agent ROLE             a seat, from its first call to the end of its last
    │   └── chat MODEL                a call
    └── ...

They are made when a run is over, from what it kept, with the times of its calls. Names: docs/gen-ai
of the conventions (gen-ai-spans.md, gen-ai-agent-spans.md), which `masrouter import otel` reads
back; `masrouter.*` is what they have no name for. What was said is left out unless asked for.
Not here: exporters. Whoever embeds the server sets a tracer provider, as the SDK does.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from masrouter.errors import ConfigError
from masrouter.types import Call, Plan, Run, Usage

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer, TracerProvider

Attribute = str | int | float | bool | Sequence[str]

_SECOND = 1_000_000_000


class Decided(Protocol):
    """What is read of a decision; `service.ServedDecision` is one."""

    @property
    def id(self) -> str:
        """Its name."""

    @property
    def plan(self) -> Plan:
        """The team."""

    @property
    def policy(self) -> str:
        """Who picked it."""

    @property
    def propensity(self) -> float | None:
        """With what probability."""

    @property
    def expected_cost_usd(self) -> float | None:
        """Of the plan."""


class Tracing:
    """Makes spans with a tracer provider.

    content: also what was asked and answered, as `gen_ai.input.messages` and
    `gen_ai.output.messages`; it may hold anything that users wrote.
    """

    def __init__(self, provider: TracerProvider, *, content: bool = False) -> None:
        self._tracer: Tracer = provider.get_tracer("masrouter")
        self._content = content

    @classmethod
    def configured(cls, *, content: bool = False) -> Tracing | None:
        """With the process's tracer provider; None where there is none, or no OpenTelemetry."""
        try:
            from opentelemetry import trace
        except ModuleNotFoundError:
            return None
        provider = trace.get_tracer_provider()
        if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
            return None
        return cls(provider, content=content)

    @classmethod
    def required(cls, *, content: bool = False) -> Tracing:
        """`configured`, for who asked for it: raises ConfigError that says what is missing."""
        found = cls.configured(content=content)
        if found is None:
            raise ConfigError(
                "tracing: no OpenTelemetry tracer provider is set; "
                "pip install 'masrouter[otel]' and start with one, as `opentelemetry-instrument` "
                "does"
            )
        return found

    def decision(self, served: Decided, seconds: float, *, ended_ns: int | None = None) -> None:
        """A decision that took so long. ended_ns: since 1970; None is now."""
        ended = time.time_ns() if ended_ns is None else ended_ns
        span = self._tracer.start_span(
            "masrouter.decision",
            start_time=ended - round(seconds * _SECOND),
            attributes=_decided(served),
        )
        span.end(ended)

    def run(self, run: Run, served: Decided | None = None, *, ended_ns: int | None = None) -> None:
        """A team's run, with its agents and their calls. ended_ns: since 1970; None is now."""
        from opentelemetry import trace

        ended = time.time_ns() if ended_ns is None else ended_ns
        began = ended - round(run.latency_s * _SECOND)
        whole = self._tracer.start_span(
            f"invoke_workflow {run.plan.topology}",
            start_time=began,
            attributes={
                "gen_ai.operation.name": "invoke_workflow",
                "gen_ai.workflow.name": run.plan.topology,
                **({} if served is None else _decided(served)),
                **_used(run.usage),
                **self._said((("user", run.query),), run.answer),
            },
        )
        _fail(whole, run.error)
        within = trace.set_span_in_context(whole)
        for index, agent in enumerate(run.plan.agents):
            calls = [call for call in run.calls if call.agent == index]
            if not calls:
                continue
            name = agent.role or f"agent {index + 1}"
            seat = self._tracer.start_span(
                f"invoke_agent {name}",
                context=within,
                start_time=began + round(min(call.started_s for call in calls) * _SECOND),
                attributes={
                    "gen_ai.operation.name": "invoke_agent",
                    "gen_ai.agent.name": name,
                    "masrouter.agent": index,
                },
            )
            for call in calls:
                self._call(call, began, trace.set_span_in_context(seat))
            seat.end(began + round(max(_end(call) for call in calls) * _SECOND))
        whole.end(ended)

    def _call(self, call: Call, began: int, context: Context | None) -> None:
        from opentelemetry.trace import SpanKind

        finish = {} if call.finish_reason is None else {"finish": call.finish_reason}
        span = self._tracer.start_span(
            f"chat {call.model}",
            context=context,
            kind=SpanKind.CLIENT,
            start_time=began + round(call.started_s * _SECOND),
            attributes={
                "gen_ai.operation.name": "chat",
                "gen_ai.request.model": call.model,
                "masrouter.step": call.step,
                "masrouter.attempts": call.attempts,
                **({"gen_ai.response.finish_reasons": tuple(finish.values())} if finish else {}),
                **_used(call.usage),
                **self._said(call.messages, call.reply),
            },
        )
        _fail(span, call.error)
        span.end(began + round(_end(call) * _SECOND))

    def _said(self, messages: Sequence[tuple[str, str]], reply: str | None) -> dict[str, Attribute]:
        if not self._content:
            return {}
        found: dict[str, Attribute] = {
            "gen_ai.input.messages": json.dumps([_message(*one) for one in messages])
        }
        if reply is not None:
            found["gen_ai.output.messages"] = json.dumps([_message("assistant", reply)])
        return found


def _message(role: str, content: str) -> Mapping[str, object]:
    return {"role": role, "parts": [{"type": "text", "content": content}]}


def _end(call: Call) -> float:
    return call.started_s + call.latency_s


def _decided(served: Decided) -> dict[str, Attribute]:
    known: dict[str, Attribute | None] = {
        "masrouter.decision.id": served.id,
        "masrouter.plan": str(served.plan),
        "masrouter.policy": served.policy,
        "masrouter.propensity": served.propensity,
        "masrouter.expected_cost_usd": served.expected_cost_usd,
    }
    return {name: value for name, value in known.items() if value is not None}


def _used(usage: Usage) -> dict[str, Attribute]:
    """Unknown is left out: it is not zero."""
    known = {
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.output_tokens": usage.completion_tokens,
        "masrouter.cost_usd": usage.cost_usd,
    }
    return {name: value for name, value in known.items() if value is not None}


def _fail(span: Span, error: str | None) -> None:
    """The kind alone: the rest of an error may repeat what was said."""
    if error is None:
        return
    from opentelemetry.trace import Status, StatusCode

    span.set_attribute("error.type", error.partition(":")[0])
    span.set_status(Status(StatusCode.ERROR))
