"""A file of tasks: what may stand in it, and where it says that something is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masrouter.delegation.task_file import MAX_CONTEXT_BYTES, read_task_file
from masrouter.delegation.tasks import Task
from masrouter.errors import ConfigError
from masrouter.strict_yaml import dump_strict


def written(folder: Path, text: str) -> Path:
    path = folder / "tasks.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_says_everything_that_a_task_may_have(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/report.md").write_text("Sales were 12.\n", encoding="utf-8")
    path = written(
        tmp_path,
        """
tasks:
  - goal: Summarise the report.
    context: It is of a bank.
    context_file: parts/report.md
    model: openrouter/llama-3.3-70b:free
    id: summary
    max_tokens: 300
  - goal: Check the summary.
    needs: [summary]
    model: stepfun/step-3.5-flash --provider openrouter
    kind: knowledge
  - goal: Say hello.
    needs: [task-2]
""",
    )
    assert read_task_file(path) == (
        Task(
            "Summarise the report.",
            "It is of a bank.\n\nSales were 12.\n",
            "openrouter/llama-3.3-70b:free",
            "summary",
            max_tokens=300,
        ),
        Task(
            "Check the summary.",
            model="stepfun/step-3.5-flash --provider openrouter",
            needs=("summary",),
            kind="knowledge",
        ),
        Task("Say hello.", needs=("task-2",)),
    )


def test_the_list_may_stand_alone_and_a_context_may_be_a_file_alone(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\ufeffonly this", encoding="utf-8")
    path = written(tmp_path, "- goal: a\n- {goal: b, context_file: ./a.txt}\n")
    assert read_task_file(path) == (Task("a"), Task("b", "only this"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "tasks.yaml:1: expected a list of tasks, got null"),
        ("[]", "tasks.yaml:1: expected a list of tasks, got a list"),
        ("tasks: {}", "tasks.yaml:1: tasks: expected a list of tasks, got a mapping"),
        ("task:\n  - goal: a", "tasks.yaml:1: task: unknown key; did you mean 'tasks'?"),
        ("{}", "tasks.yaml:1: expected `tasks`, a list"),
        ("- a", "tasks.yaml:1: [0]: expected a mapping, got 'a'"),
        ("- context: a", "tasks.yaml:1: [0]: expected a `goal`: what is to be done"),
        ("- goal: a\n  modell: b", "tasks.yaml:2: [0].modell: unknown key; did you mean 'model'?"),
        ("- goal: 42", "tasks.yaml:1: [0].goal: expected text, got 42; quote it"),
        ("- goal: ' '", "tasks.yaml:1: [0].goal: expected text, got none; leave the key out"),
        ("- goal: a\n  model:", "tasks.yaml:2: [0].model: expected text, got null"),
        ("- goal: a\n  context: [b]", "tasks.yaml:2: [0].context: expected text, got a list"),
        ("- goal: a\n  needs: b", "tasks.yaml:2: [0].needs: expected a list of ids, got 'b'"),
        (
            "- goal: a\n  max_tokens: 0",
            "tasks.yaml:2: [0].max_tokens: expected a number of tokens >= 1, got 0",
        ),
        (
            "- goal: a\n  max_tokens: true",
            "tasks.yaml:2: [0].max_tokens: expected a number of tokens >= 1, got True",
        ),
        (
            '- goal: a\n  id: "b\\nc"',
            "tasks.yaml:2: [0].id: expected at most 64 characters on one line, got 'b\\nc'",
        ),
        (
            "tasks:\n- goal: a\n  id: x\n- goal: b\n  id: x",
            "tasks.yaml:5: tasks[1].id: 'x' is the id of the task on line 2 already",
        ),
        (
            "- goal: a\n  id: task-2\n- goal: b",
            "tasks.yaml:3: [1].id: 'task-2' is the id of the task on line 1 already",
        ),
        (
            "- goal: a\n  id: summary\n- goal: b\n  needs: [sumary]",
            "tasks.yaml:4: [1].needs[0]: no task has the id 'sumary'; did you mean 'summary'?",
        ),
        (
            "- goal: a\n  id: x\n- goal: b\n  needs: [x, x]",
            "tasks.yaml:4: [1].needs[1]: 'x' stands here twice",
        ),
        (
            "- goal: a\n  needs: [task-1]",
            "tasks.yaml:2: [0].needs: these tasks wait for each other",
        ),
        (
            "- {goal: a, id: x, needs: [y]}\n- {goal: b, id: y, needs: [x]}",
            ": these tasks wait for each other: ",
        ),
        ("- goal: &a b", "tasks.yaml:1: anchor &a; write the value out"),
        ("- goal: [", "tasks.yaml:1: not valid YAML"),
    ],
)
def test_what_is_wrong_is_said_with_file_line_and_key(
    tmp_path: Path, text: str, expected: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as raised:
        read_task_file(path)
    assert str(raised.value).startswith(str(tmp_path))
    assert expected in str(raised.value)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.yaml: cannot be read: No such file"):
        read_task_file(tmp_path / "none.yaml")


def _fifo(folder: Path) -> str:
    os.mkfifo(folder / "pipe")
    return "pipe"


def _link_out(folder: Path) -> str:
    (folder / "link").symlink_to(folder.parent / "secret.txt")
    return "link"


def _loop(folder: Path) -> str:
    (folder / "loop").symlink_to("loop")
    return "loop"


def _too_large(folder: Path) -> str:
    (folder / "large.txt").write_bytes(b"a" * (MAX_CONTEXT_BYTES + 1))
    return "large.txt"


def _written(data: bytes):
    def write(folder: Path) -> str:
        (folder / "a.txt").write_bytes(data)
        return "a.txt"

    return write


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (lambda folder: "../secret.txt", "'../secret.txt' lies outside the folder of this file"),
        (lambda folder: str(folder.parent / "secret.txt"), "lies outside the folder of this file"),
        (_link_out, "'link' lies outside the folder of this file"),
        (_loop, "'loop' is a link that leads to itself"),
        (lambda folder: ".", "'.' is no regular file"),
        (_fifo, "'pipe' is no regular file"),
        (lambda folder: "none.txt", "'none.txt' cannot be read: No such file or directory"),
        (lambda folder: "a" * 300, "cannot be read: File name too long"),
        (_too_large, "'large.txt' is larger than 1 MiB; hand out a part of it"),
        (_written(b""), "'a.txt' is empty"),
        (_written(b"ab\xff"), "'a.txt' is no UTF-8 text (byte 3)"),
    ],
)
def test_a_context_file_is_a_text_of_the_files_own_folder(
    tmp_path: Path, made, expected: str
) -> None:
    (tmp_path / "secret.txt").write_text("key", encoding="utf-8")
    folder = tmp_path / "job"
    folder.mkdir()
    name = made(folder)
    path = written(folder, f"tasks:\n- goal: a\n  context_file: {name}\n")
    with pytest.raises(ConfigError) as raised:
        read_task_file(path)
    assert f"{path}:3: tasks[0].context_file: " in str(raised.value)
    assert expected in str(raised.value)


def test_a_link_within_the_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real.txt").write_text("text", encoding="utf-8")
    (tmp_path / "link.txt").symlink_to("real.txt")
    path = written(tmp_path, "- {goal: a, context_file: link.txt}")
    assert read_task_file(path)[0].context == "text"


def test_context_files_together_are_limited(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"a" * MAX_CONTEXT_BYTES)
    path = written(tmp_path, "- {goal: a, context_file: a.txt}\n" * 17)
    with pytest.raises(ConfigError, match=r":17: .*those before it are larger than 16 MiB"):
        read_task_file(path)


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1).filter(
    str.strip
)


@settings(deadline=None)
@given(st.lists(st.fixed_dictionaries({"goal": TEXT}, optional={"context": TEXT, "model": TEXT})))
def test_a_written_file_is_read_back_unchanged(
    tmp_path_factory: pytest.TempPathFactory, tasks: list[dict[str, str]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "written.yaml"
    path.write_text(dump_strict([{"goal": "first"}, *tasks]), encoding="utf-8")
    assert read_task_file(path)[1:] == tuple(
        Task(task["goal"], task.get("context", ""), task.get("model")) for task in tasks
    )
