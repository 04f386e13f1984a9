"""Logs of samples: what is written comes back, and what is no such log is refused by its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from masrouter.delegation.calibration.sampled import (
    Check,
    Parting,
    Sample,
    SampledQuery,
    StepOutcome,
    StrongOutcome,
    read_samples,
    writing_samples,
)
from masrouter.errors import LogError

STEPPED = (Sample("1. 2 = 2\nAnswer: 2", 1.0, 0.1), Sample("1. 3 = 3", 0.0, 0.2))
FULL = SampledQuery(
    "b", "?", (Sample("4", 1.0, 0.1),) * 2, StrongOutcome(1.0, 0.3),
    task="math", context="Given.", lacks=False, group="a", check=Check(True, None),
    stepped=STEPPED,
    partings=(
        Parting((), StepOutcome("1. 2 = 2", 0.2), STEPPED[:1]),
        Parting(("2 = 2",), StepOutcome("", None), ()),
    ),
)  # fmt: skip


def test_samples_come_back_from_a_file_as_they_went(tmp_path: Path) -> None:
    log = [
        SampledQuery("a", "?", (Sample("4", 1.0, 0.1),) * 2, StrongOutcome(1.0, 0.3)),
        SampledQuery("ü", "é\n?", (Sample("", 0.0, None),) * 2, StrongOutcome(0.5, 0.0), "math"),
        FULL,
    ]
    with writing_samples(tmp_path / "s.jsonl") as write:
        for query in log:
            write(query)
    assert list(read_samples(tmp_path / "s.jsonl")) == log
    # What is not known takes no room.
    first, _, last = map(json.loads, (tmp_path / "s.jsonl").read_text().splitlines())
    assert set(first) == {"query_id", "query", "samples", "strong"}
    assert set(last) == set(SampledQuery.__dataclass_fields__)
    with pytest.raises(LogError, match="exists already"), writing_samples(tmp_path / "s.jsonl"):
        raise AssertionError("nothing can be written")


GOOD = {
    "query_id": "a",
    "query": "?",
    "samples": [{"text": "x", "score": 1, "cost_usd": 0.1}] * 2,
    "strong": {"score": 0, "cost_usd": None},
}


PARTING = {"steps": [], "step": {"text": "1.", "cost_usd": 0.1}, "samples": []}


def parted(**change: Any) -> dict[str, Any]:
    return {"stepped": GOOD["samples"], "partings": [{**PARTING, **change}]}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"query_id": ""}, "query_id: expected non-empty text"),
        ({"query": 3}, "query: expected non-empty text"),
        ({"samples": []}, "samples: expected a list of 2 to 64"),
        ({"samples": [{"text": "x", "score": 1, "cost_usd": 0.1}, 3]}, r"samples\[1\]: expected"),
        ({"samples": [{"text": 1, "score": 1, "cost_usd": 0}] * 2}, r"samples\[0\].text"),
        ({"samples": [{"text": "x", "score": 2, "cost_usd": 0}] * 2}, r"samples\[0\].score"),
        ({"samples": [{"text": "x", "score": 1, "cost_usd": -1}] * 2}, r"samples\[0\].cost_usd"),
        ({"samples": [{"text": "x", "score": 1}] * 2}, "cost_usd: expected US dollars"),
        ({"strong": {"score": True, "cost_usd": 0}}, "strong.score"),
        ({"strong": None}, "strong: expected an object"),
        ({"strong": {"score": 1, "cost_usd": 0, "model": "x"}}, "unknown key 'model'"),
        ({"scores": 1}, "unknown key 'scores'"),
        ({"task": 4}, "task: expected non-empty text"),
        ({"context": None}, "context: expected text"),
        ({"lacks": 1}, "lacks: expected true or false"),
        ({"group": ""}, "group: expected non-empty text"),
        ({"check": {"named": "no", "cost_usd": 0}}, "check.named: expected true or false"),
        ({"check": {"named": True}}, "check.cost_usd: expected US dollars"),
        ({"check": []}, "check: expected an object"),
        ({"stepped": {}}, "stepped: expected a list of 0 to 64"),
        ({"stepped": [{"text": "x"}]}, r"stepped\[0\].score"),
        ({"partings": [PARTING]}, "partings: expected samples in `stepped`"),
        (parted(steps="1."), r"partings\[0\].steps: expected a list of texts"),
        (parted(steps=[1]), r"partings\[0\].steps: expected a list of texts"),
        (parted(step=None), r"partings\[0\].step: expected an object"),
        (parted(step={"text": None, "cost_usd": 1}), r"partings\[0\].step.text"),
        (parted(step={"text": "", "cost_usd": "1"}), r"partings\[0\].step.cost_usd"),
        (parted(samples=[{"text": 1}]), r"partings\[0\].samples\[0\].text"),
        (parted(score=1), r"partings\[0\]: unknown key 'score'"),
        ({**parted(), "partings": [PARTING] * 2}, r"partings\[1\].steps: stand twice"),
        ({"strong": {"score": 10**400, "cost_usd": 0}}, "strong.score: expected a number in"),
        ({"strong": {"score": 1, "cost_usd": 10**400}}, "strong.cost_usd: expected US dollars"),
        ({"strong": {"score": float("nan"), "cost_usd": 0}}, "strong.score: expected a number in"),
    ],
)
def test_a_bad_line_is_told_by_file_line_and_field(
    change: dict[str, Any], why: str, tmp_path: Path
) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n{json.dumps({**GOOD, 'query_id': 'b', **change})}\n")
    with pytest.raises(LogError, match=rf"s\.jsonl:2: .*{why}"):
        read_samples(path)


def test_what_is_no_file_of_samples_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    with pytest.raises(LogError, match="cannot be read"):
        read_samples(path)
    path.write_text("\n")
    with pytest.raises(LogError, match="no samples there"):
        read_samples(path)
    path.write_text(f"{json.dumps(GOOD)}\n{json.dumps(GOOD)}\n")
    with pytest.raises(LogError, match=r"'a' stands already at .*s\.jsonl:1"):
        read_samples(path)
    path.write_text('{"query_id": NaN\n')
    with pytest.raises(LogError, match=r"s\.jsonl:1: line"):
        read_samples(path)


def test_a_file_is_there_query_by_query_and_not_for_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    samples = (Sample("half a \ud800 pair", 1.0, 0.1),) * 2
    one = SampledQuery("a", "q", samples, StrongOutcome(1.0, 0.2))
    with writing_samples(path) as write:
        write(one)
        assert read_samples(path) == (one,)
    assert read_samples(path) == (one,)
    with writing_samples(tmp_path / "t.jsonl"):
        assert (tmp_path / "t.jsonl").exists()
    assert not (tmp_path / "t.jsonl").exists()
    lost = tmp_path / "no folder" / "s.jsonl"
    with pytest.raises(LogError, match="cannot be written"), writing_samples(lost):
        raise AssertionError("nothing can be written")
