"""Texts of others on a terminal."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from masrouter.printable import on_one_line, printable


@given(st.text())
def test_nothing_but_characters_stays_and_none_is_lost(text: str) -> None:
    shown = printable(text)
    assert len(shown) == len(text)
    assert all(c.isprintable() or c in "\n\t\u200d" or not c.isascii() for c in shown)
    shown.encode("utf-8")


def test_what_drives_a_terminal_is_replaced_and_the_rest_is_kept() -> None:
    assert printable("a\x1b[2Jb\u202ec\r\ud800\u2028") == "a\ufffd[2Jb\ufffdc\ufffd\ufffd\ufffd"
    assert printable("Zürich,\t東京\n👩\u200d🚀") == "Zürich,\t東京\n👩\u200d🚀"


def test_a_line_is_as_long_as_it_may_be() -> None:
    assert on_one_line("a\n  b\tc", 10) == "a b c"
    assert on_one_line("abcdefghij" * 2, 10) == "abcdefg..."
