"""Sandboxes by every containment that is there, and a copy that loads nothing else."""

from __future__ import annotations

import functools
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import masrouter
from masrouter.errors import SandboxError
from masrouter.sandbox import Containment, Limits, Sandbox, probe
from masrouter.sandbox.containment import Kind

KINDS: tuple[Kind, ...] = ("landlock", "bubblewrap")


@functools.cache
def containment_or_reason(kind: Kind) -> Containment | str:
    try:
        return probe(kind)
    except SandboxError as error:
        return str(error)


@pytest.fixture(scope="session", params=KINDS)
def containment(request: pytest.FixtureRequest) -> Containment:
    found = containment_or_reason(request.param)
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.fixture(scope="session")
def sandbox(containment: Containment) -> Iterator[Sandbox]:
    with Sandbox(Limits(wall_s=10), containment) as opened:
        yield opened


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may read and write, with everybody's right to walk to it."""
    folder = Path(tempfile.mkdtemp(prefix="masrouter-open-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def bare_library(open_folder: Path) -> Path:
    """A folder to import the sandbox from, readable to every uid, that loads nothing else."""
    source = Path(masrouter.__file__).parent
    package = open_folder / "library" / "masrouter"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(source / "sandbox", package / "sandbox", ignore=ignored)
    shutil.copy(source / "errors.py", package)
    (package / "__init__.py").touch()
    for folder, _, files in os.walk(package.parent):
        Path(folder).chmod(0o755)
        for name in files:
            Path(folder, name).chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
    return package.parent
