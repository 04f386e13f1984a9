"""Answers in numbered steps, and the next step alone."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

import pytest
from tests.llms.simulated_asking import (
    CHEAP,
    LETTERS,
    NUMBERS,
    STRONG,
    THINKER,
    WEAK,
    ask,
    choosing,
    counting,
    programming,
    share_right,
)

from masrouter.delegation.deliberation.steps import Step, read_steps
from masrouter.llms.simulated import SimulatedProvider, SimulatedTask, published_models
from masrouter.llms.simulated.judgement import Mind, draws
from masrouter.sections import section

IN_STEPS = "Work in numbered steps, one line each; then answer."
NEXT = "Give only the next step, in one line."
ITEM = re.compile(r"(?m)^(\d+)\. (.+)$")


def in_steps(task: SimulatedTask) -> str:
    return f"{task.query}\n\n{IN_STEPS}"


def settled(*lines: str) -> str:
    """Steps that are done, numbered anew."""
    numbered = "\n".join(f"{at}. {line}" for at, line in enumerate(lines, 1))
    return f"These are done.\n\n{section('steps_so_far', numbered)}"


def steps_to(task: SimulatedTask, answer: int) -> list[str]:
    """The steps of some sample that came to an answer."""
    provider = SimulatedProvider([task])
    for seed in range(400):
        text = ask(provider, in_steps(task), seed=seed).text
        if task.index_of(text) == answer:
            return [said for _, said in ITEM.findall(text)]
    raise AssertionError(f"no sample came to answer {answer}")


@pytest.mark.parametrize("known", [NUMBERS[0], LETTERS[0], programming(1)])
def test_an_answer_in_steps_is_numbered_from_one_and_ends_with_the_answer(
    known: SimulatedTask,
) -> None:
    text = ask(SimulatedProvider([known]), in_steps(known)).text
    numbers = [int(number) for number, _ in ITEM.findall(text)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(read_steps(text)) == len(numbers) >= 3
    assert known.index_of(text) is not None


def test_harder_tasks_take_more_steps() -> None:
    counts = []
    for difficulty in (1, 3, 5):
        known = counting(20, difficulty)
        counts.append(len(read_steps(ask(SimulatedProvider([known]), in_steps(known)).text)))
    assert counts == sorted(set(counts))


def test_to_work_in_steps_makes_nobody_more_or_less_often_right() -> None:
    assert abs(share_right(NUMBERS, in_steps, seeds=3) - share_right(NUMBERS, seeds=3)) < 0.08


def test_in_steps_about_as_many_words_are_said_as_without() -> None:
    provider = SimulatedProvider(NUMBERS)

    def words(goal: str) -> int:
        return len(ask(provider, goal, model=STRONG).text.split())

    free, steps = (sum(words(form(t)) for t in NUMBERS) for form in (lambda t: t.query, in_steps))
    assert 0.8 < steps / free < 1.2


def test_numbers_of_samples_agree_where_their_answers_do_and_part_where_they_do_not() -> None:
    known = counting(25, 5)
    provider = SimulatedProvider([known])
    paths: dict[int | None, set[tuple[frozenset[object], ...]]] = {}
    for seed in range(60):
        text = ask(provider, in_steps(known), seed=seed).text
        values = tuple(step.values for step in read_steps(text))
        paths.setdefault(known.index_of(text), set()).add(values)
    assert len(paths) > 1
    assert all(len(found) == 1 for found in paths.values())
    for (one,), (other,) in pairwise(paths.values()):
        same = [a == b for a, b in zip(one, other, strict=True)]
        # Once parted, never together again.
        assert same == sorted(same, reverse=True)
        assert not same[-1]


def test_words_of_the_same_step_are_more_alike_than_those_of_different_ones() -> None:
    same: list[float] = []
    different: list[float] = []
    for known in map(choosing, range(10, 18)):
        provider = SimulatedProvider([known])
        said = [ask(provider, in_steps(known), seed=seed).text for seed in range(12)]
        last = [(known.index_of(text), read_steps(text)[-1]) for text in said]
        for at, (answer, step) in enumerate(last):
            for other_answer, other in last[at + 1 :]:
                (same if answer == other_answer else different).append(alike(step, other))
    assert sum(same) / len(same) > sum(different) / len(different) + 0.2
    # They overlap: no line parts the two for certain.
    assert min(same) < max(different)


def alike(one: Step, other: Step) -> float:
    assert not one.values
    return len(one.words & other.words) / len(one.words | other.words)


@pytest.mark.parametrize("known", [NUMBERS[3], LETTERS[3]])
def test_all_steps_of_the_right_path_leave_no_other_answer(known: SimulatedTask) -> None:
    done = settled(*steps_to(known, 0))
    provider = SimulatedProvider([known])
    texts = [ask(provider, in_steps(known), context=done, seed=s).text for s in range(20)]
    assert all(known.index_of(text) == 0 for text in texts)
    assert not any(ITEM.search(text) for text in texts)


def test_more_right_steps_leave_fewer_wrong_answers() -> None:
    known = counting(31, 5)
    provider = SimulatedProvider([known])
    right = steps_to(known, 0)
    shares = []
    for count in range(len(right) + 1):
        done = settled(*right[:count]) if count else ""
        texts = [ask(provider, in_steps(known), context=done, seed=s).text for s in range(40)]
        shares.append(sum(known.index_of(text) == 0 for text in texts) / 40)
    assert shares[0] < 0.7
    assert shares[-1] == 1.0
    assert all(later > earlier - 0.12 for earlier, later in pairwise(shares))


def test_a_step_on_a_wrong_path_leads_to_its_answer_unless_it_is_noticed() -> None:
    known = NUMBERS[:10]
    provider = SimulatedProvider(known)
    shown = [settled(*steps_to(task, 1)) for task in known]

    def followed(model: str) -> float:
        found = [
            task.index_of(ask(provider, in_steps(task), context=done, model=model, seed=s).text)
            for task, done in zip(known, shown, strict=True)
            for s in range(6)
        ]
        return found.count(1) / len(found)

    assert 0.6 < followed(THINKER) < followed(WEAK) <= 1.0


def test_steps_that_are_nobodys_change_nothing() -> None:
    strange = settled("The moon is round.", "So is the sun.")
    with_them = share_right(NUMBERS, in_steps, lambda t: strange, seeds=3)
    assert abs(with_them - share_right(NUMBERS, in_steps, seeds=3)) < 0.08


def test_what_is_left_is_drawn_as_it_is_among_all() -> None:
    mind = Mind(published_models()[WEAK], NUMBERS[5], seed=0)
    left = frozenset((0, 2))
    rng = draws("left")
    drawn = Counter(mind.sample(0.2, rng, among=left) for _ in range(6000))
    kept = Counter(k for k in (mind.sample(0.2, rng) for _ in range(9000)) if k in left)
    assert set(drawn) == left
    assert drawn[0] / drawn.total() == pytest.approx(kept[0] / kept.total(), abs=0.02)


@pytest.mark.parametrize("known", [NUMBERS[7], LETTERS[7], programming(2)])
def test_the_next_step_alone_is_one_line_that_goes_on_where_the_others_end(
    known: SimulatedTask,
) -> None:
    provider = SimulatedProvider([known])
    right = steps_to(known, 0)
    for count in range(len(right) + 1):
        done = settled(*right[:count]) if count else ""
        text = ask(provider, f"{known.query}\n\n{NEXT}", context=done, model=STRONG).text
        ((number, _),) = ITEM.findall(text)
        assert text.count("\n") == 0
        assert int(number) == count + 1


def test_a_step_taken_over_is_the_one_of_the_path_it_stands_on() -> None:
    known = counting(44, 5)
    provider = SimulatedProvider([known])
    right = steps_to(known, 0)
    text = ask(provider, f"{known.query}\n\n{NEXT}", context=settled(*right[:-1])).text
    (step,) = read_steps(text.partition(". ")[2])
    assert step.values == read_steps(right[-1])[0].values


def test_a_step_costs_a_model_that_thinks_as_many_hidden_tokens_as_an_answer() -> None:
    known = NUMBERS[9]
    provider = SimulatedProvider([known])

    def hidden(goal: str) -> float:
        replies = [ask(provider, goal, model=THINKER, seed=seed) for seed in range(20)]
        tokens = [(r.usage.completion_tokens or 0) - len(r.text) / 4 for r in replies]
        return sum(tokens) / len(tokens)

    step, answer = hidden(f"{known.query}\n\n{NEXT}"), hidden(known.query)
    assert step == pytest.approx(answer, rel=0.25)


def test_cheap_and_strong_models_word_the_same_steps() -> None:
    known = NUMBERS[11]
    provider = SimulatedProvider([known])
    values = set()
    for model in (CHEAP, STRONG, THINKER):
        for seed in range(10):
            text = ask(provider, in_steps(known), model=model, seed=seed).text
            if known.index_of(text) == 0:
                values.add(tuple(step.values for step in read_steps(text)))
    assert len(values) == 1
