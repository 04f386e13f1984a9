"""A disk that fills up: sending stops, nothing acknowledged is lost, and resuming completes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.collection.children import (
    Children,
    calls_cut_off,
    calls_in,
    counting_server,
    digest,
    recorded_runs,
)
from tests.collection.worlds import PLANS, exported

PROBLEMS = 8
RUNS = PROBLEMS * len(PLANS)


class SmallDisk:
    """A tmpfs of a size that can be changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def resize(self, kib: int) -> None:
        mounted = "remount," if self.folder.is_mount() else ""
        options = f"{mounted}size={kib}k"
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder)],
            check=True,
            capture_output=True,
        )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    folder = tmp_path / "small"
    folder.mkdir()
    disk = SmallDisk(folder)
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a tmpfs needs root")
    try:
        disk.resize(1024)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no tmpfs can be mounted here: {error.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def children() -> Iterator[Children]:
    with Children() as started:
        yield started


@pytest.fixture(scope="module")
def expected(children: Children, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The export of a collection that nothing disturbs."""
    file = tmp_path_factory.mktemp("undisturbed") / "undisturbed.sqlite"
    with counting_server(0) as server:
        job = {"file": str(file), "problems": PROBLEMS, "base_url": server.base_url}
        assert children.run(job).status == 0
    return exported(file)


@dataclass
class Figures:
    """What a disk that was full several times came to."""

    moments: int = 0
    unsaved: int = 0
    repeated: int = 0


def fill_and_resume(
    children: Children,
    job: dict[str, Any],
    moments: Iterable[Callable[[], None]],
    make_room: Callable[[], None],
) -> Figures:
    """A collection that meets a full disk at each of these moments and then has room."""
    file, figures = Path(job["file"]), Figures()
    acknowledged: dict[str, str] = {}
    with counting_server(3) as server:
        job |= {"problems": PROBLEMS, "base_url": server.base_url, "settings": {"concurrency": 4}}
        for moment in moments:
            moment()
            session = children.run(job)
            assert session.status == 1, session.said
            assert re.search("disk (is )?(almost )?full", session.said)
            figures.moments += 1
            if not session.finished and not acknowledged:
                continue
            there = recorded_runs(file)
            assert set(session.finished) <= set(there)
            assert not set(session.finished) & set(acknowledged)
            assert acknowledged.items() <= there.items()
            acknowledged = there
        make_room()
        assert children.run(job).said == f"ended {RUNS} of {RUNS}"
        served = Counter(map(digest, server.calls))
    assert acknowledged.items() <= recorded_runs(file).items()
    answered, cut_off = calls_in(file, "answered"), calls_cut_off(file)
    assert served - (answered + cut_off) == Counter()
    assert answered - served == Counter()
    figures.unsaved = cut_off.total()
    figures.repeated = served.total() - answered.total()
    return figures


@pytest.mark.parametrize(
    ("sizes", "reserve_kib"),
    [
        ((20, 150, 350), 0),
        pytest.param((20, 60, *range(150, 1050, 100)), 0, marks=pytest.mark.slow),
        ((20, 100, 180), 256),
        pytest.param(range(20, 420, 40), 256, marks=pytest.mark.slow),
    ],
)
def test_a_full_disk_loses_nothing_and_resuming_completes(
    small_disk: SmallDisk,
    children: Children,
    expected: bytes,
    sizes: Sequence[int],
    reserve_kib: int,
) -> None:
    file = small_disk.folder / "full.sqlite"
    job = {"file": str(file), "reserve_mib": reserve_kib / 1024}
    moments = [partial(small_disk.resize, reserve_kib + size) for size in sizes]
    figures = fill_and_resume(children, job, moments, lambda: small_disk.resize(32 * 1024))
    assert figures.moments == len(sizes)
    if reserve_kib:
        assert figures.unsaved == figures.repeated == 0
    assert exported(file) == expected
    print(figures)


@pytest.mark.parametrize(
    "sizes", [(20, 90, 200), pytest.param(range(20, 200, 18), marks=pytest.mark.slow)]
)
def test_a_limit_on_the_size_of_files_is_a_full_disk_too(
    tmp_path: Path, children: Children, expected: bytes, sizes: Sequence[int]
) -> None:
    file = tmp_path / "full.sqlite"
    job: dict[str, Any] = {"file": str(file)}
    moments = [partial(job.update, file_bytes=size * 1024) for size in sizes]
    figures = fill_and_resume(children, job, moments, lambda: job.update(file_bytes=None))
    assert figures.moments == len(sizes)
    assert exported(file) == expected
    print(figures)
