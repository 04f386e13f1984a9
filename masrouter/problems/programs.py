"""From the code of an answer to the program that is judged.

Only what the answer lacks is taken from the prompt: imports, helper functions, and the first lines
of the function where the answer goes on from there. Nothing of an answer is corrected.
"""

from __future__ import annotations

import ast
import textwrap

from masrouter.answers.syntax import (
    defined,
    definitions,
    is_stub,
    missing_names,
    parse,
    returns_at_top,
)


def whole_program(code: str, prompt: str, entry_point: str) -> str | None:
    """`code` with what it lacks of `prompt`; None where it then does not define `entry_point`.

    `code` is a program, or the body of the function that the prompt begins.
    """
    tree = parse(code)
    if tree is not None and entry_point in defined(tree):
        return _with_prompt(code, tree, prompt, entry_point)
    if tree is None or returns_at_top(tree):
        return _continued(code, prompt, entry_point)
    return None


def helpers_of(prompt: str, entry_point: str) -> str | None:
    """What a prompt defines besides `entry_point`, for tests that use it; None where nothing."""
    tree = parse(prompt)
    others = [
        node
        for node in (tree.body if tree is not None else [])
        if entry_point not in defined(ast.Module([node], []))
    ]
    if not any(definitions(ast.Module([node], [])) for node in others):
        return None
    return "\n".join(_source(prompt, node) for node in others) + "\n"


def _with_prompt(code: str, tree: ast.Module, prompt: str, entry_point: str) -> str:
    begun = parse(prompt)
    lacking = missing_names(tree)
    given: list[str] = []
    for node in reversed(begun.body if begun is not None else []):
        names = defined(ast.Module([node], []))
        if entry_point in names or not (names & lacking or "*" in names):
            continue
        source = _source(prompt, node)
        given.insert(0, source)
        alone = parse(source)
        lacking |= missing_names(alone) if alone is not None else set()
    if not given:
        return code
    first = "\n".join(given)
    futures = any(isinstance(n, ast.ImportFrom) and n.module == "__future__" for n in tree.body)
    # A future import has to come first; what is given is then needed when called, not before.
    return f"{code}\n\n{first}\n" if futures else f"{first}\n\n{code}"


def _source(prompt: str, node: ast.stmt) -> str:
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
    return "\n".join(prompt.split("\n")[first - 1 : node.end_lineno])


def _continued(code: str, prompt: str, entry_point: str) -> str | None:
    """The prompt with `code` as the rest of its last function."""
    begun = prompt if prompt.endswith("\n") else prompt + "\n"
    indented = textwrap.indent(textwrap.dedent(code), _indent(prompt, entry_point))
    for body in (code, indented):
        program = begun + body
        tree = parse(program)
        if tree is None:
            continue
        named = [node for node in definitions(tree) if node.name == entry_point]
        if named and not is_stub(named[-1]) and not returns_at_top(tree):
            return program
    return None


def _indent(prompt: str, entry_point: str) -> str:
    """How the prompt's function is indented; four spaces where it shows nothing yet."""
    tree = parse(prompt)
    for node in definitions(tree) if tree is not None else ():
        if node.name == entry_point:
            line = prompt.split("\n")[node.body[0].lineno - 1]
            return line[: node.body[0].col_offset] or "    "
    return "    "
