"""The simulated provider: right or wrong for reasons that stand in the prompt."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masrouter.catalog import Catalog
from masrouter.errors import CallError, ConfigError
from masrouter.llms import ChatRequest, Completion
from masrouter.llms.chat import messages
from masrouter.llms.simulated import (
    Faults,
    SimulatedModel,
    SimulatedProvider,
    SimulatedTask,
    published_models,
)
from masrouter.sections import section
from masrouter.types import Usage

WEAK, STRONG, THINKER = "llama-3.1-8b-instruct", "gpt-4.1", "o3-mini"
ANSWER = "Think step by step and answer the question."


def task(number: int, domain: str = "math", difficulty: float = 3.0) -> SimulatedTask:
    return SimulatedTask(
        query=f"A farm has {number} hens, and each lays two eggs a day. How many eggs in {number}"
        " days?",
        domain=domain,
        difficulty=difficulty,
        right=f"Each day brings {2 * number} eggs.\n\nAnswer: {2 * number * number}",
        wrong=(
            f"Each day brings {number} eggs.\n\nAnswer: {number * number}",
            f"It is two for each day.\n\nAnswer: {2 * number + number}",
            f"Adding up gives it.\n\nAnswer: {2 * number * number + 1}",
        ),
    )


TASKS = [task(n) for n in range(10, 130)]


def ask(
    provider: SimulatedProvider,
    about: SimulatedTask,
    *parts: str,
    model: str = WEAK,
    say: str = ANSWER,
    system: str | None = None,
    seed: int = 0,
    max_tokens: int = 4096,
) -> Completion:
    prompt = "\n".join((section("question", about.query), *parts, say))
    request = ChatRequest(model, messages(system, prompt), max_tokens, seed=seed)
    return asyncio.run(provider.complete(request))


def share_right(*part_of: Callable[[SimulatedTask], str], tasks=TASKS, seeds=2, **options) -> float:
    """Share of right answers when the prompt also holds these parts."""
    provider = SimulatedProvider(tasks)
    right = [
        t.index_of(ask(provider, t, *(p(t) for p in part_of), seed=seed, **options).text) == 0
        for t in tasks
        for seed in range(seeds)
    ]
    return sum(right) / len(right)


def peer(index: int) -> Callable[[SimulatedTask], str]:
    return lambda t: section("answer", t.answer(index), **{"from": "agent 2"})


def mine(index: int) -> Callable[[SimulatedTask], str]:
    return lambda t: section("answer", t.answer(index), **{"from": "you"})


def note(name: str, text: str) -> Callable[[SimulatedTask], str]:
    return lambda t: section(name, text)


def test_the_same_request_gets_the_same_reply_in_every_provider_of_a_seed() -> None:
    one, two = SimulatedProvider(TASKS), SimulatedProvider(TASKS[:3])
    assert ask(one, TASKS[0], seed=5) == ask(two, TASKS[0], seed=5)


def test_another_world_has_other_gaps() -> None:
    def right(seed: int) -> list[bool]:
        provider = SimulatedProvider(TASKS, seed=seed)
        return [t.index_of(ask(provider, t).text) == 0 for t in TASKS]

    assert right(0) != right(1)


def test_samples_of_one_prompt_differ_by_seed() -> None:
    provider = SimulatedProvider(TASKS)
    assert len({ask(provider, TASKS[0], seed=s).text for s in range(8)}) > 1


def test_a_model_of_higher_published_accuracy_is_right_more_often() -> None:
    assert share_right(model=WEAK) + 0.1 < share_right(model=STRONG) < share_right(model=THINKER)


def test_a_hard_task_is_answered_wrongly_more_often() -> None:
    easy = [task(n, difficulty=1) for n in range(10, 90)]
    hard = [task(n, difficulty=5) for n in range(10, 90)]
    assert share_right(tasks=easy, model=WEAK) > share_right(tasks=hard, model=WEAK) + 0.3


def test_mathematics_suffers_when_no_reasoning_is_asked_for_unless_the_model_always_reasons() -> (
    None
):
    at_once = "Answer the question."
    assert share_right(model=WEAK) > share_right(model=WEAK, say=at_once) + 0.05
    assert share_right(model=THINKER) == pytest.approx(
        share_right(model=THINKER, say=at_once), abs=0.05
    )


def test_a_right_peer_helps_and_a_wrong_one_misleads() -> None:
    alone = share_right(model=WEAK)
    assert share_right(peer(0), model=WEAK) > alone + 0.1
    assert share_right(peer(1), model=WEAK) < alone - 0.05


def test_a_wrong_majority_misleads_more_than_one_wrong_peer() -> None:
    assert share_right(peer(1), peer(1), peer(1), model=WEAK) < share_right(peer(1), model=WEAK)


def test_a_strong_judge_withstands_a_wrong_majority_better_than_a_weak_one() -> None:
    shown = (peer(1), peer(1), peer(0))
    assert share_right(*shown, model=THINKER) > share_right(*shown, model=WEAK) + 0.2


def test_an_answer_that_failed_the_tests_is_given_up() -> None:
    provider = SimulatedProvider(TASKS)
    failed = section("test_report", "1 of 2 examples failed: f(2): expected 3, got 4")
    again = [t.index_of(ask(provider, t, mine(1)(t), failed, model=WEAK).text) == 1 for t in TASKS]
    assert sum(again) < 0.1 * len(TASKS)


def test_an_answer_that_passed_the_tests_is_kept_more_often_against_a_critique() -> None:
    doubt = note("critique", "Verdict: wrong")
    passed = note("test_report", "All 2 examples passed.")
    assert share_right(mine(0), doubt, passed, model=WEAK) > share_right(mine(0), doubt, model=WEAK)


def test_a_critique_that_calls_a_right_answer_wrong_does_harm() -> None:
    wrong, stands = note("critique", "Verdict: wrong"), note("critique", "Verdict: stands")
    assert share_right(mine(0), wrong, model=WEAK) < share_right(mine(0), stands, model=WEAK)


def test_a_plan_that_hits_the_point_helps_and_one_that_misses_it_does_harm() -> None:
    good = lambda t: section("plan", f"Key point: {t.hint(0)}")  # noqa: E731
    bad = lambda t: section("plan", f"Key point: {t.hint(1)}")  # noqa: E731
    assert share_right(good, model=WEAK) > share_right(model=WEAK) > share_right(bad, model=WEAK)


def program(number: int, *, start: int = 0, step: str = "+=", tail: str = "total") -> str:
    body = (
        f"def add_{number}(xs):\n    total = {start}\n    for x in xs:\n"
        f"        total {step} x\n    return {tail}\n"
    )
    return f"```python\n{body}```"


def code_task(number: int) -> SimulatedTask:
    """A program, and others with one mistake each, so that each of its lines stands elsewhere."""
    wrong = (
        program(number, start=1), program(number, step="-="), program(number, tail="total + 1"),
        program(number).replace("    return", "        return"),
    )  # fmt: skip
    query = f"def add_{number}(xs):\n    '''Add all of xs.'''"
    return SimulatedTask(query, "code", 3.0, program(number), wrong)


def test_a_plan_for_a_program_says_where_it_leads_whether_right_or_wrong() -> None:
    provider = SimulatedProvider([code_task(0)])
    known = code_task(0)
    say = "Hand over what your role gives, and leave the answer to that agent."
    plans = [ask(provider, known, say=say, seed=seed).text for seed in range(60)]
    assert {known.hints_in(plan) for plan in plans} == {(1, 0), (0, 1)}


@pytest.mark.parametrize("known", [task(12), code_task(1)], ids=["number", "program"])
def test_the_hint_of_each_answer_is_its_own(known: SimulatedTask) -> None:
    for index in range(1 + len(known.wrong)):
        plan = f"First, what is given.\nKey point: {known.hint(index)}\nThen the rest."
        assert known.hints_in(plan) == ((1, 0) if index == 0 else (0, 1))


def test_a_hint_that_the_question_quotes_gives_nothing_away() -> None:
    known = code_task(2)
    assert known.hints_in(f'First: "{known.hint(1)}". This has to hold.') == (0, 0)


@pytest.mark.parametrize(
    "report",
    [
        "timeout: no verdict within 10 s",
        "memory: the program ran out of memory",
        "exception: NameError: name 'y' is not defined",
        "The answer has no program that defines pass_all.",
        "passes('x'): expected True, got False",
    ],
)
def test_any_report_but_that_all_examples_pass_is_of_a_failure(report: str) -> None:
    provider = SimulatedProvider(TASKS)
    failed = section("test_report", report)
    kept = [t.index_of(ask(provider, t, mine(1)(t), failed, model=WEAK).text) == 1 for t in TASKS]
    assert sum(kept) < 0.1 * len(TASKS)


def test_a_critic_believes_failing_tests_of_an_answer_that_it_cannot_read() -> None:
    provider = SimulatedProvider(TASKS)
    cut = section("answer", "First, the", **{"from": "agent 1"})
    failed = section("test_report", "The answer has no program that defines eggs.")
    say = "Check it. End with a line `Verdict: stands` or `Verdict: wrong`."
    texts = [ask(provider, t, cut, failed, say=say).text for t in TASKS[:20]]
    assert all(text.endswith("Verdict: wrong") for text in texts)


def test_a_role_of_the_domain_helps_and_one_of_another_domain_does_not() -> None:
    roles = Catalog.default().roles
    fitting = share_right(model=WEAK, system=roles["mathematician"].prompt)
    strange = share_right(model=WEAK, system=roles["lawyer"].prompt)
    assert fitting > strange


def test_a_strong_critic_finds_more_faults_than_a_weak_one_and_rarely_invents_some() -> None:
    provider = SimulatedProvider(TASKS)

    def called_wrong(index: int, model: str) -> float:
        say = "Find what is wrong with it. End with a line `Verdict: stands` or `Verdict: wrong`."
        texts = [ask(provider, t, peer(index)(t), model=model, say=say).text for t in TASKS]
        assert all(text.endswith(("Verdict: wrong", "Verdict: stands")) for text in texts)
        return sum(text.endswith("Verdict: wrong") for text in texts) / len(texts)

    assert called_wrong(1, THINKER) > called_wrong(1, WEAK) + 0.1
    assert called_wrong(0, THINKER) < 0.05


def test_a_lead_lists_no_more_subtasks_than_it_may_and_a_worker_reports_a_result() -> None:
    provider = SimulatedProvider(TASKS)
    say = "Split it into at most 2 parts, as lines `Subtask 1: ...`."
    lines = ask(provider, TASKS[0], say=say).text.splitlines()
    assert [line[:9] for line in lines] == ["Subtask 1", "Subtask 2"]
    part = section("subtask", lines[0])
    done = ask(provider, TASKS[0], part, say="Do it. End with a line `Result: ...`.").text
    assert done.splitlines()[-1].startswith("Result: ")


def test_a_lead_delegates_more_often_where_its_answer_would_be_wrong() -> None:
    provider = SimulatedProvider(TASKS)
    agents = section("agents", "agent 2: mathematician\nagent 3: critic")
    say = "Answer, or end with lines `Delegate to agent 2: ...`."
    handed: dict[bool, list[bool]] = {True: [], False: []}
    for about in TASKS:
        alone = ask(provider, about, say=ANSWER, model=STRONG, seed=1).text
        led = ask(provider, about, agents, say=say, model=STRONG, seed=1).text
        handed[about.right.splitlines()[-1] in alone].append("Delegate to agent" in led)
        assert led.count("Delegate to agent") in (0, 2)
        joined = ask(provider, about, agents, section("result", "done"), say=say).text
        assert "Delegate to agent" not in joined
    share = {right: sum(found) / len(found) for right, found in handed.items()}
    assert share[False] > share[True]


def test_a_draft_says_what_is_missing_when_it_is_asked_to() -> None:
    provider = SimulatedProvider(TASKS)
    say = "Answer. End with a line `Missing: ...` or `Missing: nothing`."
    endings = {ask(provider, t, say=say).text.splitlines()[-1] for t in TASKS}
    assert "Missing: nothing" in endings
    assert len(endings) == 2
    assert all(line.startswith("Missing: ") for line in endings)


def test_hidden_thinking_is_billed_and_can_leave_no_room_for_an_answer() -> None:
    provider = SimulatedProvider(TASKS)
    reply = ask(provider, TASKS[0], model=THINKER)
    assert reply.usage.completion_tokens is not None
    assert reply.usage.completion_tokens > len(reply.text) / 4 + 300
    meter = Counter()
    prompt = section("question", TASKS[0].query)
    request = ChatRequest(THINKER, messages(None, prompt), max_tokens=40)
    with pytest.raises(CallError) as caught:
        asyncio.run(provider.complete(request, meter=meter))
    assert caught.value.kind == "empty"
    billed = meter.told[-1]
    assert isinstance(billed, Usage)
    assert billed.completion_tokens == 40


def test_a_reply_is_cut_at_max_tokens() -> None:
    reply = ask(SimulatedProvider(TASKS), TASKS[0], max_tokens=10)
    assert reply.finish_reason == "length"
    assert reply.usage.completion_tokens == 10
    assert len(reply.text) <= 40


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=200), st.integers(1, 3000), st.sampled_from(list(published_models())))
def test_no_call_is_billed_more_than_its_worst_case(system: str, most: int, model: str) -> None:
    provider = SimulatedProvider(TASKS)
    prompt = section("question", TASKS[0].query) + ANSWER
    request = ChatRequest(model, messages(system, prompt), most)
    with contextlib.suppress(CallError):
        check_bill(asyncio.run(provider.complete(request)).usage, request)


def check_bill(usage: Usage, request: ChatRequest) -> None:
    assert usage.prompt_tokens is not None
    assert usage.completion_tokens is not None
    assert usage.prompt_tokens <= request.most_prompt_tokens
    assert usage.completion_tokens <= request.max_tokens


class Counter:
    """A meter that keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def reserve(self) -> None:
        self.told.append("reserve")

    def settle(self, usage: Usage | None) -> None:
        self.told.append(usage)

    def release(self) -> None:
        self.told.append("release")


@pytest.mark.parametrize(
    ("faults", "kind", "after"),
    [
        (Faults(rate_limited=1.0), "rate_limited", "release"),
        (Faults(server_error=1.0), "server_error", "release"),
        (Faults(timeout=1.0), "timeout", None),
    ],
)
def test_a_fault_on_request_is_a_typed_error_and_metered(
    faults: Faults, kind: str, after: object
) -> None:
    meter = Counter()
    provider = SimulatedProvider(TASKS, faults=faults)
    request = ChatRequest(WEAK, messages(None, section("question", TASKS[0].query)), 100)
    with pytest.raises(CallError) as caught:
        asyncio.run(provider.complete(request, meter=meter))
    assert caught.value.kind == kind
    assert meter.told == ["reserve", after]


def test_garbage_is_billed_and_answers_nothing() -> None:
    reply = ask(SimulatedProvider(TASKS, faults=Faults(garbage=1.0)), TASKS[0])
    assert TASKS[0].index_of(reply.text) is None
    assert reply.usage.cost_usd is not None


def test_faults_come_at_the_rate_that_was_asked_for() -> None:
    provider = SimulatedProvider(TASKS, faults=Faults(rate_limited=0.2, server_error=0.1))
    kinds = []
    for t in TASKS:
        for seed in range(4):
            try:
                ask(provider, t, seed=seed)
            except CallError as error:
                kinds.append(error.kind)
    assert 0.14 < kinds.count("rate_limited") / 480 < 0.26
    assert 0.06 < kinds.count("server_error") / 480 < 0.14


def test_faults_that_add_up_to_more_than_one_are_refused() -> None:
    with pytest.raises(ConfigError, match="at most 1"):
        Faults(rate_limited=0.7, timeout=0.7)


def test_a_question_that_it_does_not_know_is_refused_and_not_made_up() -> None:
    with pytest.raises(CallError, match="knows 120 questions") as caught:
        ask(SimulatedProvider(TASKS), task(999))
    assert caught.value.kind == "rejected"


def test_a_model_that_it_does_not_play_is_refused_by_name() -> None:
    with pytest.raises(CallError, match="no model 'gpt-9'") as caught:
        ask(SimulatedProvider(TASKS), TASKS[0], model="gpt-9")
    assert caught.value.kind == "unknown_model"


def test_the_text_arrives_in_pieces_when_it_is_asked_for() -> None:
    pieces: list[str] = []
    request = ChatRequest(WEAK, messages(None, section("question", TASKS[0].query)), 500)
    reply = asyncio.run(SimulatedProvider(TASKS).complete(request, on_text=pieces.append))
    assert "".join(pieces) == reply.text


def test_every_published_model_has_a_price_and_sensible_figures() -> None:
    models = published_models()
    provider = SimulatedProvider(TASKS)
    assert len(models) >= 8
    for name, model in models.items():
        assert provider.price(name) is not None
        assert all(0.3 < p < 1.0 for p in model.accuracy.values())


def test_an_accuracy_outside_of_its_range_is_refused() -> None:
    with pytest.raises(ConfigError, match="code"):
        SimulatedModel("x", {"code": 1.0, "math": 0.5, "knowledge": 0.5})


def test_a_task_without_a_wrong_answer_is_refused() -> None:
    with pytest.raises(ConfigError, match="wrong answer"):
        SimulatedTask("Why?", "knowledge", 1, "Answer: A", ())
