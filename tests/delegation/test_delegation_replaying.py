"""A rule on a log gives and costs what the policy itself would with the same answers."""

from __future__ import annotations

import asyncio
import itertools
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.delegation.sampled_logs import CHEAP, DEAR, sampled
from tests.delegation.scripted import DOWN, Said, ScriptedModel

from masrouter.catalog import Catalog
from masrouter.delegation.calibration.collecting import collect_samples
from masrouter.delegation.calibration.replaying import ALIKES, replay, rules_of
from masrouter.delegation.calibration.sampled import (
    Parting,
    Sample,
    SampledQuery,
    StepOutcome,
    StrongOutcome,
)
from masrouter.delegation.delegator import Delegator
from masrouter.delegation.deliberation.agreement import Rule
from masrouter.delegation.deliberation.deliberating import deliberate
from masrouter.delegation.deliberation.steps import read_steps
from masrouter.delegation.deliberation.stepwise import NEXT_STEP, WORK_IN_STEPS
from masrouter.delegation.query import TaskQuery, read_query
from masrouter.delegation.tasks import Grading, Task
from masrouter.errors import EvaluationError
from masrouter.llms.chat import ChatRequest
from masrouter.sections import read_sections

CATALOG = Catalog.default()


def test_a_rule_gives_and_costs_what_its_samples_and_the_strong_worker_do() -> None:
    log = [sampled("a", "rrr"), sampled("b", "wwr"), sampled("c", "wxy"), sampled("d", "..r")]
    found = replay(log, Rule(3, 2 / 3))
    assert found.score.tolist() == [1, 0, 1, 1]
    assert found.delegated.tolist() == [0, 0, 1, 1]
    agreed, parted = 3 * CHEAP, 3 * CHEAP + DEAR
    assert found.cost.tolist() == pytest.approx([agreed, agreed, parted, parted])
    assert replay(log, Rule(3, 1.0)).delegated.tolist() == [0, 1, 1, 1]
    early = replay(log, Rule(3, 2 / 3, stop_early=True))
    assert early.score.tolist() == found.score.tolist()
    assert early.cost.tolist() == pytest.approx(
        [2 * CHEAP, 2 * CHEAP, 3 * CHEAP + DEAR, 2 * CHEAP + DEAR]
    )
    vote = replay(log, Rule(3, 1.0), delegate=False)
    assert vote.score.tolist() == [1, 0, 0, 1]
    assert vote.cost.tolist() == pytest.approx([3 * CHEAP] * 4)


LINES = ("6 * 7 = 42", "42 - 17 = 25", "so 25 it is", "- no number at all", "")


def in_steps(draw: st.DrawFn) -> Sample:
    """A sample that shows some steps, or none, and ends with an answer, or failed."""
    # Seldom none, and seldom of another beginning: else hardly any rule hands a step over.
    lines = draw(st.lists(st.sampled_from(LINES[:4]), min_size=1, max_size=2))
    lines = draw(st.sampled_from(([LINES[0], *lines], [LINES[0], *lines], lines, [])))
    answer = draw(st.sampled_from(("Answer: 25", "Answer: 7", "Answer: 8", "Answer: 9", "")))
    text = "\n".join([*(f"{at}. {line}" for at, line in enumerate(lines, 1)), answer])
    right = float(answer == "Answer: 25")
    cost = draw(st.sampled_from((0.001, 0.002)))
    return Sample(text if answer else "", right if answer else 0.0, cost)


@st.composite
def stepped_queries(draw: st.DrawFn) -> SampledQuery:
    """A log of all that any rule could ask for: a parting for every prefix of every sample."""
    stepped = tuple(in_steps(draw) for _ in range(5))
    prefixes = {
        tuple(step.text for step in steps[:at])
        for steps in (read_steps(sample.text) for sample in stepped)
        for at in range(len(steps) + 1)
    }
    return SampledQuery(
        query_id="a",
        query="?",
        samples=tuple(Sample(one.text, one.score, CHEAP) for one in stepped),
        strong=StrongOutcome(1.0, DEAR),
        stepped=stepped,
        partings=tuple(
            Parting(
                steps,
                StepOutcome(draw(st.sampled_from(LINES)), 0.03),
                tuple(in_steps(draw) for _ in range(5)),
            )
            for steps in sorted(prefixes)
        ),
    )


def answering_from(log: SampledQuery) -> tuple[ScriptedModel, list[float]]:
    """A model that says what is logged, call by call, and the costs of what it said."""
    plain, stepped = list(log.samples), list(log.stepped)
    behind = {parting.steps: list(parting.samples) for parting in log.partings}
    spent: list[float] = []

    def said(text: str, cost: float | None) -> Said:
        assert cost is not None
        spent.append(cost)
        return text or DOWN

    def settled(query: TaskQuery) -> tuple[str, ...]:
        found = [part.text for part in read_sections(query.context) if part.name == "steps_so_far"]
        return tuple(line.split(". ", 1)[1] for line in found[0].split("\n")) if found else ()

    def cheap(request: ChatRequest) -> Said:
        query = read_query(request.messages[-1].content)
        done = settled(query)
        if done:
            one = behind[done[:-1]].pop(0)
        else:
            one = (stepped if WORK_IN_STEPS in query.goal else plain).pop(0)
        return said(one.text, one.cost_usd)

    def strong(request: ChatRequest) -> Said:
        query = read_query(request.messages[-1].content)
        if NEXT_STEP not in query.goal:
            return said("Answer: strong", log.strong.cost_usd)
        (logged,) = (one for one in log.partings if one.steps == settled(query))
        return said(logged.step.text, logged.step.cost_usd)

    return ScriptedModel({"small": cheap, "big": strong}), spent


@given(
    stepped_queries(),
    st.integers(2, 5),
    st.sampled_from((0.4, 0.5, 0.6, 0.75, 1.0)),
    st.booleans(),
    st.sampled_from(("task", "step", "step", "step")),
    st.sampled_from(ALIKES),
)
@settings(max_examples=60, deadline=None)
def test_a_log_is_judged_as_the_policy_would_have_acted(
    log: SampledQuery,
    samples: int,
    threshold: float,
    stop_early: bool,
    at: Literal["task", "step"],
    alike: float,
) -> None:
    rule = Rule(samples, threshold, stop_early, at, alike)
    llm, spent = answering_from(log)
    delegator = Delegator(llm, catalog=CATALOG)
    live = asyncio.run(deliberate("?", cheap="small", strong="big", rule=rule, delegator=delegator))
    found = replay([log], rule)
    assert found.cost[0] == pytest.approx(sum(spent))
    assert (live.outcome == "delegated") == bool(found.delegated[0])
    assert len(live.handed) == found.handed[0]
    if live.outcome == "agreed":
        assert found.score[0] == float((live.answer or "").endswith("Answer: 25"))
    else:
        assert (live.answer, found.score[0]) == ("Answer: strong", 1.0)


@given(stepped_queries())
@settings(max_examples=8, deadline=None)
def test_what_is_collected_answers_for_every_rule_that_is_tried(log: SampledQuery) -> None:
    """Of all that could be asked for, no more is asked than some rule needs."""
    llm, _ = answering_from(log)
    task = Task("?", id="a", grade=lambda text: Grading(float("25" in text), "exact_match"))
    (kept,) = asyncio.run(
        collect_samples(
            [task], cheap="small", strong="big", delegator=Delegator(llm, catalog=CATALOG),
            samples=5, steps=True, max_concurrency=1,
        )
    )  # fmt: skip
    assert {parting.steps for parting in kept.partings} <= {one.steps for one in log.partings}
    for stop_early, at_step in itertools.product((False, True), repeat=2):
        for rule in rules_of(5, stop_early=stop_early, at_step=at_step):
            replay([kept], rule)


def test_a_parting_that_is_not_logged_cannot_be_replayed() -> None:
    two = (Sample("1. 1 = 1\nAnswer: 1", 1, CHEAP), Sample("1. 2 = 2\nAnswer: 2", 0, CHEAP))
    log = SampledQuery("a", "?", two, StrongOutcome(1, DEAR), stepped=two)
    assert replay([log], Rule(2)).delegated.tolist() == [1]
    with pytest.raises(EvaluationError, match="'a': nothing is logged of what comes behind 0"):
        replay([log], Rule(2, at="step"))
