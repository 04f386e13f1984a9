"""A chat model whose every paid call is on the disk before it is used, and is never paid twice.

It stands between a team and a provider. A request that a run has already got an answer to, before
a kill, is answered from the store; runs ask for exactly the same again (masrouter.execution). So
is a request that failed in the end and may have been billed for it: it fails again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import cast

from masrouter.collection.store import Statement, Store, insert, storable
from masrouter.errors import BudgetError, CallError, CallKind, CollectionError
from masrouter.execution import Ledger
from masrouter.llms.chat import ChatModel, ChatRequest, Completion, Meter, Price
from masrouter.types import Usage

_NOTHING = Usage(0, 0, 0.0)
_MOST_TOKENS = 2**53
"""Beyond it a count is absurd, and no file could hold it."""


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """What the store knows of one call of a run."""

    outcome: Completion | CallError | None
    """None where it has to be made, again or for the first time."""
    usage: Usage = _NOTHING
    """Of the outcome."""
    spent_usd: float = 0.0
    """All its attempts so far: what they are known to have cost,"""
    lost_usd: float = 0.0
    """the most that those may have cost of which nothing is known,"""
    unpriced: int = 0
    """and how many may have been billed at a price that nobody knows."""


def recorded_calls(store: Store, run_id: str, *, again: bool = False) -> dict[str, RecordedCall]:
    """The calls of a run by request digest.

    again: make those anew that gave nothing to go on with: failures and empty replies.
    """
    calls = {}
    for row in store.read("SELECT * FROM calls WHERE run_id = ?", run_id):
        cut_off = row["state"] == "sent"
        lost = row["lost_usd"] + ((row["worst_usd"] or 0.0) if cut_off else 0.0)
        unpriced = row["unpriced"] + (cut_off and row["worst_usd"] is None)
        outcome: Completion | CallError | None = None
        if row["state"] == "answered" and not (again and not row["reply"].strip()):
            outcome = Completion(
                row["reply"],
                Usage(row["prompt_tokens"], row["completion_tokens"], row["cost_usd"]),
                model=row["billed_model"],
                finish_reason=row["finish_reason"],
                attempts=row["attempts"],
            )
        elif row["error_kind"] is not None and not again and row["cost_usd"] != 0.0:
            outcome = CallError(
                row["error"],
                kind=cast(CallKind, row["error_kind"]),
                model=row["model"],
                attempts=row["attempts"],
            )
        usage = Usage(row["prompt_tokens"], row["completion_tokens"], row["cost_usd"])
        calls[row["digest"]] = RecordedCall(outcome, usage, row["spent_usd"], lost, unpriced)
    return calls


class RecordingModel:
    """The ChatModel of one run.

    ledger: the money of the whole collection. Once a call cannot be recorded or paid, no other is
    sent: `refusal` says why, and the team meets a BudgetError, which leaves its other calls to end.
    """

    def __init__(
        self,
        inner: ChatModel,
        store: Store,
        ledger: Ledger,
        run_id: str,
        calls: Mapping[str, RecordedCall],
    ) -> None:
        """calls: what `recorded_calls` gave."""
        self._inner = inner
        self._store = store
        self._ledger = ledger
        self._run_id = run_id
        self._calls = calls
        self.replayed = 0
        """Calls that were answered from the store."""
        self.answered = 0
        """Calls that were answered now."""
        self.refusal: BudgetError | CollectionError | None = None
        """Why a call was not sent, where the collection itself has to stop."""
        self.failures: list[CallError] = []
        """Calls that failed now."""

    def price(self, model: str) -> Price | None:
        """The provider's."""
        return self._inner.price(model)

    async def complete(
        self,
        request: ChatRequest,
        *,
        timeout_s: float | None = None,
        meter: Meter | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Completion:
        """Answer from the store, else ask the provider and record it; see ChatModel.

        Raises CollectionError for a request that offers tools: the store keeps text alone.
        """
        if request.tools:
            raise CollectionError(
                f"model {request.model!r}: a collection records answers in text, and this request "
                "offers tools; offer none"
            )
        digest = request.digest()
        known = self._calls.get(digest, RecordedCall(None))
        if known.outcome is not None:
            return self._replay(known, meter)
        if self.refusal is None and not self._store.room():
            why = self._store.failure or "the disk is almost full, so nothing more is sent"
            self.refusal = CollectionError(f"{self._store.path}: {why}")
        if self.refusal is not None:
            raise self._refused()
        call = _CallUnderWay(self, request, digest, known, meter)
        try:
            await call.ready()
            await self._write(call.sent(), keep=False)
            completion = await self._inner.complete(
                request, timeout_s=timeout_s, meter=call, on_text=on_text
            )
            completion = replace(completion, text=storable(completion.text))
            call.count_unmetered(completion.usage)
        except (CallError, BudgetError) as error:
            call.close()
            if isinstance(error, CallError):
                self.failures.append(error)
            await self._write(call.failed(error), keep=call.attempts > 0)
            raise
        except BaseException:
            call.close()
            # Cut off, by a deadline or a second Ctrl-C: recorded in passing, nobody waits for it.
            self._store.post(call.cut_off())
            raise
        call.close()
        await self._write(call.answered(completion))
        self.answered += 1
        return completion

    def _replay(self, known: RecordedCall, meter: Meter | None) -> Completion:
        self.replayed += 1
        if meter is not None and known.usage != _NOTHING:
            meter.reserve()
            meter.settle(known.usage)
        if isinstance(known.outcome, Completion):
            return known.outcome
        assert known.outcome is not None
        raise known.outcome

    def refuse(self, why: BudgetError | CollectionError) -> BudgetError:
        """Let nothing more be sent; the error to be raised."""
        self.refusal = self.refusal or why
        return self._refused()

    def _refused(self) -> BudgetError:
        # No CollectionError: it would cancel calls of the same team that are being paid for.
        return BudgetError(f"the collection stops: {self.refusal}")

    async def _write(self, statement: Statement, *, keep: bool = True) -> None:
        try:
            await self._store.write(statement, keep=keep)
        except CollectionError as error:
            raise self.refuse(error) from error


class _CallUnderWay:
    """The meter of one call: the run's own, the collection's ledger, and what the store is told."""

    def __init__(
        self,
        owner: RecordingModel,
        request: ChatRequest,
        digest: str,
        known: RecordedCall,
        run: Meter | None,
    ) -> None:
        self._owner = owner
        self._model = request.model
        self._digest = digest
        self._known = known
        self._run = run
        price = owner.price(request.model)
        self._priced = price is not None
        self._worst = price and price.cost_usd(request.most_prompt_tokens, request.max_tokens)
        self._all = owner._ledger.meter(request, price)
        self._books = Ledger()
        self._own = self._books.meter(request, price)
        self._unpriced = known.unpriced
        self._open = self._billed = False
        self.attempts = 0

    async def ready(self) -> None:
        """Wait for room in the collection's budget; raises BudgetError where there is none."""
        try:
            await self._all.ready()
        except BudgetError as error:
            raise self._owner.refuse(error) from error

    def close(self) -> None:
        """The call is over; an attempt left open may have been billed."""
        self._all.close()
        self._own.close()
        if self._open:
            self._note_billed(None)

    def reserve(self) -> None:
        """See Meter."""
        if self._open:
            self._note_billed(None)  # the client told nothing of the attempt before
        try:
            if self._billed:
                # What the attempts before may have cost has to be on the disk before the next one,
                # or a kill would forget it. That is rare, so the event loop may wait.
                self._owner._store.post(self.sent(), keep=False).result()
            self._all.reserve()
        except (BudgetError, CollectionError) as error:
            raise self._owner.refuse(error) from error
        if self._run is not None:
            try:
                self._run.reserve()
            except BudgetError:
                self._all.release()
                raise
        self._own.reserve()
        self._open = True
        self.attempts += 1

    def settle(self, usage: Usage | None) -> None:
        """See Meter."""
        usage = None if usage is None else _plausible(usage)
        self._all.settle(usage)
        self._own.settle(usage)
        self._note_billed(usage)
        if self._run is not None:
            self._run.settle(usage)

    def release(self) -> None:
        """See Meter."""
        self._all.release()
        self._own.release()
        self._open = False
        if self._run is not None:
            self._run.release()

    def count_unmetered(self, usage: Usage) -> None:
        """Count a completion whose client asked no meter; the run's own is told by the runtime."""
        if self.attempts:
            return
        usage = _plausible(usage)
        self._own.count_unmetered(usage)
        self._note_billed(usage)
        try:
            self._all.count_unmetered(usage)
        except BudgetError as error:
            self._owner.refuse(error)

    def sent(self) -> Statement:
        """The call before an attempt."""
        return self._row("sent")

    def cut_off(self) -> Statement:
        """The call, given up on this side."""
        return self._row("failed", error="cut off", attempts=self.attempts)

    def failed(self, error: CallError | BudgetError) -> Statement:
        """The call with the failure it ended in."""
        if not isinstance(error, CallError):
            return self._row("failed", error=str(error), attempts=self.attempts)
        return self._outcome("failed", error=str(error), error_kind=error.kind)

    def answered(self, completion: Completion) -> Statement:
        """The call with its reply."""
        return self._outcome(
            "answered",
            reply=completion.text,
            billed_model=completion.model,
            finish_reason=completion.finish_reason,
        )

    def _outcome(self, state: str, **values: object) -> Statement:
        usage = self._own.usage
        return self._row(
            state,
            cost_usd=usage.cost_usd,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            attempts=self.attempts,
            **values,
        )

    def _row(self, state: str, **values: object) -> Statement:
        row = {
            "run_id": self._owner._run_id,
            "digest": self._digest,
            "state": state,
            "model": self._model,
            "worst_usd": self._worst,
            "spent_usd": self._known.spent_usd + self._books.spent_usd,
            "lost_usd": self._known.lost_usd + self._books.charged_usd,
            "unpriced": self._unpriced,
        }
        return insert("calls", row | values)

    def _note_billed(self, usage: Usage | None) -> None:
        self._billed, self._open = True, False
        if not self._priced and (usage is None or usage.cost_usd is None):
            self._unpriced += 1


def _plausible(usage: Usage) -> Usage:
    """Without counts that no provider could mean."""

    def count(tokens: int | None) -> int | None:
        return tokens if tokens is not None and 0 <= tokens < _MOST_TOKENS else None

    return Usage(count(usage.prompt_tokens), count(usage.completion_tokens), usage.cost_usd)
