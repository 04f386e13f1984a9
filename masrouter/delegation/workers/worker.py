"""Workers: callables with a description and a price that stand among the models of a delegation.

A translation pipeline, a retrieval function or a tool of an MCP server is no chat model, but a seat
of a plan may name it all the same: `with_workers` answers for the workers' names and passes every
other name on. A worker is given plain text, without roles or conventions, and what it gives back is
untrusted text as any model's is.

Not here: which worker fits a task (`matching`), and workers that ship (`hugging_face`, `mcp_tool`).
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import math
import re
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from masrouter.catalog import ModelEntry
from masrouter.delegation.query import TaskQuery, read_query
from masrouter.errors import CallError, CallKind, ConfigError
from masrouter.llms.chat import ChatModel, ChatRequest, Completion, Meter, Price
from masrouter.llms.failures import quoted
from masrouter.llms.per_loop import PerLoop
from masrouter.strict_yaml import describe
from masrouter.types import Agent, Plan, Usage

Takes = Literal["material", "goal", "all"]
"""What of a task a worker is given.

material: the context and the results that the task needs, and the goal where there are none. goal:
the goal alone. all: the goal, the context and the results, with an empty line between them.
"""

PROVIDER = "worker"
"""The provider that a worker's catalog entry names."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


class WorkerError(CallError):
    """A worker gave no text. `model` is the worker's name, `kind` as of any call."""


@dataclass(frozen=True, slots=True)
class Produced:
    """What a worker made, where it can say more than the text. None is unknown."""

    text: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float | None = None
    """Where the worker knows its bill; else it follows from its prices and the tokens."""
    finish_reason: str | None = None
    """`stop`, `length` where its own limit cut the text, `stop, 3 parts` where it was joined."""


Outcome = str | Produced
Run = Callable[[str], Outcome | Awaitable[Outcome]]


@dataclass(frozen=True, slots=True)
class WorkerPrice(Price):
    """A price per call besides that of tokens."""

    usd_per_call: float = 0.0

    def cost_usd(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Of one call."""
        return self.usd_per_call + Price.cost_usd(self, prompt_tokens, completion_tokens)


@dataclass(frozen=True, kw_only=True)
class Worker:
    """Anything that turns a text into a text.

    Raises ConfigError for a name, a price or a limit that cannot be meant. A worker without any
    price has an unknown one, and is not called under a budget; one that is free says `0`.
    """

    name: str
    """Small letters, digits, `_`, `.` and `-`: how plans and tasks name it."""
    description: str
    """What it does, for whoever chooses: a person, a parent model, `matching`, the router."""
    run: Run
    """Called with the text; where it is not asynchronous, in a thread of its own."""
    usd_per_call: float | None = None
    input_usd_per_mtok: float | None = None
    """US dollars per million tokens read, for a worker that says how many it read."""
    output_usd_per_mtok: float | None = None
    context_window: int | None = None
    """Tokens that it takes at once; None where it has no limit, or parts long texts itself."""
    takes: Takes = "material"
    max_concurrency: int = 1
    """Calls at once. A thread cannot be stopped: until it ends, its place stays taken."""
    deadline_s: float | None = None
    """Seconds that one call may take, besides the deadline of the run."""
    max_characters: int = 1_000_000
    """Of what it gives back; a call that gives more has failed, and nothing is cut off unseen."""
    examples: tuple[str, ...] = ()
    """Requests that it is for, which `matching` reads besides the description."""

    def __post_init__(self) -> None:
        where = f"worker {self.name!r}"
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"{where}: name: expected at most 64 small letters, digits, '_', '.' and '-', "
                "a letter or digit first"
            )
        if not isinstance(self.description, str) or not self.description.strip():
            raise ConfigError(f"{where}: description: expected a text, got {self.description!r}")
        if isinstance(self.examples, str) or not all(
            isinstance(text, str) and text.strip() for text in self.examples
        ):
            raise ConfigError(f"{where}: examples: expected texts, got {self.examples!r}")
        if not callable(self.run):
            raise ConfigError(f"{where}: run: expected a callable, got {self.run!r}")
        for key in ("usd_per_call", "input_usd_per_mtok", "output_usd_per_mtok"):
            value = getattr(self, key)
            if value is not None and not (_is_number(value) and value >= 0):
                raise ConfigError(
                    f"{where}: {key}: expected US dollars >= 0, or None for unknown, got {value!r}"
                )
        if self.takes not in ("material", "goal", "all"):
            raise ConfigError(f"{where}: takes: expected material, goal or all, got {self.takes!r}")
        for key in ("max_concurrency", "max_characters", "context_window"):
            value = getattr(self, key)
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
            if not (whole or (key == "context_window" and value is None)):
                raise ConfigError(f"{where}: {key}: expected a number >= 1, got {value!r}")
        limit = self.deadline_s
        if limit is not None and not (_is_number(limit) and limit > 0):
            raise ConfigError(
                f"{where}: deadline_s: expected seconds > 0, or None for no limit, got {limit!r}"
            )

    @property
    def price(self) -> Price | None:
        """None where no price was given; one that was given leaves the others at zero."""
        given = (self.usd_per_call, self.input_usd_per_mtok, self.output_usd_per_mtok)
        if all(part is None for part in given):
            return None
        call, read, written = (part or 0.0 for part in given)
        return WorkerPrice(read, written, "worker", call)

    @property
    def plan(self) -> Plan:
        """The plan that runs it: one call."""
        return Plan("io", (Agent(None, self.name),))

    def entry(self, *, tokens_per_call: float | None = None) -> ModelEntry:
        """The worker as a candidate of a catalog, for `Router.add_model` and probes.

        A catalog prices tokens alone. tokens_per_call: prompt and completion tokens of a usual
        call, over which `usd_per_call` is spread; without it the price of a worker that costs
        something per call is unknown to the catalog.
        """
        price = self.price
        read = written = None
        if price is not None:
            call = self.usd_per_call or 0.0
            if not call or tokens_per_call:
                spread = call / tokens_per_call * 1e6 if tokens_per_call else 0.0
                read = price.input_usd_per_mtok + spread
                written = price.output_usd_per_mtok + spread
        return ModelEntry(
            name=self.name,
            description=self.description,
            provider=PROVIDER,
            input_usd_per_mtok=read,
            output_usd_per_mtok=written,
            context_window=self.context_window,
        )

    def text_of(self, query: TaskQuery) -> str:
        """What of a task it is given, by `takes`."""
        material = [text for text in (query.context, *query.results.values()) if text.strip()]
        if self.takes == "goal" or (self.takes == "material" and not material):
            return query.goal
        parts = material if self.takes == "material" else [query.goal, *material]
        return "\n\n".join(parts)


class WorkersModel:
    """A ChatModel that answers for workers, and asks another for every other model."""

    def __init__(self, llm: ChatModel | None, workers: Sequence[Worker]) -> None:
        """llm: answers for all other names; None where there are none.

        Raises ConfigError for two workers of one name, or one with the name of a priced model.
        """
        self.llm = llm
        self.workers: Mapping[str, Worker] = {worker.name: worker for worker in workers}
        for worker in workers:
            if self.workers[worker.name] is not worker:
                raise ConfigError(f"worker {worker.name!r} is given twice; name them apart")
            if llm is not None and llm.price(worker.name) is not None:
                raise ConfigError(
                    f"worker {worker.name!r} has the name of a model; give it another name"
                )
        self._slots = {
            name: PerLoop(_semaphore(worker.max_concurrency))
            for name, worker in self.workers.items()
        }

    def price(self, model: str) -> Price | None:
        """The worker's, or what the inner model says."""
        if model in self.workers:
            return self.workers[model].price
        return None if self.llm is None else self.llm.price(model)

    async def complete(
        self,
        request: ChatRequest,
        *,
        timeout_s: float | None = None,
        meter: Meter | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Completion:
        """See ChatModel. A worker's text is passed to `on_text` whole; its failures are
        WorkerErrors, and what a failed call of a worker that is not free cost is unknown."""
        worker = self.workers.get(request.model)
        if worker is not None:
            return await self._work(worker, request, timeout_s, meter, on_text)
        if self.llm is None:
            there = ", ".join(self.workers) or "none"
            raise CallError(
                f"model {request.model!r}: there are workers only: {there}",
                kind="unknown_model",
                model=request.model,
            )
        return await self.llm.complete(request, timeout_s=timeout_s, meter=meter, on_text=on_text)

    async def _work(
        self,
        worker: Worker,
        request: ChatRequest,
        timeout_s: float | None,
        meter: Meter | None,
        on_text: Callable[[str], None] | None,
    ) -> Completion:
        started = asyncio.get_running_loop().time()
        text = worker.text_of(read_query(request.messages[-1].content))
        limits = [limit for limit in (timeout_s, worker.deadline_s) if limit is not None]
        begun = False
        usage = _cost_of_failure(worker)
        try:
            async with asyncio.timeout(min(limits, default=None)) as limit:
                place = _Place(self._slots[worker.name].get())
                await place.take()
                try:
                    if meter is not None:
                        meter.reserve()
                    begun = True
                    produced = _checked(worker, await _outcome(worker.run, text, place))
                finally:
                    place.leave()
            usage = _bill(worker, produced)
        except CallError as error:
            told = str(error)
            if isinstance(error, WorkerError) and told.startswith(_named(worker)):
                raise
            raise WorkerError(
                _named(worker) + told,
                kind=error.kind, model=worker.name, status=error.status, attempts=int(begun),
            ) from error  # fmt: skip
        except TimeoutError as error:
            over = limit.expired()
            why = f"no answer within {min(limits):g} s" if over else quoted(f"timeout: {error}")
            raise _failed(worker, why, "timeout", begun) from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if not begun or (task is not None and task.cancelling()):
                raise
            raise _failed(worker, "was cancelled from within", "server_error", True) from error
        except Exception as error:
            if not begun:
                raise  # the meter's, before anything was done
            why = quoted(f"{type(error).__name__}: {error}")
            raise _failed(worker, why, "server_error", begun) from error
        finally:
            if meter is not None and begun:
                meter.settle(usage)
        if on_text is not None:
            on_text(produced.text)
        return Completion(
            text=produced.text,
            usage=usage or Usage(),
            model=worker.name,
            finish_reason=produced.finish_reason,
            latency_s=asyncio.get_running_loop().time() - started,
        )


def with_workers(llm: ChatModel | None, workers: Sequence[Worker]) -> ChatModel:
    """`llm` with the workers beside its models; `llm` itself where there are no workers."""
    if llm is not None and not workers:
        return llm
    return WorkersModel(llm, workers)


class _Place:
    """One of a worker's places: given back once, by whoever is the last to need it."""

    def __init__(self, slots: asyncio.Semaphore) -> None:
        self._slots = slots
        self._needed = 0

    async def take(self) -> None:
        await self._slots.acquire()
        self._needed = 1

    def hold(self) -> None:
        self._needed += 1

    def leave(self) -> None:
        self._needed -= 1
        if self._needed == 0:
            self._slots.release()


async def _outcome(run: Run, text: str, place: _Place) -> object:
    """What `run` gives, awaited where it is to be; a plain function runs in a thread."""
    asynchronous = inspect.iscoroutinefunction(run) or inspect.iscoroutinefunction(
        getattr(run, "__call__", None)  # noqa: B004
    )
    try:
        given: Any = run(text) if asynchronous else await _in_thread(run, text, place)
        return await given if inspect.isawaitable(given) else given
    except (Exception, asyncio.CancelledError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # an exit is this worker's failure, not the program's
        raise RuntimeError(type(error).__name__) from error


async def _in_thread(run: Run, text: str, place: _Place) -> object:
    """A daemon thread: one that never ends holds up neither the event loop nor the exit."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[object] = loop.create_future()
    context = contextvars.copy_context()

    def end(given: object, error: BaseException | None) -> None:
        place.leave()
        if future.cancelled():
            return
        if error is None:
            future.set_result(given)
        else:
            future.set_exception(error)

    def work() -> None:
        given: object = None
        failure: BaseException | None = None
        try:
            given = context.run(run, text)
        except Exception as error:
            # A future refuses a StopIteration.
            stray = isinstance(error, StopIteration)
            failure = RuntimeError(type(error).__name__) if stray else error
        except BaseException as error:
            failure = RuntimeError(type(error).__name__)  # as in `_outcome`
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(end, given, failure)

    place.hold()
    threading.Thread(target=work, name="masrouter-worker", daemon=True).start()
    return await future


def _checked(worker: Worker, given: object) -> Produced:
    produced = Produced(given) if isinstance(given, str) else given
    if not isinstance(produced, Produced) or not isinstance(produced.text, str):
        kind = type(given).__name__
        raise _failed(worker, f"gave {kind} where text was expected", "bad_response", True)
    if not produced.text.strip():
        raise _failed(worker, "gave no text", "empty", True)
    for key in ("prompt_tokens", "completion_tokens", "cost_usd"):
        value = getattr(produced, key)
        whole = isinstance(value, int) or key == "cost_usd"
        if value is not None and not (whole and _is_number(value) and value >= 0):
            why = f"gave {describe(value)} as its {key}"
            raise _failed(worker, why, "bad_response", True)
    length, most = len(produced.text), worker.max_characters
    if length > most:
        why = f"gave {length:,} characters, and {most:,} are taken (its max_characters)"
        raise _failed(worker, why, "bad_response", True)
    return produced


def _bill(worker: Worker, produced: Produced) -> Usage:
    """What a call took; a part is None where nobody knows."""
    read, written, cost = produced.prompt_tokens, produced.completion_tokens, produced.cost_usd
    price = worker.price
    if cost is None and price is not None:
        needs_read, needs_written = price.input_usd_per_mtok > 0, price.output_usd_per_mtok > 0
        if not (needs_read and read is None) and not (needs_written and written is None):
            cost = price.cost_usd(read or 0, written or 0)
    return Usage(read, written, cost)


def _cost_of_failure(worker: Worker) -> Usage | None:
    price = worker.price
    free = price is not None and price.cost_usd(1, 1) == 0
    return Usage(None, None, 0.0) if free else None


def _failed(worker: Worker, why: str, kind: CallKind, begun: bool) -> WorkerError:
    return WorkerError(_named(worker) + why, kind=kind, model=worker.name, attempts=int(begun))


def _named(worker: Worker) -> str:
    return f"worker {worker.name!r}: "


def _semaphore(places: int) -> Callable[[], asyncio.Semaphore]:
    return lambda: asyncio.Semaphore(places)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
