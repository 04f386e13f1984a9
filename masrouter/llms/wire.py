"""The chat completions format: what is sent, and what an answer says. Pure, nothing is called.

Answers come from strangers: any part may be missing, of another type, or absurd. What is no usable
text becomes a Failure; a count or cost that is missing or absurd is unknown, never 0. `tool_calls`
reads the calls of tools.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field, replace
from typing import Any, Literal

from masrouter.errors import ConfigError
from masrouter.llms.chat import ChatRequest, Message, Price, ToolCall
from masrouter.llms.failures import Failure, error_in_answer, quoted
from masrouter.llms.tool_calls import CallsRead, sent_calls, well_formed
from masrouter.types import Usage

_MOST_NAME = 200
"""Characters of what a model is called by its provider."""
OMITTABLE = ("temperature", "seed")
OWN_FIELDS = frozenset(
    {"model", "messages", "max_tokens", "max_completion_tokens", "n", "best_of", "stream",
     "stream_options"}
)  # fmt: skip
"""Fields that no `extra_body` may set: they decide what a call is and what it may cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """How a provider wants one model to be called."""

    name: str | None = None
    """The provider's own name for it, where that is another."""
    price: Price | None = None
    """None leaves it to the catalog."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    omit: tuple[str, ...] = ()
    """Of `temperature` and `seed`, what the model does not take: it is never sent."""
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of every request, such as `reasoning_effort`."""
    stream_usage: bool = True
    """False for a provider that knows no `stream_options`: streamed calls then tell no usage."""

    def __post_init__(self) -> None:
        if taken := OWN_FIELDS & set(self.extra_body):
            raise ConfigError(f"extra_body: {min(taken)!r} is set by each request; leave it out")
        try:
            json.dumps(dict(self.extra_body), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigError(f"extra_body: it cannot be sent as JSON: {error}") from None
        if unknown := set(self.omit) - set(OMITTABLE):
            raise ConfigError(f"omit: {min(unknown)!r}: only {', '.join(OMITTABLE)} may be omitted")


@dataclass(frozen=True, slots=True)
class Reply:
    """One usable answer."""

    text: str
    usage: Usage
    """`cost_usd` only where the response itself says it."""
    model: str | None
    finish_reason: str | None
    tool_calls: tuple[ToolCall, ...] = ()


def request_body(
    request: ChatRequest, own_name: str, options: ModelOptions, *, stream: bool, stream_usage: bool
) -> dict[str, Any]:
    """The JSON of a request. Raises Failure where the options would replace its tools."""
    body: dict[str, Any] = {
        "model": own_name,
        "messages": [_sent(message) for message in request.messages],
        options.max_tokens_field: request.max_tokens,
    }
    if request.tools:
        if "tools" in options.extra_body:
            why = "extra_body sets `tools`, and so does this request; leave it out of extra_body"
            raise Failure("rejected", f"{why}; nothing was sent")
        body["tools"] = [tool.to_json() for tool in request.tools]
    for name in OMITTABLE:
        value = getattr(request, name)
        if value is not None and name not in options.omit:
            body[name] = value
    if stream:
        body["stream"] = True
        if stream_usage:
            body["stream_options"] = {"include_usage": True}
    return body


def _sent(message: Message) -> dict[str, Any]:
    body: dict[str, Any] = {"role": message.speaker, "content": well_formed(message.content)}
    if message.tool_calls:
        body["content"] = body["content"] or None
        body["tool_calls"] = sent_calls(message.tool_calls)
    if message.tool_call_id is not None:
        body["tool_call_id"] = well_formed(message.tool_call_id)
    return body


def read_answer(raw: bytes, content_type: str, *, tools: bool = False) -> Reply:
    """The answer of a call that was not streamed; raises Failure where it is none.

    tools: some were offered, so that calls of them are an answer, too.
    """
    if not raw.strip():
        raise _unusable("empty", "an empty answer")
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError):
        kind = quoted(content_type) or "no content type"
        start = quoted(raw[:200].decode("utf-8", "replace"))
        raise _unusable("bad_response", f"no JSON but {kind}: {start}") from None
    if not isinstance(data, Mapping):
        raise _unusable("bad_response", f"no JSON object: {quoted(json.dumps(data))}")
    usage = read_usage(data.get("usage"))
    if data.get("error"):
        raise error_in_answer(data["error"], usage)
    choice = _first(data.get("choices"))
    message = choice.get("message") if choice else None
    if choice is None or not isinstance(message, Mapping):
        raise _unusable("bad_response", "no choices[0].message", usage)
    if choice.get("error"):
        raise error_in_answer(choice["error"], usage)
    answer = _Answer(tools, usage=usage, model=_name(data.get("model")))
    answer.take(choice, message)
    return answer.reply()


def read_usage(data: Any) -> Usage | None:
    """What a `usage` object says; None where it says nothing.

    A total above the sum of its parts is billed as completion: some providers count their
    model's reasoning in the total alone.
    """
    if not isinstance(data, Mapping):
        return None
    # A prompt is never 0 tokens: a server that says so does not count.
    prompt = _count(data.get("prompt_tokens")) or None
    completion = _count(data.get("completion_tokens"))
    total = _count(data.get("total_tokens"))
    if prompt is not None and completion is not None and total is not None:
        completion = max(completion, total - prompt)
    cost = _cost(data.get("cost"))
    if cost is not None and data.get("is_byok") is True:
        # `cost` is the gateway's fee then; the provider behind it bills its own account.
        details = data.get("cost_details")
        upstream = details.get("upstream_inference_cost") if isinstance(details, Mapping) else None
        there = _cost(upstream)
        cost = None if there is None else cost + there
    usage = Usage(prompt, completion, cost)
    return None if usage == Usage() else usage


@dataclass(slots=True)
class _Answer:
    """Collects an answer from one message, or from the deltas of a stream."""

    tools_offered: bool = False
    usage: Usage | None = None
    model: str | None = None
    finish_reason: str | None = None
    pieces: list[str] = field(default_factory=list)
    refusal: str = ""
    tools: bool = False
    calls: CallsRead = field(default_factory=CallsRead)

    def take(self, choice: Mapping[str, Any], message: Mapping[str, Any]) -> str:
        """Add what a message or delta holds; its piece of the text."""
        piece = _content(message.get("content"))
        if piece:
            self.pieces.append(piece)
        self.refusal += _text(message.get("refusal")) or ""
        if called := message.get("tool_calls"):
            self.tools = True
            if self.tools_offered:
                self.calls.take(called)
        self.finish_reason = _text(choice.get("finish_reason")) or self.finish_reason
        return piece

    def reply(self) -> Reply:
        """The answer, now that it is complete; raises Failure where it holds no text or call."""
        text = "".join(self.pieces)
        whole = self.finish_reason != "length"
        why = self.calls.problem
        calls = () if why else self.calls.calls(whole=whole)
        if self.tools_offered and self.finish_reason == "tool_calls" and not self.tools:
            why = "it says that tools were called, and holds no call"
        if why:
            raise _unusable("bad_response", f"tool_calls: {why}", self.usage)
        if text.strip() or calls:
            usage = self.usage or Usage()
            # What was said is never 0 tokens: a server that says so does not count.
            usage = replace(usage, completion_tokens=usage.completion_tokens or None)
            return Reply(text, usage, self.model, self.finish_reason, calls)
        if self.refusal:
            why = f"the model refused: {quoted(self.refusal)}"
            raise _unusable("empty", why, self.usage, again=False)
        if self.tools and not self.tools_offered:
            why = "the model called tools, and none were offered"
            raise _unusable("empty", why, self.usage, again=False)
        if self.finish_reason == "content_filter":
            why = "the provider's content filter withheld the answer"
            raise _unusable("rejected", why, self.usage, again=False)
        if self.finish_reason == "length":
            why = "max_tokens was used up before any text came (reasoning?); allow more"
            raise _unusable("empty", why, self.usage, again=False)
        raise _unusable("empty", "a completion without text", self.usage)


@dataclass(slots=True)
class StreamedAnswer:
    """Puts a streamed answer together from its chunks.

    tools: some were offered, so that calls of them are an answer, too.
    """

    tools: InitVar[bool] = False
    begun: bool = False
    """A chunk has arrived."""
    size: int = 0
    """Characters that have arrived."""
    _answer: _Answer = field(init=False)

    def __post_init__(self, tools: bool) -> None:
        self._answer = _Answer(tools, calls=CallsRead(streamed=True))

    def take(self, chunk: Any) -> str:
        """Add a chunk; its piece of text, often empty. Raises Failure where it is none."""
        if not isinstance(chunk, Mapping):
            raise _unusable("bad_response", f"a chunk that is no JSON object: {quoted(chunk)}")
        self.begun = True
        told = read_usage(chunk.get("usage"))
        self._answer.usage = told or self._answer.usage
        self._answer.model = _name(chunk.get("model")) or self._answer.model
        choice = _first(chunk.get("choices"))
        error = chunk.get("error") or (choice or {}).get("error")
        if error:
            raise error_in_answer(error, self.usage)
        delta = choice.get("delta") if choice else None
        if choice is None or not isinstance(delta, Mapping):
            return ""
        before = self._answer.calls.size
        piece = self._answer.take(choice, delta)
        grown = len(piece) + self._answer.calls.size - before
        if grown and told is None:
            self._answer.usage = None  # what was told before does not count this piece
        self.size += grown
        return piece

    def reply(self) -> Reply:
        """The whole, now that the stream ended; raises Failure where it broke off."""
        if not self.begun:
            raise _unusable("empty", "a stream without a chunk")
        if self._answer.finish_reason is None:
            raise _unusable("bad_response", "the stream broke off", self.usage)
        return self._answer.reply()

    @property
    def usage(self) -> Usage | None:
        """What the whole used; None before its end, as counts on the way are not what is billed."""
        return None if self._answer.finish_reason is None else self._answer.usage


def _unusable(
    kind: Literal["bad_response", "empty", "rejected"],
    why: str,
    usage: Usage | None = None,
    *,
    again: bool = True,
) -> Failure:
    return Failure(
        kind, why, status=200, retry="broken" if again else "no", billed=True, usage=usage
    )


def _first(choices: Any) -> Mapping[str, Any] | None:
    if isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
        return choices[0]
    return None


def _content(content: Any) -> str:
    """The text of a message: a string, or a list of parts of which some are text."""
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, Mapping)]
        return "".join(
            _text(part.get("text")) or "" for part in parts if part.get("type") == "text"
        )
    return _text(content) or ""


def _text(value: Any) -> str | None:
    return well_formed(value) if isinstance(value, str) else None


def _name(value: Any) -> str | None:
    """One short line: it is shown wherever an answer is, and who wrote it is a stranger."""
    return quoted(value)[:_MOST_NAME] if isinstance(value, str) else None


def _count(value: Any) -> int | None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and 0 <= value < 2**53 else None


def _cost(value: Any) -> float | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    # The bounds leave out NaN, infinity and whole numbers that no float can hold.
    return float(value) if number and 0 <= value < 1e9 else None
