"""The program in an answer.

Chat answers hold prose, several blocks, unclosed or nested fences, usage examples, stubs and older
versions. What is taken is the last complete definition of what was asked for, with the helpers that
other blocks of the same answer give it. Nothing is repaired and nothing is run.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

from masrouter.answers.blocks import Fenced, Piece, body_of, fenced_blocks, pieces_of, runs
from masrouter.answers.syntax import (
    MAX_CHARS,
    definitions,
    is_stub,
    parse,
    returns_at_top,
)

_MAX_BLOCKS = 100

_REASONING = re.compile(
    r"^[ \t]*<(think|thinking|reasoning)>.*?(?:</\1>|\Z)", re.DOTALL | re.MULTILINE | re.IGNORECASE
)
_ORPHAN = re.compile(r"\A.*^[ \t]*</(?:think|thinking|reasoning)>", re.DOTALL | re.MULTILINE)
_FENCE_LINE = re.compile(r"^[ \t]*(?:`{3,}|~{3,})[^`\n]*$", re.MULTILINE)


def without_reasoning(text: str) -> str:
    """The text behind a model's `<think>...</think>`; one that was never closed has no answer."""
    unix = text.replace("\r\n", "\n").replace("\r", "\n")
    return _ORPHAN.sub("", _REASONING.sub("", unix))


def extract_code(text: str, entry_point: str | None = None) -> str | None:
    """The Python program in an answer, None where there is none.

    With `entry_point`, the last complete definition of that name, joined with blocks that define
    what it needs; where no part of the answer defines it, a function's body (the continuation of a
    prompt, dedented), or else the program that is there. Without, the last program. It parses.
    """
    text = without_reasoning(text)
    if len(text) > MAX_CHARS or not text.strip():
        return None
    blocks = fenced_blocks(text)[-_MAX_BLOCKS:]
    fenced = [piece for block in blocks for piece in pieces_of(block)][-_MAX_BLOCKS:]
    if entry_point is None:
        program = _program([p for p in fenced if p.is_python and _is_code(p.tree)])
        return program or _program([p for p in _plain(text) if definitions(p.tree)])
    for pieces in (fenced, _plain(text)):
        holding = [p for p in pieces if entry_point in p.defines]
        if holding:
            best = max(enumerate(holding), key=lambda item: (*_rank(item[1], entry_point), item[0]))
            return _joined(best[1], pieces)
    python = [p for p in fenced if p.is_python]
    plain = _plain(text)
    returning = [p.source for p in plain if returns_at_top(p.tree)]
    return (
        _body(text, blocks, python)
        or _program([p for p in python if definitions(p.tree)])
        or max(returning, key=len, default=None)
        or _program([p for p in python if _is_code(p.tree)])
        or _program([p for p in plain if definitions(p.tree)])
    )


def _plain(text: str) -> list[Piece]:
    return list(runs(_FENCE_LINE.sub("", text)))[-_MAX_BLOCKS:]


def _rank(piece: Piece, entry_point: str) -> tuple[bool, bool, bool]:
    named = [node for node in definitions(piece.tree) if node.name == entry_point]
    complete = not named or not is_stub(named[-1])
    return complete, piece.is_python, piece.whole


def _program(pieces: Sequence[Piece]) -> str | None:
    """The last program among pieces that is neither a test nor a helper of another."""
    if not pieces:
        return None
    rated = [(_complete(p), not _is_helper(p, pieces), bool(definitions(p.tree))) for p in pieces]
    # Without a definition anywhere the longest is the program and short ones are how to use it.
    size = 0 if any(r[2] for r in rated) else 1
    order = [
        (*rate, p.whole, size * len(p.source), i)
        for i, (rate, p) in enumerate(zip(rated, pieces, strict=True))
    ]
    return _joined(pieces[max(order)[-1]], pieces)


def _complete(piece: Piece) -> bool:
    named = definitions(piece.tree)
    if named and all(node.name.lower().startswith("test") for node in named):
        return False
    return bool(named) and not all(is_stub(node) for node in named)


def _is_helper(piece: Piece, pieces: Sequence[Piece]) -> bool:
    """True where another piece, itself a definition and no test, needs what this one defines."""
    return any(
        other is not piece and _complete(other) and piece.defines & other.lacks for other in pieces
    )


def _joined(piece: Piece, pieces: Sequence[Piece]) -> str:
    """A piece behind those that define what it lacks, nearest before it first."""
    chosen = [piece]
    here = next(i for i, p in enumerate(pieces) if p is piece)
    nearest = [*reversed(pieces[:here]), *pieces[here + 1 :]]
    lacking: frozenset[str] = piece.lacks
    while lacking:
        spare = (p for p in nearest if p.is_python and p.defines & lacking)
        giver = next((p for p in spare if all(p is not c for c in chosen)), None)
        if giver is None:
            break
        chosen.insert(0, giver)
        lacking = frozenset[str]().union(*(p.lacks for p in chosen))
        lacking -= frozenset[str]().union(*(p.defines for p in chosen))
    if len(chosen) == 1:
        return piece.source
    return "\n\n".join(p.source.strip("\n") for p in chosen) + "\n"


def _is_code(tree: ast.Module) -> bool:
    """False for what parses by chance: a word, a number, a table's cell."""
    return any(
        not isinstance(node, ast.Expr) or isinstance(node.value, ast.Call) for node in tree.body
    )


def _body(text: str, blocks: Sequence[Fenced], pieces: Sequence[Piece]) -> str | None:
    """The body of a function without its first line: in a block, or all of the answer."""
    whole = [p.source for p in pieces if returns_at_top(p.tree)]
    if whole:
        return whole[-1]
    for candidate in (*(block.text for block in reversed(blocks)), text):
        body = body_of(candidate)
        tree = parse(body) if body is not None else None
        if tree is not None and returns_at_top(tree):
            return body
    return None
