"""A tool, a request that offers it, and any JSON."""

from __future__ import annotations

from hypothesis import strategies as st

from masrouter.llms import ChatRequest, Tool
from masrouter.llms.chat import messages

LOOK_UP = Tool(
    "look_up", "Looks a word up.", {"type": "object", "properties": {"word": {"type": "string"}}}
)
ASK = ChatRequest("m", messages("Be brief.", "What is a quine?"), 100, tools=(LOOK_UP,))

# Halves of a surrogate pair, too, and what is escaped somewhere.
ANY_TEXT = st.text(st.characters(codec=None), max_size=40) | st.text("<>&'\"\\\n", max_size=40)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=20,
)
