"""The recipes that come with the repository are read as they say."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from masrouter.errors import ConfigError
from masrouter_train import TrainConfig
from masrouter_train.config import Ablation
from masrouter_train.options import config_of

RECIPES = sorted((Path(__file__).parents[1] / "training/recipes").glob("*.yaml"))


def recipe(name: str) -> Path:
    return next(path for path in RECIPES if path.name == name)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_a_recipe_loads_and_changes_something_but_the_default(path: Path) -> None:
    config = TrainConfig.from_recipe(path)
    assert (config == TrainConfig()) is (path.name == "default.yaml")
    assert TrainConfig.from_mapping(config.to_json()) == config


def test_the_default_recipe_names_every_setting() -> None:
    text = recipe("default.yaml").read_text(encoding="utf-8")
    config = TrainConfig()
    parts = (config, config.critic, config.critic.kernel, config.gate, config.controller)
    names = [field.name for part in parts for field in fields(part)]
    assert len(names) > 30
    assert [name for name in names if f"{name}:" not in text] == []


@pytest.mark.parametrize("part", Ablation)
def test_the_recipe_of_an_ablation_is_its_flag_and_one_setting(part: Ablation) -> None:
    path = recipe(f"without-{part}.yaml")
    assert TrainConfig.from_recipe(path) == config_of(None, None, None, None, None, [part])
    lines = path.read_text(encoding="utf-8").splitlines()
    settings = [line for line in lines if line and not line.startswith("#")]
    assert [line for line in settings if not line.endswith(":")] == [settings[-1]]
    assert settings[-1].strip() == f"{part.setting.rpartition('.')[2]}: false"


def test_every_ablation_has_a_recipe_and_no_recipe_is_of_none() -> None:
    names = {path.stem.removeprefix("without-") for path in RECIPES if "without-" in path.name}
    assert names == set(Ablation)


def test_flags_add_to_a_recipe() -> None:
    config = config_of(recipe("without-text.yaml"), 7, None, None, None, [Ablation.ROLES])
    assert config == TrainConfig(seed=7).without(Ablation.TEXT, Ablation.ROLES)


def test_a_misspelt_setting_is_refused_by_name_and_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    text = recipe("fast.yaml").read_text(encoding="utf-8")
    path.write_text(text.replace("epochs:", "epoch:"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine\.yaml.*epoch: unknown setting"):
        TrainConfig.from_recipe(path)
