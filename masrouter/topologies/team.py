"""What a topology is given to work with: a query, seats, and a way to ask them.

A team builds requests and hands them to a `Sender`; it knows nothing of money, deadlines or
traces. What it asks is a function of the plan, the query, the seed and the replies alone.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from masrouter.catalog import Catalog
from masrouter.errors import BudgetError, CallError, ConfigError, MasRouterError
from masrouter.llms.chat import ChatRequest, Completion, messages
from masrouter.topologies.prompts import seat, system_prompt
from masrouter.types import Agent, Plan

Kind = Literal["answer", "critique", "plan", "subtask"]
"""What a reply is to be; it decides how long it may become."""


@dataclass(frozen=True, slots=True)
class MaxTokens:
    """The most completion tokens that one call may take, by what it is asked for."""

    answer: int = 2048
    critique: int = 1024
    plan: int = 768
    subtask: int = 1024

    def __post_init__(self) -> None:
        for kind in ("answer", "critique", "plan", "subtask"):
            value = getattr(self, kind)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(
                    f"max_tokens: {kind}: expected a number of tokens >= 1, got {value!r}"
                )

    @classmethod
    def at_most(cls, tokens: int) -> MaxTokens:
        """The defaults with answers of up to `tokens`, and nothing else longer than that."""
        usual = cls()
        return cls(
            answer=tokens,
            critique=min(tokens, usual.critique),
            plan=min(tokens, usual.plan),
            subtask=min(tokens, usual.subtask),
        )

    def of(self, kind: Kind) -> int:
        """The cap of one kind of reply."""
        caps = {"critique": self.critique, "plan": self.plan, "subtask": self.subtask}
        return caps.get(kind, self.answer)


@dataclass(frozen=True, slots=True)
class Ask:
    """One thing to ask of one agent."""

    agent: int
    """Index into `plan.agents`."""
    text: str
    """The user message."""
    step: str
    """What it is for, unique in the run with `agent`: `answer`, `round 2`, `judge`, ..."""
    kind: Kind = "answer"
    temperature: float | None = None
    """None leaves it to the provider."""
    max_tokens: int | None = None
    """None takes what the run allows for this kind."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What an agent said."""

    agent: int
    step: str
    text: str
    finish_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """What an agent could not say, and why."""

    agent: int
    step: str
    error: MasRouterError


class TeamError(MasRouterError):
    """A team cannot go on without a reply that failed, or with so few of them.

    `failures` are the calls that failed. Executing a plan turns it into an ExecutionError.
    """

    def __init__(self, message: str, *, failures: tuple[Failure, ...]) -> None:
        super().__init__(message)
        self.failures = failures


@dataclass(frozen=True, slots=True)
class ExampleReport:
    """How the program in an answer did on the examples that the query itself shows."""

    passed: bool
    text: str
    """What an agent is told: each example that failed, with what came instead."""


class ExampleTests(Protocol):
    """Runs what a query shows. It must know nothing of hidden tests."""

    async def report(self, query: str, answer: str) -> ExampleReport | None:
        """None where the query shows no examples."""


class Sender(Protocol):
    """Sends one request for a seat of the team."""

    async def __call__(self, agent: int, step: str, request: ChatRequest) -> Completion:
        """Raises CallError or BudgetError where the agent gives no reply."""


class Team:
    """The seats of a plan at work on one query: ask them, note what was decided.

    Raises PlanError where a seat's role has no prompt in the catalog.
    """

    def __init__(
        self,
        plan: Plan,
        query: str,
        *,
        catalog: Catalog,
        send: Sender,
        seed: int = 0,
        examples: ExampleTests | None = None,
        max_tokens: MaxTokens | None = None,
        on_note: Callable[[str], None] | None = None,
    ) -> None:
        self.plan = plan
        self.query = query
        self.examples = examples
        self.notes: list[str] = []
        self.failures: list[Failure] = []
        """Every call that failed so far, whether or not the team could do without."""
        self._systems = tuple(system_prompt(agent, catalog) for agent in plan.agents)
        self._send = send
        self._seed = seed
        self._max_tokens = max_tokens or MaxTokens()
        self._on_note = on_note
        self._asked: set[tuple[int, str]] = set()

    @property
    def agents(self) -> tuple[Agent, ...]:
        """The seats, in speaking order."""
        return self.plan.agents

    def system(self, agent: int) -> str:
        """The system prompt of a seat: its role's, and how answers are to be given."""
        return self._systems[agent]

    def note(self, text: str) -> None:
        """Keep what was decided, and why, for whoever reads the run."""
        self.notes.append(text)
        if self._on_note is not None:
            self._on_note(text)

    async def ask(
        self,
        agent: int,
        text: str,
        *,
        step: str,
        kind: Kind = "answer",
        temperature: float | None = None,
        max_tokens: int | None = None,
    ) -> Reply:
        """What an agent replies; raises TeamError where it does not."""
        asked = Ask(agent, text, step, kind, temperature, max_tokens)
        outcome = await self._try(asked, self._request(asked))
        if isinstance(outcome, Reply):
            return outcome
        self.failures.append(outcome)
        raise TeamError(self._told([outcome]), failures=(outcome,))

    async def ask_all(self, asks: Sequence[Ask], *, quorum: int) -> list[Reply | None]:
        """Ask in parallel; the replies in the order of `asks`, None where a call failed.

        Raises TeamError, naming every failure, where fewer than `quorum` came.
        """
        requests = [self._request(ask) for ask in asks]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._try(ask, request))
                    for ask, request in zip(asks, requests, strict=True)
                ]
        except BaseExceptionGroup as broken:
            # Only what is no failure of a member comes here: the first of them is the cause.
            raise broken.exceptions[0] from None
        outcomes = [task.result() for task in tasks]
        # In the order of `asks`, whichever failed first: a run reads the same each time.
        failures = tuple(outcome for outcome in outcomes if isinstance(outcome, Failure))
        self.failures += failures
        if len(asks) - len(failures) < quorum:
            few = f"{len(failures)} of {len(asks)} calls failed, and {quorum} must succeed"
            raise TeamError(f"{few}: {self._told(failures)}", failures=failures)
        return [outcome if isinstance(outcome, Reply) else None for outcome in outcomes]

    async def report_examples(self, answer: str) -> ExampleReport | None:
        """How an answer does on the examples that the query shows; None where there are none."""
        return None if self.examples is None else await self.examples.report(self.query, answer)

    def error(self, why: str) -> TeamError:
        """`why` with all calls that failed so far, to be raised."""
        failures = tuple(self.failures)
        return TeamError(f"{why}: {self._told(failures)}", failures=failures)

    async def _try(self, ask: Ask, request: ChatRequest) -> Reply | Failure:
        try:
            completion = await self._send(ask.agent, ask.step, request)
        except (CallError, BudgetError) as error:
            return Failure(ask.agent, ask.step, error)
        return Reply(ask.agent, ask.step, completion.text, completion.finish_reason)

    def _request(self, ask: Ask) -> ChatRequest:
        if (ask.agent, ask.step) in self._asked:
            raise ValueError(f"{seat(ask.agent)} was asked at step {ask.step!r} before")
        self._asked.add((ask.agent, ask.step))
        return ChatRequest(
            model=self.agents[ask.agent].model,
            messages=messages(self.system(ask.agent), ask.text),
            max_tokens=ask.max_tokens or self._max_tokens.of(ask.kind),
            temperature=ask.temperature,
            seed=call_seed(self._seed, ask.agent, ask.step),
        )

    def _told(self, failures: Sequence[Failure]) -> str:
        return "; ".join(
            f"{seat(failure.agent)} ({self.agents[failure.agent]}) at {failure.step!r}: "
            f"{failure.error}"
            for failure in failures
        )


def call_seed(seed: int, agent: int, step: str) -> int:
    """The seed of one call, from 0 to 2**31 - 1: the same in every process."""
    digest = hashlib.sha256(f"{seed}\n{agent}\n{step}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
