"""The command `masrouter`. Other packages add commands by the entry points `masrouter.commands`."""

from __future__ import annotations

import io
import sys
from importlib.metadata import EntryPoint, entry_points

import typer
from rich.console import Console

from masrouter import (
    __version__,
    cli_catalog,
    cli_collect,
    cli_delegate,
    cli_delegations,
    cli_deliberate,
    cli_export,
    cli_exported,
    cli_logs,
    cli_mcp,
    cli_problems,
    cli_replay,
    cli_route,
    cli_run,
    cli_serve,
)
from masrouter.errors import MasRouterError
from masrouter.printable import printable

COMMANDS = "masrouter.commands"
EXIT_FAILURE, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130

HELP = """Learn from logged outcomes which team of agents should answer a query.

\b
  masrouter logs check my_logs/                   are my logs fit to learn from?
  masrouter logs import langfuse export/ ...      bring the logs that I have
  masrouter evaluate --logs my_logs/              what would a router have saved?
  masrouter train --logs my_logs/ --out mine/     learn one
  masrouter route --checkpoint mine/ "Prove ..."  ask it which team
  masrouter replay --logs my_logs/ -c mine/       this router on my traffic
  masrouter run --checkpoint mine/ --llm providers.yaml "Prove ..."   let that team answer
  masrouter serve -c mine/ --llm providers.yaml   for apps: HTTP, the OpenAI API, a page
  masrouter delegate --tasks tasks.yaml --llm providers.yaml --budget 0.05   hand out subtasks
  masrouter mcp --llm providers.yaml              let an agent hand them out, over MCP
  masrouter collect --problems mine.jsonl ...     make logs by running teams

Exit codes: 0 done, 1 failed (the message says why), 2 wrong usage, 130 interrupted.
"""


def build_app(asked: str | None = None) -> typer.Typer:
    """The commands of this package and of every installed one that offers some.

    Where `asked` is one of this package's, the others are not loaded: they bring torch along.
    """
    app = typer.Typer(
        help=HELP, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None,
        add_completion=False,
    )  # fmt: skip
    app.add_typer(cli_logs.app, name="logs")
    app.add_typer(cli_catalog.app, name="catalog")
    app.command("route")(cli_route.route)
    app.command("run")(cli_run.run_command)
    app.command("replay")(cli_replay.replay_command)
    app.command("collect")(cli_collect.collect_command)
    app.add_typer(cli_collect.app, name="collection")
    app.command("delegate")(cli_delegate.delegate_command)
    app.add_typer(cli_delegations.app, name="delegations")
    app.add_typer(cli_deliberate.app, name="deliberate")
    app.command("mcp")(cli_mcp.mcp_command)
    app.command("optimize")(cli_exported.optimize)
    app.command("serve")(cli_serve.serve_command)
    app.add_typer(cli_serve.served_app, name="served")
    app.add_typer(cli_problems.app, name="problems")
    app.add_typer(cli_export.app, name="export")
    own = {command.name for command in app.registered_commands}
    own |= {group.name for group in app.registered_groups}
    if asked not in own:
        for point in sorted(entry_points(group=COMMANDS), key=lambda point: point.name):
            _add(app, point)

    @app.callback(invoke_without_command=True)
    def version(
        show: bool = typer.Option(False, "--version", help="Print the version and exit."),
    ) -> None:
        if show:
            typer.echo(__version__)
            raise typer.Exit

    return app


def _add(app: typer.Typer, point: EntryPoint) -> None:
    """A command whose package is not complete says what to install instead of hiding."""
    try:
        command = point.load()
    except ModuleNotFoundError as error:
        missing = error.name or str(error)
        if missing.split(".")[0] in ("masrouter", point.module.split(".")[0]):
            raise  # a fault of the package itself, not a missing extra

        def unavailable() -> None:
            raise MasRouterError(
                f"masrouter {point.name} needs the package {missing!r}: "
                "pip install 'masrouter[train]'"
            )

        context = {"allow_extra_args": True, "ignore_unknown_options": True}
        app.command(
            point.name, help=f"Needs 'masrouter[train]' (no {missing}).", context_settings=context
        )(unavailable)
        return
    app.command(point.name)(command)


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # of a text, what the terminal does not have
    stderr = Console(stderr=True, highlight=False)
    try:
        build_app(sys.argv[1] if len(sys.argv) > 1 else None)()
    except MasRouterError as error:
        stderr.print("error:", style="bold red", end=" ")
        stderr.print(printable(str(error)), markup=False, soft_wrap=True)
        sys.exit(EXIT_FAILURE)
    except KeyboardInterrupt:
        stderr.print("interrupted")
        sys.exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
