"""What `POST /v1/chat/completions` takes: OpenAI's fields, each honoured, harmless or refused.

Honoured: model, messages (texts of system, developer, user and assistant), stream, stream_options
(include_usage), max_tokens and max_completion_tokens (of every call of the team), temperature (of
the calls whose temperature the topology leaves open), seed (each call gets one derived from it) and
`masrouter`, this server's own options.

Taken and not used: user, safety_identifier, metadata, prompt_cache_key, prompt_cache_retention,
store=false, service_tier auto or default, parallel_tool_calls, include_obfuscation.

Everything else is refused by name (`unsupported_parameter`), except at the value that changes
nothing, such as n=1: a parameter that is silently ignored would give another answer than was asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from masrouter.llms.chat import Message
from masrouter.server.api_errors import ApiError
from masrouter.server.conversation import Conversation
from masrouter.server.schemas import Label, Name, RoutingOptions, Strict
from masrouter.server.settings import Limits
from masrouter.topologies import MaxTokens

_MOST_PARTS = 256
_MOST_SEED = 2**63 - 1


class _Only:
    """Marks a field that may say nothing but one of these values, or null."""

    def __init__(self, *values: Any) -> None:
        self.values = (None, *values)

    def allows(self, value: Any) -> bool:
        """Whether it says nothing; 1 and 1.0 are the same, 1 and true are not."""
        truth = isinstance(value, bool)
        return any(value == one and truth == isinstance(one, bool) for one in self.values)

    def __get_pydantic_json_schema__(self, *_: Any) -> dict[str, Any]:
        return {"enum": list(self.values)}


class TextPart(Strict):
    """A part of a message; texts alone are taken."""

    type: Literal["text"]
    text: str


class MessageBody(Strict):
    """One message. What an assistant's message brings along is taken where it is empty."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1, max_length=_MOST_PARTS)]
    name: Annotated[Any, _Only()] = None
    refusal: Annotated[Any, _Only()] = None
    annotations: Annotated[Any, _Only([])] = None
    audio: Annotated[Any, _Only()] = None
    function_call: Annotated[Any, _Only()] = None
    tool_calls: Annotated[Any, _Only([])] = None

    @property
    def text(self) -> str:
        """The content as one text."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content)


class StreamOptions(Strict):
    """How to stream."""

    include_usage: bool | None = None
    """A last chunk with the usage of the whole team."""
    include_obfuscation: bool | None = None


class MasRouterOptions(RoutingOptions):
    """This server's own options: what the router may do, and what to tell of it."""

    dry_run: bool = False
    """Route and run nothing: the answer is empty, costs nothing, and tells the decision."""
    include: bool = False
    """Tell decision, real cost and usage of each agent as `masrouter` in the answer."""
    events: bool = False
    """In a stream: tell what the team does, as chunks without choices."""
    dataset: Label | None = None
    """Where the query comes from, for the served log."""
    task: Label | None = None
    """Its domain, where the caller knows it, for the served log."""


Tokens = Annotated[int, Field(ge=1, le=2**31)]
ShortText = Annotated[str, Field(max_length=512)]


class ChatBody(Strict):
    """A chat completion request; see the module for what is honoured."""

    model: Name
    messages: Annotated[list[MessageBody], Field(min_length=1, fail_fast=True)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    seed: Annotated[int, Field(ge=-_MOST_SEED - 1, le=_MOST_SEED)] | None = None
    masrouter: MasRouterOptions = MasRouterOptions()

    user: ShortText | None = None
    safety_identifier: ShortText | None = None
    prompt_cache_key: ShortText | None = None
    prompt_cache_retention: ShortText | None = None
    metadata: (
        Annotated[
            dict[Annotated[str, Field(max_length=64)], ShortText],
            Field(max_length=16),
        ]
        | None
    ) = None
    parallel_tool_calls: bool | None = None
    store: Annotated[Any, _Only(False)] = None
    service_tier: Annotated[Any, _Only("auto", "default")] = None

    n: Annotated[Any, _Only(1)] = None
    top_p: Annotated[Any, _Only(1)] = None
    presence_penalty: Annotated[Any, _Only(0)] = None
    frequency_penalty: Annotated[Any, _Only(0)] = None
    logit_bias: Annotated[Any, _Only({})] = None
    logprobs: Annotated[Any, _Only(False)] = None
    top_logprobs: Annotated[Any, _Only(0)] = None
    stop: Annotated[Any, _Only([])] = None
    response_format: Annotated[Any, _Only({"type": "text"})] = None
    tools: Annotated[Any, _Only([])] = None
    tool_choice: Annotated[Any, _Only("none", "auto")] = None
    functions: Annotated[Any, _Only([])] = None
    function_call: Annotated[Any, _Only("none", "auto")] = None
    modalities: Annotated[Any, _Only(["text"])] = None
    audio: Annotated[Any, _Only()] = None
    prediction: Annotated[Any, _Only()] = None
    reasoning_effort: Annotated[Any, _Only()] = None
    verbosity: Annotated[Any, _Only()] = None
    web_search_options: Annotated[Any, _Only()] = None
    moderation: Annotated[Any, _Only()] = None
    prompt_cache_options: Annotated[Any, _Only()] = None


@dataclass(frozen=True, slots=True)
class ChatAsked:
    """A request that was checked."""

    model: str
    conversation: Conversation
    options: MasRouterOptions
    stream: bool
    stream_usage: bool
    max_tokens: MaxTokens
    temperature: float | None
    seed: int | None


def checked(body: ChatBody, limits: Limits) -> ChatAsked:
    """Raises ApiError 400 for a parameter that cannot be honoured, or is above a limit."""
    _check_neutral(body)
    for index, message in enumerate(body.messages):
        _check_neutral(message, f"messages[{index}].")
    if body.stream_options is not None and not body.stream:
        raise _invalid("stream_options", "only streams have options: set stream to true")
    return ChatAsked(
        model=body.model,
        conversation=_conversation(body.messages, limits),
        options=body.masrouter,
        stream=bool(body.stream),
        stream_usage=bool(body.stream_options and body.stream_options.include_usage),
        max_tokens=_max_tokens(body, limits),
        temperature=body.temperature,
        seed=body.seed,
    )


_INSTEAD: Mapping[str, str] = {
    "n": "send one request for each answer",
    "top_p": "use temperature",
    "tools": "teams of this server call no tools",
    "functions": "teams of this server call no tools",
    "response_format": "ask for the format in a message",
    "stop": "cut the answer yourself",
    "store": "this server stores no conversations",
    "reasoning_effort": "it is set for each model in the server's provider file",
    "verbosity": "ask for it in a message",
}


def _check_neutral(part: Strict, where: str = "") -> None:
    """Raises ApiError where a field that can only be neutral says something."""
    for name in sorted(part.model_fields_set):
        metadata = type(part).model_fields[name].metadata
        only = next((mark for mark in metadata if isinstance(mark, _Only)), None)
        if only is None or only.allows(getattr(part, name)):
            continue
        instead = _INSTEAD.get(name)
        raise ApiError(
            400,
            f"{where}{name} is not supported" + (f": {instead}" if instead else "; leave it out"),
            code="unsupported_parameter",
            param=f"{where}{name}",
        )


def _conversation(bodies: Sequence[MessageBody], limits: Limits) -> Conversation:
    if len(bodies) > limits.max_messages:
        raise _invalid("messages", f"at most {limits.max_messages} messages are taken")
    last = bodies[-1]
    if last.role != "user":
        raise _invalid("messages", "the last message must be the user's")
    query = last.text
    if not query.strip():
        raise _invalid(f"messages[{len(bodies) - 1}].content", "the last message has no text")
    if len(query) > limits.max_query_characters:
        raise ApiError(
            400,
            f"messages: the last one may have {limits.max_query_characters} characters",
            code="context_length_exceeded",
            param="messages",
        )
    systems = [body.text for body in bodies if body.role in ("system", "developer")]
    earlier = tuple(
        Message(body.role, body.text)
        for body in bodies[:-1]
        if body.role == "user" or body.role == "assistant"
    )
    return Conversation(query, "\n\n".join(text for text in systems if text.strip()), earlier)


def _max_tokens(body: ChatBody, limits: Limits) -> MaxTokens:
    most = limits.max_completion_tokens
    asked = body.max_completion_tokens
    name = "max_completion_tokens"
    if asked is None:
        asked, name = body.max_tokens, "max_tokens"
    elif body.max_tokens not in (None, asked):
        raise _invalid("max_tokens", "max_completion_tokens says something else: give one")
    if asked is None:
        return MaxTokens.at_most(min(MaxTokens().answer, most))
    if asked > most:
        raise _invalid(name, f"at most {most} tokens can be asked for")
    return MaxTokens.at_most(asked)


def _invalid(param: str, why: str) -> ApiError:
    return ApiError(400, f"{param}: {why}", code="invalid_request", param=param)
