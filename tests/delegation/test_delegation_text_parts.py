"""Long texts in parts that fit, without losing a character."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masrouter.delegation.workers.text_parts import part_text
from masrouter.errors import ConfigError

TEXTS = st.text(alphabet="ab x1.!?。\n\t\u2028\x85", max_size=120)


def cores(text: str, most: int, *, keep_lines: bool = False) -> list[str]:
    parts = part_text(text, lambda part: len(part) <= most, keep_lines=keep_lines)
    return [part.core for part in parts]


@given(TEXTS, st.integers(1, 20), st.booleans())
def test_nothing_is_lost_and_every_part_fits(text: str, most: int, keep_lines: bool) -> None:
    parts = part_text(text, lambda part: len(part) <= most, keep_lines=keep_lines)
    assert "".join(part.before + part.core + part.after for part in parts) == text
    for part in parts:
        assert len(part.core) <= most
        assert part.core == part.core.strip()
        assert not (part.before + part.after).strip()
        assert not (keep_lines and "\n" in part.core)


def test_a_part_ends_at_the_best_place_there_is() -> None:
    text = "One two. Three four.\nFive six seven eight nine. Ten."
    assert cores(text, 100) == [text]
    assert cores(text, 100, keep_lines=True) == text.split("\n")
    assert cores(text, 32) == ["One two. Three four.", "Five six seven eight nine. Ten."]
    assert cores(text, 22, keep_lines=True) == [
        "One two. Three four.", "Five six seven eight", "nine. Ten.",
    ]  # fmt: skip
    assert cores("abcdefgh", 3) == ["ab", "cd", "ef", "gh"]


def test_a_text_without_any_border_takes_no_time_to_speak_of() -> None:
    """A quarter of a million characters; a quadratic way would take minutes."""
    for text in ("a" * 250_000, "." * 250_000, ". " * 125_000, "a. " * 83_000):
        assert sum(map(len, cores(text, 500))) >= 83_000
    assert cores("a" + "\n " * 250_000 + "b", 500) == ["a", "b"]


def test_a_model_that_takes_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot take even 'a' at once"):
        cores("abc", 0)
