"""The sandbox that these tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from masrouter.errors import SandboxError
from masrouter.sandbox import Sandbox


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    try:
        opened = Sandbox()
    except SandboxError as error:
        pytest.skip(f"no sandbox here: {error}")
    with opened:
        yield opened
