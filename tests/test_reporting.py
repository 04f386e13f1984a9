"""What a report says and holds, without a browser."""

from __future__ import annotations

import html.parser
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.conftest import MadeOnce
from tests.reporting_samples import HOSTILE, full, full_report, hostile, hostile_report

from masrouter.errors import EvaluationError
from masrouter.evaluation.baselines import BEST_FIXED
from masrouter.evaluation.report import to_json
from masrouter.evaluation.summary import Evaluation, LearnerResult
from masrouter.reporting import number_formats
from masrouter.reporting.charts import Chart, draw
from masrouter.reporting.evaluation_page import write_report
from masrouter.reporting.exhibit import named
from masrouter.reporting.headline import headline, judged_learner
from masrouter.reporting.page import render
from masrouter.reporting.palette import COLOURS
from masrouter.reporting.query_page import write_query_page
from masrouter.types import Interval

pytest.importorskip("matplotlib")

FIGURES = {
    "frontier", "frontier-close", "ranking", "differences", "calibration", "domains", "confusion",
    "mix-topologies", "mix-counts", "mix-roles", "mix-models", "harmful",
}  # fmt: skip


class Page(html.parser.HTMLParser):
    """Tags, attributes and words of a page, as a browser would take them."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.ids: list[str] = []
        self.figures: set[str] = set()
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            self.attributes.append((tag, name, value or ""))
            if name == "id":
                self.ids.append(value or "")
            if name == "data-figure":
                self.figures.add(value or "")

    def handle_data(self, data: str) -> None:
        self.words += data + " "

    def says(self, words: str) -> bool:
        return " ".join(words.split()) in " ".join(self.words.split())


@pytest.fixture(scope="module")
def folder(made_once: MadeOnce) -> Path:
    return full_report(made_once)


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def one_chart(name: str = "one", label: str = "points") -> Chart:
    return draw(name, label, lambda axes: axes.plot([0, 1], [0, 1], color=COLOURS[0].light))


def test_the_report_holds_every_figure_and_writes_each_to_a_file(folder: Path, page: Page) -> None:
    examples = len(full().examples)
    assert examples == 8
    wanted = FIGURES | {f"query-{i}-{part}" for i in range(1, 9) for part in ("plans", "parts")}
    assert page.figures == wanted
    for name in wanted:
        assert (folder / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        svg = ElementTree.fromstring((folder / "figures" / f"{name}.svg").read_text("utf-8"))
        assert svg.tag.endswith("svg")
    assert (folder / "frontier.png").read_bytes() == (folder / "figures/frontier.png").read_bytes()
    assert page.tags["svg"] == len(wanted)


def test_the_report_says_what_the_evaluation_holds(page: Page) -> None:
    evaluation = full()
    result = evaluation.learner("masrouter")
    assert page.says("Synthetic data.")
    assert page.says("the models are made up")
    for learner in evaluation.learners:
        assert page.says(learner.name)
    assert page.says(f"{result.difference:+.3f}")
    assert result.calibration is not None
    assert page.says(f"Brier score {result.calibration.brier:.3f}")
    for example in evaluation.examples:
        assert page.says(example.query_id)
        assert page.says(f"The team: {example.explanation.decision.plan}")
        for reason in example.explanation.decision.reasons:
            assert page.says(reason)
    assert page.says("for model calls: routing makes none")
    assert page.says("How long logged runs took is not known") == (
        evaluation.routing is not None and evaluation.routing.run_latency_s is None
    )


def test_the_page_is_complete_in_itself(folder: Path, page: Page) -> None:
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert not {"script", "iframe", "object", "embed", "img", "base", "form"} & set(page.tags)
    links = [value for tag, name, value in page.attributes if name in ("href", "src", "xlink:href")]
    assert links
    assert all(link.startswith("#") or link == "data:," for link in links)
    assert "@import" not in text
    assert re.search(r"url\((?!#)", text) is None
    policy = next(value for _, name, value in page.attributes if name == "content")
    assert policy.startswith("default-src 'none'")
    assert "script" not in policy


def test_ids_are_unique_and_every_link_has_its_place(page: Page) -> None:
    assert [name for name, times in Counter(page.ids).items() if times > 1] == []
    places = set(page.ids)
    for _, name, value in page.attributes:
        if name in ("href", "xlink:href") and value.startswith("#"):
            assert value[1:] in places
        for target in re.findall(r"url\(#([^)]*)\)", value):
            assert target in places


def test_hostile_names_and_texts_stay_text(made_once: MadeOnce) -> None:
    evaluation, folder = hostile(), hostile_report(made_once)
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert not {"script", "img"} & set(page.tags)
    assert page.tags["svg"] == len(page.figures)
    assert page.tags["title"] == 1
    assert [name for _, name, _ in page.attributes if name.startswith("on")] == []
    assert page.says(HOSTILE[1])
    assert page.says(HOSTILE[8])
    for file in (folder / "figures").glob("*.svg"):
        ElementTree.fromstring(file.read_text(encoding="utf-8"))
    # Nothing is hidden for beginning with an underscore, or read as mathematics.
    topologies = (folder / "figures/mix-topologies.svg").read_text(encoding="utf-8")
    ranking = (folder / "figures/ranking.svg").read_text(encoding="utf-8")
    assert "&lt;img src=x" in ranking
    chosen = {
        name for r in evaluation.learners if r.name == HOSTILE[0] for at in r.at if at.mix
        for name in at.mix.topologies
    }  # fmt: skip
    for name in chosen:
        assert html.escape(named(name, 24), quote=False) in topologies


def test_the_json_holds_what_the_page_shows() -> None:
    evaluation = full()
    data = json.loads(to_json(evaluation))
    assert len(data["examples"]) == 8
    plan = evaluation.examples[0].explanation.decision.plan
    assert data["examples"][0]["explanation"]["decision"]["plan"]["topology"] == plan.topology
    assert data["routing"]["api_usd"] == 0.0
    first = next(r for r in data["learners"] if r["name"] == "masrouter")
    assert {"frontier", "calibration", "domains", "confusion"} <= set(first)
    assert sum(first["at"][0]["mix"]["models"].values()) == pytest.approx(1.0)


def result_with(interval: Interval, saved: Interval | None, share: float = 1.0) -> LearnerResult:
    result = full().learner("masrouter")
    assert result.frontier is not None
    middle = (interval.low + interval.high) / 2
    frontier = replace(result.frontier, cost_saved=saved, cost_saved_share=share)
    return replace(result, difference=middle, interval=interval, frontier=frontier, cost_saved=0.5)


@pytest.mark.parametrize(
    ("interval", "saved", "share", "verdict", "words"),
    [
        (Interval(0.1, 0.3), Interval(0.3, 0.6), 1.0, "better", "at 50 % of its cost"),
        (Interval(0.1, 0.3), Interval(-0.1, 0.6), 1.0, "better", "beats the best fixed plan"),
        (Interval(-0.1, 0.3), Interval(-0.1, 0.6), 1.0, "not told apart", "does not beat"),
        (Interval(-0.1, 0.3), None, 0.7, "not told apart", "may be chance"),
        (Interval(-0.3, -0.1), None, 0.7, "worse", "does worse than the best fixed plan"),
    ],
)
def test_the_headline_claims_what_intervals_support(
    interval: Interval, saved: Interval | None, share: float, verdict: str, words: str
) -> None:
    told = headline(full(), result_with(interval, saved, share))
    assert told.verdict == verdict
    assert words in told.lead
    everything = " ".join([told.lead, *told.details])
    claims_saving = "would have got the best fixed plan's accuracy" in everything
    assert claims_saving == (saved is not None and saved.low > 0)
    assert ("beats the best fixed plan" in everything) == (interval.low > 0)
    if saved is None:
        assert "reached in 70 % of the draws only" in everything
    elif saved.low <= 0:
        assert "is not established" in everything


def test_a_saving_is_told_beside_what_cheaper_fixed_plans_save() -> None:
    evaluation = full()
    result = result_with(Interval(0.1, 0.3), Interval(0.3, 0.6))
    assert result.frontier is not None
    words = {
        Interval(0.1, 0.2): "reading it saves more",
        Interval(-0.1, 0.2): "the difference may be chance",
        Interval(-0.3, -0.2): "saves more than reading it",
    }
    for beyond, expected in words.items():
        frontier = replace(result.frontier, cost_saved_beyond_fixed=beyond)
        told = headline(evaluation, replace(result, frontier=frontier))
        assert any(expected in line for line in told.details)


def test_the_report_is_about_the_learner_that_is_no_baseline() -> None:
    evaluation = full()
    assert judged_learner(evaluation).name == "masrouter"
    assert judged_learner(evaluation, "ridge").name == "ridge"
    with pytest.raises(EvaluationError, match="no learner 'nobody'"):
        judged_learner(evaluation, "nobody")
    only = replace(evaluation, learners=(evaluation.learner(BEST_FIXED),))
    assert judged_learner(only).name == BEST_FIXED


def bare(evaluation: Evaluation) -> Evaluation:
    """As logs of one domain without costs leave it."""
    learners = tuple(
        replace(
            r,
            curve=(), frontier=None, calibration=None, domains=(), confusion=None, cost_saved=None,
            at=tuple(
                replace(at, cost=None, harmful_collaboration=None, harmful_interval=None)
                for at in r.at
            ),
        )
        for r in evaluation.learners
    )  # fmt: skip
    return replace(evaluation, learners=learners, anchors=None, examples=(), routing=None)


def test_what_logs_cannot_tell_is_said_and_not_drawn(tmp_path: Path) -> None:
    page = Page(write_report(bare(full()), tmp_path).read_text(encoding="utf-8"))
    assert page.figures == {
        "ranking", "differences", "mix-topologies", "mix-counts", "mix-roles", "mix-models",
    }  # fmt: skip
    assert page.says("there is no frontier of score over cost")
    assert page.says("harmful collaboration cannot be told")
    assert page.says("It was not measured in this evaluation.")
    assert not (tmp_path / "frontier.png").exists()
    assert "queries" not in page.ids


def test_a_page_for_queries_that_were_just_routed(tmp_path: Path) -> None:
    example = full().examples[0]
    file = tmp_path / "made" / "why.html"
    write_query_page(
        [example.explanation] * 2, file, queries=["<b>What</b> is\nthis?", "The other one"]
    )
    page = Page(file.read_text(encoding="utf-8"))
    assert page.says("<b>What</b> is this?")
    assert page.figures == {f"query-{i}-{p}" for i in (1, 2) for p in ("plans", "parts")}
    assert [name for name, times in Counter(page.ids).items() if times > 1] == []
    assert not page.says("really got")  # nobody knows what an unrun query gets


def test_a_chart_is_the_same_bytes_each_time_and_has_ids_of_its_own() -> None:
    first, again, other = one_chart(), one_chart(), one_chart("two")
    assert first == again
    ids = [set(re.findall(r' id="([^"]*)"', chart.inline())) for chart in (first, other)]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_a_chart_on_a_page_takes_the_colours_of_the_page() -> None:
    chart = one_chart(label='of "a" & <b>')
    ink = COLOURS[0]
    assert f"stroke: var(--{ink.name})" in chart.inline()
    assert f"stroke: {ink.light}" in chart.svg
    assert 'aria-label="of &#34;a&#34; &amp; &lt;b&gt;"' in chart.inline()
    assert "<style" not in chart.inline()
    used = set(re.findall(r"var\(--([a-z0-9-]+)\)", chart.inline()))
    defined = set(re.findall(r"--([a-z0-9-]+):", render("queries.html.j2", views=[])))
    assert used <= defined


@pytest.mark.parametrize("name", ["", "a b", "1", 'x"', "a/b"])
def test_a_chart_needs_a_name_that_can_be_an_id_and_a_file(name: str) -> None:
    with pytest.raises(EvaluationError, match="chart: name"):
        one_chart(name)


def test_figures_without_matplotlib_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(EvaluationError, match=r"pip install 'masrouter\[report\]'"):
        write_report(full(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_pyplot_with_its_global_state_is_not_loaded() -> None:
    program = "from masrouter.reporting import charts; charts.draw('a', 'b', lambda axes: 0); "
    program += "import sys; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == "False\n"


def numbers() -> Iterator[tuple[str, str]]:
    f = number_formats
    yield f.dollars(None), "–"
    yield f.dollars(float("nan")), "–"
    yield f.dollars(0.0), "$0"
    yield f.dollars(0.00012345), "$0.000123"
    yield f.dollars(0.1), "$0.1"
    yield f.dollars(1234.5), "$1,234"
    yield f.dollars(-0.02), "-$0.02"
    yield f.percent(0.2249), "22 %"
    yield f.signed(-0.00001), "0.000"
    yield f.signed(0.0123), "+0.012"
    yield f.fixed(-0.00001), "0.000"
    yield f.fixed(None), "–"
    yield f.seconds(0.0021), "2.1 ms"
    yield f.seconds(14.25), "14.2 s"
    yield f.seconds(4e-5), "40 µs"
    yield f.spread(Interval(-0.01, 0.021)), "-0.010 to +0.021"
    yield f.spread(None), "–"
    yield f.weight(0.0), "0"
    yield f.weight(3.98), "4.0"
    yield f.weight(1193.6), "1,194"


def test_numbers_are_told_as_people_read_them() -> None:
    for shown, wanted in numbers():
        assert shown == wanted


@pytest.mark.parametrize("text", HOSTILE)
def test_a_name_in_a_figure_is_one_short_line_that_shows(text: str) -> None:
    shown = named(text)
    assert 0 < len(shown) <= 31
    assert not shown.startswith("_")
    assert shown.isprintable() or "\u200a" in shown
