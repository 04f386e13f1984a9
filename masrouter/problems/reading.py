"""Read problem files: JSON Lines, plain or gzip. A bad line is an error: nothing is dropped."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from masrouter.errors import ProblemError
from masrouter.logs.lines import BadLine, parse_line
from masrouter.problems.formats import BadField, problem_of
from masrouter.problems.problem import Problem

SUFFIXES = (".jsonl", ".jsonl.gz")
MAX_LINE_BYTES = 1 << 20
MAX_FILE_BYTES = 256 << 20
"""Unpacked: a small .gz may hold terabytes."""


def read_problems(*paths: str | Path) -> tuple[Problem, ...]:
    """The problems of files (.jsonl, .jsonl.gz) and of folders of them, in order.

    The dataset's name is the file's, without suffixes, unless a line says another. Raises
    ProblemError as `file:line: field: what` for the first bad line, for an id that stands twice,
    and where there is no problem at all.
    """
    found: dict[str, Problem] = {}
    for path in _files(paths):
        for problem in _read(path):
            first = found.setdefault(problem.problem_id, problem)
            if first is not problem:
                raise ProblemError(
                    f"{problem.source}: id: {problem.problem_id!r} stands already at "
                    f"{first.source}; every problem needs an id of its own"
                )
    if not found:
        raise ProblemError(f"{', '.join(map(str, paths)) or 'no file given'}: no problems there")
    return tuple(found.values())


def _files(paths: tuple[str | Path, ...]) -> Iterator[Path]:
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.name.endswith(SUFFIXES) and p.is_file())
            if not inside:
                raise ProblemError(f"{path}: no {' or '.join(SUFFIXES)} file in this folder")
            yield from inside
        elif path.exists():
            yield path
        else:
            raise ProblemError(f"{path}: no such file or folder")


def _read(path: Path) -> Iterator[Problem]:
    dataset = path.name.removesuffix(".gz").removesuffix(".jsonl") or path.name
    for number, line in _lines(path):
        source = f"{path}:{number}"
        try:
            data = parse_line(line)
            yield problem_of(data, dataset=dataset, line=number, source=source)
        except BadLine as bad:
            detail = f" ({bad.detail})" if bad.detail else ""
            raise ProblemError(f"{source}: {bad}{detail}") from None
        except BadField as bad:
            raise ProblemError(f"{source}: {bad}") from None


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, with their numbers from 1."""
    number = read = 0
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            stream = gzip.GzipFile(fileobj=file) if packed else file
            while line := stream.readline(MAX_LINE_BYTES + 1):
                number += 1
                read += len(line)
                if len(line) > MAX_LINE_BYTES:
                    raise ProblemError(
                        f"{path}:{number}: line: longer than {MAX_LINE_BYTES >> 20} MiB"
                    )
                if read > MAX_FILE_BYTES:
                    raise ProblemError(
                        f"{path}: more than {MAX_FILE_BYTES >> 20} MiB; split the file"
                    )
                line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if line.strip():
                    yield number, line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ProblemError(f"{path}:{number + 1}: gzip stream damaged here: {error}") from error
    except OSError as error:
        raise ProblemError(f"{path}: cannot be read: {error.strerror or error}") from error
