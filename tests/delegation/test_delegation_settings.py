"""What a delegation may be told, and every mistake as `file:line: key: why`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from masrouter.delegation.naming.settings import MOST_NAME, Settings
from masrouter.errors import ConfigError
from masrouter.types import Agent, Plan

WHOLE = """\
default: small
aliases: {haiku: anthropic/claude-3-5-haiku, fast: "llama3.2:3b --provider ollama"}
tiers: {small: haiku, large: openai/gpt-4o}
plans:
  careful: {debate: [mathematician@large, haiku]}
  exact: {topology: io, agents: [{role: null, model: gpt-4o}]}
allowed: [openai/*, haiku]
refused: [openai/o1, auto]
max_tasks: 4
max_depth: 3
max_total_tasks: 32
max_concurrency: 2
max_goal_characters: 1000
max_tokens: 256
topology: io
unlisted: true
descriptions: {haiku: Fast and cheap.}
"""


def load(folder: Path, text: str) -> Settings:
    file = folder / "delegation.yaml"
    file.write_text(text)
    return Settings.load(file)


def test_a_file_says_everything(tmp_path: Path) -> None:
    assert load(tmp_path, WHOLE) == Settings(
        default="small",
        aliases={
            "haiku": "anthropic/claude-3-5-haiku",
            "fast": "llama3.2:3b --provider ollama",
        },
        tiers={"small": "haiku", "large": "openai/gpt-4o"},
        plans={
            "careful": Plan("debate", (Agent("mathematician", "large"), Agent(None, "haiku"))),
            "exact": Plan("io", (Agent(None, "gpt-4o"),)),
        },
        allowed=("openai/*", "haiku"),
        refused=("openai/o1", "auto"),
        max_tasks=4,
        max_depth=3,
        max_total_tasks=32,
        max_concurrency=2,
        max_goal_characters=1000,
        max_tokens=256,
        topology="io",
        unlisted=True,
        descriptions={"haiku": "Fast and cheap."},
    )


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "") == load(tmp_path, "default: null") == Settings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_task: 3", "1: max_task: unknown key; did you mean 'max_tasks'?"),
        ("\nmax_tasks: 0", "2: max_tasks: expected a whole number >= 1, got 0"),
        ("max_depth: true", "1: max_depth: expected a whole number >= 1, got True"),
        ("max_tokens: 1.5", "1: max_tokens: expected a whole number >= 1, got 1.5"),
        ("unlisted: 1", "1: unlisted: expected true or false, got 1"),
        ("default: 4", "1: default: expected a name, got 4"),
        ("default: ' '", "1: default: ' ' cannot be a name: it is empty"),
        ("aliases: [a]", "1: aliases: expected a mapping, got a list"),
        ("aliases:\n  a: 3", "2: aliases.a: expected a name, got 3"),
        ("aliases:\n  a: null", "2: aliases.a: expected a name, got null"),
        ("aliases:\n  auto: b", "2: aliases.auto: this is the router's own name"),
        ("tiers:\n  auto: b", "2: tiers.auto: this is the router's own name"),
        ("aliases:\n  a b: c", "2: aliases.a b: expected one word"),
        ("aliases:\n  --provider: c", "2: aliases.--provider: expected one word"),
        ("aliases:\n  openai/*: c", "2: aliases.openai/*: expected one word"),
        ('aliases:\n  "a\\e": c', "1: aliases: 'a\\x1b' cannot be a name: it holds characters"),
        ("aliases: {'': b}", "1: aliases: '' cannot be a name: it is empty"),
        ("aliases: {a: b}\ntiers:\n  a: c", "3: tiers.a: aliases has this name too"),
        ("tiers: {a: b}\nplans:\n  a: {io: [c]}", "3: plans.a: tiers has this name too"),
        ("aliases:\n  a: a", "2: aliases.a: the names lead in a circle: a -> a"),
        ("aliases: {a: ' b '}\ntiers:\n  b: a", "3: tiers.b: the names lead in a circle"),
        (
            "aliases:\n  a: b\n  b: c\ntiers:\n  c: a",
            "5: tiers.c: the names lead in a circle: c -> a -> b -> c",
        ),
        ("allowed: gpt-4o", "1: allowed: expected a list of names, got 'gpt-4o'"),
        ("refused:\n  - a\n  - 3", "3: refused[1]: expected a name, got 3"),
        ("refused: ['']", "1: refused[0]: '' cannot be a name: it is empty"),
        ("plans: 3", "1: plans: expected a mapping, got 3"),
        ("plans:\n  a: {oi: [b]}", "2: plans.a.oi: topology 'oi' is not in the catalog"),
        ("plans:\n  a: {debate: [b]}", "2: plans.a.debate: agents: "),
        ("plans:\n  a: {io: [critik@b]}", "2: plans.a.io[0]: role 'critik' is not in the catalog"),
        ("plans:\n  a: {topology: io, agents: []}", "2: plans.a: agents: "),
        ("topology: debate", "1: topology: a single model cannot work so: "),
        ("topology: oi", "1: topology: a single model cannot work so: topology 'oi' is not one"),
        ("descriptions:\n  a: ''", "2: descriptions.a: expected a text, got ''"),
        ("- a", "1: expected a mapping, got a list"),
    ],
)
def test_a_mistake_in_a_file_has_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, text)
    assert str(raised.value).startswith(f"{tmp_path / 'delegation.yaml'}:{message}")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml: cannot be read"):
        Settings.load(tmp_path / "gone.yaml")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"aliases": {"a": "a"}}, "aliases: a: the names lead in a circle"),
        ({"allowed": "openai/*"}, "allowed: expected a list of names"),
        ({"plans": {"a": "io"}}, "plans: a: expected a Plan"),
        ({"max_concurrency": -1}, "max_concurrency: expected a whole number"),
        ({"aliases": {"a": "b" * (MOST_NAME + 1)}}, "cannot be a name: it has 201 characters"),
        ({"default": "b" * 100_000}, "cannot be a name: it has 100000 characters"),
    ],
)
def test_settings_made_in_code_are_checked_alike(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        Settings(**given)
    assert len(str(raised.value)) < 400


def test_lists_made_in_code_become_tuples() -> None:
    settings = Settings(allowed=["a"], refused=["b"])  # type: ignore[arg-type]
    assert (settings.allowed, settings.refused) == (("a",), ("b",))
