"""Programs with one small fault: the source text with one place changed, everything else as it was.

Each fault is of a kind that people and models make. Whether it makes the program wrong is not known
here: some faults do nothing. Nothing is run.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator

from masrouter.answers.syntax import definitions, parse

_COMPARED: dict[type[ast.cmpop], ast.cmpop] = {
    ast.Lt: ast.LtE(), ast.LtE: ast.Lt(), ast.Gt: ast.GtE(), ast.GtE: ast.Gt(),
    ast.Eq: ast.NotEq(), ast.NotEq: ast.Eq(), ast.In: ast.NotIn(), ast.NotIn: ast.In(),
}  # fmt: skip
_COMPUTED: dict[type[ast.operator], ast.operator] = {
    ast.Add: ast.Sub(), ast.Sub: ast.Add(), ast.Mult: ast.Add(), ast.Div: ast.FloorDiv(),
    ast.FloorDiv: ast.Div(), ast.Mod: ast.FloorDiv(), ast.Pow: ast.Mult(),
    ast.BitAnd: ast.BitOr(), ast.BitOr: ast.BitAnd(), ast.BitXor: ast.BitOr(),
}  # fmt: skip
_CALLED = {
    "min": "max", "max": "min", "any": "all", "all": "any", "upper": "lower", "lower": "upper",
    "sorted": "list", "isupper": "islower", "islower": "isupper", "isalpha": "isalnum",
    "startswith": "endswith", "endswith": "startswith", "ceil": "floor", "floor": "ceil",
    "lstrip": "strip", "rstrip": "strip", "sum": "len", "set": "list", "append": "extend",
    "pop": "index", "find": "rfind", "abs": "float", "round": "int",
}  # fmt: skip
OWN = "\0"
"""Stands for a node's own source in the text that replaces it; no source holds it."""
Change = tuple[str, ast.AST, str]
"""Kind of the fault, the node to be replaced, the text in its place."""


def faulty_programs(program: str, entry_point: str) -> Iterator[tuple[str, str]]:
    """(kind of fault, program with it), each once, for the function `entry_point`.

    Where a program keeps the work in functions beside it, those are changed too. All of them parse.
    """
    tree = parse(program)
    if tree is None:
        return
    named = [node for node in definitions(tree) if node.name == entry_point]
    seen = {ast.dump(tree)}
    for node in [*named, *(other for other in definitions(tree) if other not in named)]:
        for kind, where, text in _changes(node):
            changed = _replaced(program, where, text)
            mutant = parse(changed)
            if mutant is not None and (shape := ast.dump(mutant)) not in seen:
                seen.add(shape)
                yield kind, changed


def _changes(function: ast.AST) -> Iterator[Change]:
    # A node inside an f-string has no place of its own in the source.
    lost = {
        id(part)
        for node in ast.walk(function)
        if isinstance(node, ast.JoinedStr)
        for part in ast.walk(node)
    }
    for node in ast.walk(function):
        if id(node) not in lost:
            yield from _in_expression(node)
            yield from _in_statement(node)


def _in_expression(node: ast.AST) -> Iterator[Change]:
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        other = _COMPARED.get(type(node.ops[0]))
        if other is not None:
            yield "comparison", node, _with(node, ops=[other])
    elif isinstance(node, ast.BinOp) and type(node.op) in _COMPUTED:
        yield "operator", node, f"({_with(node, op=_COMPUTED[type(node.op)])})"
    elif isinstance(node, ast.BoolOp):
        swapped = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield "condition", node, f"({_with(node, op=swapped)})"
        yield "condition", node, f"({ast.unparse(node.values[0])})"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "condition", node, f"({ast.unparse(node.operand)})"
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        yield "constant", node, str(node.value + 1)
        if node.value > 0:
            yield "constant", node, str(node.value - 1)
    elif isinstance(node, ast.Constant) and type(node.value) is bool:
        yield "constant", node, str(not node.value)
    elif isinstance(node, ast.Slice):
        for bound in (node.lower, node.upper):
            if bound is not None:
                yield "bound", bound, ""
                yield "bound", bound, f"{ast.unparse(bound)} + 1"
    elif isinstance(node, ast.Call):
        yield from _in_call(node)


def _in_call(node: ast.Call) -> Iterator[Change]:
    function = node.func
    name = getattr(function, "id", None) or getattr(function, "attr", None)
    if name in _CALLED and isinstance(function, ast.Name):
        yield "call", function, _CALLED[name]
    elif name in _CALLED and isinstance(function, ast.Attribute):
        yield "call", function, _with(function, attr=_CALLED[name])
    if name == "range" and node.args and len(node.args) <= 2:
        last = node.args[-1]
        yield "bound", last, f"{ast.unparse(last)} - 1"
        if len(node.args) == 1:
            yield "bound", last, f"1, {ast.unparse(last)}"
    for keyword in node.keywords:
        if keyword.arg in ("reverse", "key"):
            text = ", ".join(
                ast.unparse(part) for part in (*node.args, *node.keywords) if part is not keyword
            )
            yield "call", node, f"{ast.unparse(function)}({text})"


def _in_statement(node: ast.AST) -> Iterator[Change]:
    if isinstance(node, ast.If | ast.IfExp):
        yield "condition", node.test, f"not ({ast.unparse(node.test)})"
    elif isinstance(node, ast.comprehension):
        for test in node.ifs:
            yield "condition", test, f"not ({ast.unparse(test)})"
    elif isinstance(node, ast.AugAssign) and type(node.op) in _COMPUTED:
        yield "operator", node, _with(node, op=_COMPUTED[type(node.op)])
    if isinstance(node, ast.If | ast.For | ast.FunctionDef) and len(node.body) > 1:
        for statement in node.body:
            if isinstance(statement, ast.AugAssign | ast.Expr | ast.If) and not _is_text(statement):
                yield "forgotten", statement, "pass"
    body = getattr(node, "body", None)
    if isinstance(node, ast.FunctionDef) and isinstance(body, list):
        loops = [part for part in body if isinstance(part, ast.For)]
        last = body[-1]
        if loops and isinstance(last, ast.Return):
            end = loops[-1].body[-1]
            indent = " " * end.col_offset
            yield "early return", end, f"{OWN}\n{indent}{ast.unparse(last)}"


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _with(node: ast.AST, **fields: object) -> str:
    """The source of a node with other fields."""
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return ast.unparse(changed)


def _replaced(program: str, node: ast.AST, text: str) -> str:
    """The program with other text in a node's place; columns count bytes of UTF-8."""
    lines = program.split("\n")
    first, last = node.lineno - 1, node.end_lineno - 1  # type: ignore[attr-defined]
    head = lines[first].encode()[: node.col_offset]  # type: ignore[attr-defined]
    tail = lines[last].encode()[node.end_col_offset :]  # type: ignore[attr-defined]
    whole = "\n".join(lines[first : last + 1]).encode()
    own = whole[len(head) : len(whole) - len(tail)].decode()
    changed = head.decode() + text.replace(OWN, own) + tail.decode()
    return "\n".join([*lines[:first], changed, *lines[last + 1 :]])
