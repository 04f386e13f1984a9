"""Answers to programming problems as samples that human-eval's own script reads.

A line is {"task_id", "completion"}; the script runs prompt + completion + test. Answers are chat
texts, so what is written is the program that the grader took from them: the rest of the prompt's
function where the answer goes on from there, else the whole program behind it.

Source: github.com/openai/human-eval, human_eval/execution.py.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable
from pathlib import Path

from masrouter.answers import extract_code
from masrouter.answers.syntax import parse
from masrouter.errors import EvaluationError
from masrouter.problems import CodeTests, Problem
from masrouter.problems.programs import whole_program

NO_PROGRAM = '\n\nraise NotImplementedError("the answer holds no program")\n'
"""Fails whatever the test is: what a grader gives an answer without a program, or none at all."""


def completion_of(grader: CodeTests, answer: str | None) -> str:
    """What stands behind the prompt, so that both together are judged as the answer was."""
    code = None if answer is None else extract_code(answer, grader.entry_point)
    program = None if code is None else whole_program(code, grader.prompt, grader.entry_point)
    if program is None:
        return NO_PROGRAM
    if program.startswith(grader.prompt):
        return program[len(grader.prompt) :]
    # The prompt's function comes first and is defined anew; a bare head has to be closed for that.
    tree = parse(grader.prompt)
    closed = "\n\n" if tree is not None else "\n    pass\n\n"
    return f"{closed}{_without_future(program)}"


def write_samples(path: Path, answers: Iterable[tuple[Problem, str | None]]) -> int:
    """Write JSON Lines, a sample for each answer to a programming problem; how many there are.

    Raises EvaluationError where the file cannot be written.
    """
    lines = [
        json.dumps({"task_id": p.problem_id, "completion": completion_of(p.grader, answer)})
        for p, answer in answers
        if isinstance(p.grader, CodeTests)
    ]
    try:
        path.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be written: {error.strerror or error}") from error
    return len(lines)


def _without_future(program: str) -> str:
    """The program as it can stand behind others.

    A future import must come first in a file. `annotations`, the only one that changes anything in
    this Python, makes annotations text (PEP 563), so they are written as text instead.
    """
    tree = parse(program)
    if tree is None or not any(map(_is_future, tree.body)):
        return program
    tree.body = [node for node in tree.body if not _is_future(node)]
    return ast.unparse(ast.fix_missing_locations(_TextAnnotations().visit(tree))) + "\n"


def _is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


class _TextAnnotations(ast.NodeTransformer):
    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = _as_text(node.annotation)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(ast.unparse(node.annotation))
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = _as_text(node.returns)
        return self.generic_visit(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        node.returns = _as_text(node.returns)
        return self.generic_visit(node)


def _as_text(annotation: ast.expr | None) -> ast.expr | None:
    return None if annotation is None else ast.Constant(ast.unparse(annotation))
