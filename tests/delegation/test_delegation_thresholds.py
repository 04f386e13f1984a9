"""Thresholds in a file: parts written one by one, and files that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from masrouter.delegation.deliberation.agreement import Rule
from masrouter.delegation.deliberation.iterating_rule import IteratingRule
from masrouter.delegation.deliberation.missing import MissingRule
from masrouter.delegation.deliberation.thresholds import Thresholds
from masrouter.delegation.workers.matching import MatchingRule
from masrouter.errors import ConfigError

RULE = Rule(5, 0.6, stop_early=True, at="step", alike=0.7)
MISSING = MissingRule({"bare": 0.5}, 0.5)
MATCHING = MatchingRule(0.25, 0.4, "hashing-64")


def test_thresholds_come_back_from_a_file_as_they_went(tmp_path: Path) -> None:
    path = tmp_path / "thresholds.json"
    kept = Thresholds(RULE, MISSING, MATCHING, {"rule": {"queries": 60}, "matching": {}})
    kept.save(path)
    assert Thresholds.load(path) == kept
    # Two thirds are no exact number.
    Thresholds(Rule(3, 2 / 3)).save(path)
    assert Thresholds.load(path) == Thresholds(Rule(3, 2 / 3))
    Thresholds(matching=MATCHING).save(path)
    assert Thresholds.load(path).rule is None


def test_a_part_is_written_without_losing_the_others(tmp_path: Path) -> None:
    path = tmp_path / "thresholds.json"
    first = Thresholds.updated(path, rule=Rule(), chosen_on={"rule": {"queries": 60}})
    assert first == Thresholds(Rule(), chosen_on={"rule": {"queries": 60}})
    Thresholds.updated(path, missing=MISSING, matching=MATCHING, chosen_on={"missing": {"n": 1}})
    found = Thresholds.updated(path, missing=MissingRule(), chosen_on={"missing": {"n": 2}})
    assert found == Thresholds.load(path)
    assert found == Thresholds(
        Rule(), MissingRule(), MATCHING, {"rule": {"queries": 60}, "missing": {"n": 2}}
    )
    # What the old rule was chosen on is not said of the new one.
    assert "rule" not in Thresholds.updated(path, rule=RULE).chosen_on


def test_how_far_to_iterate_is_a_part_that_may_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "thresholds.json"
    rule = IteratingRule(2, 1, True)
    Thresholds(RULE).save(path)
    before = json.loads(path.read_text())
    del before["iterating"]  # as it was written before there was this part
    path.write_text(json.dumps(before))
    assert Thresholds.load(path) == Thresholds(RULE)
    found = Thresholds.updated(path, iterating=rule, chosen_on={"iterating": {"queries": 30}})
    assert found == Thresholds(RULE, chosen_on={"iterating": {"queries": 30}}, iterating=rule)
    assert Thresholds.load(path) == Thresholds.updated(path, rule=RULE) == found


def test_a_file_that_cannot_be_read_or_written_is_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "thresholds.json"
    Thresholds(RULE).save(path)
    before = path.read_text()
    with pytest.raises(ConfigError, match="'missing' is no part that is given here"):
        Thresholds.updated(path, rule=Rule(), chosen_on={"missing": {}})
    with pytest.raises(ConfigError, match="chosen_on: not for JSON"):
        Thresholds.updated(path, rule=Rule(), chosen_on={"rule": {"score": float("nan")}})
    assert path.read_text() == before
    path.write_text("{")
    with pytest.raises(ConfigError, match=r"thresholds\.json: line: not valid JSON"):
        Thresholds.updated(path, rule=Rule())
    assert path.read_text() == "{"
    assert [file.name for file in tmp_path.iterdir()] == ["thresholds.json"]
    with pytest.raises(ConfigError, match="cannot be written"):
        Thresholds(RULE).save(tmp_path / "none" / "thresholds.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        Thresholds.load(tmp_path / "none.json")


GOOD_RULE = {"samples": 3, "threshold": 1, "stop_early": True, "at": "task", "alike": 0.5}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"format": "other"}, "format: expected 'masrouter.delegation.thresholds'"),
        ({"version": 1}, "version: this masrouter reads version 2, got 1; calibrate again"),
        ({"version": True}, "version: this masrouter reads version 2"),
        ({"extra": 1}, "file: unknown key 'extra'"),
        ({"rule": {"samples": 3, "threshold": 1}}, "rule: alike: not there"),
        ({"rule": {**GOOD_RULE, "samples": 1}}, "samples: expected"),
        ({"rule": {**GOOD_RULE, "threshold": 2}}, "threshold: expected"),
        ({"rule": {**GOOD_RULE, "stop_early": 0}}, "stop_early: expected true"),
        ({"rule": {**GOOD_RULE, "at": "answer"}}, "at: expected 'task' or 'step'"),
        ({"rule": {**GOOD_RULE, "alike": 0}}, "alike: expected a share"),
        ({"rule": {**GOOD_RULE, "more": 0}}, "rule: unknown key 'more'"),
        ({"matching": {"threshold": 0.2}}, "matching: chat_weight: not there"),
        ({"matching": {"threshold": 9, "chat_weight": 0, "encoder": "x"}}, "matching: threshold"),
        ({"missing": {"weights": [], "threshold": 1}}, "weights: expected an object"),
        ({"missing": {"weights": {"x": 1}, "threshold": 1}}, "no signal 'x'"),
        ({"iterating": {"rounds": 2, "requests": 1}}, "iterating: ahead: not there"),
        (
            {"iterating": {"rounds": 0, "requests": 1, "ahead": True}},
            "iterating: rounds: expected a number >= 1",
        ),
        (
            {"iterating": {"rounds": 2, "requests": 1, "ahead": 1}},
            "iterating: ahead: expected true or false",
        ),
        ({"chosen_on": None}, "chosen_on: expected an object"),
        ({"chosen_on": {"rule": 3}}, "chosen_on: rule: expected an object"),
        ({"chosen_on": {"missing": {}}}, "chosen_on: 'missing' is no part"),
    ],
)
def test_a_file_of_thresholds_that_is_none_is_refused(
    change: dict[str, Any], why: str, tmp_path: Path
) -> None:
    path = tmp_path / "thresholds.json"
    Thresholds(Rule()).save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ConfigError, match=rf"thresholds\.json: .*{why}"):
        Thresholds.load(path)
