"""`masrouter delegations`: the episodes that delegation logged: look, score, export as a log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from masrouter.errors import LogError
from masrouter.printable import on_one_line, printable

if TYPE_CHECKING:
    from masrouter.delegation.episodes.events import Node
    from masrouter.delegation.episodes.log import Episode

app = typer.Typer(
    name="delegations",
    help="Episodes of delegated subtasks: look at them, score them, export them to learn from.",
    no_args_is_help=True,
)

EpisodesFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="A log of episodes (.jsonl).", show_default=False)
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON to stdout, and nothing else there.")
]
_MOST_SHOWN = 100
"""Characters of a goal or query."""


class Only(StrEnum):
    """Whose scores a log may hold."""

    OWN = "own"
    FINAL = "final"
    ALL = "all"


@app.command("export")
def export_command(
    file: EpisodesFile,
    destination: Annotated[Path, typer.Argument(help="A .jsonl, .jsonl.gz or .parquet file.")],
    only: Annotated[
        Only | None,
        typer.Option(
            help="own: subtasks that were graded themselves. final: those that have the score of "
            "their whole episode. all: both, and those without a score."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the subtasks of all episodes as a log of schema 1, also while it grows.

    \b
    masrouter delegations export episodes.jsonl delegated.parquet --only own
    masrouter logs check delegated.parquet
    masrouter train --logs delegated.parquet --out next/

    Without --only, a log whose scores have more than one source is refused: how good an answer was
    and how well the whole job went are not the same. A row says which one it has (`score_source`).
    """
    from masrouter.delegation.episodes.credit import export

    done = export(file, destination, only=None if only is None else only.value)
    _say_cut_off(done.cut_off)
    if as_json:
        typer.echo(json.dumps(asdict(done) | {"path": str(done.path)}))
        return
    typer.echo(
        f"wrote {done.path}: {done.rows:,} subtasks, {done.own:,} with a score of their own, "
        f"{done.final:,} with their episode's, {done.unscored:,} with none"
    )
    for source, rows in sorted(done.sources.items()):
        typer.echo(f"  {rows:,} scored by {printable(source)}")
    if len(done.sources) > 1:
        _note("warning: scores of several sources stand in one log; score_source tells them apart")
    if done.left_out:
        typer.echo(f"left out {done.left_out:,}")
    if done.not_run:
        typer.echo(f"{done.not_run:,} subtasks were never run")
    if done.parents:
        typer.echo(f"{done.parents:,} subtasks were parents, which are no runs of a plan")


@app.command("show")
def show_command(
    file: EpisodesFile,
    episode: Annotated[
        str | None, typer.Argument(help="Its id, or how it begins; without one, all are listed.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the episodes of a log, or show one as a tree.

    \b
    masrouter delegations show episodes.jsonl
    masrouter delegations show episodes.jsonl 3f2a
    """
    from masrouter.delegation.episodes.log import read_episodes

    read = read_episodes(file)
    _say_cut_off(read.cut_off)
    if episode is not None:
        found = _named(read.episodes, episode, file)
        if as_json:
            typer.echo(json.dumps(_whole(found)))
        else:
            Console(highlight=False).print(_tree(found))
        return
    if as_json:
        typer.echo(json.dumps([_summary(each) for each in read.episodes]))
        return
    for each in read.episodes:
        line = _summary(each)
        cost = "unknown" if line["cost_usd"] is None else f"${line['cost_usd']:.6f}"
        typer.echo(
            f"{each.id}  {line['subtasks']} subtasks, {line['failed']} failed, {line['graded']} "
            f"graded, {cost}, {_final(each)}  {_short(each.goal)}"
        )
    if not read.episodes:
        _note(f"{file}: no episode")


@app.command("score")
def score_command(
    file: EpisodesFile,
    episode: Annotated[str, typer.Argument(help="Its id, or how it begins.")],
    score: Annotated[float, typer.Option(help="From 0 to 1.", show_default=False)],
    source: Annotated[
        str, typer.Option(help="What scored it: human, tests, judge, ...", show_default=False)
    ],
    node: Annotated[
        str | None,
        typer.Option(help="Score this subtask, by its id or the end of it; else the episode."),
    ] = None,
) -> None:
    """Say how well an episode went, or how good one subtask's answer was.

    A score is given once and cannot be changed. A subtask's own grade, such as that of a problem,
    goes before its episode's score.

    \b
    masrouter delegations score episodes.jsonl 3f2a --score 1 --source human
    """
    from masrouter.delegation.episodes.log import EpisodeLog, read_episodes
    from masrouter.delegation.tasks import Grading

    found = _named(read_episodes(file).episodes, episode, file)
    log = EpisodeLog(file)
    if node is None:
        log.finish(found, Grading(score, source))
    else:
        node = _node_named(found, node)
        log.grade(found, node, Grading(score, source))
    what = f"episode {found.id}" if node is None else f"node {printable(node)} of {found.id}"
    typer.echo(f"{what}: {score:g} by {printable(source)}")


def _named(episodes: tuple[Episode, ...], name: str, file: Path) -> Episode:
    found = [each for each in episodes if each.id == name] or [
        each for each in episodes if each.id.startswith(name)
    ]
    if len(found) != 1:
        what = "no episode" if not found else f"{len(found)} episodes"
        raise LogError(
            f"{file}: {what} of an id that begins with {name!r}; "
            "`masrouter delegations show` lists them"
        )
    return found[0]


def _node_named(episode: Episode, name: str) -> str:
    """The id of a node by its whole id, or by the task's id at its end where only one has it."""
    ids = [node.id for node in episode.nodes]
    found = [name] if name in ids else [id for id in ids if id.endswith(f"/{name}")]
    if len(found) != 1:
        what = "no subtask" if not found else f"{len(found)} subtasks"
        shown = on_one_line(", ".join(ids), 400)
        raise LogError(f"episode {episode.id}: {what} {name!r}; there are {shown or 'none'}")
    return found[0]


def _summary(episode: Episode) -> dict[str, Any]:
    tree = episode.tree()

    def counted(above: str | None) -> Iterator[Node]:
        """Nodes whose costs add up: a parent's cost is that of all below it."""
        for node in tree.get(above, ()):
            yield node
            if not node.is_parent:
                yield from counted(node.id)

    costs = [node.usage.cost_usd for node in counted(None)]
    known = [cost for cost in costs if cost is not None]
    return {
        "episode": episode.id,
        "goal": episode.goal,
        "dataset": episode.dataset,
        "time": episode.time,
        "subtasks": len(episode.nodes),
        "failed": sum(node.error is not None for node in episode.nodes),
        "graded": sum(node.grading is not None for node in episode.nodes),
        "cost_usd": sum(known) if len(known) == len(costs) else None,
        "score": None if episode.grading is None else episode.grading.score,
        "score_source": None if episode.grading is None else episode.grading.source,
    }


def _whole(episode: Episode) -> dict[str, Any]:
    from masrouter.delegation.episodes.credit import credit

    nodes = []
    for node in episode.nodes:
        given = credit(episode, node)
        nodes.append(asdict(node) | {"credit": asdict(given)})
    return _summary(episode) | {"nodes": nodes}


def _tree(episode: Episode) -> Tree:
    below = episode.tree()
    tree = Tree(Text(f"{episode.id}  {_final(episode)}  {_short(episode.goal)}"))
    left: list[tuple[Tree, str | None]] = [(tree, None)]
    while left:
        branch, above = left.pop()
        for node in below.get(above, ()):
            left.append((branch.add(Text(_line(episode, node))), node.id))
    return tree


def _line(episode: Episode, node: Node) -> str:
    from masrouter.delegation.episodes.credit import credit

    given = credit(episode, node)
    cost = "unknown" if node.usage.cost_usd is None else f"${node.usage.cost_usd:.6f}"
    if given.score is not None:
        ended = f"{given.score:g} by {given.source}"
    else:
        ended = "unused, no score" if node.unused else "no score"
        ended = ended if node.error is None else f"failed: {node.error}"
    nobody = f"parent {', '.join(node.models)}" if node.is_parent else "not run"
    plan = nobody if node.plan is None else str(node.plan)
    return printable(
        f"{node.id}  {plan}  {cost}  {node.latency_s:.1f} s  {_short(ended)}  {_short(node.query)}"
    )


def _final(episode: Episode) -> str:
    grading = episode.grading
    if grading is None:
        return "no final score"
    return f"{grading.score:g} by {printable(grading.source)}"


def _short(text: str) -> str:
    return on_one_line(text, _MOST_SHOWN)


def _say_cut_off(lines: tuple[str, ...]) -> None:
    for line in lines:
        _note(f"warning: {line}")


def _note(text: str) -> None:
    Console(stderr=True, highlight=False).print(text, style="yellow", markup=False, soft_wrap=True)
