"""Python text as a syntax tree, safely: untrusted text is parsed, never run.

Whatever cannot be parsed (wrong syntax, null bytes, nesting beyond the parser, texts too long) is
None here, never an exception.
"""

from __future__ import annotations

import ast
import builtins
import threading
import warnings
from collections.abc import Iterator

MAX_CHARS = 200_000
"""Longer texts are no answers and are not parsed."""

_MAX_IMPORT_DOTS = 10_000
"""The parser takes time in the square of an imported name's parts: 16 s for 180,000 characters."""

_QUIET = threading.Lock()
_BUILTINS = frozenset(dir(builtins)) | {"__name__", "__file__", "__doc__"}
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_SCOPES = (*_DEFINITIONS, ast.Lambda)


def parse(source: str) -> ast.Module | None:
    """The syntax tree of `source`, None where it has none."""
    tree, _ = parse_or_line(source)
    return tree


def parse_or_line(source: str) -> tuple[ast.Module | None, int]:
    """The syntax tree, or None and the line (from 1) at which the parser stopped; 0 if unknown."""
    if len(source) > MAX_CHARS:
        return None, 0
    if "import" in source and source.count(".") > _MAX_IMPORT_DOTS:
        return None, 0
    # The parser warns of odd escapes; filters belong to the whole process, so one at a time.
    with _QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(source), 0
        except SyntaxError as error:
            return None, error.lineno or 0
        except (ValueError, RecursionError, MemoryError):
            return None, 0


def defined(tree: ast.Module) -> set[str]:
    """Names that the module binds at its top level, also under if, try, with or for."""
    return {name for statement in _top_level(tree.body) for name in _bound(statement)}


def definitions(tree: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Functions and classes at the top level."""
    return [node for node in _top_level(tree.body) if isinstance(node, _DEFINITIONS)]


def missing_names(tree: ast.Module) -> set[str]:
    """Names that are read and bound nowhere in the module, nor built in."""
    read: set[str] = set()
    bound: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            bound.add(node.name)
        elif isinstance(node, ast.MatchMapping) and node.rest:
            bound.add(node.rest)
        elif isinstance(node, (*_DEFINITIONS, ast.Import, ast.ImportFrom)):
            bound.update(_bound(node))
    return read - bound - _BUILTINS


def is_stub(node: ast.stmt) -> bool:
    """True for a function of which only the signature is given: docstring, `pass`, `...`."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    return all(_says_nothing(statement) for statement in node.body)


def returns_at_top(tree: ast.Module) -> bool:
    """True where a `return` or `yield` stands outside of any function: a function's body."""
    todo: list[ast.AST] = [*tree.body]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Return | ast.Yield | ast.YieldFrom):
            return True
        if not isinstance(node, _SCOPES):
            todo.extend(ast.iter_child_nodes(node))
    return False


def without_docstrings(tree: ast.Module) -> ast.Module:
    """The tree itself, with the docstrings of modules, classes and functions taken out."""
    for node in ast.walk(tree):
        if isinstance(node, (*_DEFINITIONS, ast.Module)) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and _is_text(first.value):
                node.body = node.body[1:] or [ast.Pass()]
    return tree


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    todo = body[::-1]
    while todo:  # a chain of `elif` may be deeper than this process can recurse
        node = todo.pop()
        yield node
        if isinstance(node, ast.If | ast.Try | ast.With | ast.For | ast.While):
            handlers = getattr(node, "handlers", [])
            inside = [getattr(node, name, []) for name in ("body", "orelse", "finalbody")]
            inside += [handler.body for handler in handlers]
            todo += [statement for part in inside for statement in part][::-1]


def _bound(node: ast.AST) -> Iterator[str]:
    if isinstance(node, _DEFINITIONS):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        for alias in node.names:
            yield alias.asname or alias.name.split(".")[0]
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            yield from (part.id for part in ast.walk(target) if isinstance(part, ast.Name))


def _says_nothing(node: ast.stmt) -> bool:
    if isinstance(node, ast.Pass):
        return True
    if isinstance(node, ast.Expr):
        return _is_text(node.value) or (
            isinstance(node.value, ast.Constant) and node.value.value is ...
        )
    return isinstance(node, ast.Raise) and any(map(_says_unwritten, ast.walk(node)))


def _says_unwritten(node: ast.AST) -> bool:
    said = node.id if isinstance(node, ast.Name) else getattr(node, "value", None)
    return isinstance(said, str) and "NotImplemented" in said


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)
