"""What the collector's tests share: sums as problems, teams, and a chat model under control."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from masrouter.catalog import Catalog
from masrouter.collection import Assignment, Progress, Settings, Store, collect, export
from masrouter.collection.store import reading
from masrouter.errors import CallError, CallKind
from masrouter.llms import ChatRequest, Completion, Meter, Price
from masrouter.problems import Number, Problem
from masrouter.types import Agent, Plan, Usage

PRICE = Price(1.0, 2.0, "provider file")
SMALL, LARGE = "gpt-4o-mini", "gpt-4o"


def sums(count: int) -> tuple[Problem, ...]:
    """Problems without code, so that nothing has to be contained."""
    return tuple(
        Problem(
            problem_id=f"sums/{i}",
            query=f"How much is {i} and {i}?",
            dataset="sums",
            task="math",
            grader=Number(Fraction(2 * i)),
            reference=f"Answer: {2 * i}",
            wrong=(f"Answer: {2 * i + 1}",),
        )
        for i in range(1, count + 1)
    )


def team(topology: str, *models: str) -> Plan:
    return Plan(topology, tuple(Agent("assistant", model) for model in models))


PLANS = (
    team("io", SMALL),
    team("cot", LARGE),
    team("self_consistency", SMALL, SMALL, LARGE),
    team("chain", SMALL, LARGE),
    team("reflection", SMALL, LARGE),
    team("debate", SMALL, LARGE),
    team("panel", SMALL, LARGE, LARGE),
)


def said(model: str, turns: Sequence[tuple[str, str]], seed: object) -> str:
    """A reply that depends on all of the request, and that every topology can go on with."""
    digest = hashlib.sha256(repr((model, turns, seed)).encode()).digest()
    verdict = "stands" if digest[0] < 128 else "wrong"
    return f"I have thought it over.\nVerdict: {verdict}\nAnswer: {2 * (1 + digest[1] % 4)}"


@dataclass
class Scripted:
    """A ChatModel: answers at once, or as `behave` says; counts what it was asked."""

    behave: Callable[[ChatRequest, int], object] | None = None
    """Of a request and how often it came before: a text to say, an error to raise, or seconds to
    take; None answers well."""
    known_price: Price | None = PRICE
    prompt_tokens: int = 100
    completion_tokens: int = 50
    asked: Counter[str] = field(default_factory=Counter)
    under_way: int = 0
    peak: int = 0
    billed_usd: float = 0.0

    def price(self, model: str) -> Price | None:
        return self.known_price

    async def complete(
        self,
        request: ChatRequest,
        *,
        timeout_s: float | None = None,
        meter: Meter | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Completion:
        digest = request.digest()
        before = self.asked[digest]
        what = self.behave(request, before) if self.behave else None
        turns = [(message.speaker, message.content) for message in request.messages]
        text = what if isinstance(what, str) else said(request.model, turns, request.seed)
        assert meter is not None
        meter.reserve()
        self.asked[digest] += 1
        self.under_way += 1
        self.peak = max(self.peak, self.under_way)
        try:
            await asyncio.sleep(what if isinstance(what, float) else 0)
        except asyncio.CancelledError:
            meter.settle(None)
            raise
        finally:
            self.under_way -= 1
        if isinstance(what, Exception):
            if isinstance(what, CallError) and what.kind in ("timeout", "connection"):
                meter.settle(None)
            elif isinstance(what, CallError) and what.kind in ("bad_response", "empty"):
                meter.settle(self._bill())
            else:
                meter.release()
            raise what
        usage = self._bill()
        meter.settle(usage)
        return Completion(text, usage, request.model, "stop")

    def _bill(self) -> Usage:
        cost = None
        if self.known_price is not None:
            cost = self.known_price.cost_usd(self.prompt_tokens, self.completion_tokens)
            self.billed_usd += cost
        return Usage(self.prompt_tokens, self.completion_tokens, cost)


def failing(kind: CallKind, model: str = "m") -> CallError:
    return CallError(f"{model}: a failure for the test", kind=kind, model=model, attempts=1)


CATALOG = Catalog.default()


def gather(file: Path, assignments: Sequence[Assignment], llm: Any, **settings: Any) -> Progress:
    """Collect into a file, from opening it to closing it."""
    with Store(file, disk_reserve_mib=0.0) as store:
        return asyncio.run(
            collect(
                assignments,
                llm=llm,
                store=store,
                catalog=CATALOG,
                sandbox=None,
                settings=Settings(**settings),
            )
        )


def exported(file: Path) -> bytes:
    """The logs of a collection, without the clock."""
    target = file.with_suffix(".jsonl")
    export(file, target, clock=False)
    return target.read_bytes()


def records(file: Path) -> list[dict[str, Any]]:
    """The log records of a collection."""
    return [json.loads(line) for line in exported(file).splitlines()]


def rows(file: Path, table: str) -> list[dict[str, Any]]:
    """All rows of a table of a collection's file."""
    with reading(file) as connection:
        return [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]
