"""What every chat model of this package looks like: a request, a completion, a price, a meter.

Nothing here talks to a network; `openai_compatible` and `simulated` implement the protocol.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from masrouter.types import Usage

Speaker = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    speaker: Speaker
    content: str


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One call. `max_tokens` is not optional: without it nobody could say what a call may cost."""

    model: str
    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float | None = None
    """None leaves it to the provider."""
    seed: int | None = None

    def digest(self) -> str:
        """A name for exactly this request: 64 hex digits, the same in every process."""
        parts = [
            self.model,
            [[message.speaker, message.content] for message in self.messages],
            self.max_tokens,
            self.temperature,
            self.seed,
        ]
        text = json.dumps(parts, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def most_prompt_tokens(self) -> int:
        """An upper bound on the prompt's tokens: a token stands for at least one byte.

        Chat templates add a few tokens around every message; 16 is above those in use.
        """
        text = sum(len(m.content.encode("utf-8", "surrogatepass")) for m in self.messages)
        return text + 16 * (len(self.messages) + 1)


@dataclass(frozen=True, slots=True)
class Completion:
    """What came back."""

    text: str
    usage: Usage
    """As billed; None where the provider did not say, or where no price is known."""
    model: str
    """As the provider names it."""
    finish_reason: str | None = None
    """`stop`, `length`, `content_filter`, ... as the provider says."""
    attempts: int = 1
    latency_s: float = 0.0
    """Of the whole call, with waiting and retries."""


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens."""

    input_usd_per_mtok: float
    output_usd_per_mtok: float
    source: str
    """Where it is from: `catalog`, `genai-prices`, `provider file`."""

    def cost_usd(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Of one call."""
        dear = self.output_usd_per_mtok * completion_tokens
        return (self.input_usd_per_mtok * prompt_tokens + dear) / 1e6


class Meter(Protocol):
    """Counts attempts as they are sent, so that no retry spends money that is not there.

    A client calls `reserve` before every attempt and exactly one of the others after it.
    """

    def reserve(self) -> None:
        """An attempt is about to be sent. Raises BudgetError where its worst cost does not fit."""

    def settle(self, usage: Usage | None) -> None:
        """It may have been billed: its usage, None where that is unknown (a broken answer)."""

    def release(self) -> None:
        """It was certainly not billed: never sent, or refused (401, 429, 500 ...)."""


class ChatModel(Protocol):
    """Anything that answers messages. Safe to call from many tasks of one event loop at once."""

    async def complete(
        self,
        request: ChatRequest,
        *,
        timeout_s: float | None = None,
        meter: Meter | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Completion:
        """Answer the request.

        timeout_s: end to end, with all retries and waiting. on_text: called with each piece of
        text as it arrives, which makes the call a streamed one; once text has been passed on, the
        call is not tried again.

        Raises CallError for whatever the provider did, BudgetError from the meter.
        """

    def price(self, model: str) -> Price | None:
        """What the model costs, None where nobody knows."""


def messages(system: str | None, *turns: str) -> tuple[Message, ...]:
    """A system message, where there is one, then turns: user, assistant, user, ..."""
    speakers: Sequence[Speaker] = ("user", "assistant")
    said = [Message(speakers[i % 2], text) for i, text in enumerate(turns)]
    return (*([Message("system", system)] if system else []), *said)
