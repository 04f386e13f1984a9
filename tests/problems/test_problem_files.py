"""Reading problem files: their shapes, and what is wrong with a bad one."""

from __future__ import annotations

import gzip
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masrouter.answers import extract_choice, extract_code, extract_number
from masrouter.errors import ProblemError
from masrouter.problems import Choice, CodeTests, Number, Problem, read_problems
from masrouter.problems import reading as reading_module

CODE = {
    "task_id": "code/double",
    "prompt": 'def double(x: int) -> int:\n    """Twice x.\n\n    >>> double(2)\n    4\n    """\n',
    "entry_point": "double",
    "canonical_solution": "    return 2 * x\n",
    "test": "def check(candidate):\n    assert candidate(3) == 6\n",
    "difficulty": 1,
    "topics": ["numbers"],
    "wrong_solutions": ["    return x\n", "    return x ** 2\n"],
}
NUMBER = {
    "id": "math/half",
    "question": "What is half of 5?",
    "answer": "2.5",
    "difficulty": 2,
    "topics": ["fractions"],
    "solution": "Half of 5 is 5 divided by 2.",
    "wrong_answers": ["2", "3"],
}
CHOICE = {
    "id": "knowledge/sky",
    "question": "What colour is a clear sky at noon?",
    "choices": ["green", "blue", "red", "a grey"],
    "answer": "B",
    "difficulty": 1,
    "topics": ["facts", "physics"],
    "explanation": "Air scatters short waves most.",
}
GSM8K = {
    "question": "Tom had $5,000 and spent $1,500. What is left?",
    "answer": "He has 5000-1500=<<5000-1500=3500>>3,500 left.\n#### 3,500",
}


def write(path: Path, *rows: dict[str, Any] | str) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def one(tmp_path: Path, row: dict[str, Any]) -> Problem:
    (problem,) = read_problems(write(tmp_path / "set.jsonl", row))
    return problem


def test_a_code_problem(tmp_path: Path) -> None:
    problem = one(tmp_path, CODE)
    assert (problem.problem_id, problem.dataset, problem.task) == ("code/double", "set", "code")
    assert problem.query == CODE["prompt"]
    assert (problem.difficulty, problem.topics) == (1, ("numbers",))
    assert isinstance(problem.grader, CodeTests)
    assert problem.source == f"{tmp_path / 'set.jsonl'}:1"
    programs = [extract_code(text, "double") for text in (problem.reference, *problem.wrong)]
    assert [p is not None and p.rstrip().split("\n")[-1].strip() for p in programs] == [
        "return 2 * x", "return x", "return x ** 2",
    ]  # fmt: skip


def test_a_solution_may_be_the_whole_function(tmp_path: Path) -> None:
    row = CODE | {"canonical_solution": "def double(x):\n    return x + x", "wrong_solutions": None}
    problem = one(tmp_path, row)
    assert (
        extract_code(problem.reference, "double") == "def double(x):\n    return x + x\n".rstrip()
    )


def test_a_reference_keeps_fences_of_its_docstring(tmp_path: Path) -> None:
    prompt = 'def double(x):\n    """\n```\ndouble(2)\n```\n    """\n'
    problem = one(tmp_path, CODE | {"prompt": prompt})
    found = extract_code(problem.reference, "double")
    assert found is not None
    assert found.startswith(prompt)


def test_a_number(tmp_path: Path) -> None:
    problem = one(tmp_path, NUMBER)
    assert (problem.task, problem.query) == ("math", "What is half of 5?")
    assert problem.grader == Number(Fraction(5, 2), decimals=1)
    assert problem.reference == "Half of 5 is 5 divided by 2.\n\nAnswer: 2.5"
    assert problem.wrong == ("Answer: 2", "Answer: 3")


def test_a_choice(tmp_path: Path) -> None:
    problem = one(tmp_path, CHOICE)
    assert problem.task == "knowledge"
    assert problem.query == (
        "What colour is a clear sky at noon?\nA) green\nB) blue\nC) red\nD) a grey"
    )
    assert problem.grader == Choice("B", ("green", "blue", "red", "a grey"))
    assert extract_choice(problem.reference) == "B"
    assert [extract_choice(text) for text in problem.wrong] == ["A", "C", "D"]


def test_gsm8k_lines_get_ids_by_their_line(tmp_path: Path) -> None:
    (tmp_path / "gsm.jsonl").write_text("\n\n" + json.dumps(GSM8K))
    (problem,) = read_problems(tmp_path / "gsm.jsonl")
    assert problem.problem_id == "gsm/3"
    assert problem.grader == Number(Fraction(3500))
    assert "<<" not in problem.reference
    assert extract_number(problem.reference) == 3500


@pytest.mark.parametrize(
    ("text", "value", "decimals"),
    [
        ("18", "18", 0),
        (18, "18", 0),
        (" 18 ", "18", 0),
        ("-3", "-3", 0),
        ("3/4", "3/4", 0),
        ("2.50", "5/2", 2),
        ("$1,234,567", "1234567", 0),
        ("#### 65,960", "65960", 0),
        ("so\n#### -10", "-10", 0),
    ],
)
def test_forms_of_a_number(tmp_path: Path, text: str | int, value: str, decimals: int) -> None:
    problem = one(tmp_path, {"question": "?", "answer": text})
    assert problem.grader == Number(Fraction(value), decimals=decimals)
    assert extract_number(problem.reference) == Fraction(value)


def test_datasets_by_file_and_by_line(tmp_path: Path) -> None:
    packed = tmp_path / "b.jsonl.gz"
    packed.write_bytes(gzip.compress(json.dumps(CHOICE | {"dataset": "mine"}).encode()))
    write(tmp_path / "a.jsonl", NUMBER)
    (tmp_path / "notes.txt").write_text("no set")
    problems = read_problems(tmp_path)
    assert [(p.problem_id, p.dataset) for p in problems] == [
        ("math/half", "a"),
        ("knowledge/sky", "mine"),
    ]


def test_gzip_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    named_plain = tmp_path / "set.jsonl"
    named_plain.write_bytes(gzip.compress(json.dumps(NUMBER).encode()))
    assert len(read_problems(named_plain)) == 1
    named_packed = write(tmp_path / "set.jsonl.gz", NUMBER)
    assert len(read_problems(named_packed)) == 1


def test_a_byte_order_mark_and_carriage_returns_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(NUMBER).encode() + b"\r\n\r\n")
    assert len(read_problems(path)) == 1


def without(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


BAD: list[tuple[dict[str, Any] | str, str]] = [
    ("{", "line: "),
    ("[1]", "line: expected a JSON object (got"),
    ('{"question": "a", "question": "b"}', "line: a key stands twice in one object ('question')"),
    ("[" * 100_000, "line: nested too deeply"),
    ({}, "line: no known kind of problem; expected the keys prompt, "),
    (without(CODE, "test"), "test: expected non-empty text, got nothing"),
    (without(CODE, "canonical_solution"), "canonical_solution: expected non-empty text, got"),
    (without(CODE, "task_id"), "task_id: expected non-empty text"),
    (CODE | {"entry_point": "a b"}, "entry_point: expected a function's name, got 'a b'"),
    (CODE | {"entry_point": "other"}, "canonical_solution: no Python that defines 'other'"),
    (CODE | {"canonical_solution": "    return ("}, "canonical_solution: no Python that defines"),
    (CODE | {"wrong_solutions": ["    pass\n"]}, "wrong_solutions[0]: no Python that defines"),
    (CODE | {"wrong_solutions": "x"}, "wrong_solutions: expected a list of texts, got 'x'"),
    (CODE | {"dificulty": 3}, "dificulty: unknown key; did you mean 'difficulty'?"),
    (NUMBER | {"answer": "about 3"}, "answer: expected an integer, a decimal or a fraction a/b"),
    (NUMBER | {"answer": "1/0"}, "answer: expected an integer, a decimal or a fraction a/b"),
    (NUMBER | {"answer": 2.5}, "answer: expected non-empty text, got 2.5"),
    (NUMBER | {"answer": True}, "answer: expected non-empty text, got True"),
    (NUMBER | {"answer": "1e5"}, "answer: expected an integer"),
    (NUMBER | {"answer": "9" * 400}, "answer: expected an integer"),
    (NUMBER | {"wrong_answers": ["2", "x"]}, "wrong_answers[1]: expected an integer"),
    (NUMBER | {"wrong_answers": [2]}, "wrong_answers[0]: expected non-empty text, got 2"),
    (NUMBER | {"question": " "}, "question: expected non-empty text"),
    (NUMBER | {"question": "\ud800"}, "question: half of a surrogate pair"),
    (NUMBER | {"difficulty": 6}, "difficulty: expected an integer from 1 to 5, got 6"),
    (NUMBER | {"difficulty": True}, "difficulty: expected an integer from 1 to 5"),
    (NUMBER | {"topics": ["a", 3]}, "topics[1]: expected non-empty text, got 3"),
    (NUMBER | {"dataset": 3}, "dataset: expected non-empty text, got 3"),
    (NUMBER | {"id": 3}, "id: expected non-empty text, got 3"),
    (CHOICE | {"answer": "E"}, "answer: expected a letter from A to D, got 'E'"),
    (CHOICE | {"answer": "AB"}, "answer: expected a letter from A to D"),
    (CHOICE | {"answer": 1}, "answer: expected non-empty text, got 1"),
    (CHOICE | {"choices": ["a"]}, "choices: expected 2 to 10 options, got 1"),
    (CHOICE | {"choices": ["a", "b", "A ", "c"]}, "choices: two options say the same"),
    (CHOICE | {"solution": "x"}, "solution: unknown key"),
]


@pytest.mark.parametrize(("row", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_a_bad_line_is_an_error_with_its_place(
    tmp_path: Path, row: dict[str, Any] | str, message: str
) -> None:
    path = write(tmp_path / "set.jsonl", CHOICE | {"id": "first"}, row)
    with pytest.raises(ProblemError) as caught:
        read_problems(path)
    assert str(caught.value).startswith(f"{path}:2: {message}")


def test_an_id_that_stands_twice_names_both_places(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", NUMBER)
    second = write(tmp_path / "b.jsonl", CHOICE, NUMBER)
    with pytest.raises(ProblemError) as caught:
        read_problems(first, second)
    assert str(caught.value).startswith(f"{second}:2: id: 'math/half' stands already at {first}:1")


def test_files_without_problems_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ProblemError, match="no such file or folder"):
        read_problems(tmp_path / "absent.jsonl")
    with pytest.raises(ProblemError, match=r"no \.jsonl or \.jsonl\.gz file in this folder"):
        read_problems(tmp_path)
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ProblemError, match="no problems there"):
        read_problems(tmp_path / "empty.jsonl")
    with pytest.raises(ProblemError, match="no file given"):
        read_problems()


def test_a_damaged_gzip_stream_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl.gz"
    whole = gzip.compress(
        "\n".join(json.dumps(NUMBER | {"id": str(i)}) for i in range(999)).encode()
    )
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ProblemError, match=r"set\.jsonl\.gz:\d+: gzip stream damaged"):
        read_problems(path)


def test_a_small_file_cannot_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(40):
            file.write(b" " * (1 << 20))
    with pytest.raises(ProblemError, match=r"bomb\.jsonl\.gz:1: line: longer than 1 MiB"):
        read_problems(path)


def test_an_unpacked_file_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_module, "MAX_FILE_BYTES", 1 << 20)
    path = tmp_path / "long.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n" * (2 << 20)))
    with pytest.raises(ProblemError, match="more than 1 MiB; split the file"):
        read_problems(path)


names = st.sampled_from(sorted({*CODE, *NUMBER, *CHOICE}))
values = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.text(max_size=3))
)
values |= st.sampled_from([*CODE.values(), *NUMBER.values(), *CHOICE.values()])


@given(st.dictionaries(names, values))
def test_any_object_is_a_problem_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, row: dict[str, Any]
) -> None:
    path = write(tmp_path_factory.getbasetemp() / "any.jsonl", row)
    try:
        found = [(problem.query, problem.reference) for problem in read_problems(path)]
    except ProblemError as error:
        found = [(str(error), f"{path}:1: ")]
        if not str(error).startswith(f"{path}:1: "):
            raise
    assert all(map(all, found))
