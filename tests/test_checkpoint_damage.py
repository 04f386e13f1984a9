"""A damaged or forged checkpoint is refused, and the message says what is wrong with it."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.checkpoint_samples import FILES, example, same, spec

from masrouter.checkpoint import read_checkpoint, write_checkpoint
from masrouter.errors import CheckpointError


def recompute_manifest(folder: Path) -> None:
    """What a forger does: make the hashes fit the files again."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for name in FILES:
        content = (folder / name).read_bytes()
        entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        manifest["files"][name] = entry
    path.write_text(json.dumps(manifest, sort_keys=True, indent=2) + "\n")


def split_tensors(content: bytes) -> tuple[bytes, bytes]:
    """Header and data of a safetensors file."""
    length = int.from_bytes(content[:8], "little")
    return content[8 : 8 + length], content[8 + length :]


def join_tensors(header: bytes, data: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "router", example())
    return tmp_path / "router"


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name}: missing"):
        read_checkpoint(folder)


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / "config.json", tmp_path / "elsewhere.json")
    (folder / "config.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(CheckpointError, match=r"config\.json: is a link"):
        read_checkpoint(folder)


def test_a_pipe_is_refused_and_not_waited_for(folder: Path) -> None:
    (folder / "metrics.json").unlink()
    os.mkfifo(folder / "metrics.json")
    with pytest.raises(CheckpointError, match=r"metrics\.json: not a regular file"):
        read_checkpoint(folder)


def test_a_file_beyond_its_limit_is_not_read(folder: Path) -> None:
    with (folder / "README.md").open("wb") as file:
        file.truncate(1 << 40)  # sparse: a terabyte that takes no space
    with pytest.raises(CheckpointError, match=r"README\.md: 1,099,511,627,776 bytes"):
        read_checkpoint(folder)


def test_a_changed_file_is_named(folder: Path) -> None:
    (folder / "catalog.yaml").write_text("models: []\n")
    with pytest.raises(CheckpointError, match=r"catalog\.yaml: damaged or changed"):
        read_checkpoint(folder)


def set_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest, sort_keys=True, indent=2) + "\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(version=2), "version 2 is later .* upgrade masrouter"),
        (lambda m: m.update(version=0), "expected a positive integer, got 0"),
        (lambda m: m.update(version=True), "expected a positive integer, got True"),
        (lambda m: m.update(format="zip"), "format: expected 'masrouter-checkpoint', got 'zip'"),
        (lambda m: m.update(note="x"), "not written by masrouter"),
        (lambda m: m["files"].pop("README.md"), "files: expected exactly"),
        (lambda m: m["files"].update({"run.py": {}}), "files: expected exactly"),
        (lambda m: m.update(files=[]), "files: expected exactly"),
        (lambda m: m["files"].update({"README.md": 3}), r"README\.md: damaged or changed"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    folder: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    set_manifest(folder, change)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "key 'a' appears twice"),
        ('{"a": {"b": 1, "b": 1}}', "key 'b' appears twice"),
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": -Infinity}', "-Infinity is not JSON"),
        ('{"a": 1e999}', "a: inf is not JSON"),
        ('{"a": 1' + "0" * 30 + "}", "beyond 64 bits"),
        ('{"a": 1' + "0" * 5000 + "}", "not JSON"),
        ('{"a": ' + "[" * 100 + "]" * 100 + "}", "nested deeper than 64 levels"),
        ('{"a": ' + "[" * 200_000 + "]" * 200_000 + "}", "nested too deeply"),
        ("[1]", "expected an object, got list"),
        ('{"a": "\\ud800"}', "not valid text"),
        ('\ufeff{"a": 1}', "not JSON"),
        ('{"a": 1} {"b": 2}', "not JSON"),
        ("", "not JSON"),
    ],
)
def test_json_is_read_strictly(folder: Path, text: str, message: str) -> None:
    (folder / "calibration.json").write_text(text, encoding="utf-8")
    recompute_manifest(folder)
    with pytest.raises(CheckpointError, match=rf"calibration\.json.*{message}"):
        read_checkpoint(folder)


def test_text_that_is_not_utf8_is_refused(folder: Path) -> None:
    (folder / "catalog.yaml").write_bytes(b"models: \xff\n")
    recompute_manifest(folder)
    with pytest.raises(CheckpointError, match=r"catalog\.yaml: not UTF-8"):
        read_checkpoint(folder)


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"w": entry("F32", [2], 0, 8)}, b"\0" * 12, "12 bytes of data, the header tells of 8"),
        ({"w": entry("F32", [2], 0, 8)}, b"\0" * 4, "4 bytes of data, the header tells of 8"),
        ({"w": entry("F32", [3], 0, 8)}, b"\0" * 8, r"w: 8 bytes for F32 \[3\]"),
        ({"w": entry("F32", [1 << 62, 0, 1 << 62], 0, 8)}, b"\0" * 8, "w: 8 bytes for"),
        ({"w": entry("F32", [-2], 0, 8)}, b"\0" * 8, "w: bad shape"),
        ({"w": entry("F32", [2.0], 0, 8)}, b"\0" * 8, "w: bad shape"),  # type: ignore[list-item]
        ({"w": entry("F32", [2], 8, 0)}, b"\0" * 8, "w: -8 bytes"),
        ({"w": entry("F32", [1], 4, 8)}, b"\0" * 8, "w: starts at byte 4, expected 0"),
        (
            {"v": entry("F32", [2], 0, 8), "w": entry("F32", [2], 4, 12)},
            b"\0" * 12,
            "w: starts at byte 4, expected 8",
        ),
        ({"w": entry("C64", [1], 0, 8)}, b"\0" * 8, "dtype 'C64' is not allowed"),
        ({"w": {**entry("F32", [2], 0, 8), "x": 1}}, b"\0" * 8, "w: expected dtype, shape and"),
        ({"__metadata__": {"a": "b"}}, b"", "unexpected metadata"),
        ({"w": entry("BOOL", [3], 0, 3)}, b"\0\2\1", "neither true nor false"),
        ({"w": entry("F32", [1], 0, 4)}, b"\0\0\xc0\x7f", "w: holds values that are not finite"),
        ({"w": entry("F64", [1], 0, 8)}, b"\0" * 6 + b"\xf0\xff", "w: holds values that are not"),
    ],
)
def test_a_forged_tensor_file_is_refused(
    folder: Path, header: dict[str, Any], data: bytes, message: str
) -> None:
    (folder / "model.safetensors").write_bytes(join_tensors(json.dumps(header).encode(), data))
    recompute_manifest(folder)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    "content", [b"", b"\1\2", b"\xff" * 8 + b"{}", (9 << 20).to_bytes(8, "little")]
)
def test_a_header_beyond_the_file_is_refused(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    recompute_manifest(folder)
    with pytest.raises(CheckpointError, match="does not fit the file"):
        read_checkpoint(folder)


def test_a_header_of_many_mebibytes_is_refused(folder: Path) -> None:
    header = b"{" + b" " * (9 << 20) + b"}"
    (folder / "model.safetensors").write_bytes(join_tensors(header, b""))
    recompute_manifest(folder)
    with pytest.raises(CheckpointError, match="header of 9,437,186 bytes"):
        read_checkpoint(folder)


def damage(folder: Path, rng: random.Random) -> None:
    """Bytes flipped, cut, inserted, swapped; a file deleted: as a disk or a transfer would."""
    path = folder / rng.choice((*FILES, "manifest.json"))
    content = bytearray(path.read_bytes())
    kind = rng.choice(("flip", "cut", "insert", "swap", "delete", "exchange"))
    place = rng.randrange(len(content))
    if kind == "flip":
        content[place] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del content[place:]
    elif kind == "insert":
        content[place:place] = rng.randbytes(rng.randint(1, 8))
    elif kind == "swap":
        other = rng.randrange(len(content))
        content[place], content[other] = content[other], content[place]
    elif kind == "delete":
        path.unlink()
        return
    elif kind == "exchange":
        content = bytearray((folder / rng.choice(FILES)).read_bytes())
    path.write_bytes(content)


def forge(folder: Path, rng: random.Random) -> None:
    """Contents made wrong, with a manifest that fits them."""
    kind = rng.choice(("values", "header", "length", "json"))
    path = folder / "model.safetensors"
    header, data = split_tensors(path.read_bytes())
    if kind == "values":
        tensor = json.loads(header)[rng.choice(("critic.bias", "critic.weight"))]
        begin, end = tensor["data_offsets"]
        place = rng.randrange(begin, end, 4)
        wrong = rng.choice((b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\0\0\x80\xff"))
        path.write_bytes(join_tensors(header, data[:place] + wrong + data[place + 4 :]))
    elif kind == "header":
        changed = bytearray(header)
        for _ in range(rng.randint(1, 3)):
            changed[rng.randrange(len(changed))] = rng.choice(b'0123456789[]{}":,FIUB \xff')
        path.write_bytes(join_tensors(bytes(changed), data))
    elif kind == "length":
        content = path.read_bytes()
        path.write_bytes(rng.randrange(1 << 63).to_bytes(8, "little") + content[8:])
    else:
        path = folder / rng.choice(("config.json", "calibration.json", "metrics.json"))
        text = path.read_text()
        wrong_json = ('{"a": NaN}', "[]", text + "}", text[:-3], '{"a":1,"a":1}', '{"a":1e999}')
        # Other white space is the same content.
        path.write_text(rng.choice((*wrong_json, text.replace("\n", " "))))
    recompute_manifest(folder)


def survive(tmp_path: Path, rounds: int, seed: int) -> int:
    """Mutate at random; every load is a CheckpointError or identical. Returns the refusals."""
    rng = random.Random(seed)
    data = example()
    write_checkpoint(tmp_path / "whole", data)
    refused = 0
    for round_ in range(rounds):
        folder = tmp_path / "mutant"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "whole", folder)
        mutate = rng.choice((damage, forge))
        mutate(folder, rng)
        try:
            loaded = read_checkpoint(folder, expect=spec(data))
        except CheckpointError:
            refused += 1
        else:
            assert same(loaded.data, data), f"seed {seed}, round {round_}: silently wrong"
    return refused


def test_a_mutated_checkpoint_is_refused_or_identical(tmp_path: Path) -> None:
    assert survive(tmp_path, rounds=200, seed=1) > 150


@pytest.mark.slow
def test_a_thousand_mutated_checkpoints_are_refused_or_identical(tmp_path: Path) -> None:
    assert survive(tmp_path, rounds=1000, seed=2) > 750
