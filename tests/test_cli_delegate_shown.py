"""`masrouter delegate` in a process of its own: terminals, pipes, signals."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest
from tests.cli_delegate_samples import TWO, cells, providers, tasks
from tests.llms.faulty_server import Exchange, FaultyServer, answer, hang

ROOT = Path(__file__).parents[1]


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer() as found:
        yield found


@pytest.fixture
def llm(server: FaultyServer, tmp_path: Path) -> str:
    return providers(tmp_path, server)


class Child:
    """The command in a process of its own, with a terminal or pipes. Use it in a `with`."""

    def __init__(self, *arguments: str, terminal: bool = False, **environment: str) -> None:
        self.seen = b""
        if terminal:
            self._screen, theirs = pty.openpty()
        else:
            self._screen, theirs = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "masrouter.cli", "delegate", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=theirs if terminal else subprocess.PIPE,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "110", "LINES": "30", **environment},
            cwd=ROOT,
        )
        os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.communicate()
        os.close(self._screen)

    def until(self, enough: Callable[[str], bool]) -> str:
        """What was shown (standard error where there are pipes) once it is enough."""
        end = time.monotonic() + 60
        while not enough(self.seen.decode(errors="ignore")):
            assert time.monotonic() < end, self.seen.decode(errors="ignore")
            assert self._read(), self.seen.decode(errors="ignore")
        return self.seen.decode(errors="ignore")

    def rest(self) -> tuple[str, int]:
        """Everything that a terminal showed to the end, or standard output; and the exit code."""
        while self._read():
            pass
        output, _ = self.process.communicate(timeout=60)
        seen = self.seen if output is None else output
        return seen.decode(errors="replace"), self.process.returncode

    def stop_reading(self) -> None:
        """Close the screen, as `head` does when it has seen enough."""
        os.close(self._screen)
        self._screen = os.open(os.devnull, os.O_RDONLY)

    def _read(self) -> bool:
        if not select.select([self._screen], [], [], 1.0)[0]:
            return True
        try:
            data = os.read(self._screen, 65536)
        except OSError:  # how a terminal says that its other side is closed
            return False
        self.seen += data
        return bool(data)


def without_codes(screen: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen).replace("\r", "")


def test_a_terminal_shows_every_task_live_and_then_the_table(
    server: FaultyServer, llm: str, tmp_path: Path
) -> None:
    released = threading.Event()

    async def when_told(exchange: Exchange) -> None:
        await asyncio.to_thread(released.wait, 60)
        await answer("at last")(exchange)

    server.script = {"quick": [answer("found it")], "strong": [when_told]}
    with Child("--tasks", tasks(tmp_path, TWO), "--llm", llm, terminal=True) as child:
        live = child.until(lambda text: "1 of 2 ended" in text)
        plain = without_codes(live)
        assert re.search(r"task-1 +done +quick +1 +\$0\.0000\d+ +\d+\.\d s", plain)
        assert re.search(r"task-2 +working +lab/strong +1 ", plain)
        assert "\x1b[" in live
        assert "result" not in plain
        released.set()
        shown, code = child.rest()
    assert code == 0
    table = without_codes(shown)
    first, second = cells(table[table.rindex("task  ") :])
    assert (first[1], first[4]) == ("quick", "found it")
    assert (second[1], second[4]) == ("strong", "at last")
    assert "\x1b[?25h" in shown  # the cursor is there again


@pytest.mark.parametrize(
    "how", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_ctrl_c_keeps_what_is_done_and_cancels_the_rest(
    server: FaultyServer, llm: str, tmp_path: Path, how: signal.Signals
) -> None:
    server.script = {"quick": [answer("found it")], "strong": [hang()]}
    out = tmp_path / "results.json"
    text = TWO + "  - {goal: Never begun., model: quick, needs: [task-2]}\n"
    with Child("--tasks", tasks(tmp_path, text), "--llm", llm, "--out", str(out)) as child:
        child.until(lambda text: "task-1: done" in text and server.in_flight > 0)
        child.process.send_signal(how)
        output, code = child.rest()
    assert code == 130, output
    first, second, third = cells(output)
    assert (first[1], first[4]) == ("quick", "found it")
    assert second[:2] == ["task-2", "lab/strong"]
    assert second[-1] == third[-1] == "cancelled"
    assert "1 of 3 tasks done, 2 cancelled" in output
    assert "interrupted: what was done is above, the rest was cancelled" in output
    kept = json.loads(out.read_text())
    assert kept["interrupted"] is True
    assert [row["status"] for row in kept["results"]] == ["done", "cancelled", "cancelled"]
    assert kept["results"][0]["answer"] == "found it"
    assert kept["charged_usd"] > 0  # the call that was cut off may be billed


def test_a_narrow_terminal_gets_tables_as_wide_as_it_is(
    server: FaultyServer, llm: str, tmp_path: Path
) -> None:
    server.script = {"quick": [answer("word " * 40)], "strong": [hang()]}
    text = TWO + f"  - {{goal: c, model: quick, id: {'long-' * 9}}}\n"
    arguments = ("--tasks", tasks(tmp_path, text), "--llm", llm)
    with Child(*arguments, terminal=True, COLUMNS="60", NO_COLOR="1") as child:
        live = without_codes(child.until(lambda text: "2 of 3 ended" in text))
        server.script = {}
        child.process.send_signal(signal.SIGINT)
        shown, code = child.rest()
    assert code == 130
    assert "\x1b[3" not in shown  # no colour
    end = live[live.rindex("task ") :]
    assert re.search(r"done .*\$0\.000\d+ +\d+\.\d s", end)
    assert "working" in end
    table = without_codes(shown)
    lines = [line.rstrip() for line in table[table.rindex("task ") :].splitlines()]
    assert lines[0].split() == ["task", "model", "cost", "time", "result"]
    rows = lines[: next(i for i, line in enumerate(lines) if "tasks done" in line)]
    assert all(len(line) <= 60 for line in rows)


def test_an_encoding_that_lacks_a_character_of_an_answer_shows_the_rest(
    server: FaultyServer, llm: str
) -> None:
    server.script = {"quick": [answer("Zürich \u2014 \u6771\u4eac, found")]}
    with Child("--llm", llm, "--model", "quick", "Where?", PYTHONIOENCODING="latin-1") as child:
        output, code = child.rest()
    assert code == 0
    assert "rich ? ??, found" in output


def test_work_goes_on_when_nobody_reads_its_progress_any_more(
    server: FaultyServer, llm: str, tmp_path: Path
) -> None:
    released = threading.Event()

    async def when_told(exchange: Exchange) -> None:
        await asyncio.to_thread(released.wait, 60)
        await answer("at last")(exchange)

    server.script = {"quick": [when_told], "strong": [when_told]}
    arguments = ("--tasks", tasks(tmp_path, TWO), "--llm", llm, "--json")
    with Child(*arguments) as child:
        child.until(lambda text: "working" in text and server.in_flight == 2)
        child.stop_reading()
        released.set()
        output, code = child.rest()
    assert code == 0
    assert [row["answer"] for row in json.loads(output)["results"]] == ["at last", "at last"]


def test_what_an_interrupted_parent_took_itself_is_unknown_and_not_left_out(
    server: FaultyServer, llm: str
) -> None:
    server.script = {"strong": [hang()]}
    with Child("--llm", llm, "--parent", "strong", "--json", "What is it?") as child:
        while not server.in_flight:
            time.sleep(0.01)
        child.process.send_signal(signal.SIGINT)
        output, code = child.rest()
    assert code == 130
    found = json.loads(output)
    assert found["usage"]["cost_usd"] is None
    assert found["charged_usd"] > 0
