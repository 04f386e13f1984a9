"""Plan files: what is read, and every mistake as `file:line: key: why`."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.collection.worlds import CATALOG

from masrouter.collection import PlanSpace, read_plan_file
from masrouter.errors import ConfigError
from masrouter.types import Agent, Plan

ROOT = Path(__file__).parents[2]

GOOD = """\
plans:
  - io: [gpt-4o-mini]
  - debate: [critic@gpt-4o, assistant@provider/some-model:free]
space:
  topologies: {io: 1, debate: [2, 3]}
  roles: {code: [coder], any: [assistant, critic]}
  models: [gpt-4o-mini, gpt-4o]
"""


def read(tmp_path: Path, text: str):  # type: ignore[no-untyped-def]
    path = tmp_path / "plans.yaml"
    path.write_text(text)
    return read_plan_file(path, CATALOG)


def test_plans_and_a_space_are_read(tmp_path: Path) -> None:
    found = read(tmp_path, GOOD)
    seats = (Agent("critic", "gpt-4o"), Agent("assistant", "provider/some-model:free"))
    assert found.plans == (Plan("io", (Agent(None, "gpt-4o-mini"),)), Plan("debate", seats))
    assert found.space == PlanSpace(
        {"io": (1, 1), "debate": (2, 3)},
        {"code": ("coder",), "any": ("assistant", "critic")},
        ("gpt-4o-mini", "gpt-4o"),
    )
    assert found.space.roles_of("code") == ("coder", "assistant", "critic")
    assert found.space.roles_of("math") == ("assistant", "critic")


def test_the_plans_that_ship_are_read() -> None:
    found = read_plan_file(ROOT / "data/plans.yaml", CATALOG)
    assert len(found.plans) > 10
    assert found.space is not None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "  - io: [gpt-4o-mini]",
            "  - oi: [gpt-4o-mini]",
            "2: plans[0].oi: topology 'oi' is not in",
        ),
        ("  - io: [gpt-4o-mini]", "  - io: [a, b]", "2: plans[0].io: agents: "),
        (
            "  - io: [gpt-4o-mini]",
            "  - io: []",
            "2: plans[0].io: expected a list that is not empty",
        ),
        ("  - io: [gpt-4o-mini]", "  - io: [3]", "2: plans[0].io[0]: expected `role@model`, got 3"),
        (
            "  - io: [gpt-4o-mini]",
            "  - io: ['critic@']",
            "2: plans[0].io[0]: expected `role@model`",
        ),
        ("  - io: [gpt-4o-mini]", "  - {io: [a], cot: [a]}", "2: plans[0]: expected one `topology"),
        (
            "critic@gpt",
            "critik@gpt",
            "3: plans[1].debate[0]: role 'critik' is not in the catalog; did",
        ),
        ("  - debate: [critic@gpt-4o, ", "  - debate: [", "3: plans[1].debate: agents: "),
        (
            "  - debate",
            "  - io: [gpt-4o-mini]\n  - debate",
            "3: plans[1]: io(gpt-4o-mini) stands here",
        ),
        ("space:", "spaces:", "4: spaces: unknown key; did you mean 'space'?"),
        ("io: 1,", "io: 2,", "5: space.topologies.io: agents: "),
        ("io: 1,", "io: [0, 1],", "5: space.topologies.io: expected [least, most] agents"),
        (
            "io: 1,",
            "io: yes,",
            "5: space.topologies.io: expected a number of agents or [least, most]",
        ),
        (
            "[2, 3]",
            "[3, 2]",
            "5: space.topologies.debate: expected [least, most] agents, got [3, 2]",
        ),
        ("[2, 3]", "[2, 99]", "5: space.topologies.debate: agents: "),
        ("code:", "cod:", "6: space.roles.cod: unknown key; did you mean 'code'?"),
        ("[coder]", "[codr]", "6: space.roles.code[0]: role 'codr' is not in the catalog"),
        ("[coder]", "[coder, coder]", "6: space.roles.code[1]: expected a new name"),
        (
            "  models: [gpt-4o-mini, gpt-4o]\n",
            "",
            "4: space: needs topologies, roles, models; got no m",
        ),
        (
            "  roles: {code: [coder], any: [assistant, critic]}",
            "  roles: {}",
            "6: space.roles: expect",
        ),
        (GOOD, "{}\n", "1: expected `plans`, `space` or both"),
        (GOOD, "- a\n", "1: expected a mapping"),
        (GOOD, "plans: &a [*a]\n", "1: "),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, GOOD.replace(old, new, 1))
    assert str(caught.value).startswith(f"{tmp_path / 'plans.yaml'}:{message}")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file"):
        read_plan_file(tmp_path / "none.yaml", CATALOG)
