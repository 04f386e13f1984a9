"""The report as a browser shows it: no error, no request, every figure, on a phone too.

Needs Chromium and its driver; skipped where they are not installed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import MadeOnce
from tests.reporting_samples import full_report, hostile_report

pytest.importorskip("matplotlib")
webdriver = pytest.importorskip("selenium.webdriver")

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if CHROMIUM is None or DRIVER is None:
    pytest.skip("chromium and chromedriver are not installed", allow_module_level=True)

LOGS = Path(__file__).parents[1] / "../shared/logs/medical_strategies.parquet"
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
DESKTOP = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}
FIGURES = {
    "frontier", "frontier-close", "ranking", "differences", "calibration", "domains", "confusion",
    "mix-topologies", "mix-counts", "mix-roles", "mix-models", "harmful",
}  # fmt: skip
SWITCHES = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage",
)  # fmt: skip
READABLE = 10
"""Pixels: the smallest text that a figure may have on a phone."""


class Browser:
    """One headless Chromium."""

    def __init__(self, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for switch in (*SWITCHES, f"--user-data-dir={profile}"):
            options.add_argument(switch)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        service = webdriver.ChromeService(DRIVER)
        self.driver = webdriver.Chrome(options=options, service=service)

    def open(
        self, page: Path, screen: dict[str, Any], *, dark: bool = False, script: bool = True
    ) -> None:
        self.driver.get("about:blank")
        for kind in ("browser", "performance"):
            self.driver.get_log(kind)  # of the page before
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        for command, options in (
            ("Emulation.setDeviceMetricsOverride", screen),
            ("Emulation.setEmulatedMedia", {"features": [scheme]}),
            ("Emulation.setScriptExecutionDisabled", {"value": not script}),
        ):
            self.driver.execute_cdp_cmd(command, options)
        self.driver.get(page.as_uri())

    def ask(self, expression: str) -> Any:
        """What an expression is on the page; the debugger may ask where pages may not run it."""
        answer = self.driver.execute_cdp_cmd(
            "Runtime.evaluate", {"expression": expression, "returnByValue": True}
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def complaints(self) -> list[str]:
        """All that the page wrote to the console, and what its policy kept from loading."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> set[str]:
        messages = [json.loads(e["message"])["message"] for e in self.driver.get_log("performance")]
        return {
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        }


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.driver.quit()


@pytest.fixture(scope="module")
def page(made_once: MadeOnce) -> Path:
    return full_report(made_once) / "report.html"


SIZES = """
[...document.querySelectorAll('[data-figure]')].map(figure => {
  const box = figure.querySelector('svg').getBoundingClientRect();
  const frame = figure.getBoundingClientRect();
  return [figure.dataset.figure, box.width, box.height,
          box.left >= frame.left - 1 && box.right <= frame.right + 1];
})
"""
TEXTS = """
[...document.querySelectorAll('[data-figure] svg')].flatMap(svg => {
  const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
  return [...svg.querySelectorAll('text')].map(
    text => parseFloat(getComputedStyle(text).fontSize) * scale);
})
"""
TOO_WIDE = """
[...document.querySelectorAll('body *')].filter(element =>
  element.getBoundingClientRect().right > innerWidth + 1
  && !element.closest('.scroll') && !element.closest('svg')
).map(element => element.tagName + '.' + element.className)
"""
OPEN_ALL = "document.querySelectorAll('details').forEach(details => details.open = true)"


def check(browser: Browser, page: Path, figures: set[str]) -> None:
    """All that holds of any report, on a desktop and on a phone, light and dark."""
    for screen in (DESKTOP, PHONE):
        browser.open(page, screen, dark=screen is PHONE)
        browser.ask(OPEN_ALL)
        sizes = browser.ask(SIZES)
        assert {name for name, *_ in sizes} == figures
        for name, width, height, inside in sizes:
            assert width > 250, name
            assert height > 100, name
            assert inside, name
        assert min(browser.ask(TEXTS)) >= READABLE
        assert browser.ask("document.documentElement.scrollWidth") <= screen["width"]
        assert browser.ask(TOO_WIDE) == []
        assert browser.complaints() == []
        assert browser.requests() == {page.as_uri()}


def test_every_figure_shows_without_an_error_or_a_request(browser: Browser, page: Path) -> None:
    examples = {f"query-{i}-{part}" for i in range(1, 9) for part in ("plans", "parts")}
    check(browser, page, FIGURES | examples)


def test_a_report_full_of_hostile_names_shows_them_and_runs_nothing(
    browser: Browser, made_once: MadeOnce
) -> None:
    check(browser, hostile_report(made_once) / "report.html", FIGURES - {"confusion"})
    assert browser.ask("document.scripts.length") == 0
    assert "<script>alert(2)</script>" in browser.ask("document.body.innerText")


def test_it_reads_without_javascript(browser: Browser, page: Path) -> None:
    browser.open(page, PHONE, script=False)
    text = browser.ask("document.body.innerText")
    for words in ("What is gained", "At each cost weight", "Single queries", "Synthetic data."):
        assert words in text
    sizes = browser.ask(SIZES)
    assert all(width > 250 for name, width, *_ in sizes if not name.startswith("query-"))


def test_links_lead_to_their_places_and_open_them(browser: Browser, page: Path) -> None:
    browser.open(page, PHONE)
    links = browser.ask("[...document.querySelectorAll('a')].map(a => a.getAttribute('href'))")
    assert "#gains" in links
    assert "#query-8" in links
    for link in links:
        browser.ask(f"location.hash = {json.dumps(link)}")
        top = f"document.querySelector({json.dumps(link)}).getBoundingClientRect()"
        assert browser.ask(f"{top}.height") > 0, f"{link} stays closed"


def test_dark_screens_get_dark_paper_and_light_ink(browser: Browser, page: Path) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    ink = "getComputedStyle(document.querySelector('[data-figure] svg text')).fill"
    seen = []
    for dark in (False, True):
        browser.open(page, DESKTOP, dark=dark)
        seen.append([sum(map(int, browser.ask(c)[4:-1].split(","))) for c in (paper, ink)])
    (light_paper, dark_ink), (dark_paper, light_ink) = seen
    assert light_paper > 600 > 200 > dark_ink
    assert dark_paper < 200 < 600 < light_ink


def test_wide_tables_scroll_inside_themselves(browser: Browser, page: Path) -> None:
    browser.open(page, PHONE)
    wide = browser.ask(
        "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth)"
        ".map(e => [getComputedStyle(e).overflowX, e.clientWidth])"
    )
    assert wide
    assert all(overflow == "auto" and width <= 390 for overflow, width in wide)


@pytest.mark.slow
@pytest.mark.skipif(not LOGS.exists(), reason="the real logs are not here")
def test_the_report_of_a_run_on_real_logs(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from masrouter import cli

    arguments = ["evaluate", "--logs", str(LOGS), "--encoder", "hashing-256", "--folds", "3"]
    arguments += ["--seeds", "1", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["masrouter", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert not left.value.code
    examples = {f"query-{i}-{part}" for i in range(1, 9) for part in ("plans", "parts")}
    check(browser, tmp_path / "report.html", FIGURES | examples)
