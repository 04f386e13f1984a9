"""The text of simulated replies: long enough that tokens are counted as they really would be.

What a reply says is decided before (judgement.py); here it is put into words. Filling sentences
take up the question's own sentences, as models do, so that prompts which carry them on grow as
they do with real models.
"""

from __future__ import annotations

import random
import re

from masrouter.answers import final_answer
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


def garbage(rng: random.Random) -> str:
    """A reply that answers nothing."""
    letters = "abcdefghijklmnopqrstuvwxyz     "
    return "".join(rng.choice(letters) for _ in range(rng.randint(20, 200))).strip() or "..."


def hidden_share(difficulty: float, index: int) -> float:
    """Share of its usual thinking that a reasoning model spends: more on what is hard or fails."""
    return (0.4 + 0.2 * difficulty) * (1.0 if index == RIGHT else 1.3)
