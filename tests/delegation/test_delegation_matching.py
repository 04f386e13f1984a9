"""Which worker fits a request by its description, and requests of several steps as tasks."""

from __future__ import annotations

import pytest
from tests.delegation.matching_requests import DESCRIPTIONS, EXAMPLES, REQUESTS

from masrouter.delegation.tasks import Task
from masrouter.delegation.workers.matching import match_workers, plan_steps, split_steps
from masrouter.delegation.workers.worker import Worker
from masrouter.encoder import Encoder, HashingEncoder, load_encoder
from masrouter.errors import ConfigError


def workers(*names: str, examples: bool = False) -> list[Worker]:
    return [
        Worker(
            name=name, description=DESCRIPTIONS[name], run=str.upper,
            examples=EXAMPLES[name] if examples else (),
        )
        for name in names or DESCRIPTIONS
    ]  # fmt: skip


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

    def test_the_threshold_is_one_encoders_own(self) -> None:
        hashing = HashingEncoder(256)
        with pytest.raises(ConfigError, match="no threshold is known for the encoder 'hashing-256"):
            match_workers(["x"], workers(), hashing)
        text = DESCRIPTIONS["weather"]
        assert match_workers([text], workers(), hashing, threshold=0.5)[0].worker == "weather"
        assert match_workers([text], workers(), hashing, threshold=1.1)[0].worker is None
        assert match_workers([], workers(), hashing, threshold=0.5) == []
        with pytest.raises(ConfigError, match="no workers"):
            match_workers(["x"], [], hashing, threshold=0.5)


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

    def test_a_request_that_fits_nobody_stays_as_it_was(self, meaning: Encoder) -> None:
        goal = "Prove the lemma and write a poem about it:\n\nLemma."
        (only,) = plan_steps(goal, workers("weather"), meaning, context="c", otherwise="auto")
        assert (only.goal, only.context, only.model) == (goal, "c", "auto")
        with pytest.raises(ConfigError, match="the goal is empty"):
            plan_steps(" ", workers("weather"), meaning)
