"""A file of workers: read strictly, loaded at the first call."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from masrouter.delegation.delegator import Delegator
from masrouter.delegation.tasks import Task
from masrouter.delegation.workers import first_call
from masrouter.delegation.workers.mcp_tool import MetTool
from masrouter.delegation.workers.worker import Produced, Worker, WorkerError, with_workers
from masrouter.delegation.workers.worker_file import read_worker_file
from masrouter.errors import ConfigError
from masrouter.llms.chat import ChatRequest, messages
from masrouter.llms.simulated import SimulatedProvider

ROOT = Path(__file__).resolve().parents[2]
SERVER = Path(__file__).with_name("mcp_tool_server.py")
MODULE = '''"""Functions for a file of workers."""


def shout(text: str) -> str:
    """Writes a text in capital letters.

    At once.
    """
    return text.upper()


async def later(text: str) -> str:
    return text.lower()


class Kept:
    @staticmethod
    def turn(text: str) -> str:
        """Turns a text around."""
        return text[::-1]


NUMBER = 7
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module of its own name; what importing it changes is undone."""
    (tmp_path / "own_functions.py").write_text(MODULE)
    (tmp_path / "leaving_functions.py").write_text("raise SystemExit(3)\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_functions", raising=False)
    return tmp_path


def read(folder: Path, text: str) -> tuple[Worker, ...]:
    file = folder / "workers.yaml"
    file.write_text(text)
    try:
        return read_worker_file(file)
    finally:
        sys.modules.pop("own_functions", None)


def answer(worker: Worker, text: str) -> str:
    request = ChatRequest(worker.name, messages(None, text), max_tokens=100)
    return asyncio.run(with_workers(None, [worker]).complete(request)).text


class TestPython:
    def test_a_callable_is_described_by_its_docstring(self, folder: Path) -> None:
        shouter, turner, quiet = read(
            folder,
            """
            workers:
              shouter: {python: "own_functions:shout", usd_per_call: 0, takes: goal}
              turner: {python: "own_functions:Kept.turn"}
              quiet:
                python: own_functions:later
                description: Writes a text in small letters.
                examples: [Please whisper this.]
                usd_per_call: 0.002
                max_concurrency: 3
                deadline_s: 2.5
                max_characters: 10
            """,
        )
        assert shouter.description == "Writes a text in capital letters."
        assert (shouter.takes, shouter.usd_per_call, turner.usd_per_call) == ("goal", 0, None)
        assert turner.description == "Turns a text around."
        assert quiet.examples == ("Please whisper this.",)
        assert (quiet.usd_per_call, quiet.max_concurrency, quiet.deadline_s) == (0.002, 3, 2.5)
        assert [answer(one, "Abc") for one in (shouter, turner, quiet)] == ["ABC", "cbA", "abc"]
        with pytest.raises(WorkerError, match="gave 11 characters, and 10 are taken"):
            answer(quiet, "x" * 11)

    def test_a_module_of_the_working_folder_is_found_and_hides_none_that_is_installed(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (folder / "json.py").write_text("raise SystemExit('it was run')")
        monkeypatch.chdir(folder)
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (worker,) = read(elsewhere, 'workers: {a: {python: "own_functions:shout"}}')
        assert answer(worker, "a") == "A"
        (dumps,) = read(elsewhere, 'workers: {a: {python: "json:dumps", description: Quotes.}}')
        assert answer(dumps, "a") == '"a"'

    @pytest.mark.parametrize(
        ("reference", "why"),
        [
            ("no_such_module:run", "cannot be imported (ModuleNotFoundError"),
            ("own_functions:none", "cannot be imported (AttributeError"),
            ("leaving_functions:run", "cannot be imported (SystemExit: 3)"),
            ("own_functions:NUMBER", "is 7, which cannot be called"),
            ("own_functions", "expected module:callable, got 'own_functions'"),
            ("os.system('ls'):x", "expected module:callable"),
            ("own_functions:later", "expected a `description`: there is no docstring"),
        ],
    )
    def test_what_cannot_be_called_is_refused(self, folder: Path, reference: str, why: str) -> None:
        with pytest.raises(ConfigError) as caught:
            read(folder, f'workers:\n  a:\n    python: "{reference}"\n')
        assert f"{folder / 'workers.yaml'}:" in str(caught.value)
        assert why in str(caught.value)


class TestModels:
    def test_a_model_is_loaded_once_at_the_first_call_and_in_a_thread(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        loads: list[tuple[Any, dict[str, Any], str]] = []

        def load(model: Any, **options: Any) -> Worker:
            loads.append((model, options, threading.current_thread().name))
            return Worker(name="x", description="x", run=lambda text: Produced(f"<{text}>"))

        monkeypatch.setattr(
            "masrouter.delegation.workers.worker_file.translation_worker", load
        )  # fmt: skip
        (folder / "model").mkdir()
        near, far = read(
            folder,
            """
            workers:
              near:
                translate: model
                generation: {prefix: ">>deu<< ", beams: 2}
                device: cpu
              far: {translate: someone/some-model, local_files_only: true, usd_per_call: 0.5}
            """,
        )
        assert loads == []
        assert (near.usd_per_call, far.usd_per_call) == (0.0, 0.5)
        assert near.description.startswith("Translates")
        assert near.examples
        assert [answer(near, "a"), answer(near, "b"), answer(far, "c")] == ["<a>", "<b>", "<c>"]
        (model, options, thread), (name, more, _) = loads
        assert (model, name) == (folder / "model", "someone/some-model")
        assert (options["generation"].prefix, options["generation"].beams) == (">>deu<< ", 2)
        assert options["device"] == "cpu"
        assert more["local_files_only"] is True
        assert thread == "masrouter-worker"

    def test_loading_that_fails_is_that_calls_failure_and_tried_again(self, folder: Path) -> None:
        (folder / "model").mkdir()
        (worker,) = read(folder, "workers: {short: {summarise: model}}")
        for _ in range(2):
            with pytest.raises(
                WorkerError, match=r"worker 'short': ConfigError: .*cannot be loaded"
            ):
                answer(worker, "a")

    def test_a_missing_extra_is_named_when_the_file_is_read(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        there = importlib.util.find_spec

        def find(name: str, package: str | None = None) -> Any:
            return None if name in ("transformers", "mcp") else there(name, package)

        monkeypatch.setattr(importlib.util, "find_spec", find)
        with pytest.raises(ConfigError, match=r":1: .*translate: .*pip install 'masrouter\[transf"):
            read(folder, "workers: {a: {translate: some/model}}")
        with pytest.raises(ConfigError, match=r"mcp: .*pip install 'masrouter\[mcp\]'"):
            read(folder, "workers: {a: {mcp: {url: 'http://a', tool: t}, description: d}}")


class TestTools:
    def test_a_tool_of_a_child_process_does_a_task(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (folder / "server.py").write_bytes(SERVER.read_bytes())
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        (worker,) = read(
            folder,
            f"""
            workers:
              shouter:
                mcp:
                  command: ["{sys.executable}", server.py]
                  environment: [PYTHONPATH]
                  tool: shout
                  fixed: {{mark: "?"}}
                description: Writes a text in capital letters.
                usd_per_call: 0
            """,
        )
        assert (worker.max_concurrency, worker.deadline_s) == (4, 60.0)
        delegator = Delegator(SimulatedProvider([]), workers=[worker])
        task = Task("hello", model="shouter")
        done = asyncio.run(delegator.delegate_task(task, budget_usd=0.0))
        assert done.answer == "HELLO?"

    def test_a_server_is_asked_for_its_tool_once_and_not_before_the_first_call(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        met: list[tuple[Any, str, dict[str, Any]]] = []

        async def meet(server: Any, tool: str, **options: Any) -> MetTool:
            met.append((server, tool, options))
            await asyncio.sleep(0)
            return MetTool("", shout)

        async def shout(text: str) -> Produced:
            return Produced(text.upper())

        monkeypatch.setattr(first_call, "meet_tool", meet)
        (worker,) = read(
            folder,
            """
            workers:
              notes:
                mcp: {url: "http://localhost:1/mcp", tool: look_up, argument: words, key_env: KEY}
                description: Looks things up.
            """,
        )
        assert met == []
        llm = with_workers(None, [worker])

        async def both() -> list[str]:
            asked = [ChatRequest("notes", messages(None, text), max_tokens=9) for text in "ab"]
            return [one.text for one in await asyncio.gather(*map(llm.complete, asked))]

        assert asyncio.run(both()) == asyncio.run(both()) == ["A", "B"]
        ((server, tool, options),) = met
        assert (server.url, server.key_env) == ("http://localhost:1/mcp", "KEY")
        assert (tool, options["argument"], options["name"]) == ("look_up", "words", "notes")

    def test_a_server_that_is_not_there_and_a_key_that_is_not_set_fail_the_call(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        monkeypatch.delenv("NO_SUCH_KEY", raising=False)
        lost, keyed, child = read(
            folder,
            f"""
            workers:
              lost: {{mcp: {{url: "http://127.0.0.1:{port}/mcp", tool: t}}, description: d}}
              keyed:
                mcp: {{url: "http://127.0.0.1:{port}/mcp", tool: t, key_env: NO_SUCH_KEY}}
                description: d
              child:
                mcp: {{command: ["{sys.executable}"], environment: [NO_SUCH_KEY], tool: t}}
                description: d
            """,
        )
        with pytest.raises(WorkerError, match="its server cannot be asked"):
            answer(lost, "a")
        for worker in (keyed, child):
            with pytest.raises(WorkerError, match="variable NO_SUCH_KEY is not set"):
                answer(worker, "a")

    @pytest.mark.parametrize(
        ("entry", "where", "why"),
        [
            ("{tool: t}", "mcp", "either a `command` or a `url`"),
            ("{command: [python], url: 'http://a', tool: t}", "mcp", "either a `command`"),
            ("{url: 'http://a'}", "mcp", "expected a `tool`"),
            ("{url: 'ftp://a', tool: t}", "mcp.url", "expected http:// or https://"),
            ("{url: 'http://a', folder: x, tool: t}", "mcp.folder", "no meaning beside a `url`"),
            ("{command: [python], key_env: K, tool: t}", "mcp.key_env", "no meaning beside"),
            ("{command: [no-such-program], tool: t}", "mcp.command[0]", "no program 'no-such"),
            ("{command: [], tool: t}", "mcp.command", "a program and its arguments"),
            ("{command: python, tool: t}", "mcp.command", "expected a list of texts"),
            ("{command: [python], folder: nowhere, tool: t}", "mcp.folder", "there is no folder"),
            ("{url: 'http://a', tool: 3}", "mcp.tool", "expected text, got 3; quote it"),
            ("{url: 'http://a', tool: t, fixed: [1]}", "mcp.fixed", "expected a mapping"),
        ],
    )
    def test_a_server_that_cannot_be_meant_is_refused(
        self, folder: Path, entry: str, where: str, why: str
    ) -> None:
        with pytest.raises(ConfigError) as caught:
            read(folder, f"workers:\n  a:\n    description: d\n    mcp: {entry}\n")
        assert f"workers.yaml:4: workers.a.{where}: " in str(caught.value)
        assert why in str(caught.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "expected `workers`, a mapping"),
        ("workers: {}", "expected `workers`, a mapping"),
        ("workers: [a]", ":1: workers: expected a mapping, got a list"),
        ("worker: {}", "unknown key; did you mean 'workers'?"),
        ("workers:\n  a: {}", ":2: workers.a: expected one of translate, summarise, mcp, python"),
        ("workers: {a: {python: 'x:y', mcp: {}}}", "got both mcp and python"),
        ("workers: {a: {pyton: 'x:y'}}", "expected one of translate, summarise, mcp, python"),
        ("workers: {a: {python: 'm:f', exmples: []}}", "exmples: unknown key; did you mean 'exam"),
        ("workers: {a: {python: 'own_functions:shout', generation: {}}}", "generation: unknown"),
        ("workers:\n  B c: {python: 'own_functions:shout'}", ":2: workers.B c: name: expected"),
        ("workers: {a: {python: 'own_functions:shout', takes: x}}", "a.takes: expected material"),
        ("workers: {a: {python: 'own_functions:shout', usd_per_call: -1}}", "usd_per_call: expec"),
        ("workers: {a: {python: 'own_functions:shout', deadline_s: soon}}", "deadline_s: expected"),
        ("workers: {a: {python: 'own_functions:shout', examples: x}}", "expected a list of texts"),
        ("workers: {a: {python: 'own_functions:shout', examples: [1]}}", "examples[0]: expected"),
        ("workers: {a: {python: 'own_functions:shout', description: 3}}", "description: expected"),
        ("workers: {a: {translate: ./nowhere}}", "translate: there is no folder"),
        ("workers: {a: {translate: ~nobody-here/x/y}}", "'~nobody-here/x/y' cannot be a path: "),
        (f"workers: {{a: {{translate: {'x' * 5000}}}}}", "cannot be a path: "),
        ("workers: {a: {translate: 3}}", "translate: expected text, got 3; quote it"),
        ("workers: {a: {translate: m, generation: {beams: 0}}}", "generation.beams: expected a"),
        ("workers: {a: {translate: m, generation: {prefix: 1}}}", "generation.prefix: expected t"),
        ("workers: {a: {translate: m, generation: {beam: 1}}}", "did you mean 'beams'?"),
        ("workers: {a: {translate: m, local_files_only: 1}}", "expected true or false, got 1"),
        ("workers: {a: {mcp: {url: 'http://a', tool: t}}}", "expected a `description`"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(folder: Path, text: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(folder, text)
    assert str(caught.value).startswith(f"{folder / 'workers.yaml'}:")
    assert why in str(caught.value)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        read_worker_file(tmp_path / "none.yaml")


def test_the_workers_of_the_examples_answer_their_own_example_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    workers = {worker.name: worker for worker in read_worker_file(ROOT / "examples/workers.yaml")}
    said = {name: [one.run(text) for text in one.examples] for name, one in workers.items()}
    assert said == {
        "calculator": ["391", "4.25", "12"],
        "units": ["48.28032", "907.18474", "1.5"],
        "dates": ["Tuesday", "73", "2022-06-03"],
        "words": ["6", "4", "apple, fig, pear"],
        "elements": ["6", "Na", "oxygen"],
        "numerals": ["MCMXCIV", "100101", "1984"],
    }
    assert all(worker.price is not None for worker in workers.values())


@pytest.mark.parametrize(
    "text",
    [
        "Calculate __import__('os').getcwd() + 1.", "Calculate 9 ** 9 ** 9 ** 9.",
        "Calculate 1 / 0.", f"Calculate {'(' * 5000}1 + 1{')' * 5000}.", "Calculate it.",
    ],
)  # fmt: skip
def test_the_calculator_of_the_examples_runs_nothing_and_ends(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    calculator = read_worker_file(ROOT / "examples" / "workers.yaml")[0]
    with pytest.raises(WorkerError, match="worker 'calculator': ValueError"):
        answer(calculator, text)
