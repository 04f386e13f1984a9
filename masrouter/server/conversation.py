"""What a chat request says: a query for the team, and what was said before it.

The query is the last user message, and the team's question; a topology puts it into its prompts as
it always does, so that what is served stays comparable with what was logged. Everything before it
goes to every call of the team as it is: the texts of `system` and `developer` messages behind the
seat's own system prompt, and the earlier turns as messages of their own in front of the topology's.
No turn is cut or condensed; the budget's worst cost counts all of it.

The router reads the query, and behind it the earlier user messages, the latest first, up to 2,000
characters in all: encoders read the beginning of a text, and a short follow-up says little alone.
System texts, which are the same for all requests of an app, and replies are not read by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

from masrouter.llms.chat import ChatRequest, Completion, Message
from masrouter.topologies import Sender, Team, Topology
from masrouter.types import Plan

EARLIER_CHARACTERS = 2_000
"""Of earlier user messages that the router reads behind the query."""

_BETWEEN = "\n\n"


@dataclass(frozen=True, slots=True)
class Conversation:
    """A chat request's messages, sorted by what they are for."""

    query: str
    """The last user message."""
    system: str = ""
    """The system and developer messages, with an empty line between them."""
    earlier: tuple[Message, ...] = ()
    """Turns of user and assistant before the query, in order."""

    def routed_text(self, most: int) -> str:
        """What the router reads: the query, and what fits behind it into so many characters.

        Of a first message it is exactly that message.
        """
        parts, room = [self.query], min(EARLIER_CHARACTERS, most - len(self.query))
        for turn in reversed(self.earlier):
            if turn.speaker != "user" or not turn.content.strip():
                continue
            room -= len(_BETWEEN)
            if room <= 0:
                break
            parts.append(turn.content[:room])
            room -= len(turn.content)
        return _BETWEEN.join(parts)

    def told_to(self, shape: Topology, *, temperature: float | None = None) -> Topology:
        """The topology, for agents that know what was said before.

        temperature: of calls whose temperature the topology leaves open; those that sample on
        purpose (self_consistency, escalate) keep their own.
        """
        if not self.system and not self.earlier and temperature is None:
            return shape
        # Its name and version are another topology's, not those of a class.
        return cast(Topology, _InConversation(shape, self, temperature))


class _InConversation:
    """A topology as it is, whose calls are sent with the conversation in front."""

    def __init__(
        self, shape: Topology, conversation: Conversation, temperature: float | None
    ) -> None:
        self.name = shape.name
        self.version = shape.version
        self._shape = shape
        self._conversation = conversation
        self._temperature = temperature

    def check(self, plan: Plan) -> None:
        """As the topology does."""
        self._shape.check(plan)

    async def answer(self, team: Team) -> str:
        """As the topology does."""
        # In front of the sender, not of the model: the run's ledger and its trace see what is sent.
        team._send = _Telling(team._send, self._conversation, self._temperature)
        return await self._shape.answer(team)


@dataclass(frozen=True, slots=True)
class _Telling:
    """A sender that puts the conversation into each request."""

    send: Sender
    conversation: Conversation
    temperature: float | None

    async def __call__(self, agent: int, step: str, request: ChatRequest) -> Completion:
        messages = with_conversation(request.messages, self.conversation)
        temperature = request.temperature
        return await self.send(
            agent,
            step,
            replace(
                request,
                messages=messages,
                temperature=self.temperature if temperature is None else temperature,
            ),
        )


def with_conversation(asked: Sequence[Message], conversation: Conversation) -> tuple[Message, ...]:
    """A call's messages: seat's system prompt and the app's, earlier turns, the topology's."""
    systems = [message.content for message in asked if message.speaker == "system"]
    systems += [conversation.system] if conversation.system else []
    rest = tuple(message for message in asked if message.speaker != "system")
    head = (Message("system", "\n\n".join(systems)),) if systems else ()
    return (*head, *conversation.earlier, *rest)
