"""Which worker fits a request by its description, and requests of several steps as tasks."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.delegation.matching_requests import DESCRIPTIONS, EXAMPLES, REQUESTS
from tests.delegation.matching_work import work_requests
from tests.delegation.scripted import ScriptedModel

from masrouter.delegation.delegator import Delegator
from masrouter.delegation.naming.settings import Settings
from masrouter.delegation.policies.specs import Match as Policy
from masrouter.delegation.tasks import Task
from masrouter.delegation.workers.matching import (
    MatchingRule,
    match_workers,
    plan_steps,
    split_steps,
)
from masrouter.delegation.workers.worker import Worker
from masrouter.delegation.workers.worker_file import read_worker_file
from masrouter.encoder import Encoder, HashingEncoder, load_encoder
from masrouter.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


def workers(*names: str, examples: bool = False) -> list[Worker]:
    return [
        Worker(
            name=name, description=DESCRIPTIONS[name], run=str.upper,
            examples=EXAMPLES[name] if examples else (),
        )
        for name in names or DESCRIPTIONS
    ]  # fmt: skip


def rule(chat_weight: float) -> MatchingRule:
    return MatchingRule(0.0, chat_weight, "hashing-256-v1")


@pytest.fixture(scope="module")
def meaning() -> Encoder:
    return load_encoder()


class TestMatching:
    @pytest.mark.parametrize(("examples", "least"), [(False, 0.75), (True, 0.83)])
    def test_most_labelled_requests_find_their_worker_or_none(
        self, meaning: Encoder, examples: bool, least: float
    ) -> None:
        """bench_delegation_matching says how this was chosen, and what is found held out."""
        asked = [text for text, _ in REQUESTS]
        found = match_workers(asked, workers(examples=examples), meaning)
        right = sum(match.worker == who for match, (_, who) in zip(found, REQUESTS, strict=True))
        assert right / len(REQUESTS) >= least

    def test_the_labelled_requests_are_as_they_are_said_to_be(self) -> None:
        labels = [who for _, who in REQUESTS]
        assert len(REQUESTS) == 100 == len({text for text, _ in REQUESTS})
        assert set(labels) == {*DESCRIPTIONS, None}
        assert labels.count(None) == 20
        said = {text for own in EXAMPLES.values() for text in own} | set(DESCRIPTIONS.values())
        assert not said & {text for text, _ in REQUESTS}

    def test_the_requests_with_answers_are_judged_as_they_are_said_to_be(self) -> None:
        made = work_requests()
        assert made == work_requests()
        assert len({one.text for one in made}) == len(made) == 150
        kinds = Counter(one.worker for one in made)
        assert kinds.pop(None) == 24
        assert set(kinds.values()) == {21}
        small = read_worker_file(ROOT / "examples" / "workers.yaml")
        said = {text for worker in small for text in worker.examples}
        assert kinds.keys() == {worker.name for worker in small}
        for one in made:
            assert one.text not in said
            assert one.grader.grade(f"Answer: {one.right}", None).score == 1.0
            assert not any(one.grader.grade(f"Answer: {w}", None).score for w in one.wrong)

    def test_a_match_says_how_near_each_worker_is(self, meaning: Encoder) -> None:
        match, none = match_workers(
            ["Translate this letter into French.", "Write a sonnet."],
            workers("translator", "weather", examples=True),
            meaning,
        )
        assert match.worker == match.nearest == "translator"
        assert list(match.cosines) == ["translator", "weather"]
        assert match.cosines["translator"] > match.score > match.cosines["weather"]
        assert none.worker is None
        assert none.nearest in ("translator", "weather")

    def test_a_rule_is_one_encoders_own(self) -> None:
        hashing = HashingEncoder(256)
        with pytest.raises(ConfigError, match="all-MiniLM-L6-v2', and this one is 'hashing-256-v1"):
            match_workers(["x"], workers(), hashing)
        text = DESCRIPTIONS["weather"]
        rule = MatchingRule(0.5, 0.5, "hashing-256-v1")
        assert match_workers([text], workers(), hashing, rule=rule)[0].worker == "weather"
        never = replace(rule, threshold=1.1)
        assert match_workers([text], workers(), hashing, rule=never)[0].worker is None
        assert match_workers([], workers(), hashing, rule=rule) == []
        with pytest.raises(ConfigError, match="no workers"):
            match_workers(["x"], [], hashing, rule=rule)

    def test_the_weight_of_chat_work_counts_against_a_worker(self) -> None:
        hashing = HashingEncoder(256)
        (free,) = match_workers(["Explains it."], workers("ocr"), hashing, rule=rule(0.0))
        (half,) = match_workers(["Explains it."], workers("ocr"), hashing, rule=rule(0.5))
        assert free.score == pytest.approx(free.cosines["ocr"])
        assert half.score == pytest.approx(free.score - 0.5 * free.chat)
        assert free.chat > 0

    @pytest.mark.parametrize(
        ("name", "fits"),
        [
            ("all-MiniLM-L6-v2", True),
            ("all-MiniLM-L6-v2@0123", True),
            ("all-MiniLM-L6-v2@0123+windows64", True),
            ("all-MiniLM-L6", False),
            ("all-MiniLM-L6-v2@01", False),
        ],
    )
    def test_a_rule_names_weights_or_leaves_them_open(self, name: str, fits: bool) -> None:
        class Named(HashingEncoder):
            identity = "all-MiniLM-L6-v2@0123+windows64"

            def __init__(self) -> None:
                """Without a dimension."""

        assert MatchingRule(0.2, 0.5, name).is_for(Named()) is fits

    @pytest.mark.parametrize(
        ("values", "why"),
        [
            ((float("nan"), 0.5, "e"), "threshold"),
            (("1", 0.5, "e"), "threshold"),
            ((3, 0.5, "e"), "threshold"),
            ((0.2, -0.1, "e"), "chat_weight"),
            ((0.2, True, "e"), "chat_weight"),
            ((0.2, 0.5, ""), "encoder"),
            ((0.2, 0.5, None), "encoder"),
        ],
    )
    def test_a_rule_that_cannot_be_meant_is_refused(self, values: Any, why: str) -> None:
        with pytest.raises(ConfigError, match=f"matching: {why}: expected"):
            MatchingRule(*values)


class TestSteps:
    @pytest.mark.parametrize(
        ("goal", "steps"),
        [
            (
                "translate this technical document and summarise it",
                ("translate this technical document", "summarise it"),
            ),
            (
                "Translate the manual into German, then summarise it, and finally email it to Bo.",
                ("Translate the manual into German", "summarise it", "email it to Bo"),
            ),
            ("Find the error. Fix it.", ("Find the error. Fix it.",)),
            ("Read the scan. Translate it.", ("Read the scan", "Translate it")),
            ("Please:\n1. Transcribe it.\n2) Translate it.", ("Transcribe it", "Translate it")),
            ("Translate it, followed by a summary", ("Translate it", "a summary")),
            ("Check the figures and report them", ("Check the figures", "report them")),
            ("Read it. Write two poems about it.", ("Read it", "Write two poems about it")),
            ("Translate it. Write a letter.", ("Translate it", "Write a letter")),
            ("Translate it. Send the result to Bo.", ("Translate it", "Send the result to Bo")),
            ("Sum it up. Tell me the price.", ("Sum it up", "Tell me the price")),
            ("Add them. Show the result in a chart.", ("Add them", "Show the result in a chart")),
            ("Translate it, then give only names.", ("Translate it", "give only names")),
            (
                "Convert 30 miles to kilometres. Give one decimal. Then write a poem.",
                ("Convert 30 miles to kilometres. Give one decimal", "write a poem"),
            ),
        ],
    )
    def test_a_request_is_split_where_another_thing_is_asked_for(
        self, goal: str, steps: tuple[str, ...]
    ) -> None:
        assert split_steps(goal).steps == steps

    @pytest.mark.parametrize(
        "goal",
        [
            "Tell me about cats and dogs.",
            "Write the figures, report and plan for May.",
            "If it rains then book a taxi.",
            'Write "stop and find it, then send it" on a card.',
            "Compare the summary and translation.",
            "1. e4 e5 2. Nf3: what is this opening?",
            "Version 2. What changed?",
            "Convert 30 miles to kilometres. Give one decimal.",
            "What day of the week was 2001-09-11? Write one word.",
            "Translate this text into German. Write only the translation.",
            "How much is 15 percent of 80? State the result in words.",
            "How many grams are 2 pounds? Please answer in digits.",
            "What is 22 / 7? Give the answer to two decimals.",
            "What is 3 * 4? Tell me the number without units!",
            "What is 3 * 4? Reply with just the number.",
            "Calculate 3 * 4. Return your answer as a Roman numeral.",
            "Calculate 3 * 4. Give the result.",
            "The label says 206 miles. Give it in kilometres.",
            "This one has only scans of pages. Get me its text.",
            "",
            "and then",
        ],
    )
    def test_one_thing_stays_whole(self, goal: str) -> None:
        assert split_steps(goal).steps == (goal,)

    @pytest.mark.parametrize(
        ("goal", "steps", "material"),
        [
            ("Sum it up and translate it:\nFind it, then send it.", 2, "Find it, then send it."),
            ("Translate this.\n\nFirst do it. Then stop it.", 1, "First do it. Then stop it."),
            ("Explain this:\n```\na and find it\n```", 1, "```\na and find it\n```"),
            ("1. Translate it\n2. Summarise it\n\nText and find it.", 2, "Text and find it."),
            ("For children:\n1. Translate it\n2. Sum it up", 1, "1. Translate it\n2. Sum it up"),
            ("What I want you to do:\n1. Translate it\n2. Sum it up", 2, ""),
        ],
    )
    def test_the_material_is_never_split(self, goal: str, steps: int, material: str) -> None:
        found = split_steps(goal)
        assert (len(found.steps), found.material) == (steps, material)

    @pytest.mark.parametrize("text", ["and then find ", "\n", "1. a\n", "`", " ", ", find it", '"'])
    def test_a_million_characters_take_no_time_to_speak_of(self, text: str) -> None:
        assert split_steps(text * (1_000_000 // len(text))).steps


class TestPlans:
    def test_each_step_goes_to_the_worker_that_fits_and_needs_the_one_before(
        self, meaning: Encoder
    ) -> None:
        tasks = plan_steps(
            "translate this technical document and summarise it",
            workers(),
            meaning,
            context="The pump heats the line.",
        )
        assert tasks == (
            Task(
                "translate this technical document",
                context="The pump heats the line.",
                model="translator",
                id="step-1",
            ),
            Task("summarise it", model="summariser", id="step-2", needs=("step-1",)),
        )

    def test_steps_that_no_worker_fits_are_done_together_by_what_is_said(
        self, meaning: Encoder
    ) -> None:
        first, second = plan_steps(
            "Translate the letter into Polish, then solve x + 1 = 2 and write a poem about it.",
            workers("translator", "summariser"),
            meaning,
            otherwise="auto",
        )
        assert first.model == "translator"
        assert (second.model, second.needs) == ("auto", ("step-1",))
        assert second.goal == "solve x + 1 = 2; then write a poem about it"

    def test_a_worker_that_takes_the_goal_alone_finds_the_material_there(
        self, meaning: Encoder
    ) -> None:
        translator = replace(workers("translator")[0], takes="goal")
        goal = "Translate this letter into Polish:\n\nDear Bo"
        (only,) = plan_steps(goal, [translator], meaning, context="c")
        assert (only.goal, only.context, only.model) == (goal, "c", "translator")
        first, second = plan_steps(
            "Translate this letter into Polish, then write a poem:\n\nDear Bo", [translator],
            meaning, context="c",
        )  # fmt: skip
        assert first.goal == "Translate this letter into Polish\n\nDear Bo"
        assert (first.context, second.goal, second.context) == ("c", "write a poem", "")

    @pytest.mark.parametrize(
        ("goal", "context", "answer"),
        [
            ("How many words are in this text?\n\nthe quick brown fox", "", "4"),
            ("How many words are in this text?", "the quick brown fox", "4"),
            ("Sort these words alphabetically:\npear\napple", "", "apple, pear"),
            ("Calculate this:\n\n12 * 5", "", "60"),
            ("What day of the week was 2001-09-11?", "Written on 2020-01-01.", "Tuesday"),
        ],
    )
    def test_the_example_workers_do_what_a_user_tries_first(
        self, meaning: Encoder, goal: str, context: str, answer: str
    ) -> None:
        small = read_worker_file(ROOT / "examples" / "workers.yaml")
        settings = Settings(policies={"fitting": Policy(otherwise="nobody", fall_back=False)})
        to = Delegator(ScriptedModel({"nobody": "?"}), settings, workers=small, encoder=meaning)
        result = asyncio.run(to.delegate_task(Task(goal, context, model="fitting")))
        assert (result.answer, result.error) == (answer, None)

    @pytest.mark.parametrize(
        ("goal", "model"),
        [
            ("Translate this letter into Polish.", "translator"),
            ("Can you translate 'who? what?' into Polish?", "translator"),
            ("Can you translate this into Polish??\n\nWho? What? And who?", "translator"),
            ("Can you translate a letter on who and where into Polish?", "translator"),
            ("Can you translate this letter into Polish? And which language is it in?", "auto"),
            ("Translate this letter into Polish, and then what does it say", "auto"),
        ],
    )
    def test_no_worker_is_given_two_questions_at_once(
        self, meaning: Encoder, goal: str, model: str
    ) -> None:
        own = workers("translator")
        assert match_workers([split_steps(goal).steps[0]], own, meaning)[0].worker == "translator"
        (only,) = plan_steps(goal, own, meaning, otherwise="auto")
        assert (only.model, goal.startswith(only.goal.partition("\n")[0])) == (model, True)

    def test_a_request_that_fits_nobody_stays_as_it_was(self, meaning: Encoder) -> None:
        goal = "Prove the lemma and write a poem about it:\n\nLemma."
        (only,) = plan_steps(goal, workers("weather"), meaning, context="c", otherwise="auto")
        assert (only.goal, only.context, only.model) == (goal, "c", "auto")
        with pytest.raises(ConfigError, match="the goal is empty"):
            plan_steps(" ", workers("weather"), meaning)
