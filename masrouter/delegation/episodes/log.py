"""Episodes: what a job's subtasks did and how the whole of it ended, on the disk.

An episode is a tree of decisions with one final score. Its log is JSON Lines, one event a line, and
only grows:

    {"event": "opened",   "episode": ..., "goal": ..., "dataset": ..., "time": ...}
    {"event": "result",   "episode": ..., "node": ..., "under": ..., "query": ..., "plan": ..., ...}
    {"event": "graded",   "episode": ..., "node": ..., "score": ..., "source": ..., "time": ...}
    {"event": "unused",   "episode": ..., "node": ..., "time": ...}
    {"event": "finished", "episode": ..., "score": ..., "source": ..., "time": ...}

A line is on the disk when the call that wrote it returns. A kill can cut the last line off, which
nobody was told of: the next writer begins a line of its own, and a reader says which line is no
event. Several processes may write to one file. Kept are what was asked, who worked on it, what it
took and how good it was; never an answer. Not here: what a subtask is credited with (`credit`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path

from masrouter.delegation.episodes.events import (
    Event,
    Finished,
    Graded,
    Node,
    Opened,
    Result,
    Unused,
    check_grading,
    check_id,
    now,
    parse_line,
    read_event,
    storable,
    write_event,
)
from masrouter.delegation.tasks import Grading, TaskResult
from masrouter.errors import LogError

DATASET = "delegation"
"""Data set of episodes that name none."""
MOST_LINE = 16 << 20
"""Bytes of a line."""
MOST_DEPTH = 1000
"""Nodes above a node."""


@dataclass(frozen=True, slots=True)
class Episode:
    """A tree of subtasks with one final score, as far as it is known."""

    id: str
    goal: str = ""
    dataset: str = DATASET
    nodes: tuple[Node, ...] = ()
    """In the order in which they ended."""
    grading: Grading | None = None
    """The final score; None while nobody has told it."""
    time: str | None = None
    """When it was opened."""

    def under(self, node: str | None) -> tuple[Node, ...]:
        """The nodes that one handed out; None: the episode itself."""
        return self.tree().get(node, ())

    def tree(self) -> Mapping[str | None, tuple[Node, ...]]:
        """The nodes by the node that handed them out; None: by the episode itself.

        A node whose parent never ended, as after a kill, stands under the episode.
        """
        known = {node.id for node in self.nodes}
        found: dict[str | None, list[Node]] = {}
        for node in self.nodes:
            found.setdefault(node.under if node.under in known else None, []).append(node)
        return {above: tuple(nodes) for above, nodes in found.items()}


@dataclass(frozen=True, slots=True)
class EpisodeFile:
    """What a log holds."""

    episodes: tuple[Episode, ...]
    """In the order in which they were opened."""
    cut_off: tuple[str, ...]
    """`file:line: why` of lines that are no whole event: writing them was interrupted."""


class EpisodeLog:
    """Writes episodes to a file. Threads and processes may share it; a write waits for the disk.

    Nothing is kept open between writes. Every method raises LogError where the file cannot be
    written, or holds what is no event.
    """

    def __init__(self, path: str | Path) -> None:
        """The file is made by the first event."""
        self.path = Path(path)
        self._lock = threading.Lock()
        self._read = _Reading(self.path)

    def open(
        self, goal: str = "", *, dataset: str = DATASET, episode: str | None = None
    ) -> Episode:
        """Begin an episode, under an id of its own or the one given.

        The same id with the same goal goes on with that episode; with another it is refused.
        """
        opened = Opened(episode or uuid.uuid4().hex, storable(goal), dataset, now())
        check_id("episode", opened.episode)
        with self._appending() as file:
            known = self._read.episodes.get(opened.episode)
            if known is None:
                self._write(file, opened)
            elif (known.opened.goal, known.opened.dataset) != (opened.goal, dataset):
                raise LogError(
                    f"{self.path}: episode {opened.episode!r} is there with another goal or data "
                    "set; leave the id out for a new one"
                )
        return Episode(opened.episode, opened.goal, dataset, time=opened.time)

    def add_result(
        self,
        episode: Episode | str,
        node: str,
        under: str | None,
        result: TaskResult,
        *,
        query: str | None = None,
        kind: str | None = None,
        seed: int | None = None,
    ) -> None:
        """Keep a subtask's result as node `node`, handed out by node `under`, None: by the episode.

        A parent may come after its children, since it ends after them. query: what its team was
        given; known where its result has a run. kind: its domain, for the log. The same result
        again is kept once; another one for the same node is refused.
        """
        added = Node.of(node, under, result, query=query, kind=kind, seed=seed)
        if added.grading is not None:
            check_grading(added.grading)
        with self._appending() as file:
            known = self._known(episode)
            if node in known.digests:
                if known.digests[node] != digest(added):
                    raise LogError(
                        f"{self.path}: episode {known.id!r}: node {node!r} has another result "
                        "already, which stays; give every subtask an id of its own"
                    )
                return
            if known.circle(node, under):
                raise LogError(
                    f"{self.path}: episode {known.id!r}: node {node!r} would stand under itself"
                )
            self._write(file, Result(known.id, replace(added, time=now())))

    def grade(self, episode: Episode | str, node: str, grading: Grading) -> None:
        """A node's own grade, where it is known only after its result; another one is refused."""
        check_grading(grading)
        with self._appending() as file:
            known = self._known(episode)
            if node not in known.digests:
                raise LogError(f"{self.path}: episode {known.id!r} has no node {node!r}")
            before = known.grades[node]
            if before is None:
                self._write(file, Graded(known.id, node, grading, now()))
            elif before != grading:
                raise LogError(_conflict(f"{self.path}: node {node!r}", before, grading))

    def set_aside(self, episode: Episode | str, node: str) -> None:
        """A node's answer had no part in how the episode ends: its final score says nothing of it.

        The same again does nothing.
        """
        with self._appending() as file:
            known = self._known(episode)
            if node not in known.digests:
                raise LogError(f"{self.path}: episode {known.id!r} has no node {node!r}")
            if node not in known.unused:
                self._write(file, Unused(known.id, node, now()))

    def finish(self, episode: Episode | str, grading: Grading) -> None:
        """The final score. The same again does nothing; another one is refused."""
        check_grading(grading)
        with self._appending() as file:
            known = self._known(episode)
            if known.final is None:
                self._write(file, Finished(known.id, grading, now()))
            elif known.final != grading:
                raise LogError(
                    _conflict(f"{self.path}: episode {known.id!r}", known.final, grading)
                )

    def _known(self, episode: Episode | str) -> _Known:
        name = episode if isinstance(episode, str) else episode.id
        known = self._read.episodes.get(name)
        if known is None:
            raise LogError(f"{self.path}: there is no episode {name!r}; open it first")
        return known

    @contextlib.contextmanager
    def _appending(self) -> Iterator[FileIO]:
        """The file, locked against others and read to its end."""
        import fcntl  # Unix alone, as are collecting and the sandbox

        try:
            with self._lock:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                fresh = not self.path.exists()
                # What users asked is nobody else's to read.
                handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                with os.fdopen(handle, "ab", buffering=0) as file:
                    fcntl.flock(file, fcntl.LOCK_EX)
                    if fresh:
                        _sync_folder(self.path.parent)
                    self._read.go_on()
                    yield file
        except OSError as error:
            raise LogError(f"{self.path}: cannot be written: {error.strerror or error}") from error

    def _write(self, file: FileIO, event: Event) -> None:
        data = write_event(event)
        read_event(data)  # what could not be read is not written
        line = json.dumps(data, allow_nan=False).encode()
        if len(line) >= MOST_LINE:
            raise LogError(f"{self.path}: an event of more than {MOST_LINE >> 20} MiB")
        # A line that a kill cut off stays what it is: this one begins behind it.
        whole = (b"" if self._read.at_line_start else b"\n") + line + b"\n"
        left = memoryview(whole)
        while left:
            left = left[file.write(left) or 0 :]
        os.fsync(file.fileno())


def read_episodes(path: str | Path) -> EpisodeFile:
    """All episodes of a log, also while it is being written.

    Raises LogError, `file:line: key: why`, for what is no log of episodes; a line that is not valid
    JSON is one that a kill cut off, and is said in `cut_off`.
    """
    reading = _Reading(Path(path), keep=True)
    try:
        reading.go_on()
    except OSError as error:
        raise LogError(f"{path}: cannot be read: {error.strerror or error}") from error
    return EpisodeFile(
        tuple(known.episode() for known in reading.episodes.values()), tuple(reading.cut_off)
    )


class _Known:
    """What has been read of one episode. Of its nodes a digest, or all of it where it is kept."""

    def __init__(self, opened: Opened, *, keep: bool) -> None:
        self.opened = opened
        self.digests: dict[str, bytes] = {}
        self.parents: dict[str, str | None] = {}
        self.grades: dict[str, Grading | None] = {}
        self.unused: set[str] = set()
        self.final: Grading | None = None
        self._nodes: dict[str, Node] | None = {} if keep else None

    @property
    def id(self) -> str:
        return self.opened.episode

    def take(self, event: Result | Graded | Unused | Finished) -> None:
        """Raises LogError where the event contradicts what was read before."""
        if isinstance(event, Result):
            node = event.node
            if node.id in self.digests:
                raise LogError(f"node: {node.id!r} has two results")
            if self.circle(node.id, node.under):
                raise LogError(f"under: node {node.id!r} stands under itself")
            self.digests[node.id] = digest(node)
            self.parents[node.id] = node.under
            self.grades[node.id] = node.grading
            if self._nodes is not None:
                self._nodes[node.id] = node
        elif isinstance(event, Graded | Unused) and event.node not in self.digests:
            raise LogError(f"node: {event.node!r} has no result yet")
        elif isinstance(event, Unused):
            self.unused.add(event.node)
        elif isinstance(event, Graded):
            before = self.grades[event.node]
            if before not in (None, event.grading):
                raise LogError(f"node: {event.node!r} has two grades")
            self.grades[event.node] = event.grading
        elif self.final not in (None, event.grading):
            raise LogError(f"episode: {self.id!r} has two final scores")
        else:
            self.final = event.grading

    def circle(self, node: str, under: str | None) -> bool:
        """Whether a node handed out by `under` would stand under itself; LogError too deep down."""
        for _ in range(MOST_DEPTH):
            if under is None or under == node:
                return under == node
            under = self.parents.get(under)
        raise LogError(f"under: node {node!r} stands more than {MOST_DEPTH} deep")

    def episode(self) -> Episode:
        """All of it; only where nodes are kept."""
        assert self._nodes is not None
        nodes = (
            replace(node, grading=self.grades[id], unused=id in self.unused)
            for id, node in self._nodes.items()
        )
        opened = self.opened
        return Episode(
            opened.episode, opened.goal, opened.dataset, tuple(nodes), self.final, opened.time
        )


class _Reading:
    """Where the reading of a file has got to."""

    def __init__(self, path: Path, *, keep: bool = False) -> None:
        self.path = path
        self.episodes: dict[str, _Known] = {}
        self.cut_off: list[str] = []
        self.at_line_start = True
        self._keep = keep
        self._file = 0, 0  # device and inode
        self._offset = 0
        self._lines = 0

    def go_on(self) -> None:
        """Take what has come since; all of it where it is another file now."""
        with self.path.open("rb") as file:
            status = os.fstat(file.fileno())
            here = status.st_dev, status.st_ino
            if here != self._file or status.st_size < self._offset:
                self.episodes, self.cut_off = {}, []
                self._file, self._offset, self._lines, self.at_line_start = here, 0, 0, True
            file.seek(self._offset)
            while line := file.readline(MOST_LINE + 1):
                ends = line.endswith(b"\n")
                where = f"{self.path}:{self._lines + 1}"
                if len(line) > MOST_LINE:
                    raise LogError(f"{where}: line: longer than {MOST_LINE >> 20} MiB")
                self.at_line_start = ends
                try:
                    data = parse_line(line) if line.strip() else None
                except ValueError as error:
                    if not ends:  # it is read again when the next writer has ended the line
                        self._say(f"{where}: no whole event: cut off, or being written just now")
                        return
                    self._say(f"{where}: no whole event: {error}")
                    data = None
                if data is not None:
                    self._take(data, where)
                self._offset += len(line)
                self._lines += ends

    def _take(self, data: object, where: str) -> None:
        try:
            event = read_event(data)
            if isinstance(event, Opened):
                if event.episode in self.episodes:
                    raise LogError(f"episode: {event.episode!r} is opened twice")
                self.episodes[event.episode] = _Known(event, keep=self._keep)
            elif event.episode not in self.episodes:
                raise LogError(f"episode: {event.episode!r} was never opened")
            else:
                self.episodes[event.episode].take(event)
        except LogError as error:
            raise LogError(f"{where}: {error}") from None

    def _say(self, what: str) -> None:
        if what not in self.cut_off:
            self.cut_off.append(what)


def digest(node: Node) -> bytes:
    """The same for the same result, whenever it was written."""
    data = write_event(Result("", replace(node, time=None)))
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).digest()


def _sync_folder(folder: Path) -> None:
    """A new file's name is on the disk too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _conflict(what: str, before: Grading, now: Grading) -> str:
    return (
        f"{what} has score {before.score:g} ({before.source!r}) already, which stays; "
        f"refused: {now.score:g} ({now.source!r})"
    )
