"""What each subtask of an episode is credited with: episodes become a log of schema 1.

A subtask that was graded by itself has that score (process supervision); any other answer has its
episode's final score (outcome supervision; Uesato et al., arXiv 2211.14275, and Lightman et al.,
arXiv 2305.20050, compare the two). The final score is the Monte-Carlo return of every decision in
an episode that is rewarded at its end alone and not discounted (Sutton and Barto, "Reinforcement
Learning", 2nd edition, chapter 5): right on average over what else happens in episodes, and noisy,
since good subtasks share the score of bad ones. It says how well jobs went in which this plan did
this subtask, not how good its answer was: so it is marked, `final:tests` where the job's score is
by `tests`, and never stands beside a subtask's own score unless that is asked for.

A subtask without an answer is not credited with its episode's score, and has its error instead, as
everywhere in the logs: how a provider failed says nothing of the plan. Nor is one whose answer had
no part in the end (`EpisodeLog.set_aside`): samples that were outvoted, or that disagreed so that
the task was done again; their score would be that of whoever came after them. Rows of one episode
share their luck; they are fewer than they look. Not here: files of episodes (`log`), learning
(`masrouter_train`).
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from masrouter.delegation.episodes.events import Node
from masrouter.delegation.episodes.log import Episode, read_episodes
from masrouter.errors import LogError
from masrouter.importers.assembly import query_id
from masrouter.importers.options import UNSCORED
from masrouter.logs import convert
from masrouter.logs.schema import record_to_json
from masrouter.types import LogRecord

FINAL = "final:"
"""Prefix of a `score_source`: the score is the episode's, not the subtask's own."""

Only: TypeAlias = Literal["own", "final", "all"]
"""own: subtasks with a grade of their own. final: those credited with their episode's score.
all: both, and those without a score."""


@dataclass(frozen=True, slots=True)
class Credit:
    """A subtask's score, and whose it is."""

    score: float | None
    source: str
    """As a log's `score_source`."""
    kind: Literal["own", "final", "none"]


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and what was left out."""

    path: Path
    rows: int
    own: int
    """Rows with the subtask's own score,"""
    final: int
    """with its episode's,"""
    unscored: int
    """and with none."""
    sources: Mapping[str, int]
    """Scored rows by their `score_source`."""
    left_out: int
    """Subtasks that a team worked on and `only` left out."""
    not_run: int
    """Subtasks that nobody worked on: there is nothing to log of them."""
    parents: int
    """Subtasks of parents, which are no runs of a plan: what they handed out stands by itself."""
    cut_off: tuple[str, ...]
    """Lines of the episodes' log that are no whole event."""


def credit(episode: Episode, node: Node) -> Credit:
    """What a node is credited with."""
    if node.grading is not None:
        return Credit(node.grading.score, node.grading.source, "own")
    if node.error is None and not node.unused and episode.grading is not None:
        return Credit(episode.grading.score, FINAL + episode.grading.source, "final")
    return Credit(None, UNSCORED, "none")


def records(source: str | Path | Iterable[Episode], *, only: Only = "all") -> Iterator[LogRecord]:
    """The log records of a log of episodes, or of episodes, in their order.

    A subtask that no team worked on has none. Raises LogError for what is no log of episodes.
    """
    for episode, node, given in _credited(_episodes(source)):
        if only in ("all", given.kind):
            yield _record(episode, node, given)


def export(path: str | Path, destination: str | Path, *, only: Only | None = None) -> Exported:
    """Write a log of episodes as .parquet, .jsonl or .jsonl.gz of schema 1.

    The destination is replaced as a whole, at the end. only: see `Only`; without it, a log whose
    scores have more than one source is refused, since these must not mix unnoticed. Raises
    LogError where there is nothing to write, where the log cannot be read or the destination
    cannot be written.
    """
    read = read_episodes(path)
    credited = list(_credited(read.episodes))
    sources = Counter(given.source for _, _, given in credited if given.score is not None)
    if only is None and len(sources) > 1:
        raise LogError(
            f"{path}: its scores come from {_counted(sources)}, and scores of different sources "
            "must not mix unnoticed: say only=own for subtasks' own grades, final for the scores "
            "of whole episodes, or all (`--only own|final|all`)"
        )
    wanted = only or "all"
    kept = [item for item in credited if wanted in ("all", item[2].kind)]
    nodes = sum(len(episode.nodes) for episode in read.episodes)
    parents = sum(node.is_parent for episode in read.episodes for node in episode.nodes)
    if not kept:
        raise LogError(
            f"{path}: nothing to export: {len(read.episodes)} episodes with {len(credited)} "
            f"subtasks that a team worked on, and only={wanted} leaves out all of them: "
            f"{_kinds(credited)}"
        )
    target = Path(destination)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="masrouter-episodes-") as folder:
            lines = Path(folder) / "episodes.jsonl"
            with lines.open("w", encoding="utf-8") as file:
                for item in kept:
                    file.write(json.dumps(record_to_json(_record(*item)), allow_nan=False) + "\n")
            # One reader and one writer of logs: what is exported has passed the schema's checks.
            try:
                convert(lines, target, strict=True)
            except LogError as error:
                if not str(error).startswith(f"{lines}:"):
                    raise
                why = str(error).removeprefix(f"{lines}:")
                raise LogError(f"{path}: what would be row {why}") from None
    except OSError as error:
        raise LogError(f"{target}: cannot be written: {error.strerror or error}") from error
    kinds = Counter(given.kind for _, _, given in kept)
    return Exported(
        path=target,
        rows=len(kept),
        own=kinds["own"],
        final=kinds["final"],
        unscored=kinds["none"],
        sources=dict(Counter(given.source for _, _, given in kept if given.score is not None)),
        left_out=len(credited) - len(kept),
        not_run=nodes - len(credited) - parents,
        parents=parents,
        cut_off=read.cut_off,
    )


def _episodes(source: str | Path | Iterable[Episode]) -> Iterable[Episode]:
    return read_episodes(source).episodes if isinstance(source, str | Path) else source


def _credited(episodes: Iterable[Episode]) -> Iterator[tuple[Episode, Node, Credit]]:
    for episode in episodes:
        for node in episode.nodes:
            if node.plan is not None and node.query.strip():
                yield episode, node, credit(episode, node)


def _record(episode: Episode, node: Node, given: Credit) -> LogRecord:
    assert node.plan is not None
    decided = node.decision
    # A choice that was certain says nothing of other plans, as a choice by name.
    drawn = decided is not None and decided.propensity < 1
    return LogRecord(
        run_id=f"{episode.id}/{node.id}",
        query_id=query_id(node.query),
        query=node.query,
        dataset=episode.dataset,
        task=node.kind,
        plan=node.plan,
        score=given.score,
        score_source=given.source,
        usage=node.usage,
        agent_usage=node.agent_usage,
        latency_s=node.latency_s,
        propensity=decided.propensity if decided is not None and drawn else None,
        policy=(decided.checkpoint or "auto") if decided else f"named:{node.asked_by or 'nobody'}",
        seed=node.seed,
        error=node.error,
        timestamp=node.time,
    )


def _kinds(credited: Iterable[tuple[Episode, Node, Credit]]) -> str:
    kinds = Counter(given.kind for _, _, given in credited)
    return (
        f"{kinds['own']} have grades of their own (only=own), {kinds['final']} the score of their "
        f"episode (only=final), {kinds['none']} none yet (`masrouter delegations score`)"
    )


def _counted(sources: Mapping[str, int]) -> str:
    return ", ".join(f"{source!r} ({rows})" for source, rows in sorted(sources.items()))
