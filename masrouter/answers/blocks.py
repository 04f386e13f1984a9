"""Pieces of code in an answer: fenced blocks, transcripts, and code that stands in plain text.

Which piece is the answer is not decided here but in `code`.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from masrouter.answers.syntax import MAX_CHARS, defined, missing_names, parse, parse_or_line

PYTHON_TAGS = frozenset({"", "python", "py", "python3", "py3", "ipython", "pycon", "code"})

FENCED = re.compile(r"^[ \t]*(`{3,}|~{3,}).*?(?:^[ \t]*\1|\Z)", re.DOTALL | re.MULTILINE)
"""A block from fence to fence, found without looking into it; the last may lack its end."""

_MAX_WORK = 5_000_000
"""Characters parsed in search of code in one text: enough for any answer, and soon done."""
_MAX_CLOSINGS = 12
_MAX_LINES = 1000
_MAX_FENCES = 200
"""With more, each block ends at its first fence."""

_FENCE = re.compile(r"^([ \t>]*(?:(?:[-*+]|\d{1,3}[.)])[ \t]+)?)(`{3,}|~{3,})[ \t]*([^`]*)$")
_LATE_FENCE = re.compile(r"^(.*\S)[ \t]*(```)[ \t]*(python3?|py)[ \t]*$", re.IGNORECASE)
_ONE_LINE = re.compile(r"```(?:(?:python3?|py) )?([^`\n]+)```", re.IGNORECASE)
_START = re.compile(
    r"[ \t]*(?:(?:async[ \t]+)?def[ \t]|class[ \t]|import[ \t]|from[ \t]+\S+[ \t]+import\b|@\w"
    r"|(?:if|for|while|with)\b.*:|try:|return\b"
    r"|[A-Za-z_][\w.,\[\]'\" \t]*(?::[^=]+)?(?:[-+*/%@|&^]|<<|>>){0,2}=[^=])"
    # Within a body also what at the margin would rather be a sentence, or how to call it.
    r"|[ \t]+(?:[A-Za-z_][\w.]*[\[(]|#|\"{3}|'{3}|(?:raise|assert|yield|del|global|nonlocal)\b)"
)
_QUOTE = re.compile(r"[ \t]*> ?")
_PROMPT = re.compile(r"^[ \t]*(?:>>>|\.\.\.)(?: |$)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of code and its syntax tree."""

    source: str
    tree: ast.Module
    tag: str
    """Language as the fence names it, lower case; empty where it names none."""
    whole: bool
    """False where it may be cut off, or was cut out of something that does not parse."""
    defines: frozenset[str]
    lacks: frozenset[str]
    """Names that it uses and does not define."""

    @classmethod
    def of(cls, source: str, tree: ast.Module, tag: str, *, whole: bool) -> Piece:
        names = frozenset(defined(tree)), frozenset(missing_names(tree))
        return cls(source, tree, tag, whole, *names)

    @property
    def is_python(self) -> bool:
        return self.tag in PYTHON_TAGS


@dataclass(frozen=True, slots=True)
class Fenced:
    """What stands between two fences, as it stands."""

    text: str
    tag: str
    closed: bool = True


def fenced_blocks(text: str) -> list[Fenced]:
    """The fenced blocks of Markdown in order; the last may lack its closing fence.

    Where a block holds fences itself (a docstring that shows Markdown), it ends at the first one
    at which its text is Python.
    """
    lines = text[:MAX_CHARS].split("\n")
    few = sum(_FENCE.match(line) is not None for line in lines) <= _MAX_FENCES
    found: list[Fenced] = []
    at = 0
    while at < len(lines):
        opening = _FENCE.match(lines[at]) or _LATE_FENCE.match(lines[at])
        if opening is None:
            found += [Fenced(m[1].strip(), "") for m in _ONE_LINE.finditer(lines[at])]
            at += 1
            continue
        _unquote(lines, at)
        width = len(lines[at]) - len(lines[at].lstrip(" \t"))
        words = opening[3].split()
        tag = words[0].removeprefix("{").removesuffix("}").removeprefix(".") if words else ""
        tag = tag.lower()
        end = _closing(lines, at + 1, opening[2], width, search=few and tag in PYTHON_TAGS)
        inside = _unindented(lines[at + 1 : end], width)
        found.append(Fenced(inside, tag, closed=end < len(lines)))
        at = end + 1
    return found


def _unquote(lines: list[str], at: int) -> None:
    """Take the `>` from the lines of a quotation, in place."""
    while at < len(lines) and (quote := _QUOTE.match(lines[at])):
        lines[at] = lines[at][quote.end() :]
        at += 1


def _closing(lines: list[str], first: int, fence: str, width: int, *, search: bool) -> int:
    close = re.compile(rf"[ \t>]*{re.escape(fence[0])}{{{len(fence)},}}[ \t]*")
    closings = (i for i in range(first, len(lines)) if close.fullmatch(lines[i]))
    end = next(closings, None)
    if end is None:
        return _closing_in_line(lines, first, fence)
    if search and not code_of(_unindented(lines[first:end], width)):
        for later in islice(closings, _MAX_CLOSINGS):
            if later - first > _MAX_LINES:
                break
            if code_of(_unindented(lines[first:later], width)):
                return later
    return end


def _closing_in_line(lines: list[str], first: int, fence: str) -> int:
    """A last block without a closing line; one may hang at the end of its last line of code."""
    for i in range(first, len(lines)):
        if lines[i].rstrip().endswith(fence):
            lines[i : i + 1] = [lines[i].rstrip().removesuffix(fence), fence]
            return i + 1
    return len(lines)


def _unindented(lines: list[str], width: int) -> str:
    """Lines without the first `width` blanks, where they have them."""
    cut = []
    for line in lines:
        blank = len(line) - len(line.lstrip(" \t"))
        cut.append(line[min(width, blank) :])
    return "\n".join(cut)


def code_of(text: str) -> str | None:
    """`text` as Python that parses as a whole: as it is, dedented, or typed at a `>>>` prompt."""
    if not text.strip():
        return None
    for variant in (text, textwrap.dedent(text), _typed(text)):
        if variant is not None and parse(variant) is not None:
            return variant
    return None


def _typed(text: str) -> str | None:
    """What was typed in a transcript; None where `text` is none."""
    if not _PROMPT.match(text.lstrip("\n")):
        return None
    typed = [line for line in textwrap.dedent(text).split("\n") if _PROMPT.match(line)]
    return "\n".join(line.lstrip(" \t")[4:] for line in typed)


def body_of(text: str) -> str | None:
    """`text` as the statements of a function, dedented; None where it is not that.

    A first line that lost its indentation (an answer that was stripped) gets it back.
    """
    bare = text.strip("\n")
    first, _, rest = bare.partition("\n")
    for variant in (bare, _reindented(first, rest)):
        dedented = textwrap.dedent(variant.replace("\t", "    "))
        if dedented.strip() and parse(dedented) is not None:
            return dedented
    return None


def _reindented(first: str, rest: str) -> str:
    widths = [len(line) - len(line.lstrip()) for line in rest.split("\n") if line.strip()]
    return " " * min(widths, default=0) + first.lstrip() + "\n" + rest


def pieces_of(block: Fenced) -> Iterator[Piece]:
    """The code of a block: all of it where it parses, else the runs of lines that do."""
    source = code_of(block.text)
    tree = parse(source) if source is not None else None
    if source is not None and tree is not None:
        yield Piece.of(source, tree, block.tag, whole=block.closed)
    else:
        yield from runs(block.text, tag=block.tag)


def runs(text: str, tag: str = "") -> Iterator[Piece]:
    """Maximal runs of lines that parse, in a text that is partly prose.

    Sentences that happen to parse (`Done`, `Note: this`) are not part of a run.
    """
    lines = text[:MAX_CHARS].split("\n")
    at = work = 0
    while at < len(lines) and work < _MAX_WORK:
        if not _START.match(lines[at]):
            at += 1
            continue
        end = _end_of_indented(lines, at)
        while end > at and work < _MAX_WORK:
            source = "\n".join(lines[at:end])
            # Dedenting also empties blank lines, which may be within a text: only where needed.
            source = textwrap.dedent(source) if lines[at][:1].isspace() else source
            tree, stopped = parse_or_line(source)
            work += len(source)
            if tree is not None:
                kept = _statements(source, tree)
                if kept is not None:
                    yield Piece.of(*kept, tag, whole=False)
                break
            # Nothing from the line that is wrong on can belong to it.
            end = min(end - 1, at + stopped - 1) if stopped > 1 else (at if stopped else end - 1)
        at = max(end, at + 1)


def _end_of_indented(lines: list[str], at: int) -> int:
    """First line after `at` that is indented less than it, or the end."""
    width = len(lines[at]) - len(lines[at].lstrip())
    for i in range(at + 1, len(lines)):
        if lines[i].strip() and len(lines[i]) - len(lines[i].lstrip()) < width:
            return i
    return len(lines)


def _statements(source: str, tree: ast.Module) -> tuple[str, ast.Module] | None:
    """Source without top-level statements that do nothing; None where nothing is left."""
    lines = source.split("\n")
    kept: list[str] = []
    for node in tree.body:
        idle = isinstance(node, ast.Expr) and not isinstance(
            node.value, ast.Call | ast.Await | ast.Yield | ast.YieldFrom
        )
        if idle or (isinstance(node, ast.AnnAssign) and node.value is None):
            continue
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        kept += lines[first - 1 : node.end_lineno]
    joined = "\n".join(kept)
    again = parse(joined) if kept else None
    return None if again is None else (joined, again)
