"""Replay over time and by domain, and how it looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from tests.replay.replay_samples import (
    QUICK,
    Records,
    logs,
    shown,
    strict,
)

from masrouter.errors import EvaluationError, LogError
from masrouter.evaluation.replay import replay
from masrouter.evaluation.replay.parts import NO_TIME, spans
from masrouter.evaluation.replay.report import to_markdown
from masrouter.evaluation.replay.types import Replay
from masrouter.reporting.replay_page import replay_page
from masrouter.router import Router

# Time and domains


def stamped(records: Records, step: timedelta, zone: str = "+00:00") -> Records:
    start = datetime(2025, 1, 1, tzinfo=UTC)
    order = {name: i for i, name in enumerate(sorted({r.query_id for r in records}))}
    return [
        replace(
            r, timestamp=(start + order[r.query_id] * step).strftime("%Y-%m-%dT%H:%M:%S") + zone
        )
        for r in records
    ]


@pytest.mark.parametrize(
    ("step", "what", "first"),
    [
        (timedelta(hours=6), "days", "2025-01-01"),
        (timedelta(days=2), "weeks (from Monday)", "2024-12-30"),
        (timedelta(days=9), "months", "2025-01"),
        (timedelta(days=60), "years", "2025"),
    ],
)
def test_spans_follow_from_the_timestamps(
    router: Router, seen_once: Records, step: timedelta, what: str, first: str
) -> None:
    found = replay(logs(stamped(seen_once, step)), router, resamples=QUICK)
    assert found.times.startswith(what)
    assert found.over_time[0].name == first
    assert [part.name for part in found.over_time] == sorted(p.name for p in found.over_time)
    assert sum(part.runs for part in found.over_time) == 60


def test_a_time_of_another_zone_is_told_in_utc(router: Router, seen_once: Records) -> None:
    found = replay(logs(stamped(seen_once, timedelta(0), "+14:00")), router, resamples=QUICK)
    assert [part.name for part in found.over_time] == ["2024-12-31"]


def test_logs_without_times_say_so_and_some_without_stand_apart(
    router: Router, seen_once: Records
) -> None:
    found = replay(logs(seen_once), router, resamples=QUICK)
    assert found.over_time == ()
    assert "no timestamps" in shown(found)
    half = stamped(seen_once[:30], timedelta(hours=6)) + seen_once[30:]
    parts = replay(logs(half), router, resamples=QUICK).over_time
    assert parts[-1].name == NO_TIME
    assert parts[-1].runs == 30


def test_no_moment_is_in_two_spans() -> None:
    days = np.datetime64("2025-01-01", "s") + np.arange(0, 4000, 10).astype("timedelta64[D]")
    for end in (2, 15, 90, 400):
        cut = spans(days[:end])
        assert (cut.label >= 0).all()
        assert len(set(cut.label.tolist())) == len(cut.names)
        assert (np.diff(cut.label) >= 0).all()


def test_one_name_for_all_gives_way_to_predicted_domains(
    router: Router, seen_once: Records
) -> None:
    nameless = [replace(r, dataset="traffic", task=None) for r in seen_once]
    found = replay(logs(nameless), router, resamples=QUICK)
    assert found.domains.startswith("predicted by the router")
    assert {p.name for p in found.by_domain} <= set(router.state.critic.query_features.domains)
    assert sum(part.runs for part in found.by_domain) == 60


def test_too_few_queries_have_no_interval(router: Router, grid: Records) -> None:
    few = set(sorted({r.query_id for r in grid})[:9])
    found = replay(logs([r for r in grid if r.query_id in few]), router, resamples=QUICK)
    pair = found.comparisons[-1].score
    assert pair is not None
    assert pair.difference.interval is None
    assert pair.router.interval is None
    strict(found)


# How it looks

Show = Callable[[Replay], str]
HOSTILE = "<script>alert(1)</script> [bold red]x[/] **y** | z \x1b[31m\u202e `c`"


@pytest.fixture(scope="module")
def hostile(router: Router, grid: Records) -> Replay:
    """Markup of every sort wherever logs have text."""
    records = [
        replace(
            r, query=f"{HOSTILE} {r.query}", query_id=f"<b>{r.query_id}", dataset=HOSTILE,
            task=f"<i>{r.task}",
        )
        for r in grid
    ]  # fmt: skip
    return replay(logs(stamped(records, timedelta(days=1))), router, resamples=QUICK)


def test_nothing_from_the_logs_is_markup_on_the_page(hostile: Replay) -> None:
    page = replay_page(hostile)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<b>synthetic" not in page
    assert "<i>" not in page
    assert "http" not in page.split("</style>")[1].replace("http://www.w3.org/", "")
    assert page.count("<svg") == 2


def test_nothing_from_the_logs_is_markup_in_markdown_or_the_terminal(hostile: Replay) -> None:
    markdown, text = to_markdown(hostile), shown(hostile)
    assert "<script" not in markdown
    assert "\\*\\*y\\*\\*" in markdown
    assert "[bold red]x[/]" in text.replace("\n", " ")
    for out in (markdown, text):
        assert "\x1b[31m" not in out
        assert "\u202e" not in out


@pytest.mark.parametrize("show", [shown, to_markdown, replay_page])
@pytest.mark.parametrize("kind", ["grid", "observational"])
def test_every_view_tells_the_verdict_the_figures_and_what_to_read(
    router: Router, grid: Records, seen_once: Records, kind: str, show: Show
) -> None:
    found = replay(logs(grid if kind == "grid" else seen_once), router, resamples=QUICK)
    text = " ".join(show(found).split())
    assert found.verdict.level in text
    for title in ("By domain", "Over time", "Plans that the router takes", "Biggest savings"):
        assert title in text
    assert found.savings[0].query_id in text
    assert "synthetic data" in text


def test_the_terminal_report_fits_into_100_columns(hostile: Replay) -> None:
    assert max(map(len, shown(hostile).splitlines())) <= 100


def test_a_page_without_matplotlib_says_what_to_install(
    router: Router, seen_once: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("masrouter.reporting.replay_page.find_spec", lambda name: None)
    page = replay_page(replay(logs(seen_once), router, resamples=QUICK))
    assert "masrouter[report]" in page
    assert "<svg" not in page


def test_progress_is_told_and_ends(router: Router, grid: Records) -> None:
    told: list[tuple[int, int, str]] = []
    replay(logs(grid), router, resamples=QUICK, progress=lambda *step: told.append(step))
    last = {what: (done, total) for done, total, what in told}
    assert last["routing"] == (60, 60)
    assert all(done == total for done, total in last.values())


@pytest.mark.parametrize("wrong", [{"top": -1}, {"resamples": 5}])
def test_what_cannot_be_meant_is_refused(
    router: Router, grid: Records, wrong: dict[str, int]
) -> None:
    with pytest.raises(EvaluationError, match=next(iter(wrong))):
        replay(logs(grid), router, **wrong)  # type: ignore[arg-type]


def test_empty_logs_are_refused(router: Router) -> None:
    with pytest.raises(LogError, match="no valid rows"):
        replay(logs([]), router)
