"""What `--llm` and `--plan` mean: a chat model, who of a plan it can play, a plan in short.

And what a router decides, of plans that the chat model can play.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import typer
from rich.console import Console
from rich.progress import track

from masrouter.catalog import Catalog
from masrouter.encoder.embedding_cache import EmbeddingCache
from masrouter.errors import CallError, ConfigError
from masrouter.llms import Providers
from masrouter.llms.simulated import SimulatedProvider
from masrouter.problems import CodeTests, Problem, read_problems, simulated_task, with_wrong_answers
from masrouter.problems.simulation import gapped_task
from masrouter.sandbox import Sandbox
from masrouter.strict_yaml import did_you_mean
from masrouter.types import Agent, Plan, RoutingDecision

if TYPE_CHECKING:
    from masrouter.delegation.calibration.gaps import Gap
    from masrouter.router import Router

SIMULATED = "simulated"
ServingModel: TypeAlias = Providers | SimulatedProvider

_PLAN = re.compile(r"\s*([\w-]+)\s*\((.+)\)\s*")
_TIMES = re.compile(r"(\d{1,2})x\s+(.+)")


def chat_model(
    llm: str,
    problems: Sequence[Problem],
    catalog: Catalog,
    *,
    seed: int = 0,
    gaps: Mapping[str, Gap] | None = None,
) -> ServingModel:
    """The model behind `--llm`: `simulated`, in world `seed`, or a providers file.

    Problems without wrong answers get some for the simulated provider, derived by mutation.
    gaps: by problem id, a form of the problem that the simulated provider has to know as well.
    """
    if llm != SIMULATED:
        return Providers.load(llm, catalog=catalog)
    if not problems:
        raise ConfigError(
            "the simulated provider answers problems only (--problems); for other queries name a "
            "providers file with --llm"
        )
    known = erring(problems)
    tasks = [simulated_task(problem) for problem in known]
    cut = [(p, found) for p in known if (found := (gaps or {}).get(p.problem_id)) is not None]
    tasks += [gapped_task(problem, found.query, found.lacks) for problem, found in cut]
    return SimulatedProvider(tasks, catalog=catalog, seed=seed)


def run_connected(model: ServingModel, work: Callable[[], Awaitable[object]]) -> None:
    """Do `work` in an event loop of its own, with the model's connections open."""

    async def main() -> None:
        async with contextlib.AsyncExitStack() as connections:
            if isinstance(model, Providers):
                await connections.enter_async_context(model)
            await work()

    asyncio.run(main())


def erring(problems: Sequence[Problem]) -> list[Problem]:
    """The problems, each with wrong answers; says on standard error where some were derived."""
    lacking = [problem for problem in problems if not problem.wrong]
    if not lacking:
        return list(problems)
    typer.echo(
        f"note: {len(lacking)} of {len(problems)} problems come without wrong answers; for the "
        "simulated provider such were derived by mutation",
        err=True,
    )
    # Judging mutants of a set takes a minute: what they came to is kept beside the embeddings.
    cache = EmbeddingCache().folder.parent / "mutants"
    console = Console(stderr=True)
    with contextlib.ExitStack() as stack:
        programs = any(isinstance(problem.grader, CodeTests) for problem in lacking)
        sandbox = stack.enter_context(Sandbox()) if programs else None
        pool = stack.enter_context(ThreadPoolExecutor())
        derived = pool.map(lambda p: with_wrong_answers(p, sandbox, cache=cache), problems)
        shown = track(
            derived, "deriving wrong answers", total=len(problems), console=console,
            transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        return list(shown)


def unserved(llm: ServingModel, models: Iterable[str]) -> dict[str, str]:
    """Which of these models cannot be asked, each with the reason."""
    why: dict[str, str] = {}
    for model in dict.fromkeys(models):
        if isinstance(llm, SimulatedProvider):
            if model not in llm.models:
                near = did_you_mean(model, llm.models)
                why[model] = f"model {model!r}: the simulated provider does not play it{near}"
            continue
        try:
            llm.endpoint_of(model)
        except CallError as error:
            why[model] = str(error)
    return why


def servable(llm: ServingModel, router: Router, *, quiet: bool = False) -> list[Plan]:
    """The router's plans that can be run; says on standard error where some are left out.

    quiet: not again, where it has been said. Raises ConfigError where none is left.
    """
    lost = unserved(llm, (name for plan in router.plans for name in plan.models))
    fitting = [plan for plan in router.plans if not lost.keys() & set(plan.models)]
    if not fitting:
        raise ConfigError(
            f"none of the router's {len(router.plans)} plans can be run: {'; '.join(lost.values())}"
        )
    if lost and not quiet:
        typer.echo(
            f"note: {len(router.plans) - len(fitting)} of the router's {len(router.plans)} plans "
            f"are left out, since nobody serves {', '.join(lost)}",
            err=True,
        )
    return fitting


def routed(
    router: Router,
    queries: Sequence[str],
    llm: ServingModel,
    *,
    models: Sequence[str] | None = None,
    exclude_models: Sequence[str] = (),
    willingness_to_pay: float | None = None,
    max_cost_usd: float | None = None,
) -> list[RoutingDecision]:
    """What the router decides for each query, of plans that can be run; see `servable`."""
    servable(llm, router)
    lost = unserved(llm, (name for plan in router.plans for name in plan.models))
    return router.route_batch(
        queries,
        models=models or None,
        exclude_models=[*exclude_models, *lost],
        willingness_to_pay=willingness_to_pay,
        max_cost_usd=max_cost_usd,
    )


def some_problems(paths: Sequence[Path], limit: int | None) -> tuple[Problem, ...]:
    """The problems of files and folders, or `limit` of them."""
    found = read_problems(*paths)
    if limit is None:
        return found
    if limit < 1:
        raise ConfigError(f"--limit: expected at least 1, got {limit}")
    # Spread evenly: the first ones would all be of one set, and easy.
    count = min(limit, len(found))
    return tuple(found[(2 * i + 1) * len(found) // (2 * count)] for i in range(count))


def check_served(llm: ServingModel, plans: Iterable[Plan]) -> None:
    """Raises ConfigError for plans with models that nobody serves, naming each."""
    lost = unserved(llm, (model for plan in plans for model in plan.models))
    if lost:
        raise ConfigError("; ".join(lost.values()))


def read_plan(text: str) -> Plan:
    """A plan as it is shown, `debate(critic@gpt-4o, 2x gpt-4o-mini)`, or as JSON."""
    if text.lstrip().startswith("{"):
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f"--plan: no JSON: {error}") from error
        return Plan.from_json(data)
    whole = _PLAN.fullmatch(text)
    if whole is None:
        raise ConfigError(
            f"--plan: expected `topology(role@model, ...)` or JSON, got {text!r}; for example "
            "'debate(critic@gpt-4o, 2x gpt-4o-mini)'"
        )
    agents: list[Agent] = []
    for seat in whole[2].split(","):
        times = _TIMES.fullmatch(seat.strip())
        role, mark, model = (times[2] if times else seat.strip()).partition("@")
        agent = Agent(role, model) if mark else Agent(None, role)
        agents += [agent] * (int(times[1]) if times else 1)
    return Plan(whole[1], tuple(agents))
