"""Packages add topologies by entry points; what they offer is checked."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.topologies.scripted import Scripted, agreeing, plan

from masrouter.catalog import Catalog
from masrouter.errors import PlanError
from masrouter.execution import execute
from masrouter.topologies import prompt_version, topology, topology_names

MODULE = """
from masrouter.errors import PlanError

class Ring:
    name = "ring"
    version = 1

    def check(self, plan):
        if len(plan.agents) % 2:
            raise PlanError("plan: a ring has an even number of agents")

    async def answer(self, team):
        replies = [await team.ask(i, team.query, step="lap") for i in range(len(team.agents))]
        team.note("round it went")
        return replies[-1].text

class Misnamed(Ring):
    name = "wheel"

class Fake:
    name = "fake"

other = Ring()
"""


@pytest.fixture
def offers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Installs a package that offers topologies: offers("ring = ring_shapes:Ring")."""
    (tmp_path / "ring_shapes.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "ring_shapes", raising=False)

    def install(*lines: str, package: str = "ring") -> None:
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        text = "\n".join(["[masrouter.topologies]", *lines])
        (info / "entry_points.txt").write_text(text + "\n")

    yield install
    sys.modules.pop("ring_shapes", None)


def test_a_package_adds_a_topology(offers: object) -> None:
    assert callable(offers)
    offers("ring = ring_shapes:Ring")
    assert topology_names()[-1] == "ring"
    llm = Scripted(agreeing)
    run = execute(plan("ring", None, "coder"), "2 + 2?", llm=llm)
    assert run.notes == ("round it went",)
    assert [request.model for request in llm.requests] == ["m1", "m2"]
    with pytest.raises(PlanError, match="a ring has an even number"):
        execute(plan("ring", None), "2 + 2?", llm=llm)
    catalog = Catalog.default()
    version = prompt_version(plan("ring", None), catalog)
    assert version == prompt_version(plan("ring", None), catalog)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x = ring_shapes:Absent", "'x': entry point ring_shapes:Absent cannot be loaded: Attr"),
        ("x = no_such_module:X", "cannot be loaded: ModuleNotFoundError"),
        ("x = ring_shapes:Misnamed", "names itself 'wheel'; give both the same name"),
        ("x = ring_shapes:Fake", "is no topology: it has no version, check, answer"),
    ],
)
def test_what_is_no_topology_is_refused(offers: object, line: str, message: str) -> None:
    assert callable(offers)
    offers(line)
    with pytest.raises(PlanError, match=message):
        topology("x")


def test_names_are_offered_once_and_those_that_ship_stay(offers: object) -> None:
    assert callable(offers)
    offers("ring = ring_shapes:Ring", "io = ring_shapes:Ring")
    offers("ring = ring_shapes:other", package="other")
    assert type(topology("io")).__name__ == "InputOutput"
    with pytest.raises(PlanError, match="'ring' is offered more than once: ring_shapes:Ring, ring"):
        topology("ring")
