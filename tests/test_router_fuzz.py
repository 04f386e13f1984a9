"""A thousand checkpoints changed at random, with right hashes: refused, or a router that routes."""

from __future__ import annotations

import copy
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.test_router_checkpoint import QUERY, forged

from masrouter.catalog import Catalog
from masrouter.checkpoint import CheckpointData, read_checkpoint
from masrouter.errors import CheckpointError, ConstraintError
from masrouter.router import Router
from masrouter.types import RoutingDecision


@pytest.fixture(scope="module")
def genuine(checkpoint: Path) -> CheckpointData:
    """With a catalog of nothing but what its plans use, so that most changes to it matter."""
    data = read_checkpoint(checkpoint).data
    whole = Catalog.from_yaml(data.catalog_yaml, "catalog")
    names = data.config["candidates"]
    small = Catalog(
        {name: whole.models[name] for name in names["models"]},
        {name: whole.roles[name] for name in names["roles"] if name},
        {name: whole.topologies[name] for name in names["topologies"]},
    )
    return replace(data, catalog_yaml=small.to_yaml())


NASTY: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 7, 2**40, -(2**62), 0.5, -0.5, 1e-300, 1e300, -1e300, "", "x",
    "\u202e", "io", "../../etc/passwd", [], {}, [0], [None], {"x": 1}, [[]], "1", "nan",
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    found = [path] if path else []
    if isinstance(value, dict):
        for key in sorted(value):
            found += places(value[key], (*path, key))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            found += places(item, (*path, i))
    return found


def mutate_json(value: dict[str, Any], chance: random.Random) -> None:
    """One to three changes: a value replaced, removed, doubled, or moved."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        all_places = places(value)
        if not all_places:
            return
        # Half of them outside of the training record, which nothing computes with.
        path = chance.choice(all_places)
        if chance.random() < 0.7:
            path = chance.choice([p for p in all_places if p[0] != "training"] or all_places)
        parent: Any = value
        for key in path[:-1]:
            parent = parent[key]
        key = path[-1]
        kind = chance.randrange(5)
        if kind <= 2:
            old = parent[key]
            scaled = [old * 1e9, -old, old + 1] if type(old) in (int, float) else []
            new = copy.deepcopy(chance.choice([*NASTY, *scaled]))
            if type(new) is int and not -(2**63) <= new < 2**63:
                new = 0
            parent[key] = new
        elif kind == 3:
            del parent[key]
        elif isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[chance.randrange(len(parent))]))
        else:
            parent[f"{key}_"] = copy.deepcopy(parent[key])


def mutate_text(text: str, chance: random.Random) -> str:
    lines = text.splitlines(keepends=True)
    for _ in range(chance.choice((1, 1, 2))):
        i = chance.randrange(len(lines))
        kind = chance.randrange(5)
        if kind == 0:
            del lines[i]
        elif kind == 1:
            lines.insert(i, lines[chance.randrange(len(lines))])
        elif kind == 2:
            key, colon, _ = lines[i].partition(":")
            value = chance.choice(("-1", ".nan", "&a *a", "[", "!!python/name:os.system", "1e999",
                                   "null", "true", "{}", "''"))  # fmt: skip
            lines[i] = f"{key}{colon} {value}\n"
        elif kind == 3:
            lines[i] = "  " + lines[i]
        else:
            at_ = chance.randrange(len(lines[i]))
            lines[i] = lines[i][:at_] + chance.choice("\x00é:-#\t&*![}%@`") + lines[i][at_ + 1 :]
    return "".join(lines)


def check_decision(decision: RoutingDecision, router: Router) -> None:
    """What even a changed router must keep: a plan of its own, and numbers that mean something."""
    assert decision.plan in router.plans
    assert 0 <= decision.expected_score <= 1
    assert decision.score_interval.low <= decision.score_interval.high
    if decision.expected_cost_usd is not None:
        assert 0 <= decision.expected_cost_usd < float("inf")
    stages = decision.stage_probabilities
    for p in (decision.propensity, stages.topology, stages.count, *stages.roles, *stages.models):
        assert 0 <= p <= 1 + 1e-6


def loads_and_routes(path: Path, save: bool) -> bool:
    """False where the checkpoint is refused; raises where it loads and does not work."""
    try:
        router = Router.from_pretrained(path)
    except CheckpointError:
        return False
    try:
        for weight in (None, 0.0, 1e4):
            check_decision(router.route(QUERY, cost_weight=weight), router)
        if router.state.cascade_trained:
            check_decision(router.route(QUERY, sample=True, seed=1), router)
        assert str(router.explain(QUERY))
    except ConstraintError:
        return True  # a changed catalog may lack prices, and then money is not guessed
    if save:  # what loads can be saved again; not every time, since it waits for the disk
        router.save_pretrained(path.with_name("again"))
    return True


def fuzz(genuine: CheckpointData, rounds: int, seed: int, folder: Path) -> tuple[int, int]:
    """(refused, loaded) of `rounds` mutated checkpoints; anything else fails."""
    refused = loaded = 0
    for number in range(rounds):
        chance = random.Random(f"{seed}-{number}")
        which = chance.choice(("config", "config", "config", "calibration", "catalog"))

        def change(
            data: CheckpointData, chance: random.Random = chance, which: str = which
        ) -> CheckpointData:
            if which == "catalog":
                return replace(data, catalog_yaml=mutate_text(data.catalog_yaml, chance))
            mutate_json(getattr(data, which), chance)
            return data

        try:
            path = forged(genuine, change, folder)
        except CheckpointError:
            continue  # not even JSON: the container's own tests
        try:
            was_loaded = loads_and_routes(path, save=number % 8 == 0)
        except Exception as error:
            raise AssertionError(f"mutation {seed}-{number} ({which}): {error!r}") from error
        loaded += was_loaded
        refused += not was_loaded
    return refused, loaded


def test_mutated_checkpoints_are_refused_or_route(genuine: CheckpointData, tmp_path: Path) -> None:
    refused, loaded = fuzz(genuine, 150, 0, tmp_path / "mutated")
    assert refused > 50
    assert loaded > 5  # or the mutations would prove nothing of what loads


@pytest.mark.slow
def test_a_thousand_mutated_checkpoints_are_refused_or_route(
    genuine: CheckpointData, tmp_path: Path
) -> None:
    refused, loaded = fuzz(genuine, 1000, 1, tmp_path / "mutated")
    assert refused + loaded > 900


def test_mutations_change_what_they_say(genuine: CheckpointData) -> None:
    """The fuzz is not idle: nearly every round differs from the genuine configuration."""
    before = json.dumps(genuine.config, sort_keys=True)
    changed = 0
    for seed in range(40):
        config = copy.deepcopy(genuine.config)
        mutate_json(config, random.Random(seed))
        changed += json.dumps(config, sort_keys=True, default=str) != before
    assert changed >= 36
