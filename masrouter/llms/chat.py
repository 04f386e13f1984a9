"""What every chat model of this package looks like: a request, a completion, a price, a meter.

Nothing here talks to a network; `openai_compatible` and `simulated` implement the protocol. A
request may offer tools; a model that knows none answers in text, or refuses the request.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from masrouter.errors import ConfigError
from masrouter.types import Usage

Speaker = Literal["system", "user", "assistant", "tool"]
TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""What every provider takes as the name of a tool."""


@dataclass(frozen=True, slots=True)
class Tool:
    """What a model may call instead of answering."""

    name: str
    description: str
    parameters: Mapping[str, Any] = field(hash=False)
    """JSON Schema of its arguments: an object's."""

    def __post_init__(self) -> None:
        if not TOOL_NAME.fullmatch(self.name):
            raise ConfigError(
                f"tool {self.name!r}: a name is 1 to 64 letters, digits, underscores and dashes"
            )
        try:
            json.dumps(dict(self.parameters), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigError(
                f"tool {self.name!r}: parameters: they cannot be sent as JSON: {error}"
            ) from None

    def to_json(self) -> dict[str, Any]:
        """In OpenAI's function form."""
        function = {
            "name": self.name,
            "description": self.description,
            "parameters": dict(self.parameters),
        }
        return {"type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model wants a tool to be called. All of it is the model's word: nothing was checked."""

    id: str
    """What the tool's answer refers to; unlike any other's of the conversation."""
    name: str
    """Of any tool, offered or not."""
    arguments: str
    """Text as the model wrote it, which should be a JSON object; `{}` where it wrote none."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    speaker: Speaker
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    """Of an assistant; each needs a `tool` message that answers it, right behind."""
    tool_call_id: str | None = None
    """Of a `tool` message: the call that it answers."""

    def __post_init__(self) -> None:
        if self.tool_calls and self.speaker != "assistant":
            raise ConfigError(f"message: only an assistant calls tools, not a {self.speaker!r}")
        if (self.tool_call_id is not None) != (self.speaker == "tool"):
            raise ConfigError(
                "message: a `tool` message, and no other, names the call that it answers "
                f"(tool_call_id); this is a {self.speaker!r} message of {self.tool_call_id!r}"
            )


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One call. `max_tokens` is not optional: without it nobody could say what a call may cost."""

    model: str
    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float | None = None
    """None leaves it to the provider."""
    seed: int | None = None
    tools: tuple[Tool, ...] = ()
    """What the model may call; empty leaves it to answer in text."""

    def digest(self) -> str:
        """A name for exactly this request: 64 hex digits, the same in every process."""
        parts: list[Any] = [
            self.model,
            [_parts(message) for message in self.messages],
            self.max_tokens,
            self.temperature,
            self.seed,
        ]
        if self.tools:
            parts.append([tool.to_json() for tool in self.tools])
        text = json.dumps(parts, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def most_prompt_tokens(self) -> int:
        """An upper bound on the prompt's tokens: a token stands for at least one byte.

        Chat templates add a few tokens around every message; 16 is above those in use. Tools are
        spelt out in the prompt, below instructions for their use that take up to about 800 tokens.
        """
        text = sum(_most_bytes(message) for message in self.messages)
        calls = sum(len(message.tool_calls) for message in self.messages)
        tools = sum(_spelt_out(tool.to_json(), indent=4) + 16 for tool in self.tools)
        using = 1024 if self.tools else 0
        return text + 16 * (len(self.messages) + 1) + 32 * calls + tools + using


@dataclass(frozen=True, slots=True)
class Completion:
    """What came back."""

    text: str
    """May be empty where there are tool calls, and only there."""
    usage: Usage
    """As billed; None where the provider did not say, or where no price is known."""
    model: str
    """As the provider names it."""
    finish_reason: str | None = None
    """`stop`, `length`, `content_filter`, ... as the provider says."""
    attempts: int = 1
    latency_s: float = 0.0
    """Of the whole call, with waiting and retries."""
    tool_calls: tuple[ToolCall, ...] = ()
    """In the order in which the model made them; only where tools were offered."""


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


def _parts(message: Message) -> list[Any]:
    """Of a message, for its request's digest."""
    parts: list[Any] = [message.speaker, message.content]
    if message.tool_calls or message.tool_call_id is not None:
        calls = [[call.id, call.name, call.arguments] for call in message.tool_calls]
        parts += [calls, message.tool_call_id]
    return parts


def _most_bytes(message: Message) -> int:
    """The most bytes of a prompt that a message takes, without what stands around it."""
    if message.speaker == "tool":
        return _spelt_out(message.content)  # templates quote a tool's answer as JSON
    text = len(message.content.encode("utf-8", "surrogatepass"))
    # Arguments are quoted once or twice, or read and written anew with spaces between them.
    calls = sum(2 * _spelt_out([call.id, call.name, call.arguments]) for call in message.tool_calls)
    return text + calls


def _spelt_out(value: object, indent: int | None = None) -> int:
    """Bytes of a value as JSON, escaped in the longest way that templates use."""
    text = json.dumps(value, indent=indent)
    return len(text) + 5 * sum(map(text.count, "<>&'"))
