"""`masrouter mcp`: delegation as tools of any MCP client, over the standard streams or HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from masrouter.catalog import Catalog
from masrouter.cli_models import SIMULATED, chat_model, some_problems
from masrouter.cli_options import CatalogPaths, as_backend
from masrouter.delegation.delegator import Delegator
from masrouter.delegation.episodes.log import EpisodeLog
from masrouter.delegation.naming.settings import AUTO, Settings
from masrouter.delegation.workers.worker import Worker
from masrouter.errors import ConfigError
from masrouter.problems import Problem
from masrouter.router import Router


def mcp_command(
    llm: Annotated[str, typer.Option(help="A providers YAML file, or `simulated`.")],
    checkpoint: Annotated[
        str | None,
        typer.Option("--checkpoint", "-c", help="The router behind `auto`, the default then."),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(help="What routes: torch, onnx or openvino; the latter two start sooner."),
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option(help="A YAML file: default model, aliases, tiers, plans, policies, limits."),
    ] = None,
    workers: Annotated[
        Path | None,
        typer.Option(help="A YAML file of workers that are no chat models: translation, tools."),
    ] = None,
    problems: Annotated[
        list[Path] | None, typer.Option(help="What the simulated models know (repeat the option).")
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(help="Most US dollars that all calls together may spend. No limit else."),
    ] = None,
    budget_per_call: Annotated[
        float | None, typer.Option(help="Most US dollars that one call may spend.")
    ] = None,
    deadline_s: Annotated[float, typer.Option(help="Most seconds for a call.")] = 600.0,
    http: Annotated[
        bool, typer.Option("--http", help="Streamable HTTP instead of the standard streams.")
    ] = False,
    host: Annotated[
        str | None, typer.Option(help="With --http; beyond this machine only with a key.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="With --http; 0 takes a free one. [default: 8485]")
    ] = None,
    log: Annotated[
        Path | None, typer.Option(help="Keep tasks and outcomes there; see `delegations export`.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the runs.")] = 0,
    catalog: CatalogPaths = None,
) -> None:
    """Offer delegate_task, delegate_tasks and list_models to MCP clients.

    \b
    masrouter mcp --llm providers.yaml -c checkpoints/default --budget 2
    masrouter mcp --llm providers.yaml --settings delegation.yaml --workers workers.yaml --budget 2
    masrouter mcp --llm providers.yaml --http --port 8485 --budget 2
    MASROUTER_MCP_KEY=... masrouter mcp --llm providers.yaml --http --host 0.0.0.0 --budget 2

    Over the standard streams whoever starts it is its only client; what it has to say goes to
    standard error. Over HTTP, at /mcp, it listens on this machine alone unless MASROUTER_MCP_KEY
    holds a key, which clients send as `Authorization: Bearer KEY`. Whoever can call the tools
    spends what --budget allows, and without it all that the providers' accounts do.

    \b
    In a client's configuration:
      {"mcpServers": {"masrouter": {"command": "masrouter",
        "args": ["mcp", "--llm", "/home/me/providers.yaml", "--budget", "2"],
        "env": {"OPENAI_API_KEY": "..."}}}}
    Clients start it in a folder of theirs, and pass on no variables but those of `env`.
    """
    from masrouter.delegation.tools.mcp_server import EachCall, mcp_server

    if not http and (host is not None or port is not None):
        raise ConfigError("--host and --port: are for --http")
    if backend is not None and checkpoint is None:
        raise ConfigError("--backend: is for the router of --checkpoint")
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    # Standard output belongs to the protocol; what libraries print while they load does not.
    with contextlib.redirect_stdout(sys.stderr):
        known = Catalog.load(*catalog or ())
        model = chat_model(llm, _known_problems(llm, problems or []), known)
        router = None
        if checkpoint is not None:
            chosen = "torch" if backend is None else as_backend(backend)
            router = Router.from_pretrained(
                checkpoint, catalog=known if catalog else None, backend=chosen
            )
        rules = Settings() if settings is None else Settings.load(settings, catalog=known)
        if router is not None and rules.default is None:
            rules = replace(rules, default=AUTO)
        delegator = Delegator(
            model,
            rules,
            router=router,
            workers=_workers(workers),
            catalog=known,
            episodes=None if log is None else EpisodeLog(log),
        )
        server = mcp_server(
            delegator,
            budget_usd=budget,
            each_call=EachCall(budget_usd=budget_per_call, deadline_s=deadline_s, seed=seed),
        )
    total = "no limit" if budget is None else f"${budget:g} in all"
    if budget_per_call is not None:
        total += f", ${budget_per_call:g} a call"
    if not http:
        from masrouter.delegation.tools.mcp_stdio import serve_stdio

        typer.echo(f"masrouter mcp: serves its client over stdio; budget: {total}", err=True)
        asyncio.run(serve_stdio(server))
        return
    from masrouter.delegation.tools.mcp_http import key_of, serve_http

    key = key_of(os.environ)
    who = "whoever is on this machine" if key is None else "whoever has the key"
    serve_http(
        server,
        host="127.0.0.1" if host is None else host,
        port=8485 if port is None else port,
        key=key,
        on_started=lambda url, _stop: typer.echo(
            f"masrouter mcp: serves {who} at {url}; budget: {total}", err=True
        ),
    )


def _workers(path: Path | None) -> tuple[Worker, ...]:
    if path is None:
        return ()
    from masrouter.delegation.workers.worker_file import read_worker_file

    return read_worker_file(path)


def _known_problems(llm: str, paths: list[Path]) -> tuple[Problem, ...]:
    if llm != SIMULATED and paths:
        raise ConfigError("--problems: only simulated models are told what to know")
    if llm == SIMULATED and not paths:
        raise ConfigError(
            "simulated models answer what they were told: name problem sets with --problems, "
            "such as data/problems"
        )
    return some_problems(paths, None) if paths else ()
