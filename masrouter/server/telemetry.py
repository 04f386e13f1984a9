"""What the server counts, for Prometheus: `/metrics`, from a registry of its own.

Labels come from fixed lists or are capped, so that no client can make up new series: routes are the
app's templates, models, topologies and policies the first `MOST_NAMES` that were seen. No text of a
request, no session and no key is in any of them; key names are, where budgets are watched.

Where the server has keys, one is needed here too; without, it answers this machine alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from masrouter.server.api_errors import ApiError
from masrouter.server.keys import Caller, caller
from masrouter.server.limits import Gate, Scope
from masrouter.types import Plan, Run

MOST_NAMES = 64
OTHER = "other"
UNMATCHED = "unmatched"
LEFT = "left"
"""Status of a request whose client left before it was answered."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
_SOURCES = frozenset({"tests", "exact_match", "judge", "human", "user", "simulated"})
_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_SLOW = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Decided(Protocol):
    """What is read of a decision; `service.ServedDecision` is one."""

    @property
    def plan(self) -> Plan:
        """The team."""

    @property
    def explored(self) -> bool:
        """Whether it was drawn."""

    @property
    def sticky(self) -> bool:
        """Whether it is the session's."""


class Telemetry:
    """The counters of one server. Every method is cheap, and safe from any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._readings = _Readings()
        self.registry.register(self._readings)
        self._topologies, self._models, self._kinds = _Names(), _Names(), _Names()
        counter = partial(Counter, namespace="masrouter", registry=self.registry)
        histogram = partial(Histogram, namespace="masrouter", registry=self.registry)
        self._requests = counter(
            "http_requests", "Requests by route and status.", ["method", "route", "status"]
        )
        self._seconds = histogram(
            "http_request_seconds",
            "From a request's head to its last byte.",
            ["route"],
            buckets=_SLOW,
        )
        self._decisions = counter(
            "decisions", "Decisions by topology and by who made them.", ["topology", "by"]
        )
        self._routing = histogram(
            "routing_seconds", "Time to decide, waiting included.", buckets=_FAST
        )
        self._runs = counter("runs", "Teams that ran, by how it ended.", ["topology", "end"])
        self._run_seconds = histogram(
            "run_seconds", "How long teams ran.", ["topology"], buckets=_SLOW
        )
        self._calls = counter("calls", "Calls of models, by how they ended.", ["model", "end"])
        self._tokens = counter("tokens", "Tokens as billed.", ["model", "direction"])
        self._cost = counter("cost_usd", "Known cost in US dollars.", ["model"])
        self._unpriced = counter("unpriced_calls", "Calls of unknown cost.", ["model"])
        self._outcomes = counter("outcomes", "Outcomes posted, by who scored.", ["source"])
        self._errors = counter("errors", "Failures by kind.", ["kind"])

    def request(self, scope: Scope, status: int | None, seconds: float) -> None:
        """A request is over. status: None where the client left first."""
        method = scope["method"] if scope["method"] in _METHODS else OTHER
        route = _template(scope)
        self._requests.labels(method, route, LEFT if status is None else str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def decision(self, served: Decided, seconds: float | None = None) -> None:
        """A decision was made. seconds: how long that took, where it was measured."""
        by = "session" if served.sticky else "exploration" if served.explored else "router"
        self._decisions.labels(self._topologies.known(served.plan.topology), by).inc()
        if seconds is not None:
            self._routing.observe(seconds)

    def run(self, run: Run) -> None:
        """A team ran, well or not: its calls, tokens and costs."""
        topology = self._topologies.known(run.plan.topology)
        end = "answered" if run.error is None else self._kinds.known(_kind(run.error))
        self._runs.labels(topology, end).inc()
        self._run_seconds.labels(topology).observe(run.latency_s)
        if run.error is not None:
            self.error(_kind(run.error))
        for call in run.calls:
            model = self._models.known(call.model)
            ended = "answered" if call.error is None else self._kinds.known(_kind(call.error))
            self._calls.labels(model, ended).inc()
            usage = call.usage
            for direction, tokens in (
                ("input", usage.prompt_tokens),
                ("output", usage.completion_tokens),
            ):
                if tokens is not None:
                    self._tokens.labels(model, direction).inc(tokens)
            if usage.cost_usd is None:
                self._unpriced.labels(model).inc()
            else:
                self._cost.labels(model).inc(usage.cost_usd)

    def outcome(self, source: str) -> None:
        """An outcome was taken. A source of a client's own making counts as `other`."""
        self._outcomes.labels(source if source in _SOURCES else OTHER).inc()

    def error(self, kind: str) -> None:
        """Something failed; `kind` is a code of this program, never a text of a client."""
        self._errors.labels(self._kinds.known(kind)).inc()

    def watch_gate(self, name: str, gate: Gate) -> None:
        """Report how many requests run and wait at a gate of the limits."""
        self._readings.gates[name] = gate

    def watch_budgets(self, left: Callable[[], Mapping[str, float | None]]) -> None:
        """Report what is left of budgets: US dollars by key name; None is no limit."""
        self._readings.budgets = left

    def watch_memo(self, counts: Callable[[], tuple[int, int]]) -> None:
        """Report hits and misses of the memoised embeddings."""
        self._readings.memo = counts

    def exposition(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)


class _Readings(Collector):
    """What is read when somebody asks, instead of counted."""

    def __init__(self) -> None:
        self.gates: dict[str, Gate] = {}
        self.budgets: Callable[[], Mapping[str, float | None]] | None = None
        self.memo: Callable[[], tuple[int, int]] | None = None

    def collect(self) -> Iterable[Metric]:
        running = GaugeMetricFamily(
            "masrouter_requests_running", "Requests that are worked on.", labels=["gate"]
        )
        waiting = GaugeMetricFamily(
            "masrouter_requests_waiting", "Requests in the queue.", labels=["gate"]
        )
        for name, gate in self.gates.items():
            running.add_metric([name], gate.running)
            waiting.add_metric([name], gate.waiting)
        yield running
        yield waiting
        if self.budgets is not None:
            left = GaugeMetricFamily(
                "masrouter_budget_left_usd", "What may still be spent.", labels=["key"]
            )
            for name, usd in self.budgets().items():
                if usd is not None:
                    left.add_metric([name], usd)
            yield left
        if self.memo is not None:
            looked_up = CounterMetricFamily(
                "masrouter_embeddings", "Embeddings, by where they came from.", labels=["source"]
            )
            hits, misses = self.memo()
            looked_up.add_metric(["memo"], hits)
            looked_up.add_metric(["encoder"], misses)
            yield looked_up


class _Names:
    """The first names that were seen; later ones are all `other`."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def known(self, name: str) -> str:
        if name not in self._seen:
            if len(self._seen) >= MOST_NAMES or len(name) > 100:
                return OTHER
            self._seen.add(name)
        return name


def _kind(error: str) -> str:
    """`timeout: the provider ...` to `timeout`; nothing after the colon is ours."""
    kind = error.partition(":")[0]
    return kind if kind.isidentifier() and kind.isascii() else OTHER


def _template(scope: Scope) -> str:
    """The route's template; of requests refused before routing too, where the path has one."""
    route = getattr(scope.get("route"), "path", None)
    if route is not None:
        return str(route)
    routes: Iterable[Any] = getattr(scope.get("app"), "routes", ())
    path = scope["path"]
    return path if any(getattr(one, "path", None) == path for one in routes) else UNMATCHED


router = APIRouter()


@router.get("/metrics", summary="Counters for Prometheus", include_in_schema=False)
async def metrics(request: Request, _: Annotated[Caller, Depends(caller)]) -> Response:
    """The counters, where the server has some."""
    telemetry: Telemetry | None = getattr(request.app.state, "telemetry", None)
    if telemetry is None:
        raise ApiError(404, "this server counts nothing", code="not_found")
    return Response(telemetry.exposition(), media_type=CONTENT_TYPE_LATEST)
