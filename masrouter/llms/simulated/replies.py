"""The text of simulated replies: long enough that tokens are counted as they really would be.

What a reply says is decided before (judgement.py); here it is put into words. Filling sentences
take up the question's own sentences, as models do, so that prompts which carry them on grow as
they do with real models.
"""

from __future__ import annotations

import random
import re

from masrouter.answers import final_answer
from masrouter.llms.simulated.steps import Paths, content_words
from masrouter.llms.simulated.tasks import RIGHT, SimulatedTask

_OPENERS = {
    "code": "Here is a function that does what the specification says.",
    "math": "Let me work this out.",
    "knowledge": "Let me go through what is asked.",
}
_STEPS = (
    'First, what is given: "{}". This has to hold in what follows.',
    'Next: "{}". Taking this with what stands above narrows the answer down.',
    'The part "{}" is easy to pass over, so it is worth a second look.',
    'From "{}" the next step follows directly.',
    'It remains to see what "{}" means for the answer.',
    'A quick check against "{}" before going on.',
)
WORDS_OF_REASONING = {"code": 70, "math": 130, "knowledge": 80}
"""About how many words a model spends on reasoning when it is asked to."""
UNKNOWABLE = "This stands nowhere in what is given, and I cannot know it."
"""Of a model that is asked for what a question lacks."""
_ONE_NAMED = 0.7
"""Share of the times that a model names one thing as missing, and not two; an assumption."""


def reasoning(task: SimulatedTask, words: int, rng: random.Random) -> str:
    """About `words` words of working that name the question's own parts."""
    parts = [p.strip() for p in re.split(r"(?<=[.?!:])\s+|\n+", task.query) if len(p.strip()) > 8]
    lines: list[str] = []
    count = 0
    while parts and count < words:
        quoted = " ".join(parts[len(lines) % len(parts)].replace('"', "'").split()[:24])
        opener = _STEPS[0] if not lines else rng.choice(_STEPS[1:])
        lines.append(opener.format(quoted))
        count += len(lines[-1].split())
    return "\n".join(lines)


def answer(task: SimulatedTask, index: int, reason: bool, rng: random.Random) -> str:
    """A full answer; without reasoning, no more than the program or the final line."""
    text = task.answer(index)
    if not reason:
        stated = None if "```" in text else final_answer(text)
        return text if stated is None else f"Answer: {stated}"
    # Working takes from about half to one and a half times the usual length.
    words = WORDS_OF_REASONING.get(task.domain, 80) * rng.uniform(0.5, 1.5)
    working = reasoning(task, round(words), rng)
    opener = _OPENERS.get(task.domain, _OPENERS["knowledge"])
    return "\n\n".join(part for part in (opener, working, text) if part)


def in_steps(task: SimulatedTask, index: int, paths: Paths, behind: int, rng: random.Random) -> str:
    """An answer worked out in numbered steps, behind so many that are settled.

    As long as free working on what is left: whether steps save words is not known, so they do not.
    """
    lines = paths.lines(index, rng, behind=behind)
    left = len(lines) / paths.steps
    words = left * WORDS_OF_REASONING.get(task.domain, 80) * rng.uniform(0.5, 1.5)
    working = reasoning(task, round(words) - sum(len(line.split()) for line in lines), rng)
    return "\n\n".join(
        part for part in (working, "\n".join(lines), answer(task, index, False, rng)) if part
    )


def critique(task: SimulatedTask, wrong: bool, leads_to: int, rng: random.Random) -> str:
    """A critic's text, ending with its verdict."""
    lines = [reasoning(task, 40, rng)]
    hint = task.hint(leads_to)
    if wrong:
        lines.append("The answer does not do what is asked.")
        if hint:
            lines.append(f"It should rather rest on this: {hint}")
        lines.append("Verdict: wrong")
    else:
        lines.append("I followed it from beginning to end and found no fault.")
        lines.append("Verdict: stands")
    return "\n".join(line for line in lines if line)


def plan(task: SimulatedTask, leads_to: int, rng: random.Random) -> str:
    """Steps towards an answer, without giving it."""
    lines = [reasoning(task, 60, rng)]
    hint = task.hint(leads_to)
    if hint:
        lines.append(f"Key point: {hint}")
    return "\n".join(line for line in lines if line)


def subtasks(task: SimulatedTask, leads_to: int, most: int, rng: random.Random) -> str:
    """A decomposition into at most `most` parts."""
    goals = _goals(task, leads_to)
    count = min(most, len(goals))
    return "\n".join(f"Subtask {i + 1}: {goals[i]}" for i in range(count))


def delegations(task: SimulatedTask, leads_to: int, workers: int, rng: random.Random) -> str:
    """A lead's working so far and a part for each worker, agents 2, 3, ..."""
    goals = _goals(task, leads_to)
    lines = [reasoning(task, 40, rng)]
    lines += [f"Delegate to agent {i + 2}: {goals[(i + 1) % len(goals)]}" for i in range(workers)]
    return "\n".join(line for line in lines if line)


def _goals(task: SimulatedTask, leads_to: int) -> tuple[str, ...]:
    return (
        "work out exactly what is given and asked, with every condition",
        f"solve the central part. Key point: {task.hint(leads_to)}".rstrip(),
        "check limits, special cases and the form of the answer",
        "solve it in another way, to compare",
    )


def subtask_result(task: SimulatedTask, leads_to: int, rng: random.Random) -> str:
    """What a worker reports: a short summary and a line `Result: ...`."""
    hint = task.hint(leads_to)
    return f"{reasoning(task, 50, rng)}\nResult: {hint or 'done, nothing unusual found'}"


def missing(wrong: bool) -> str:
    """The line that names what a draft lacks."""
    return f"Missing: {'a case that the draft does not handle' if wrong else 'nothing'}"


def gap(task: SimulatedTask, rng: random.Random) -> str:
    """Lines that name what a question lacks, by what stands around it; nobody knows more of it."""
    functions = re.findall(r"\bdef (\w+)\(", task.query)
    before, found, after = task.key.partition(task.lacks)
    asked = _sentences(task.query)[-1:]
    if functions:
        named = [f"what {functions[-1]} is to do", f"the description of {functions[-1]}"]
    elif re.match(r"[A-J]\) ", task.lacks.strip()):
        words = _named([content_words(" ".join(asked))], rng)
        named = [f"the options to choose from on {words}", f"the list of answers about {words}"]
    else:
        near = [*_sentences(before)[-1:], *_sentences(after)[:1]] if found else asked
        vocabulary = [content_words(" ".join(near)), content_words(" ".join(asked))]
        named = [
            f"what is said about {_named(vocabulary, rng)}",
            f"what holds for {_named(vocabulary, rng)}",
            f"a statement on {_named(vocabulary, rng)}",
        ]
    # Models that miss something often name more than one thing.
    count = 1 if rng.random() < _ONE_NAMED else 2
    return "\n".join(f"Missing: {name}" for name in rng.sample(named, count))


def no_gap(task: SimulatedTask, rng: random.Random) -> str:
    """The line of who misses something where nothing is missing."""
    return f"Missing: what is meant by {_named([content_words(task.query)], rng)}"


def _named(vocabulary: list[list[str]], rng: random.Random) -> str:
    """Two words from each list, or all of them where there are fewer."""
    words = [word for words in vocabulary for word in rng.sample(words, min(2, len(words)))]
    words = list(dict.fromkeys(words)) or ["the", "task"]
    return " and ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)


def _sentences(text: str) -> list[str]:
    """Sentences and lines; options are none."""
    parts = (part.strip() for part in re.split(r"(?<=[.?!])\s+|\n+", text))
    return [part for part in parts if part and not re.match(r"[A-J]\) ", part)]


def garbage(rng: random.Random) -> str:
    """A reply that answers nothing."""
    letters = "abcdefghijklmnopqrstuvwxyz     "
    return "".join(rng.choice(letters) for _ in range(rng.randint(20, 200))).strip() or "..."


def hidden_share(difficulty: float, index: int) -> float:
    """Share of its usual thinking that a reasoning model spends: more on what is hard or fails."""
    return (0.4 + 0.2 * difficulty) * (1.0 if index == RIGHT else 1.3)
