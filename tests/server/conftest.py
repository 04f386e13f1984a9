"""A small fast router behind the real app: over a socket, and within the process.

Every fixture stands alone: no test depends on another one or on their order. The service of each
test is its own, records included. `tests.server.serving` has what asks it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.live_samples import small_checkpoint
from tests.server.chat_samples import PLANS, Spoken
from tests.server.serving import MakeService, RunningServer, running, sums

from masrouter.llms.chat import ChatModel
from masrouter.llms.simulated import SimulatedProvider
from masrouter.router import Router
from masrouter.server import ServerSettings, Service


@pytest.fixture(scope="session")
def served_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a small fast router of models that the simulated provider plays; its cascade is trained.

    It needs no weights of an encoder. Not to be changed.
    """
    return small_checkpoint(tmp_path_factory)


@pytest.fixture(scope="session")
def served_router(served_checkpoint: Path) -> Router:
    """The router of `served_checkpoint`."""
    return Router.from_pretrained(served_checkpoint)


@pytest.fixture
def simulated() -> SimulatedProvider:
    """Answers the questions of `sums()`, at once and free of charge."""
    return SimulatedProvider(sums())


@pytest.fixture
def make_service(served_router: Router, simulated: SimulatedProvider) -> Iterator[MakeService]:
    """Services with settings of the test's own; what it leaves open is closed.

    `make_service(exploration=0.5, llm=None, seed=3)`: llm is the simulated provider where it is
    not given; other arguments are those of `ServerSettings`.
    """
    made: list[Service] = []

    def make(
        *, llm: ChatModel | None = simulated, seed: int = 0, settings: ServerSettings | None = None,
        **given: Any,
    ) -> Service:  # fmt: skip
        service = Service(
            served_router,
            llm=llm,
            settings=settings or ServerSettings(**given),
            rng=random.Random(seed),
        )
        made.append(service)
        return service

    yield make
    for service in made:
        service.records.close()


@pytest.fixture
def served_app(make_service: MakeService) -> Iterator[RunningServer]:
    """A real server over the small router and the simulated provider, with default settings."""
    with running(make_service()) as server:
        yield server


@pytest.fixture
def spoken() -> Spoken:
    return Spoken()


@pytest.fixture
def serving(make_service: MakeService, spoken: Spoken) -> Callable[..., Service]:
    """A service of the spoken model and the sample plans, with a test's own settings."""

    def make(**given: Any) -> Service:
        return make_service(**{"llm": spoken, "plans": PLANS, **given})

    return make
