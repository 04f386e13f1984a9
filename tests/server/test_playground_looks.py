"""How the playground looks in a real browser: it fits, it is legible, and names are only text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.server.playground_browser import DESKTOP, PHONE, Browser, opened, playing
from tests.server.playground_stub import DEBATE, Stub, call_ended, chain_run, chunk, decision

from masrouter.topologies import topology_names
from masrouter.types import Agent, Plan

HTML = "<img src=x onerror=\"document.title='hit'\">"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with opened(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.mark.parametrize("screen", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_every_topology_is_drawn_within_the_page(browser: Browser, screen: dict[str, Any]) -> None:
    plans = [
        Plan(name, tuple(Agent(f"role {i}", "a-model") for i in range(count)))
        for name in (*topology_names(), "of-another-package")
        for count in ([1] if name in ("io", "cot") else [2, 7])
    ]
    shown: list[Plan] = []
    stub = Stub(decide=lambda _: decision(((shown[-1], 0.6, (0.5, 0.7), 1e-5, None),), 0))
    with playing(browser, stub, screen) as origin:
        browser.type_query()
        for plan in plans:
            shown.append(plan)
            title = f"{plan.topology}, {len(plan.agents)} agent"
            browser.click("route")
            browser.until(f"byId('decision-title').innerText.startsWith({json.dumps(title)})")
            seats = "document.querySelectorAll('#team .seat').length"
            assert browser.ask(seats) == len(plan.agents)
            browser.check_fits(screen["width"])
        browser.check_clean(origin)


def test_hostile_and_endless_names_are_shown_as_text_and_fit_a_phone(browser: Browser) -> None:
    seats = (Agent(HTML, "m" * 250), Agent("r" * 250, f"</text>{HTML}"))
    plan = Plan(f"x{HTML}", seats)
    hostile = decision(
        ((plan, 0.6, (0.5, 0.7), 1e-5, (5e-6, 2e-5)), (DEBATE, 0.9, (0.8, 1.0), 1e-3, None)), 0,
        reasons=[f"<script>document.title='hit'</script> {HTML}"], domain=HTML, policy=HTML,
    )  # fmt: skip
    stream = [
        chunk({"event": "decision", **hostile}),
        chunk({"event": "call_started", "agent": 0, "step": HTML, "model": HTML, "started_s": 0}),
        chunk({"event": "text", "agent": 0, "step": HTML, "text": f"{HTML}{'w' * 500}"}),
        chunk({"event": "note", "text": HTML}),
        chunk(text=f"{HTML}\n```\n{HTML}{'v' * 500}\n```"),
        chunk({"event": "run_ended", "cost_usd": 0.1, "completion_tokens": 3, "latency_s": 1}),
        "[DONE]",
    ]
    stub = Stub(decide=lambda _: hostile, stream=stream, plans=(plan, DEBATE))
    with playing(browser, stub, PHONE, dark=True) as origin:
        browser.ask("byId('limits').open = true")
        check = "document.documentElement.scrollWidth <= 360"
        assert browser.ask(check)
        browser.run(f"{HTML} {'q' * 300}")
        browser.check_fits(360)
        for name in (
            "why",
            "calls",
            "answer",
            "models",
            "past",
            "evidence",
            "offers",
            "team-seats",
        ):
            assert HTML in browser.text(name), name
        assert "m" * 250 in browser.text("team-seats")
        drawn = browser.ask("document.querySelector('#team .seat .name').textContent")
        assert drawn.startswith("<img")
        browser.check_clean(origin)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_all_text_stands_out_from_its_ground_in_light_and_dark(
    browser: Browser, dark: bool
) -> None:
    broken = json.dumps({"error": {"message": "a model's provider failed"}})
    stub = Stub(stream=[*chain_run()[:4], call_ended(0, "plan", "small", None, None), broken])
    with playing(browser, stub, dark=dark):
        ground = browser.ask("getComputedStyle(document.body).backgroundColor")
        assert (int(ground[4:-1].split(",")[0]) < 60) is dark
        assert browser.faint() == []
        browser.ask("document.querySelectorAll('details').forEach(d => d.open = true)")
        browser.run()
        assert browser.faint() == []
        stub.stream = chain_run(answer="So:\n```\ncode\n```")
        browser.run()
        assert browser.faint() == []
