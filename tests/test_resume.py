"""A run that was killed continues to the very weights of the uninterrupted one."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from masrouter.catalog import Catalog
from masrouter.encoder import HashingEncoder
from masrouter.errors import ConfigError, MasRouterError, TrainingError
from masrouter.logs import Logs, write_parquet
from masrouter.router import Router
from masrouter.types import Plan
from masrouter_train.config import TrainConfig
from masrouter_train.fit import fit
from masrouter_train.module import CascadeModule
from masrouter_train.synthetic import SyntheticWorld

LAST = "last.ckpt"

# Trains as the tests do, in a process of its own that dies without warning at a given batch.
VICTIM = """
import json, sys
from pathlib import Path
import torch
from masrouter.catalog import Catalog
from masrouter.logs import read_logs
from masrouter_train.config import TrainConfig
from tests.test_resume import train_and_die

logs, catalog, config, folder, epoch, batch = sys.argv[1:]
torch.set_num_threads(1)
train_and_die(int(epoch), int(batch), read_logs(logs),
              TrainConfig.from_mapping(json.loads(config)), Catalog.load(catalog), Path(folder))
"""


def train_and_die(
    epoch: int, batch: int, logs: Logs, config: TrainConfig, catalog: Catalog, folder: Path
) -> None:
    step = CascadeModule.training_step

    def dies(self: CascadeModule, data: list[torch.Tensor], batch_idx: int) -> object:
        if (self.current_epoch, batch_idx) == (epoch, batch):
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, data, batch_idx)

    CascadeModule.training_step = dies  # type: ignore[assignment]
    fit(logs, config, catalog=catalog, encoder=HashingEncoder(32), run_folder=folder)


@pytest.fixture(scope="module")
def plans(world: SyntheticWorld) -> tuple[Plan, ...]:
    return world.plans[:5]


@pytest.fixture(scope="module")
def logs(world: SyntheticWorld, plans: tuple[Plan, ...]) -> Logs:
    return world.grid_logs(60, 2, plans=plans)


@pytest.fixture(scope="module")
def long(config: TrainConfig) -> TrainConfig:
    """Six epochs of four batches, never stopped early."""
    return replace(
        config, controller=replace(config.controller, epochs=6, patience=6, batch_size=13)
    )


def train(
    logs: Logs, config: TrainConfig, world: SyntheticWorld, folder: Path | None = None,
    resume: bool = False,
) -> Router:  # fmt: skip
    return fit(
        logs, config, catalog=world.catalog(), encoder=HashingEncoder(32), run_folder=folder,
        resume=resume,
    )  # fmt: skip


@pytest.fixture(scope="module")
def uninterrupted(
    logs: Logs, long: TrainConfig, world: SyntheticWorld, tmp_path_factory: pytest.TempPathFactory
) -> Router:
    return train(logs, long, world, tmp_path_factory.mktemp("whole") / "run")


def kill_at(
    epoch: int, batch: int, logs: Logs, config: TrainConfig, world: SyntheticWorld, folder: Path
) -> None:
    """Train into `folder / "run"` in a fork of this process, up to its SIGKILL."""
    arguments = (epoch, batch, logs, config, world.catalog(), folder / "run")
    victim = multiprocessing.get_context("fork").Process(target=train_and_die, args=arguments)
    victim.start()
    victim.join(120)
    if victim.is_alive():
        victim.kill()
        victim.join()
        pytest.fail("the training that was to die hangs")
    assert victim.exitcode == -signal.SIGKILL


def epochs_done(folder: Path) -> int:
    """Epochs that the resumable state counts, from 1."""
    state = torch.load(folder / LAST, weights_only=True)
    return int(state["epoch"]) + 1


def identical(one: Router, other: Router) -> None:
    a, b = one.state.controller.state_dict(), other.state.controller.state_dict()
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize(("epoch", "batch"), [(2, 0), (3, 2)])
def test_a_killed_run_resumes_bit_by_bit(
    epoch: int, batch: int, logs: Logs, long: TrainConfig, world: SyntheticWorld,
    uninterrupted: Router, tmp_path: Path,
) -> None:  # fmt: skip
    """Killed between two epochs, and in the middle of one; its log goes on too."""
    kill_at(epoch, batch, logs, long, world, tmp_path)
    assert epochs_done(tmp_path / "run") == epoch
    assert epochs_logged(tmp_path / "run") >= set(range(epoch - 1))
    resumed = train(logs, long, world, tmp_path / "run", resume=True)
    assert epochs_done(tmp_path / "run") == 6
    identical(resumed, uninterrupted)
    assert resumed.save_pretrained(tmp_path / "a") == uninterrupted.save_pretrained(tmp_path / "b")
    assert epochs_logged(tmp_path / "run") == set(range(6))


@pytest.mark.slow
def test_a_run_of_another_process_resumes_bit_by_bit(
    logs: Logs, long: TrainConfig, world: SyntheticWorld, uninterrupted: Router, tmp_path: Path
) -> None:
    """Nothing of the dead process is left but its files."""
    write_parquet(logs, tmp_path / "logs.parquet")
    (tmp_path / "catalog.yaml").write_text(world.catalog().to_yaml())
    arguments = [
        tmp_path / "logs.parquet", tmp_path / "catalog.yaml", json.dumps(long.to_json()),
        tmp_path / "run", 3, 2,
    ]  # fmt: skip
    victim = subprocess.run(
        [sys.executable, "-c", VICTIM, *map(str, arguments)],
        cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert victim.returncode == -signal.SIGKILL, victim.stderr[-2000:]
    assert epochs_done(tmp_path / "run") == 3
    identical(train(logs, long, world, tmp_path / "run", resume=True), uninterrupted)


def test_a_run_folder_changes_nothing(
    logs: Logs, long: TrainConfig, world: SyntheticWorld, uninterrupted: Router
) -> None:
    identical(train(logs, long, world), uninterrupted)


def test_resuming_a_finished_run_changes_nothing(
    logs: Logs, long: TrainConfig, world: SyntheticWorld, uninterrupted: Router, tmp_path: Path
) -> None:
    identical(train(logs, long, world, tmp_path / "run"), uninterrupted)
    identical(train(logs, long, world, tmp_path / "run", resume=True), uninterrupted)


def test_resuming_a_run_that_stopped_early_does_not_train_on(
    logs: Logs, long: TrainConfig, world: SyntheticWorld, tmp_path: Path
) -> None:
    eager = replace(long, controller=replace(long.controller, epochs=80, patience=1))
    folder = tmp_path / "run"
    first = train(logs, eager, world, folder)
    stopped = epochs_done(folder)
    assert stopped < 80
    for _ in range(2):
        identical(train(logs, eager, world, folder, resume=True), first)
        assert epochs_done(folder) == stopped


def epochs_logged(folder: Path) -> set[int]:
    """Epochs with a training loss in any CSV file of the run."""
    epochs = set()
    for path in folder.rglob("*.csv"):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                if row.get("val/utility") or row.get("train/loss"):
                    epochs.add(int(float(row["epoch"])))
    return epochs


def test_a_used_folder_is_not_written_over(
    logs: Logs, long: TrainConfig, world: SyntheticWorld, tmp_path: Path
) -> None:
    brief = replace(long, controller=replace(long.controller, epochs=1))
    train(logs, brief, world, tmp_path / "run")
    before = (tmp_path / "run" / LAST).read_bytes()
    with pytest.raises(TrainingError, match="run: holds an earlier run; resume it, or choose"):
        train(logs, brief, world, tmp_path / "run")
    assert (tmp_path / "run" / LAST).read_bytes() == before


def test_there_must_be_something_to_resume(
    logs: Logs, long: TrainConfig, world: SyntheticWorld, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="nothing to resume"):
        train(logs, long, world, tmp_path / "run", resume=True)
    with pytest.raises(ConfigError, match="run_folder"):
        train(logs, long, world, None, resume=True)


@pytest.fixture(scope="module")
def brief_run(
    logs: Logs, long: TrainConfig, world: SyntheticWorld, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, TrainConfig]:
    folder = tmp_path_factory.mktemp("brief") / "run"
    brief = replace(long, controller=replace(long.controller, epochs=1))
    train(logs, brief, world, folder)
    return folder, brief


@pytest.mark.parametrize("change", ["seed", "width", "rate", "logs"])
def test_a_run_is_not_continued_with_other_settings_or_other_logs(
    change: str, logs: Logs, world: SyntheticWorld, plans: tuple[Plan, ...],
    brief_run: tuple[Path, TrainConfig],
) -> None:  # fmt: skip
    folder, brief = brief_run
    controller = brief.controller
    changed = {
        "seed": replace(brief, seed=5),
        "width": replace(brief, controller=replace(controller, width=8)),
        "rate": replace(brief, controller=replace(controller, learning_rate=0.1)),
        "logs": brief,
    }[change]
    other = world.grid_logs(60, 3, plans=plans) if change == "logs" else logs
    with pytest.raises(TrainingError, match="other logs, settings or seed"):
        train(other, changed, world, folder, resume=True)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_a_damaged_state_is_said_to_be_one(
    content: bytes | None, logs: Logs, world: SyntheticWorld,
    brief_run: tuple[Path, TrainConfig], tmp_path: Path,
) -> None:  # fmt: skip
    folder, brief = brief_run
    whole = (folder / LAST).read_bytes()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LAST).write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(MasRouterError, match=LAST):
        train(logs, brief, world, tmp_path / "run", resume=True)
