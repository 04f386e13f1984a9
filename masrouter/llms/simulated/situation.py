"""What a prompt says, as the simulated provider understands it.

Only the text counts: the marked parts of the messages (masrouter.sections) and the form of reply
that the last instruction asks for. Nothing is known of the team or the topology behind it. What a
delegated question says behind the task counts as well: its parts as parts of the prompt, the rest
as an instruction (masrouter.llms.simulated.questions).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from masrouter.catalog import RoleEntry
from masrouter.llms.chat import ChatRequest
from masrouter.llms.simulated.questions import Asked
from masrouter.sections import Section, read_sections

Act = Literal[
    "answer", "critique", "plan", "decompose", "subtask", "delegate", "name_missing", "supply"
]
Form = Literal["free", "steps", "next_step"]

_REASONING = re.compile(
    r"step by step|deriv|think|reason|argu|solve|compar|weigh|defend|mend|check|prove|judge",
    re.IGNORECASE,
)
_PASSED = re.compile(r"\s*All \d+ examples\b.{0,40}\bpass(?:ed)?\b")
_HINTING = ("plan", "result", "subtask", "context", "found", "given")
"""Parts that can hold a hint at an answer."""
_GIVING = ("context", "result", "found", "given")
"""Parts that can hold what a question lacks."""
_NOT_AN_ANSWER = re.compile(r"leave the answer to|do not answer|do not solve", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Situation:
    """One call, read."""

    act: Act
    """What kind of reply is asked for."""
    role: str | None
    """The catalog's role whose prompt the system message begins with."""
    role_domain: str | None
    asks_reasoning: bool
    form: Form
    """Of an answer: as it comes, in numbered steps, or the next step alone."""
    steps: tuple[str, ...]
    """Steps that are settled, as the prompt shows them."""
    asks_missing: bool
    """The reply should end by naming what the answer is missing."""
    asks_gaps: bool
    """The reply should end by naming what the question lacks."""
    lacks: bool
    """The question has a gap, and what was cut stands nowhere in the prompt."""
    most_subtasks: int
    workers: int
    """Agents to whom parts may be handed."""
    has_results: bool
    """Part results are there to be joined."""
    answers: tuple[int, ...]
    """Peers' answers that are known, as indices of the task's answers."""
    own: int | None
    """The model's own earlier answer, where the prompt shows it."""
    shown: int | None
    """The answer that critiques and tests speak of: the last one shown."""
    verdicts: tuple[bool, ...]
    """Of each critique or note on what is missing: True where it calls the answer wrong."""
    tests: Literal["passed", "failed"] | None
    right_hints: int
    """Plans and part results that hit the point."""
    wrong_hints: int

    @property
    def refuted(self) -> int | None:
        """The answer that the prompt speaks against, by tests or by a critique."""
        against = self.tests == "failed" or any(self.verdicts)
        return self.shown if against else None

    def showing(self, index: int) -> Situation:
        """The same, about a new answer that nobody has judged yet."""
        return replace(self, shown=index, verdicts=(), tests=None)


def question_of(request: ChatRequest) -> str | None:
    """The text of the last <question> of a request; None where there is none."""
    found = [s.text for s in _sections(request) if s.name == "question"]
    return found[-1] if found else None


def read_situation(request: ChatRequest, asked: Asked, roles: Mapping[str, RoleEntry]) -> Situation:
    """Understand a request about a task."""
    task = asked.task
    system = "\n".join(m.content for m in request.messages if m.speaker == "system")
    around = _sections(request)
    sections = [*asked.parts, *around]
    instruction = _instruction(request)
    said = f"{instruction}\n{asked.instruction}"
    form = _form(said)
    role = _role_of(system, roles)
    own: int | None = None
    shown: int | None = None
    peers: list[int] = []
    verdicts: list[bool] = []
    tests: Literal["passed", "failed"] | None = None
    right_hints = wrong_hints = 0
    for part in sections:
        if part.name == "answer":
            index = task.index_of(part.text)
            shown, tests, verdicts = index, None, []
            if index is None:
                continue
            if part.attributes.get("from") == "you":
                own = index
            else:
                peers.append(index)
        elif part.name == "critique":
            verdicts.append(_verdict(part.text))
        elif part.name == "missing":
            verdicts.append(not part.text.strip().rstrip(".").lower().endswith("nothing"))
        elif part.name == "test_report":
            tests = "passed" if _PASSED.match(part.text) else "failed"
        elif part.name in _HINTING:
            right, wrong = task.hints_in(part.text)
            right_hints += right
            wrong_hints += wrong
    return Situation(
        act=_act_on(asked, _act(instruction)),
        role=role.name if role else None,
        role_domain=role.domain if role else None,
        asks_reasoning=form != "free" or bool(_REASONING.search(system + said)),
        form=form,
        steps=tuple(
            line for s in sections if s.name == "steps_so_far" for line in s.text.splitlines()
        ),
        asks_missing="Missing:" in instruction,
        asks_gaps="Missing:" in asked.instruction,
        lacks=task.lacks_still(
            [asked.instruction, *(s.text for s in sections if s.name in _GIVING)]
        ),
        most_subtasks=_most_subtasks(instruction),
        workers=sum(len(s.text.splitlines()) for s in around if s.name == "agents"),
        has_results=any(s.name == "result" for s in around),
        answers=tuple(peers),
        own=own,
        shown=shown,
        verdicts=tuple(verdicts),
        tests=tests,
        right_hints=right_hints,
        wrong_hints=wrong_hints,
    )


def _sections(request: ChatRequest) -> list[Section]:
    return [s for m in request.messages if m.speaker == "user" for s in read_sections(m.content)]


def _instruction(request: ChatRequest) -> str:
    """What the last user message says outside its marked parts."""
    text = next((m.content for m in reversed(request.messages) if m.speaker == "user"), "")
    return text.rsplit(">", 1)[-1].strip()


def _act(instruction: str) -> Act:
    if "Verdict:" in instruction:
        return "critique"
    if "Delegate to agent" in instruction:
        return "delegate"
    if "Subtask 1:" in instruction:
        return "decompose"
    if "Result:" in instruction:
        return "subtask"
    if _NOT_AN_ANSWER.search(instruction):
        return "plan"
    return "answer"


def _act_on(asked: Asked, act: Act) -> Act:
    """The same, where a question asks something about a task instead of the task."""
    if not asked.about or act != "answer":
        return act
    return "name_missing" if "Missing:" in asked.instruction else "supply"


def _form(said: str) -> Form:
    if "only the next step" in said:
        return "next_step"
    return "steps" if "numbered steps" in said else "free"


def _most_subtasks(instruction: str) -> int:
    found = re.search(r"at most (\d+)", instruction)
    return int(found[1]) if found else 3


def _role_of(system: str, roles: Mapping[str, RoleEntry]) -> RoleEntry | None:
    fitting = [r for r in roles.values() if r.prompt and system.startswith(r.prompt.strip())]
    return max(fitting, key=lambda r: len(r.prompt), default=None)


def _verdict(critique: str) -> bool:
    """True where a critique calls the answer wrong; the last verdict counts."""
    found = re.findall(r"verdict:\s*(\w+)", critique, re.IGNORECASE)
    return bool(found) and found[-1].lower() != "stands"
