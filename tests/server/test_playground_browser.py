"""The playground as people use it, in a real browser, against answers that each test writes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from tests.server.playground_browser import QUERY, Browser, Keys, opened, playing
from tests.server.playground_stub import CHAIN, IO, Stub, call_ended, chain_run, decision
from tests.server.serving import RunningServer

HTML = "<img src=x onerror=\"document.title='hit'\">"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with opened(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def weights(stub: Stub) -> list[float]:
    return [body["options"]["cost_weight"] for body in stub.bodies("/v1/decision")]


def test_a_typed_query_is_routed_and_the_team_drawn_with_figures_offers_and_reasons(
    browser: Browser,
) -> None:
    stub = Stub()
    with playing(browser, stub) as origin:
        browser.type_query("")
        browser.keys(QUERY)
        browser.control_enter()
        browser.until("!byId('decision').hidden")
        assert stub.bodies("/v1/decision") == [
            {"query": QUERY, "options": {"cost_weight": 100.0, "k": 8}, "dataset": "playground"}
        ]
        assert browser.text("decision-title") == "chain, 2 agents"
        names = browser.ask("[...document.querySelectorAll('#team .seat')].map(s => s.textContent)")
        assert [("planner" in names[0], "small" in names[0]), ("solver" in names[1])] == [
            (True, True), True,
        ]  # fmt: skip
        assert "0.820" in browser.text("figures")
        assert "0.740 to 0.900" in browser.text("figures")
        assert "$0.0011" in browser.text("figures")
        assert browser.ask("document.querySelectorAll('#frontier .point').length") == 3
        assert browser.ask("document.querySelectorAll('#frontier .point.chosen').length") == 1
        assert "gained +0.0200" in browser.text("why")
        assert "580" in browser.text("evidence")
        assert browser.text("status").startswith(
            "Chosen: chain: planner on small, solver on large."
        )
        assert QUERY in browser.text("past")
        browser.check_clean(origin)


def test_the_slider_changes_what_is_asked_and_shown(browser: Browser) -> None:
    stub = Stub()
    with playing(browser, stub) as origin:
        browser.slide(0)
        assert stub.asked == []  # nothing was asked for yet
        browser.slide(100)
        browser.route()
        browser.ask("byId('worth').focus()")
        browser.keys(Keys.END)
        browser.until("byId('decision-title').innerText.startsWith('debate')")
        assert browser.text("worth-value") == "any price"
        assert browser.ask("byId('worth').getAttribute('aria-valuetext')") == "cost does not matter"
        browser.keys(Keys.HOME)
        browser.until("byId('decision-title').innerText.startsWith('io')")
        assert browser.text("worth-value") == "$0.0001"
        assert [weights(stub)[i] for i in (0, -2, -1)] == [100.0, 0.0, 10_000.0]
        browser.click("worth-default")
        browser.until("byId('decision-title').innerText.startsWith('chain')")
        assert weights(stub)[-1] == 100.0
        browser.check_clean(origin)


def test_many_moves_of_the_slider_are_one_request(browser: Browser) -> None:
    stub = Stub()
    with playing(browser, stub):
        browser.route()
        browser.ask(
            "Array.from({length: 50}, (_, i) => { byId('worth').value = 199 - i;"
            " byId('worth').dispatchEvent(new Event('input')); }).length"
        )
        browser.until("byId('decision-title').innerText.startsWith('debate')")
        assert len(weights(stub)) == 2


def test_a_late_answer_to_an_earlier_request_is_not_shown(browser: Browser) -> None:
    stub = Stub(delays=[0.5, 0.0])
    with playing(browser, stub):
        browser.type_query()
        browser.click("route")
        browser.wait(lambda: stub.asked, "the slow request was sent")
        browser.slide(200)
        browser.click("route")
        browser.until("byId('decision-title').innerText.startsWith('debate')")
        time.sleep(0.7)
        assert browser.text("decision-title").startswith("debate")
        assert len(stub.asked) == 2


def test_limits_are_sent_and_impossible_ones_are_explained(browser: Browser) -> None:
    stub = Stub()
    with playing(browser, stub) as origin:
        browser.route()
        browser.ask("byId('limits').open = true")
        browser.ask("byId('max-cost').focus()")
        browser.keys("0.002")
        browser.ask(
            "byId('max-agents').value = '2', byId('max-agents').dispatchEvent(new Event('input'))"
        )
        browser.ask("document.querySelector('#models input[value=small]').click()")
        browser.ask("document.querySelector('#topologies input[value=debate]').click()")
        expected = {
            "cost_weight": 100.0, "max_cost_usd": 0.002, "max_agents": 2,
            "exclude_models": ["small"], "topologies": ["chain", "io"], "k": 8,
        }  # fmt: skip
        browser.wait(
            lambda: stub.bodies("/v1/decision")[-1]["options"] == expected, "all limits are sent"
        )
        assert browser.text("limits-told") == "4 set"
        asked = len(stub.asked)
        browser.ask("byId('max-cost').focus(), byId('max-cost').select()")
        browser.keys("a lot")
        browser.click("route")
        assert "a number of US dollars above 0" in browser.text("trouble")
        assert browser.ask("byId('max-cost').getAttribute('aria-invalid')") == "true"
        browser.click("limits-clear")
        browser.wait(
            lambda: (
                stub.bodies("/v1/decision")[asked:][-1:]
                and stub.bodies("/v1/decision")[-1]["options"] == {"cost_weight": 100.0, "k": 8}
            ),
            "no limit is sent",
        )
        browser.until("byId('trouble').hidden")
        browser.check_clean(origin)


def test_everything_is_reached_and_used_by_keys_alone_with_the_focus_seen(browser: Browser) -> None:
    stub = Stub()
    with playing(browser, stub):
        browser.keys(Keys.TAB, QUERY, Keys.TAB)
        assert browser.focus()[0] == "worth"
        browser.ask("byId('query').focus()")
        browser.control_enter()
        browser.until("!byId('decision').hidden")
        places = []
        for _ in range(40):
            browser.keys(Keys.TAB)
            place, seen = browser.focus()
            if place in ("BODY", "HTML", "query"):
                break
            assert seen, f"the focus is not seen on {place}"
            places.append(place)
        assert places[:2] == ["worth", "worth-default"]
        assert {"SUMMARY", "route", "run", "point-0", "point-1", "point-2", "offer"} <= set(places)
        browser.ask("document.querySelector('[data-offer=\"2\"]').focus()")
        browser.keys(Keys.ENTER)
        assert browser.text("decision-title") == "debate, 3 agents"
        assert browser.text("decision-tag") == "alternative"
        assert browser.focus()[0] == "point-2"
        assert browser.ask("document.activeElement.getAttribute('aria-pressed')") == "true"
        browser.ask("byId('back').focus()")
        browser.keys(Keys.ENTER)
        assert browser.text("decision-title") == "chain, 2 agents"


def test_the_team_works_in_view_and_the_outcome_is_sent(browser: Browser) -> None:
    stub = Stub(hold=0.1)
    with playing(browser, stub) as origin:
        browser.type_query()
        browser.ask("byId('run').focus()")
        browser.keys(Keys.ENTER)
        browser.until("document.querySelector('.seat.busy')")
        assert browser.ask("document.activeElement.id") == "stop"
        browser.until("byId('calls').innerText.includes('First think. ✓')")
        browser.until("byId('stop').hidden")
        [body] = stub.bodies("/v1/chat/completions")
        assert body["messages"] == [{"role": "user", "content": QUERY}]
        assert body["stream"] is True
        assert body["masrouter"] == {
            "cost_weight": 100.0, "k": 8, "include": True, "events": True, "dataset": "playground",
        }  # fmt: skip
        assert browser.text("running-tag") == "finished"
        assert "the last agent's answer stands" in browser.text("calls")
        assert browser.text("answer") == "The answer is 42."
        assert browser.ask("document.querySelectorAll('.seat.done').length") == 2
        assert browser.text("spend") == "$0.0009 · 1 run"
        assert browser.ask("document.activeElement.id") == "run"
        browser.click("right")
        browser.until("byId('outcome-told').innerText === 'Recorded as right.'")
        browser.click("wrong")  # there is but one outcome
        assert stub.bodies("/v1/outcomes") == [
            {"decision_id": "dec_" + "0" * 32, "score": 1, "score_source": "human"}
        ]
        assert "right" in browser.text("past")
        browser.check_clean(origin)


def test_a_stream_cut_anywhere_reads_the_same_and_programs_stand_apart(browser: Browser) -> None:
    answer = "Sorted — like this:\n```python\nif a < b: pass\n```\nDone ✓"
    stub = Stub(stream=chain_run(answer=answer), cut=7)
    with playing(browser, stub):
        browser.run()
        assert browser.text("running-tag") == "finished"
        assert "First think. ✓" in browser.text("calls")
        assert (
            browser.ask("document.querySelector('#answer pre').textContent") == "if a < b: pass\n"
        )
        assert browser.text("answer").endswith("Done ✓")


def test_unknown_costs_are_said_to_be_unknown_and_never_added_as_zero(browser: Browser) -> None:
    offers = ((IO, 0.6, (0.5, 0.7), None, None), (CHAIN, 0.8, (0.7, 0.9), 0.001, (0.0005, 0.002)))
    stub = Stub(decide=lambda _: decision(offers, 0), stream=chain_run(cost=None))
    with playing(browser, stub) as origin:
        browser.route()
        assert "unknown" in browser.text("figures")
        assert "free\nor unknown".replace("\n", "") in browser.ask("byId('frontier').textContent")
        browser.run()
        assert browser.text("spend") == "unknown · 1 run"
        stub.stream = chain_run(cost=0.002)
        browser.run()
        assert browser.text("spend") == "$0.002 + 1 run of unknown cost · 2 runs"
        browser.check_clean(origin)


@pytest.mark.parametrize(
    ("ending", "told"),
    [
        ([json.dumps({"error": {"message": "a model's provider failed: timeout"}})],
         "a model's provider failed: timeout"),
        ([], "The stream ended before the answer was complete."),
        (["{not json"], "A part of the stream could not be read."),
    ],
)  # fmt: skip
def test_a_run_that_breaks_off_is_told_in_words(
    browser: Browser, ending: list[str], told: str
) -> None:
    start = chain_run()[:4]
    stub = Stub(stream=[*start, call_ended(0, "plan", "small", None, None), *ending])
    with playing(browser, stub):
        browser.run()
        assert browser.text("running-about") == told
        assert told in browser.text("status")
        assert browser.text("running-tag") == "failed"
        assert "failed: rate limited" in browser.text("calls")
        assert browser.ask("document.querySelectorAll('.seat.failed').length") == 1
        assert browser.ask("byId('outcome').hidden")
        assert browser.text("spend") == "unknown · 1 run"


def test_a_run_can_be_stopped(browser: Browser) -> None:
    stub = Stub(hold=0.4)
    with playing(browser, stub) as origin:
        browser.type_query()
        browser.click("run")
        browser.until("document.querySelector('.seat.busy')")
        browser.click("stop")
        browser.until("byId('stop').hidden")
        assert browser.text("running-tag") == "stopped"
        assert browser.text("spend") == "unknown · 1 run"
        assert browser.ask("document.querySelectorAll('.seat.busy').length") == 0
        assert browser.ask("byId('answer-box').hidden")
        browser.check_clean(origin)


def test_refusals_are_shown_in_words_and_what_is_no_answer_is_not_shown(browser: Browser) -> None:
    stub = Stub(decide=lambda _: {"status": 400, "error": f"no plan within max_cost_usd {HTML}"})
    with playing(browser, stub):
        browser.type_query()
        browser.click("route")
        browser.until("!byId('trouble').hidden")
        assert browser.text("trouble") == f"no plan within max_cost_usd {HTML}"
        stub.decide = lambda _: {"html": "<h1>Bad gateway</h1>"}
        browser.click("route")
        browser.until("byId('trouble').innerText.includes('502')")
        assert "Bad gateway" not in browser.text("trouble")
        stub.decide = lambda _: decision(((IO, 0.6, (0.5, 0.7), 1e-5, None),), 0)
        browser.route()
        assert browser.ask("byId('trouble').hidden")
        browser.type_query("  ")
        browser.click("route")
        assert browser.text("trouble") == "Type a query first."


def test_a_server_that_is_gone_is_told_in_words(browser: Browser) -> None:
    with playing(browser, Stub()):
        browser.route()
        browser.driver.execute_cdp_cmd("Network.enable", {})
        offline = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        browser.driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
        try:
            browser.click("route")
            browser.until("!byId('trouble').hidden")
        finally:
            browser.driver.execute_cdp_cmd(
                "Network.emulateNetworkConditions", {**offline, "offline": False}
            )
        assert browser.text("trouble") == "The server cannot be reached. Is it still running?"
        assert browser.text("decision-title") == "chain, 2 agents"


def test_a_key_is_asked_for_used_and_not_kept(browser: Browser) -> None:
    stub = Stub(key="mr-right")
    with playing(browser, stub):
        assert "API key" in browser.text("trouble")
        assert browser.ask("document.activeElement.id") == "key"
        browser.slide(50)
        browser.type_query()
        browser.click("route")
        browser.until("document.activeElement.id === 'key'")
        assert stub.asked == []
        browser.keys("mr-wrong", Keys.ENTER)
        browser.until("byId('key-told').innerText === 'given'")
        assert browser.text("checkpoint") == ""
        browser.ask("byId('key').focus()")
        browser.keys("mr-right", Keys.ENTER)
        browser.until("byId('checkpoint').innerText")
        assert browser.ask("byId('trouble').hidden")
        browser.route()
        assert browser.text("decision-title") == "chain, 2 agents"
        assert browser.ask("byId('key').value + document.cookie + localStorage.length") == "0"
        assert "mr-right" not in browser.ask("document.documentElement.outerHTML")


def test_without_a_provider_teams_are_routed_and_not_run(browser: Browser) -> None:
    with playing(browser, Stub(runs=False)):
        assert browser.ask("byId('run').disabled")
        assert "No provider is configured" in browser.text("run-hint")
        browser.route()
        assert browser.text("decision-title") == "chain, 2 agents"


def test_an_earlier_query_is_taken_up_again_with_its_settings(browser: Browser) -> None:
    stub = Stub()
    with playing(browser, stub):
        browser.slide(200)
        browser.route("first")
        browser.slide(0)
        browser.route("second")
        browser.ask("document.querySelectorAll('#past button')[1].click()")
        browser.until("byId('decision-title').innerText.startsWith('debate')")
        assert browser.ask("byId('query').value") == "first"
        assert browser.ask("byId('worth').value") == "200"
        assert browser.ask("document.querySelectorAll('#past li').length") == 2


PARSED = """
import('/playground/sse.js').then(({sseParser}) => {
  const whole = ': comment\\r\\ndata: one\\r\\n\\r\\nevent: x\\ndata:two\\ndata: three\\n\\n'
    + '\\ndata\\n\\nid: 7\\rdata: four\\r\\rdata: last';
  const seen = new Set();
  const ends = whole.length;
  for (let a = 0; a <= ends; a += 1) for (let b = a; b <= ends; b += 7) {
    const found = [], parser = sseParser((data) => found.push(data));
    for (const piece of [whole.slice(0, a), whole.slice(a, b), whole.slice(b)]) parser.push(piece);
    parser.end();
    seen.add(JSON.stringify(found));
  }
  return [...seen];
})
"""


def test_server_sent_events_are_read_alike_wherever_they_are_cut(browser: Browser) -> None:
    with playing(browser, Stub()):
        [found] = browser.ask(PARSED)
        assert json.loads(found) == ["one", "two\nthree", "", "four", "last"]


BYTES = """
import('/playground/sse.js').then(async ({readEvents}) => {
  const bytes = new TextEncoder().encode('data: ✓ 你好 🜁\\n\\n'), found = [];
  const body = new ReadableStream({start(to) {
    for (const byte of bytes) to.enqueue(Uint8Array.of(byte));
    to.close();
  }});
  await readEvents(body, (data) => found.push(data));
  return found;
})
"""


def test_a_character_cut_in_its_bytes_is_read_whole(browser: Browser) -> None:
    with playing(browser, Stub()):
        assert browser.ask(BYTES) == ["✓ 你好 🜁"]


def test_the_page_works_with_the_real_server(browser: Browser, served_app: RunningServer) -> None:
    origin = served_app.base_url
    browser.open(f"{origin}/")
    browser.route("What is 3 plus 9?")
    browser.slide(200)
    browser.until("!document.querySelector('.stale')")
    browser.run("What is 3 plus 9?")
    assert browser.text("trouble") == ""
    assert browser.text("running-tag") == "finished"
    assert browser.text("answer")
    assert browser.ask("document.querySelectorAll('.call').length") >= 1
    assert browser.text("spend").endswith("· 1 run")
    browser.click("wrong")
    browser.until("byId('outcome-told').innerText === 'Recorded as wrong.'")
    browser.check_clean(origin)
    browser.driver.get("about:blank")
