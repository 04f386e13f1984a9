"""A new model like one that the router knows, and queries to probe it on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.adaptation.probe_samples import NEW

from masrouter.catalog import ModelEntry
from masrouter_train.synthetic import SyntheticWorld


@pytest.fixture(scope="module")
def twin(world: SyntheticWorld) -> ModelEntry:
    """Described and priced as a model that the router knows."""
    return replace(world.catalog().models["synthetic-large"], name=NEW, aliases=())


@pytest.fixture(scope="module")
def many(world: SyntheticWorld) -> list[str]:
    return list(world.sample_queries(200, 11).texts)
