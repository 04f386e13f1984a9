"""Whether samples agree, and where they part."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masrouter.delegation.deliberation.agreement import Rule, parting, should_delegate
from masrouter.delegation.deliberation.steps import as_step, read_next_step, read_steps
from masrouter.errors import ConfigError

FOUR = "Two and two is four.\nAnswer: 4"
FIVE = "I count five.\nAnswer: 5"


def test_samples_that_say_the_same_in_other_words_are_not_delegated() -> None:
    verdict = should_delegate(["It is 2 + 2 = 4.", "The answer is 4.", "Answer: 4.0"])
    assert not verdict.delegate
    assert (verdict.agreement, verdict.votes, verdict.asked) == (1.0, 3, 3)
    assert verdict.answer == "It is 2 + 2 = 4."
    assert verdict.step is None


def test_two_of_three_are_enough_only_where_the_threshold_says_so() -> None:
    samples = [FIVE, FOUR, FOUR]
    assert should_delegate(samples, threshold=1.0).delegate
    lenient = should_delegate(samples)
    assert not lenient.delegate
    assert lenient.answer == FOUR
    assert lenient.reason == "2 of 3 samples agree, 2 must"


def test_a_sample_that_failed_or_says_nothing_agrees_with_none() -> None:
    assert should_delegate([FOUR, FOUR], asked=3, threshold=1.0).delegate
    assert should_delegate([FOUR, FOUR, "  \n"], threshold=1.0).delegate
    blank = should_delegate(["", " ", ""], threshold=0.1)
    assert blank.delegate
    assert blank.answer is None
    nothing = should_delegate([], asked=3)
    assert nothing.delegate
    assert nothing.agreement == 0.0


def test_one_sample_never_agrees_with_itself() -> None:
    assert should_delegate([FOUR], threshold=0.01).delegate


def test_programs_that_passed_a_check_count_as_agreeing_however_they_are_written() -> None:
    one = "```python\ndef f(x):\n    return x + 1\n```"
    other = "```python\ndef f(number):\n    return 1 + number\n```"
    assert should_delegate([one, other]).delegate
    checked = should_delegate([FOUR, one, other], passed=[False, True, True], threshold=2 / 3)
    assert not checked.delegate
    assert checked.answer == one
    assert should_delegate([one, other], passed=[True, False]).delegate


@pytest.mark.parametrize("threshold", [0, -0.5, 1.01, float("nan"), True, "1"])
def test_a_threshold_that_is_no_share_is_refused(threshold: float) -> None:
    with pytest.raises(ConfigError, match=r"threshold: expected a share in \(0, 1\]"):
        should_delegate([FOUR], threshold=threshold)
    with pytest.raises(ConfigError, match=r"alike: expected a share in \(0, 1\]"):
        should_delegate([FOUR], alike=threshold)


def test_numbers_of_samples_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="asked >= 1"):
        should_delegate([])
    with pytest.raises(ConfigError, match="got 1"):
        should_delegate([FOUR, FOUR], asked=1)
    with pytest.raises(ConfigError, match="1 outcomes for 2 samples"):
        should_delegate([FOUR, FOUR], passed=[True])
    with pytest.raises(ConfigError, match="one sample agrees with itself"):
        Rule(samples=1)


def test_samples_part_at_the_first_numbered_step_that_differs() -> None:
    right = "1. 14 * 3 = 42 candles\n2. 42 - 17 = 25\n3. so 25 are left\nAnswer: 25"
    same = "Step 1: three times 14, 3 * 14 = 42\nStep 2: 42 - 17 = 25 left\nAnswer: 25"
    slip = "- 14*3 = 42.\n- then 42 + 17 = 59\nAnswer: 59"
    verdict = should_delegate([right, same, slip], threshold=1.0)
    assert verdict.delegate
    assert verdict.step == 2
    assert verdict.agreed == ("14 * 3 = 42 candles",)
    assert verdict.reason == "2 of 3 samples agree, 3 must; they part at step 2"


def test_steps_in_lines_and_sentences_are_aligned_without_their_opening_words() -> None:
    one = "Let me work this out.\nThe farmer fills 8 boxes. That takes 48 eggs.\nAnswer: 2"
    other = "Sure!\n\nHe fills 8 boxes with eggs.\n48 eggs are used up.\nAnswer: 3"
    assert parting([one, other]) == (
        3,
        ("The farmer fills 8 boxes.", "That takes 48 eggs."),
    )


def test_steps_without_numbers_agree_by_their_words() -> None:
    one = "- All cats are mammals\n- Tom is a cat\nAnswer: yes"
    other = "* Cats are all mammals.\n* Tom is a dog, not what was asked\nAnswer: no"
    assert parting([one, other]) == (2, ("All cats are mammals",))


def test_how_many_words_steps_must_share_is_the_callers_choice() -> None:
    one = "- The red box holds apples\n- Tom takes them\nAnswer: 3"
    other = "- The red box holds pears\n- Tom takes them\nAnswer: 4"
    assert parting([one, other], alike=0.5)[0] == 3  # the answers part, behind all steps
    assert parting([one, other], alike=0.9)[0] == 1
    assert should_delegate([one, other], alike=0.9).step == 1


@pytest.mark.parametrize(
    "bad",
    [
        {"at": "steps"}, {"at": None}, {"stop_early": 1}, {"alike": 0}, {"samples": 65},
        {"samples": 10**400}, {"samples": 3.0},
    ],
)  # fmt: skip
def test_a_rule_that_cannot_be_meant_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        Rule(**bad)


DONE = [as_step("3 * 14 = 42")]


@pytest.mark.parametrize(
    ("reply", "step"),
    [
        ("42 - 17 = 25", "42 - 17 = 25"),
        ("2. 42 - 17 = 25", "42 - 17 = 25"),
        ("**Step 2:** 42 - 17 = 25 are left\n**Step 3:** 25 / 5 = 5", "42 - 17 = 25 are left"),
        ("1. 3 * 14 = 42\n2. 42 - 17 = 25\nAnswer: 25", "42 - 17 = 25"),
        ("The next step is:\n\n42 - 17 = 25", "42 - 17 = 25"),
        ("<think>1. guess 9</think>42 - 17 = 25", "42 - 17 = 25"),
        ("Answer: 25", "Answer: 25"),
    ],
)
def test_a_step_that_was_asked_for_alone_is_read_in_whatever_form_it_comes(
    reply: str, step: str
) -> None:
    found = read_next_step(reply, DONE)
    assert found is not None
    assert found.text == step


@pytest.mark.parametrize("reply", ["", " \n", "```python\nx = 1\n```", "...", "<think>hm</think>"])
def test_a_reply_without_a_step_gives_none(reply: str) -> None:
    assert read_next_step(reply, DONE) is None


def test_a_majority_of_the_steps_goes_on_where_the_threshold_allows_it() -> None:
    samples = ["1. 1 + 1 = 2\n2. 2 * 2 = 4", "1. 1 + 1 = 2\n2. 2 * 2 = 5", "1. 1 + 1 = 3\n2. 4"]
    assert parting(samples, threshold=1.0)[0] == 1
    assert parting(samples, threshold=2 / 3) == (2, ("1 + 1 = 2",))


def test_samples_without_steps_part_nowhere() -> None:
    assert parting(["Answer: 4", "Answer: 5"]) == (None, ())
    assert parting(["```python\ndef f(): return 1\n```", "```python\ndef f(): return 2\n```"]) == (
        None,
        (),
    )
    assert should_delegate(["Answer: 4", "Answer: 5"]).step is None


def test_a_single_numbered_step_is_read_without_its_number() -> None:
    assert [step.text for step in read_steps("1. 1 + 1 = 2\nAnswer: 2")] == ["1 + 1 = 2"]


def test_reasoning_behind_closed_marks_and_programs_are_no_steps() -> None:
    text = "<think>1 is odd.\n2 is even.</think>\n1. 2 = 2\n2. 3 = 3\n```\n9 = 9\n```\nAnswer: 4"
    assert [step.text for step in read_steps(text)] == ["2 = 2", "3 = 3"]


def test_a_rule_needs_two_at_least_and_says_how_many_samples_could_still_settle_it() -> None:
    rule = Rule(samples=5, threshold=0.6)
    assert rule.needed == 3
    assert Rule(samples=3, threshold=0.1).needed == 2
    assert rule.wanting(votes=3, tried=3) == 0  # agreed
    assert rule.wanting(votes=2, tried=3) == 1
    assert rule.wanting(votes=1, tried=3) == 2
    assert rule.wanting(votes=1, tried=4) == 0  # out of reach


texts = st.sampled_from([FOUR, FIVE, "Answer: 6", "", "1. 2 = 2\n2. 3 = 3\nAnswer: 6"])


@given(st.lists(texts, min_size=1, max_size=6), st.floats(0.01, 1.0))
def test_more_agreement_is_never_asked_for_by_a_lower_threshold(
    samples: list[str], threshold: float
) -> None:
    strict = should_delegate(samples, threshold=1.0)
    lenient = should_delegate(samples, threshold=threshold)
    assert lenient.votes == strict.votes
    assert lenient.delegate <= strict.delegate
    assert 0 <= lenient.agreement <= 1


@given(st.lists(st.text(max_size=200), min_size=1, max_size=4), st.floats(0.01, 1.0))
def test_any_text_has_a_verdict(samples: list[str], threshold: float) -> None:
    verdict = should_delegate(samples, threshold=threshold)
    assert verdict.delegate or verdict.answer in samples
    if verdict.step is not None:
        assert len(verdict.agreed) == verdict.step - 1
    for text in samples:
        for step in read_steps(text):
            assert as_step(step.text) == step
        read_next_step(text, read_steps(samples[0]))
