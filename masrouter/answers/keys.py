"""When two answers are the same answer: a key for votes."""

from __future__ import annotations

import ast
import hashlib
import re
import unicodedata

from masrouter.answers.blocks import FENCED
from masrouter.answers.code import extract_code, without_reasoning
from masrouter.answers.syntax import MAX_CHARS, parse, without_docstrings
from masrouter.answers.values import (
    extract_choice,
    extract_number,
    final_answer,
    number_in,
    numbers_in,
)


def answer_key(text: str) -> str:
    """A short text that is equal for answers that say the same.

    Programs by their syntax tree (comments, layout and docstrings do not matter, names do), numbers
    by value, options by letter, all else by its words: case, spacing and marks do not matter.
    """
    text = without_reasoning(text)
    said = final_answer(text)
    program = extract_code(text)
    if program is not None and not _is_after_code(text, said):
        return f"code {_digest(_shape(program))}"
    if said is None:
        return _free_key(text)
    letter = extract_choice(text, "ABCDEFGHIJ")
    if letter is not None:
        return f"option {letter}"
    value = number_in(said)
    if value is not None and len(said) <= 80:
        return f"number {value}"
    return f"text {_digest(_words(said))}"


def _free_key(text: str) -> str:
    """Of an answer that marks nothing as its answer."""
    letter = extract_choice(text, "ABCDEFGHIJ")
    if letter is not None:
        return f"option {letter}"
    last = text.strip().split("\n")[-1][-1000:]
    value = extract_number(last) if "=" in last or len(numbers_in(last)) == 1 else None
    return f"number {value}" if value is not None else f"text {_digest(_words(text))}"


def _is_after_code(text: str, said: str | None) -> bool:
    """True where the answer is marked outside of any block and behind the last."""
    if said is None:
        return False
    behind = FENCED.split(text)[-1]
    return final_answer(behind) == said


def _shape(program: str) -> str:
    tree = parse(program)
    if tree is None:
        return program
    try:
        return ast.dump(without_docstrings(tree))
    except (RecursionError, ValueError):  # too deep, or an integer of too many digits
        return program


def _words(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text[:MAX_CHARS]).casefold()
    return " ".join(re.findall(r"\w+|[^\w\s*_`#.,;:!\"']", folded))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
