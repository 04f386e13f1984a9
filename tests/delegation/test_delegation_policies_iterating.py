"""Policies of iterating by a file of thresholds: what the file gives, and what the entry does."""

from __future__ import annotations

from pathlib import Path

import pytest

from masrouter.delegation.deliberation.iterating_rule import DEFAULT, IteratingRule
from masrouter.delegation.deliberation.thresholds import Thresholds
from masrouter.delegation.naming.settings import Settings
from masrouter.delegation.policies.specs import Iterate
from masrouter.delegation.workers.matching import MatchingRule
from masrouter.errors import ConfigError

MATCHING = MatchingRule(0.3, 0.5, "hashing-64")


def policy(folder: Path, entry: str, thresholds: Thresholds) -> Iterate:
    """The one that `entry` says, beside a file `t.json`."""
    thresholds.save(folder / "t.json")
    file = folder / "delegation.yaml"
    file.write_text(f"policies:\n  mine: {{iterate: {{model: m, subtask: s, {entry}}}}}\n")
    found = Settings.load(file).policies["mine"]
    assert isinstance(found, Iterate)
    return found


def test_rounds_and_requests_come_of_the_file_where_the_entry_gives_none(tmp_path: Path) -> None:
    known = Thresholds(matching=MATCHING, iterating=IteratingRule(2, 1))
    found = policy(tmp_path, "thresholds: t.json", known)
    assert found == Iterate(model="m", subtask="s", rounds=2, requests=1, matching=MATCHING)
    assert policy(tmp_path, "rounds: 5, thresholds: t.json", known).rounds == 5
    assert policy(tmp_path, "requests: 5, thresholds: t.json", known).requests == 5


def test_a_file_without_such_a_rule_leaves_the_default(tmp_path: Path) -> None:
    found = policy(tmp_path, "ahead: notes, thresholds: t.json", Thresholds(matching=MATCHING))
    assert (found.rounds, found.requests) == (DEFAULT.rounds, DEFAULT.requests)
    assert (found.ahead, found.matching) == ("notes", MATCHING)


def test_a_look_up_ahead_stays_where_it_pays_and_is_left_out_and_said_where_not(
    tmp_path: Path,
) -> None:
    entry = "ahead: notes, thresholds: t.json"
    pays = policy(tmp_path, entry, Thresholds(iterating=IteratingRule(2, 1, True)))
    assert (pays.ahead, pays.rounds) == ("notes", 2)
    assert "notes is asked first." in pays.description
    loses = policy(tmp_path, entry, Thresholds(iterating=IteratingRule(2, 1)))
    assert loses.ahead is None
    assert "ahead" not in loses.parts
    assert "notes is not asked first, since that did not pay." in loses.description


def test_what_was_chosen_with_a_look_up_is_not_taken_without_one(tmp_path: Path) -> None:
    known = Thresholds(iterating=IteratingRule(1, 1, True))
    with pytest.raises(ConfigError, match=r":2: .*thresholds: t\.json: .* name `ahead`"):
        policy(tmp_path, "thresholds: t.json", known)
    with pytest.raises(ConfigError, match="name `ahead`"):
        policy(tmp_path, "rounds: 2, thresholds: t.json", known)
    assert policy(tmp_path, "rounds: 2, requests: 3, thresholds: t.json", known).rounds == 2


def test_a_file_that_says_nothing_of_iterating_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"t\.json: has no rule of iterating or matching"):
        policy(tmp_path, "thresholds: t.json", Thresholds())
