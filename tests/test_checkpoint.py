"""A checkpoint is written whole or not at all, and comes back as it was."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.checkpoint_samples import FILES, example, same, spec

from masrouter.checkpoint import (
    LoadedCheckpoint,
    check_tensors,
    read_checkpoint,
    write_checkpoint,
)
from masrouter.errors import CheckpointError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "router", example())
    return tmp_path / "router"


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    written = write_checkpoint(tmp_path / "a" / "router", example())
    loaded = read_checkpoint(tmp_path / "a" / "router", expect=spec(example()))
    assert isinstance(loaded, LoadedCheckpoint)
    assert same(loaded.data, example())
    assert loaded.id == written
    assert loaded.path == tmp_path / "a" / "router"
    manifest = (tmp_path / "a" / "router" / "manifest.json").read_bytes()
    assert written == hashlib.sha256(manifest).hexdigest()[:16]
    assert {path.name for path in loaded.path.iterdir()} == {*FILES, "manifest.json"}


def test_the_bytes_depend_on_the_content_alone(tmp_path: Path) -> None:
    data = example()
    turned = replace(
        data,
        config=dict(reversed(data.config.items())),
        tensors=dict(reversed(data.tensors.items())),
    )
    assert write_checkpoint(tmp_path / "one", data) == write_checkpoint(tmp_path / "two", turned)
    for name in (*FILES, "manifest.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    other = replace(data, metrics={"accuracy": 0.6})
    assert write_checkpoint(tmp_path / "three", other) != write_checkpoint(tmp_path / "one", data)


def test_tensors_that_share_memory_are_stored(tmp_path: Path) -> None:
    whole = np.arange(6.0).reshape(2, 3)
    data = replace(example(), tensors={"whole": whole, "turned": whole.T, "again": whole})
    write_checkpoint(tmp_path / "router", data)
    assert same(read_checkpoint(tmp_path / "router").data, data)


def test_a_checkpoint_is_replaced_and_nothing_is_left_beside_it(folder: Path) -> None:
    newer = replace(example(), metrics={"accuracy": 0.9})
    write_checkpoint(folder, newer)
    assert same(read_checkpoint(folder).data, newer)
    assert [path.name for path in folder.parent.iterdir()] == ["router"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "router").mkdir()
    write_checkpoint(tmp_path / "router", example())
    assert same(read_checkpoint(tmp_path / "router").data, example())


def test_a_folder_that_is_no_checkpoint_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(CheckpointError, match="something else than a checkpoint"):
        write_checkpoint(tmp_path, example())
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    with pytest.raises(CheckpointError, match="is a file"):
        write_checkpoint(tmp_path / "thesis.txt", example())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_checkpoint_with_a_users_file_is_left_alone(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"notes\.txt"):
        write_checkpoint(folder, replace(example(), metrics={}))
    assert same(read_checkpoint(folder).data, example())


def test_a_write_that_is_killed_leaves_the_old_checkpoint(folder: Path) -> None:
    script = (
        "import os, sys\n"
        "from masrouter.checkpoint import read_checkpoint, write_checkpoint\n"
        "data = read_checkpoint(sys.argv[1]).data\n"
        "data.metrics['accuracy'] = 0.9\n"
        "count = [0]\n"
        "def die(descriptor):\n"
        "    count[0] += 1\n"
        "    if count[0] == 3: os._exit(9)\n"
        "os.fsync = die\n"
        "write_checkpoint(sys.argv[1], data)\n"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", script, str(folder)], cwd=root, check=False)
    assert done.returncode == 9
    assert same(read_checkpoint(folder).data, example())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": {"a": float("nan")}}, r"config\.json: a: nan is not JSON; write null"),
        ({"metrics": {"folds": [{"cost": float("inf")}]}}, r"metrics\.json: folds\[0\]\.cost: inf"),
        ({"config": {"a": {1: 2}}}, r"config\.json: a: key 1: expected text"),
        ({"config": {"a": {1, 2}}}, r"config\.json: a: set is not JSON"),
        ({"config": {"a": 1 << 70}}, "beyond 64 bits"),
        ({"config": {"a": "\ud800"}}, "not valid text"),
        ({"model_card": "\ud800"}, r"README\.md: not valid text"),
        ({"catalog_yaml": None}, r"catalog\.yaml: expected text, got NoneType"),
        ({"tensors": {"w": np.array([np.nan])}}, "w: holds values that are not finite"),
        ({"tensors": {"w": np.zeros(2, dtype=np.complex64)}}, "w: dtype .* is not allowed"),
        ({"tensors": {"w": [1.0]}}, "w.*expected an array"),
        ({"catalog_yaml": "x" * (16 * 1024 * 1024 + 1)}, r"catalog\.yaml: 16,777,217 bytes"),
    ],
)
def test_what_cannot_be_read_back_is_not_written(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        write_checkpoint(tmp_path / "router", replace(example(), **change))
    assert list(tmp_path.iterdir()) == []


def test_tensors_that_were_not_expected_are_all_named(folder: Path) -> None:
    expected = dict(spec(example()))
    del expected["seen"]
    expected["more"] = ((1,), np.dtype(np.float32))
    expected["critic.bias"] = ((6,), np.dtype(np.float32))
    expected["mask"] = ((3,), np.dtype(np.uint8))
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(folder, expect=expected)
    message = str(caught.value)
    assert "more: missing" in message
    assert "seen: not expected" in message
    assert "critic.bias: expected float32 (6,), found float32 (5,)" in message
    assert "mask: expected uint8 (3,), found bool (3,)" in message
    assert "critic.weight" not in message
    check_tensors(example().tensors, spec(example()))
    with pytest.raises(CheckpointError, match=r"model\.safetensors: more: missing"):
        check_tensors({}, {"more": ((1,), np.dtype(np.float32))})


def hub_cache(tmp_path: Path) -> str:
    """A checkpoint as the hub's cache holds it: links into blobs. Returns the commit."""
    write_checkpoint(tmp_path / "router", example())
    commit = "0123456789abcdef0123456789abcdef01234567"
    root = tmp_path / "hub" / "models--someone--router"
    (root / "blobs").mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(commit)
    (root / "snapshots" / commit).mkdir(parents=True)
    for file in (tmp_path / "router").iterdir():
        shutil.copy(file, root / "blobs" / file.name)
        (root / "snapshots" / commit / file.name).symlink_to(root / "blobs" / file.name)
    return commit


def test_a_hub_id_is_read_from_the_hubs_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub_cache(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    loaded = read_checkpoint("someone/router", local_files_only=True)
    assert same(loaded.data, example())
    assert loaded.path.name == commit
    assert read_checkpoint("someone/router", revision=commit, local_files_only=True).id == loaded.id
    with pytest.raises(CheckpointError, match="someone/other: no such folder here"):
        read_checkpoint("someone/other", local_files_only=True)


@pytest.mark.parametrize(
    "source",
    [
        "./someone/router",
        "someone/router/",
        "/someone/router",
        "~/no/router",
        "no-such",
        "here/router",
    ],
)
def test_a_path_is_never_looked_up_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    def never(*args: object, **kwargs: object) -> str:
        raise AssertionError("asked the hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", never)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    with pytest.raises(CheckpointError, match="no such folder"):
        read_checkpoint(source)
    with pytest.raises(CheckpointError, match="no such folder"):
        read_checkpoint(Path("someone/router"))


def test_a_local_folder_has_no_revision(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="has no revision 'main'"):
        read_checkpoint(folder, revision="main")
