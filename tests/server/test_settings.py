"""What a server may be told, and what it refuses to be told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from masrouter.errors import ConfigError
from masrouter.server import Limits, ServerSettings
from masrouter.server.keys import KeyEntry, key_digest
from masrouter.types import Agent, Plan

KEY = "mr-a-key-of-enough-characters"
ENTRY = KeyEntry("ann", key_digest(KEY), 5.0)

WHOLE = f"""
host: 0.0.0.0
port: 9000
keys:
  - name: ann
    sha256: {ENTRY.sha256}
    budget_usd: 5.0
budget_usd: 100
exploration: 0.05
records: kept/served.sqlite
keep_days: 90
session_ttl_s: 60
playground: false
plans:
  cheap: {{topology: io, agents: [{{role: null, model: gpt-4o-mini}}]}}
limits: {{max_concurrent: 8, max_queued: 0, request_timeout_s: 1.5}}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "serve.yaml"
    path.write_text(text)
    return path


def test_defaults_are_safe() -> None:
    settings = ServerSettings()
    assert settings.host == "127.0.0.1"
    assert (settings.exploration, settings.records, settings.keys) == (0.0, "memory", ())
    assert settings.limits == Limits()
    assert Limits().max_body_bytes == 1_000_000


def test_a_file_says_everything(tmp_path: Path) -> None:
    assert ServerSettings.load(written(tmp_path, WHOLE)) == ServerSettings(
        host="0.0.0.0",
        port=9000,
        keys=(ENTRY,),
        budget_usd=100,
        exploration=0.05,
        records=tmp_path / "kept/served.sqlite",
        keep_days=90,
        session_ttl_s=60,
        playground=False,
        plans={"cheap": Plan("io", (Agent(None, "gpt-4o-mini"),))},
        limits=Limits(max_concurrent=8, max_queued=0, request_timeout_s=1.5),
    )


def test_arguments_go_before_the_file_and_the_environments_key_is_added(tmp_path: Path) -> None:
    settings = ServerSettings.load(
        written(tmp_path, WHOLE),
        environment={"MASROUTER_SERVER_KEY": KEY},
        port=1,
        records="none",
    )
    assert (settings.port, settings.records, settings.exploration) == (1, "none", 0.05)
    assert [entry.name for entry in settings.keys] == ["ann", "environment"]
    assert ServerSettings.load(written(tmp_path, "")) == ServerSettings.load() == ServerSettings()
    for word in ("memory", "none"):
        assert ServerSettings.load(written(tmp_path, f"records: {word}")).records == word


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org", "[::]"])
def test_who_can_be_reached_from_elsewhere_needs_a_key(host: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can be reached from other machines"):
        ServerSettings(host=host)
    with pytest.raises(ConfigError, match="can be reached from other machines"):
        ServerSettings.load(written(tmp_path, f"host: '{host}'"))
    assert ServerSettings(host=host, keys=(ENTRY,)).host == host
    opened = ServerSettings.load(environment={"MASROUTER_SERVER_KEY": KEY}, host=host)
    assert opened.host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost", "LOCALHOST"])
def test_this_machine_alone_needs_none(host: str) -> None:
    assert ServerSettings(host=host).host == host


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("prot: 1", "serve.yaml:1: prot: unknown key; did you mean 'port'?"),
        ("limits:\n  max_body: 1", "serve.yaml:2: limits.max_body: unknown key"),
        ("limits:\n  max_concurrent: 0", "serve.yaml:1: limits: max_concurrent: expected"),
        ("limits:\n  max_concurrent: 1.5", "max_concurrent: expected a whole number from 1"),
        ("limits:\n  drain_s: soon", "drain_s: expected a number from 0.001"),
        ("port: 65536", "serve.yaml:1: port: expected a whole number from 0 to 65535"),
        ("exploration: 1.1", "exploration: expected a number from 0 to 1, got 1.1"),
        ("exploration: yes", "exploration: expected a number from 0 to 1, got 'yes'"),
        ("budget_usd: -1", "budget_usd: expected a number from 0"),
        ("\n\nport: null", "serve.yaml:3: port: expected a whole number"),
        ("keep_days: much", "keep_days: expected a number from 0"),
        ("playground: 1", "serve.yaml:1: playground: expected true or false, got 1"),
        ("records: 3", "serve.yaml:1: records: expected a file, `memory` or `none`, got 3"),
        ("keys: ann", "serve.yaml:1: keys: expected a list"),
        ("keys:\n  - {name: ann}", "serve.yaml:2: keys[0]: sha256 is missing"),
        ("keys:\n  - {name: ann, key: hidden-key}", "keys[0].key: unknown key"),
        (
            "keys:\n  - {name: ann, sha256: hidden-key}",
            "keys[0]: sha256: of key 'ann': expected 64",
        ),
        (
            "keys:\n" + f"  - {{name: ann, sha256: {ENTRY.sha256}}}\n" * 2,
            "keys: 'ann' stands twice",
        ),
        ("plans: {auto: {topology: io, agents: []}}", "plans.auto: 'auto': expected a name"),
        ("plans: {a b: {topology: io, agents: []}}", "plans.a b: 'a b': expected a name"),
        (
            "plans: {a: {topology: io, agents: []}}",
            "plans.a: plan: agents: 'io' needs at least one",
        ),
        ("plans: {a: io}", "plans.a: plan: expected an object"),
        ("[1]", "serve.yaml:1: expected a mapping, got a list"),
    ],
)
def test_what_cannot_be_meant_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)) as refusal:
        ServerSettings.load(written(tmp_path, text))
    assert "hidden-key" not in str(refusal.value)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"host": ""}, "host: expected a name"),
        ({"port": True}, "port: expected a whole number"),
        ({"exploration": float("nan")}, "exploration: expected a number from 0 to 1"),
        ({"session_ttl_s": 0}, "session_ttl_s: expected a number from 0.001"),
    ],
)
def test_arguments_are_checked_alike(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        ServerSettings(**given)
    with pytest.raises(ConfigError, match="cannot be read"):
        ServerSettings.load("/nowhere/serve.yaml")
