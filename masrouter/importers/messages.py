"""What was asked: the text of a prompt or of chat messages, in the shapes that tools log.

    "text"                                                     a prompt
    [{"role": "user", "content": "text"}]                      chat completions, Langfuse
    [{"role": "user", "content": [{"type": "text", "text": "..."}]}]      content parts
    [{"role": "user", "parts": [{"type": "text", "content": "..."}]}]     OpenTelemetry
    {"messages": [...]} or one message alone

The query is the last message of the user: its text parts, joined by line feeds. Parts that are no
text (images, files) are named, not described; any other shape has no text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from masrouter.importers.values import decoded

_TEXT_PARTS = ("text", "input_text")
_USER = ("user", "human")
REDACTED = "redacted-by-litellm"
"""What LiteLLM writes in place of texts where message logging is turned off."""
CUT_OFF = "truncated by litellm, this logger does not support large content"
"""How texts end that LiteLLM cut; messages are a printed list then, no JSON."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The user's last message."""

    text: str | None = None
    """None where there is none, or none that is text."""
    left_out: tuple[str, ...] = ()
    """Types of its parts that are no text."""
    earlier_turns: int = 0
    """Messages of the user before it."""


def asked(value: object, *, encoded: bool = False) -> Asked:
    """The user's last message in a prompt or in messages.

    encoded: whether text that is JSON of any other shape says something else than a prompt.
    """
    inner = decoded(value)
    if isinstance(value, str) and (isinstance(inner, str) or not (encoded or _is_chat(inner))):
        return Asked(_clean(value))
    if isinstance(inner, Mapping):
        if isinstance(inner.get("messages"), list):
            return asked(inner["messages"])
        inner = [inner] if "role" in inner else []
    if not isinstance(inner, list):
        return Asked()
    turns = [m for m in inner if isinstance(m, Mapping) and m.get("role") in _USER]
    if not turns:
        return Asked()
    texts, left_out = _parts(turns[-1])
    return Asked(_clean("\n".join(texts)), tuple(left_out), len(turns) - 1)


def _is_chat(value: object) -> bool:
    """Whether parsed JSON is messages."""
    if isinstance(value, Mapping):
        return "role" in value or isinstance(value.get("messages"), list)
    if not isinstance(value, list):
        return False
    return bool(value) and all(isinstance(m, Mapping) and "role" in m for m in value)


def _parts(message: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Texts of a message, and the types of its other parts."""
    content = message.get("content")
    content = message.get("parts") if content is None else content
    if isinstance(content, str):
        return [content], []
    texts: list[str] = []
    left_out: list[str] = []
    for part in content if isinstance(content, list) else ():
        if isinstance(part, str):
            texts.append(part)
            continue
        kind = part.get("type") if isinstance(part, Mapping) else None
        if isinstance(part, Mapping) and kind in _TEXT_PARTS:
            found = part.get("text", part.get("content"))
            if isinstance(found, str):
                texts.append(found)
                continue
        left_out.append(kind if isinstance(kind, str) else "unknown")
    return texts, left_out


def _clean(text: str) -> str | None:
    """The text without blank ends and with one kind of line end, so that one text has one id."""
    return text.replace("\r\n", "\n").strip() or None
