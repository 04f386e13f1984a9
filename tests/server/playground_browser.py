"""A real browser with the playground open, and what can be asked of the page as it is seen.

Needs Chromium and its driver; tests that import this are skipped where they are not installed.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from tests.server.playground_stub import Stub, stub_app
from tests.server.serving import by_uvicorn

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.keys import Keys  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if CHROMIUM is None or DRIVER is None:
    pytest.skip("chromium and chromedriver are not installed", allow_module_level=True)

PHONE = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
DESKTOP = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}
SWITCHES = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage",
)  # fmt: skip
PATIENCE_S = 15
BY_ID = "byId = (name) => document.getElementById(name);"
QUERY = "What is 6 times 7?"

FOCUS = """
(() => {
  const at = document.activeElement, ring = at.querySelector?.('.ring');
  const drawn = (line, width) => line !== 'none' && parseFloat(width) >= 2;
  const style = getComputedStyle(at), inner = ring ? getComputedStyle(ring) : null;
  const seen = drawn(style.outlineStyle, style.outlineWidth)
    || inner && drawn(inner.stroke, inner.strokeWidth);
  const point = at.dataset?.offer && `point-${at.dataset.offer}`;
  return [at.id || point || at.className || at.tagName, Boolean(seen)];
})()
"""
TOO_WIDE = """
[...document.querySelectorAll('body *')].filter(element => {
  const box = element.getBoundingClientRect();
  return box.width > 0 && box.right > innerWidth + 1 && !element.closest('pre, .message');
}).map(element => `${element.tagName}.${element.getAttribute('class')}`)
"""
OUTSIDE = """
(() => {
  const frame = document.querySelector('#team svg').getBoundingClientRect();
  return [...document.querySelectorAll('#team svg :is(rect, text, circle)')].filter(part => {
    const box = part.getBoundingClientRect();
    return box.width && (box.left < frame.left - 1 || box.right > frame.right + 1
      || box.top < frame.top - 1 || box.bottom > frame.bottom + 1);
  }).map(part => part.outerHTML);
})()
"""
FAINT = """
(() => {
  const parts = (colour) => {
    const found = colour.match(/[\\d.]+/g).map(Number);
    return found.length < 4 ? [...found, 1] : found;
  };
  const light = (colour) => {
    const [r, g, b] = parts(colour).slice(0, 3).map(value => value / 255)
      .map(value => value <= .03928 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (parts(colour)[3] === 1) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const unread = 'noscript, option, defs, title, :disabled, [aria-disabled]';
  return [...document.querySelectorAll('body *')].filter(element =>
    [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim())
    && element.getBoundingClientRect().width > 2 && !element.closest(unread)
  ).map(element => {
    const style = getComputedStyle(element);
    const ink = element.closest('svg') ? style.fill : style.color;
    const [more, less] = [light(ink), light(ground(element))].sort((a, b) => b - a);
    return [element.tagName, element.textContent.slice(0, 40), ink, (more + .05) / (less + .05)];
  }).filter(([, , , ratio]) => !(ratio >= 4.5));
})()
"""


class Browser:
    """One headless Chromium, and the stub server that it shows the playground of."""

    def __init__(self, profile: Path, app: FastAPI, origin: str) -> None:
        self.app = app
        self.origin = origin
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for switch in (*SWITCHES, f"--user-data-dir={profile}"):
            options.add_argument(switch)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))

    def open(self, origin: str, screen: dict[str, Any] = DESKTOP, *, dark: bool = False) -> None:
        self.driver.get("about:blank")
        for kind in ("browser", "performance"):
            self.driver.get_log(kind)  # of the page before
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get(origin)
        self.until("byId('checkpoint').textContent || !byId('trouble').hidden")

    def ask(self, expression: str) -> Any:
        """What an expression is on the page, which promises are waited for."""
        told = {"expression": f"{BY_ID}{expression}", "returnByValue": True, "awaitPromise": True}
        answer = self.driver.execute_cdp_cmd("Runtime.evaluate", told)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait until it is so on the page."""
        self.wait(lambda: self.ask(f"Boolean({expression})"), expression)

    def wait(self, is_so: Callable[[], Any], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not is_so():
            assert time.monotonic() < deadline, f"never so: {what}"
            time.sleep(0.02)

    def text(self, name: str) -> str:
        """The text of an element, as it is seen."""
        told: str = self.ask(f"byId({json.dumps(name)}).innerText")
        return told

    def click(self, name: str) -> None:
        self.ask(f"byId({json.dumps(name)}).click()")

    def keys(self, *keys: str) -> None:
        """Press keys, wherever the focus is."""
        actions = webdriver.ActionChains(self.driver)
        for key in keys:
            actions.send_keys(key)
        actions.perform()

    def control_enter(self) -> None:
        actions = webdriver.ActionChains(self.driver)
        actions.key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(Keys.CONTROL).perform()

    def type_query(self, text: str = QUERY) -> None:
        self.ask(f"byId('query').value = {json.dumps(text)}, byId('query').focus()")

    def route(self, text: str = QUERY) -> None:
        self.type_query(text)
        self.click("route")
        self.until("!byId('decision').hidden && !document.querySelector('.stale')")

    def run(self, text: str = QUERY) -> None:
        self.type_query(text)
        self.click("run")
        self.until("!byId('running').hidden && byId('stop').hidden")

    def slide(self, position: int) -> None:
        self.ask(
            f"byId('worth').value = {position}, byId('worth').dispatchEvent(new Event('input'))"
        )

    def check_clean(self, origin: str) -> None:
        """Nothing was refused by the policy or failed, and nothing was asked of anybody else."""
        assert [entry["message"] for entry in self.driver.get_log("browser")] == []
        messages = [json.loads(e["message"])["message"] for e in self.driver.get_log("performance")]
        urls = {
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        }
        assert f"{origin}/playground/app.js" in urls
        assert {url for url in urls if not url.startswith((f"{origin}/", "data:"))} == set()
        assert self.ask("document.title") == "masrouter playground"
        assert self.ask("document.images.length") == 0

    def focus(self) -> tuple[str, bool]:
        """What has the focus, and whether that is seen."""
        name, seen = self.ask(FOCUS)
        return name, seen

    def faint(self) -> list[Any]:
        """Texts whose contrast to their ground is below 4.5 (WCAG 2.2, level AA)."""
        found: list[Any] = self.ask(FAINT)
        return found

    def check_fits(self, width: int) -> None:
        """Nothing sticks out of the page, nor of the team's drawing."""
        assert self.ask("document.documentElement.scrollWidth") <= width
        assert self.ask(TOO_WIDE) == []
        assert self.ask(OUTSIDE) == []


@contextmanager
def opened(profile: Path) -> Iterator[Browser]:
    """A browser and its stub server, for as many tests as want them."""
    app = stub_app()
    with by_uvicorn(app, ws="none", timeout_graceful_shutdown=1) as origin:
        browser = Browser(profile, app, origin)
        try:
            yield browser
        finally:
            browser.driver.quit()


@contextmanager
def playing(
    browser: Browser, stub: Stub, screen: dict[str, Any] = DESKTOP, *, dark: bool = False
) -> Iterator[str]:
    """The page over a stub of the test's own; gives its origin."""
    browser.app.state.stub = stub
    browser.open(f"{browser.origin}/", screen, dark=dark)
    yield browser.origin
