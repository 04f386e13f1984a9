"""An exported router decides as torch does, needs no torch, and is refused where it is wrong."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.adaptation.probe_samples import NEW, SOLO, always, probes
from typer.testing import CliRunner

from masrouter import cli_exported, exported, exporting, loading
from masrouter.encoder import HashingEncoder
from masrouter.encoder.memo import MemoEncoder
from masrouter.errors import CheckpointError, RoutingError
from masrouter.exported import StaleExportError, read_export
from masrouter.router import Router
from masrouter.types import RoutingDecision
from masrouter_train.synthetic import SyntheticWorld

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

QUERY = "Write a Rust function that groups orders by price and returns the 7 largest groups."
REQUESTS: Mapping[str, dict[str, Any]] = {
    "default": {},
    "score alone": {"cost_weight": 0.0},
    "dear": {"cost_weight": 2000.0, "k": 5},
    "small teams": {"max_agents": 2, "cost_weight": 0.0},
    "budget": {"max_cost_usd": 0.05},
    "without a model": {"exclude_models": ["synthetic-large"], "k": 0},
    "drawn": {"sample": True, "seed": 5},
    "drawn of few": {"sample": True, "seed": 6, "topologies": ["io", "chain"]},
}


@pytest.fixture(scope="module")
def folder(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that was exported by loading it. Tests that change it work on a copy."""
    copy = tmp_path_factory.mktemp("backends") / "checkpoint"
    shutil.copytree(checkpoint, copy)
    Router.from_pretrained(copy, backend="onnx")
    return copy


@pytest.fixture(scope="module")
def fast(folder: Path) -> Router:
    return Router.from_pretrained(folder, backend="onnx")


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def made_before(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Exporting takes these graphs, which were made from the same networks."""
    graphs = {path.stem: path.read_bytes() for path in (folder / "exported/onnx").glob("*.onnx")}
    monkeypatch.setattr(exporting, "_graphs", lambda state: (64, graphs))
    return graphs


def alike(one: RoutingDecision, other: RoutingDecision) -> None:
    assert one.plan == other.plan
    assert [a.plan for a in one.alternatives] == [a.plan for a in other.alternatives]
    assert (one.domain, one.fallback, one.evidence) == (
        other.domain,
        other.fallback,
        other.evidence,
    )
    assert other.reasons == one.reasons
    assert one.domain_probability == pytest.approx(other.domain_probability, abs=1e-5)
    for a, b in zip((one, *one.alternatives), (other, *other.alternatives), strict=True):
        assert a.expected_score == pytest.approx(b.expected_score, abs=1e-4)
        assert a.score_interval.low == pytest.approx(b.score_interval.low, abs=1e-4)
        assert a.expected_cost_usd == pytest.approx(b.expected_cost_usd, rel=1e-4)
        assert (a.cost_interval is None) == (b.cost_interval is None)
    assert one.propensity == pytest.approx(other.propensity, abs=1e-4)
    s, t = one.stage_probabilities, other.stage_probabilities
    assert (s.topology, s.count, *s.roles, *s.models) == pytest.approx(
        (t.topology, t.count, *t.roles, *t.models), abs=1e-4
    )


@pytest.mark.parametrize("name", REQUESTS)
def test_it_decides_as_torch_does(name: str, folder: Path, fast: Router, texts: list[str]) -> None:
    with_torch = Router.from_pretrained(folder)
    options = REQUESTS[name]
    assert (with_torch.backend, fast.backend) == ("torch", "onnx")
    for one, other in zip(
        with_torch.route_batch(texts, **options), fast.route_batch(texts, **options), strict=True
    ):
        alike(one, other)
    alike(with_torch.route(QUERY, **options), fast.route(QUERY, **options))


def test_it_explains_as_torch_does(folder: Path, fast: Router) -> None:
    one, other = (
        r.explain(QUERY, cost_weight=30.0) for r in (Router.from_pretrained(folder), fast)
    )
    assert one.parts == pytest.approx(other.parts, abs=1e-4)
    assert [f.plan for f in one.plans] == [f.plan for f in other.plans]
    assert [f.logged_runs for f in one.plans] == [f.logged_runs for f in other.plans]


def test_more_queries_than_are_scored_at_once_are_decided_one_by_one(fast: Router) -> None:
    many = [f"query number {i} about matrices" for i in range(300)]
    together = fast.route_batch(many, k=0)
    for i in (0, 255, 256, 299):
        alike(together[i], fast.route(many[i], k=0))


def test_threads_may_share_it(fast: Router, texts: list[str]) -> None:
    expected = [fast.route(text) for text in texts]
    found: list[list[RoutingDecision]] = [[] for _ in range(6)]

    def work(mine: list[RoutingDecision]) -> None:
        mine.extend(fast.route(text) for text in texts)

    threads = [threading.Thread(target=work, args=(mine,)) for mine in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(mine == expected for mine in found)


def test_todays_prices_reach_it(folder: Path, fast: Router) -> None:
    models = {
        name: replace(
            entry,
            input_usd_per_mtok=2 * (entry.input_usd_per_mtok or 0),
            output_usd_per_mtok=2 * (entry.output_usd_per_mtok or 0),
        )
        for name, entry in fast.catalog.models.items()
    }
    catalog = replace(fast.catalog, models=models)
    dearer = Router.from_pretrained(folder, backend="onnx", catalog=catalog)
    before, after = (r.route(QUERY, topologies=["io"], cost_weight=0) for r in (fast, dearer))
    assert after.expected_cost_usd == pytest.approx(2 * before.expected_cost_usd)


def test_what_was_added_after_training_is_exported_too(
    router: Router, world: SyntheticWorld, texts: list[str], tmp_path: Path
) -> None:
    """Plans with probes have errors of their own, in several rounds of scoring."""
    twin = replace(world.catalog().models["synthetic-large"], name=NEW, aliases=())
    wider = router.add_model(twin, probes(texts[:12], SOLO, always(1.0)), plans=[SOLO])
    wider.save_pretrained(tmp_path / "wider")
    fast = Router.from_pretrained(tmp_path / "wider", backend="onnx")
    with_torch = Router.from_pretrained(tmp_path / "wider")
    for options in ({}, {"models": [NEW]}, {"cost_weight": 0.0, "sample": True, "seed": 1}):
        for text in texts[:8]:
            alike(with_torch.route(text, **options), fast.route(text, **options))


@pytest.mark.slow
def test_openvino_decides_as_torch_does(copied: Path, texts: list[str]) -> None:
    pytest.importorskip("openvino")
    with_torch = Router.from_pretrained(copied)
    fast = Router.from_pretrained(copied, backend="openvino")
    assert fast.backend == "openvino"
    for options in REQUESTS.values():
        for one, other in zip(
            with_torch.route_batch(texts[:11], **options),
            fast.route_batch(texts[:11], **options),
            strict=True,
        ):
            alike(one, other)


WITHOUT_TORCH = """
import sys

class Missing:
    names = {"torch", "transformers", "sentence_transformers", "onnx", "onnxscript"}

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: (
    None if name.split(".")[0] in Missing.names else found(name, package)
)
sys.meta_path.insert(0, Missing())

from masrouter import MasRouterError, Router

def refused(work):
    try:
        work()
    except MasRouterError as error:
        return f"{type(error).__name__}: {error}"
    return "not refused"

folder, bare = sys.argv[1:]
router = Router.from_pretrained(folder, backend="onnx")
decision = router.route("What is the capital of France?", sample=True, seed=3)
str(router.explain("What is the capital of France?"))
import asyncio
asyncio.run(router.aroute("What is the capital of France?"))
print(decision.plan)
print(refused(lambda: router.save_pretrained(folder + "-again")))
print(refused(lambda: router.with_plans(router.plans[:1])))
print(refused(lambda: router.export()))
print(refused(lambda: Router.from_pretrained(folder)))
print(refused(lambda: Router.from_pretrained(bare, backend="onnx")))
print(sorted(Missing.names & {name.split(".")[0] for name in sys.modules}))
"""


def test_it_routes_where_there_is_no_torch_and_says_what_needs_it(
    folder: Path, checkpoint: Path, fast: Router
) -> None:
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(folder), str(checkpoint)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    plan, save, extend, export, load, bare, modules = run.stdout.splitlines()
    assert plan == str(fast.route("What is the capital of France?", sample=True, seed=3).plan)
    for refusal in (save, extend, load):
        assert "pip install 'masrouter[torch]'" in refusal
    assert "pip install 'masrouter[export]'" in export
    assert "was not exported for onnx" in bare
    assert f"masrouter optimize --checkpoint {checkpoint} --backend onnx" in bare
    assert modules == "[]"


def test_a_router_that_is_not_on_disk_is_not_exported(router: Router) -> None:
    with pytest.raises(CheckpointError, match="save_pretrained"):
        router.export()


def test_an_unknown_backend_is_refused(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"expected torch or onnx or openvino, got 'tpu'"):
        Router.from_pretrained(folder, backend="tpu")  # type: ignore[arg-type]


def test_an_export_of_another_checkpoint_is_made_again(
    copied: Path, made_before: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    router = Router.from_pretrained(copied)
    stale = copied.parent / "stale"
    shutil.copytree(copied / "exported", stale)
    again = replace(router.state, metrics={"trained": "again"})
    Router(again, router.encoder).save_pretrained(copied)
    assert not (copied / "exported").exists()  # it went with the checkpoint that it was made from
    shutil.copytree(stale, copied / "exported")
    id_ = Router.from_pretrained(copied).checkpoint
    with pytest.raises(StaleExportError, match=f"exported from checkpoint {router.checkpoint}"):
        read_export(copied / "exported/onnx", id_, "onnx")
    monkeypatch.setattr(loading, "missing_to_export", lambda: ["torch"])
    with pytest.raises(CheckpointError, match="was not exported for onnx"):
        Router.from_pretrained(copied, backend="onnx")
    monkeypatch.undo()
    monkeypatch.setattr(exporting, "_graphs", lambda state: (64, made_before))
    assert Router.from_pretrained(copied, backend="onnx").route(QUERY).checkpoint == id_
    assert read_export(copied / "exported/onnx", id_, "onnx").rows == 64


def test_a_folder_that_cannot_be_written_to_is_exported_to_the_cache(
    checkpoint: Path,
    tmp_path: Path,
    made_before: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MASROUTER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(exported.os, "access", lambda path, mode: False)
    router = Router.from_pretrained(checkpoint, backend="onnx")
    assert not (checkpoint / "exported").exists()
    place = tmp_path / "cache/exported" / router.checkpoint / "onnx"
    assert (place / "manifest.json").is_file()
    assert [path.name for path in place.parent.iterdir()] == ["onnx"]  # nothing half-made is left


def test_an_export_that_decides_otherwise_is_not_kept(
    copied: Path, made_before: dict[str, bytes]
) -> None:
    import onnx
    from onnx import numpy_helper

    name = next(name for name in made_before if name.startswith("score_"))
    model = onnx.load_from_string(made_before[name])
    largest = max(model.graph.initializer, key=lambda part: len(part.raw_data))
    largest.CopyFrom(numpy_helper.from_array(1.01 * numpy_helper.to_array(largest), largest.name))
    made_before[name] = model.SerializeToString()
    shutil.rmtree(copied / "exported")
    router = Router.from_pretrained(copied)
    with pytest.raises(CheckpointError, match=r"predictions differ from torch's by .*; not kept"):
        router.export(backend="onnx")
    assert not any((copied / "exported").iterdir())


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def forge(export: Path, name: str, content: bytes) -> None:
    """Another graph under right hashes."""
    (export / name).write_bytes(content)
    entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    edit(export / "manifest.json", lambda d: d["files"].update({name: entry}))


def external(export: Path) -> None:
    import onnx

    model = onnx.load(export / "read.onnx")
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    forge(export, "read.onnx", model.SerializeToString())


def linked(export: Path) -> None:
    shutil.copy(export / "read.onnx", export.parent / "elsewhere")
    (export / "read.onnx").unlink()
    (export / "read.onnx").symlink_to(export.parent / "elsewhere")


def swapped(export: Path) -> None:
    forge(export, "paths.onnx", (export / "read.onnx").read_bytes())


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a bit": (lambda e: flip(e / "read.onnx"), r"read\.onnx: damaged or changed"),
    "cut off": (
        lambda e: (e / "paths.onnx").write_bytes((e / "paths.onnx").read_bytes()[:-1]),
        r"paths\.onnx: damaged or changed",
    ),
    "a missing graph": (lambda e: (e / "read.onnx").unlink(), r"read\.onnx: missing"),
    "a link": (linked, r"read\.onnx: is a link"),
    "no JSON": (lambda e: (e / "manifest.json").write_text("{"), r"manifest\.json: not JSON"),
    "of the future": (
        lambda e: edit(e / "manifest.json", lambda d: d.update(version=2)),
        "expected masrouter-export 1",
    ),
    "another backend": (
        lambda e: edit(e / "manifest.json", lambda d: d.update(backend="openvino")),
        "an export for 'openvino', not for 'onnx'",
    ),
    "a path out of the folder": (
        lambda e: edit(e / "manifest.json", lambda d: d["files"].update({"../../x.onnx": {}})),
        r"files: expected read\.onnx",
    ),
    "a graph too few": (
        lambda e: edit(e / "manifest.json", lambda d: d["files"].pop("paths.onnx")),
        "expected the graphs paths, read",
    ),
    "rows are text": (
        lambda e: edit(e / "manifest.json", lambda d: d.update(rows="many")),
        "rows: expected a whole number",
    ),
    "a key too many": (
        lambda e: edit(e / "manifest.json", lambda d: d.update(speed=1)),
        "unknown keys",
    ),
    "no graph": (lambda e: forge(e, "read.onnx", b"\x08\x07"), "not an ONNX file"),
    "not a graph at all": (lambda e: forge(e, "read.onnx", b"MZ" * 99), "not an ONNX file"),
    "weights in another file": (external, "weights in another file"),
    "a graph in place of another": (swapped, "paths"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_or_forged_export_is_refused(name: str, copied: Path) -> None:
    damage, message = DAMAGE[name]
    damage(copied / "exported/onnx")
    with pytest.raises(CheckpointError, match=message):
        Router.from_pretrained(copied, backend="onnx")


def test_a_checkpoint_with_other_things_beside_its_export_is_not_replaced(copied: Path) -> None:
    (copied / "exported/notes.txt").write_text("mine")
    router = Router.from_pretrained(copied)
    with pytest.raises(CheckpointError, match=r"exported/notes\.txt"):
        router.save_pretrained(copied)
    assert (copied / "exported/notes.txt").read_text() == "mine"


def test_an_encoder_may_be_given_and_must_be_the_same(folder: Path) -> None:
    given = HashingEncoder(32)
    assert Router.from_pretrained(folder, backend="onnx", encoder=given).encoder is given
    with pytest.raises(CheckpointError, match=r"hashing-32-v1.*hashing-64-v1"):
        Router.from_pretrained(folder, backend="onnx", encoder=HashingEncoder(64))


def test_queries_that_come_again_may_be_remembered(folder: Path, fast: Router) -> None:
    router = Router.from_pretrained(folder, backend="onnx", memo=8)
    assert [router.route(QUERY), router.route(QUERY)] == [fast.route(QUERY)] * 2
    assert isinstance(router.encoder, MemoEncoder)
    assert (router.encoder.stats.hits, router.encoder.stats.misses) == (1, 1)
    with pytest.raises(RoutingError, match="hashing-64"):
        router.with_encoder(HashingEncoder(64))


def test_the_command_exports_and_tells_what_it_measured(
    copied: Path, made_before: dict[str, bytes]
) -> None:
    app = typer.Typer()
    app.command()(cli_exported.optimize)
    shutil.rmtree(copied / "exported")
    run = CliRunner().invoke(app, ["--checkpoint", str(copied), "--backend", "onnx"])
    assert run.exit_code == 0, run.output
    assert (copied / "exported/onnx/manifest.json").is_file()
    for told in ("247 made-up queries", "100.00% the same", "ms with torch", "ms with onnx"):
        assert told in run.output
    help_ = CliRunner().invoke(app, ["--help"]).output
    assert "masrouter optimize --checkpoint checkpoints/mine" in help_


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--backend", "tpu"], "--backend: expected onnx or openvino, got 'tpu'"),
        (["--precision", "bf16"], "--precision: expected fp32 or int8 for onnx, got 'bf16'"),
    ],
)
def test_the_command_refuses_what_it_cannot_mean(
    copied: Path, options: list[str], message: str
) -> None:
    app = typer.Typer()
    app.command()(cli_exported.optimize)
    run = CliRunner().invoke(app, ["--checkpoint", str(copied), *options])
    assert message in str(run.exception)
