"""The simulated provider as a ChatModel: it bills, hurries, and fails on request."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields

from masrouter.catalog import Catalog
from masrouter.errors import CallError, ConfigError
from masrouter.llms.chat import ChatRequest, Completion, Meter, Price
from masrouter.llms.prices import catalog_price
from masrouter.llms.simulated import replies
from masrouter.llms.simulated.judgement import Mind, Weights, draws
from masrouter.llms.simulated.models import SimulatedModel, published_models
from masrouter.llms.simulated.questions import Asked, Questions
from masrouter.llms.simulated.situation import question_of, read_situation
from masrouter.llms.simulated.speaking import say
from masrouter.llms.simulated.steps import Paths, steps_of
from masrouter.llms.simulated.tasks import SimulatedTask
from masrouter.types import Usage

_FIRST_TOKEN_S = 0.4


@dataclass(frozen=True, slots=True)
class Faults:
    """Shares of calls, each in [0, 1], that go wrong; together at most 1.

    They are final: a provider of real endpoints would have retried before.
    """

    rate_limited: float = 0.0
    """429 until tries ran out; not billed."""
    server_error: float = 0.0
    """500; not billed."""
    timeout: float = 0.0
    """No answer in time; may have been billed."""
    garbage: float = 0.0
    """200 with a text that answers nothing; billed."""

    def __post_init__(self) -> None:
        shares = [getattr(self, f.name) for f in fields(self)]
        if min(shares) < 0 or sum(shares) > 1:
            raise ConfigError(f"faults: shares must be >= 0 and add up to at most 1, got {self}")

    def pick(self, rng: random.Random) -> str | None:
        """The fault of one call, if any."""
        at = rng.random()
        for f in fields(self):
            at -= getattr(self, f.name)
            if at < 0:
                return f.name
        return None


class SimulatedProvider:
    """A ChatModel that knows `tasks`; the same request always gets the same reply.

    seed: which world it is: what each model happens to know, how hard each task really is.
    time_scale: 0 answers at once; 1 takes as long as the model would.
    Prices are the catalog's. A question that it does not know is a CallError, kind `rejected`.
    It calls no tools: a request that offers some is answered in text.
    """

    def __init__(
        self,
        tasks: Iterable[SimulatedTask],
        *,
        models: Mapping[str, SimulatedModel] | None = None,
        catalog: Catalog | None = None,
        seed: int = 0,
        faults: Faults | None = None,
        time_scale: float = 0.0,
        weights: Weights | None = None,
    ) -> None:
        self._questions = Questions(tasks)
        self._paths: dict[str, Paths] = {}
        self._models = dict(published_models() if models is None else models)
        self._catalog = Catalog.default() if catalog is None else catalog
        self._seed = seed
        self._faults = Faults() if faults is None else faults
        self._time_scale = time_scale
        self._weights = Weights() if weights is None else weights

    @property
    def models(self) -> tuple[str, ...]:
        """Names that can be asked for."""
        return tuple(self._models)

    def price(self, model: str) -> Price | None:
        """The catalog's price of the model."""
        return catalog_price(self._catalog, model)

    async def complete(
        self,
        request: ChatRequest,
        *,
        timeout_s: float | None = None,
        meter: Meter | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Completion:
        """Answer as the model would; see ChatModel."""
        model = self._models.get(request.model)
        if model is None:
            known = ", ".join(sorted(self._models))
            raise CallError(
                f"the simulated provider has no model {request.model!r}; it plays {known}",
                kind="unknown_model",
                model=request.model,
            )
        asked = self._asked(request)
        if meter is not None:
            meter.reserve()
        try:
            completion = self._reply(model, asked, request)
            latency = completion.latency_s * self._time_scale
            if timeout_s is not None and latency > timeout_s:
                await asyncio.sleep(timeout_s)
                raise _fault("timeout", request.model)
            # One turn of the loop at least, as a call over a network takes.
            await asyncio.sleep(latency)
        except CallError as error:
            if meter is not None:
                if error.kind == "timeout":
                    meter.settle(None)
                else:
                    meter.release()
            raise
        except asyncio.CancelledError:
            if meter is not None:
                meter.settle(None)
            raise
        if meter is not None:
            meter.settle(completion.usage)
        if not completion.text:
            raise _fault("empty", request.model)
        if on_text is not None:
            for word in completion.text.splitlines(keepends=True):
                on_text(word)
        return completion

    def _asked(self, request: ChatRequest) -> Asked:
        question = question_of(request)
        asked = None if question is None else self._questions.read(question)
        if asked is None:
            what = "no <question>" if question is None else f"the question {question[:60]!r}"
            raise CallError(
                f"the simulated provider knows {len(self._questions)} questions, and the prompt "
                f"has {what}; give it the problems as tasks, or ask a real provider",
                kind="rejected",
                model=request.model,
            )
        return asked

    def _reply(self, model: SimulatedModel, asked: Asked, request: ChatRequest) -> Completion:
        rng = draws(self._seed, "call", request.digest())
        fault = self._faults.pick(rng)
        if fault is not None and fault != "garbage":
            raise _fault(fault, request.model)
        situation = read_situation(request, asked, self._catalog.roles)
        mind = Mind(model, asked.task, self._seed, self._weights)
        text, thought = say(mind, situation, rng, lambda: self._paths_of(asked.task))
        if fault == "garbage":
            text = replies.garbage(rng)
        visible = _tokens(text)
        room = max(0, request.max_tokens - thought)
        finish = "stop"
        if visible > room:
            # As with real models, thinking that takes all the room leaves no answer.
            text, visible, finish = text[: 4 * room], room, "length"
            thought = min(thought, request.max_tokens)
        prompt = sum(_tokens(m.content) + 4 for m in request.messages)
        completion = visible + thought
        price = self.price(request.model)
        cost = None if price is None else price.cost_usd(prompt, completion)
        return Completion(
            text,
            Usage(prompt, completion, cost),
            model=request.model,
            finish_reason=finish,
            latency_s=_FIRST_TOKEN_S + completion / model.tokens_per_s,
        )

    def _paths_of(self, task: SimulatedTask) -> Paths:
        """Kept, as to word every step of a task takes longer than a reply."""
        if task.query not in self._paths:
            steps = steps_of(task, self._weights.steps)
            self._paths[task.query] = Paths(task, self._seed, steps=steps)
        return self._paths[task.query]


def _tokens(text: str) -> int:
    """About a token for four bytes, the usual rate for English and code."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // 4)


def _fault(kind: str, model: str) -> CallError:
    if kind == "rate_limited":
        return CallError("simulated: 429", kind="rate_limited", model=model, status=429, attempts=1)
    if kind == "server_error":
        return CallError("simulated: 500", kind="server_error", model=model, status=500, attempts=1)
    if kind == "empty":
        why = "simulated: thinking took all of max_tokens, no text was left; allow more"
        return CallError(why, kind="empty", model=model, attempts=1)
    return CallError("simulated: no answer in time", kind="timeout", model=model, attempts=1)
