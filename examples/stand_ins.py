"""What the examples run on in place of paid models: the simulated provider, and the shipped router.

It knows one question and is a fake: what it says under a model's name is no measurement of that
model. Put your framework's own models in the place of the stand-ins, and your own question.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from masrouter import Plan, Router, RoutingDecision, Run
from masrouter.llms import ChatRequest, Completion
from masrouter.llms.chat import messages
from masrouter.llms.simulated import SimulatedProvider
from masrouter.problems import read_problems, simulated_task
from masrouter.sections import section

ROOT = Path(__file__).resolve().parents[1]
QUESTION = "What is the positive solution of x^2 + 3x - 54 = 0?"
PROBLEM = next(p for p in read_problems(ROOT / "data/problems/math.jsonl") if p.query == QUESTION)
PLAN = Plan.from_json(json.loads((ROOT / "examples/plan.json").read_text(encoding="utf-8")))
MODELS = ("gpt-4o-mini", "gpt-4o", "llama-3.1-70b-instruct")
"""What the examples offer the router to choose from; all that the plan needs is among them."""


def trained_router() -> Router:
    """The router that ships with the project."""
    return Router.from_pretrained(ROOT / "checkpoints/default")


async def answer(model: str, system: str | None, text: str) -> Completion:
    """What the stand-in of a model says."""
    provider = SimulatedProvider([simulated_task(PROBLEM)])
    asked = text if "<question>" in text else section("question", text)
    return await provider.complete(ChatRequest(model, messages(system, asked), max_tokens=2048))


def answer_now(model: str, system: str | None, text: str) -> Completion:
    """`answer` for frameworks whose models are not asynchronous."""
    return asyncio.run(answer(model, system, text))


def show_decision(decision: RoutingDecision) -> None:
    """Print what was routed where, and what for."""
    model, score = decision.plan.agents[0].model, decision.expected_score
    print(f"routed to {model}: a score of {score:.2f} is expected")


def show_run(run: Run) -> None:
    """Print how a team answered."""
    show_team(len(run.calls), run.answer)


def show_team(calls: int, answer: str | None) -> None:
    """Print the team, how much it was asked, and the last line of its answer."""
    last = (answer or "none").splitlines()[-1]
    print(f"the team: {PLAN}\nin {calls} calls: {last}")
