"""What is put comes back bit for bit; damage, kills and crowds cost a miss, not a wrong vector."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from masrouter.encoder.embedding_cache import EmbeddingCache, FloatArray

MODEL = "a-model@0123456789abcdef"


def vector_of(text: str, dimension: int = 8) -> FloatArray:
    """A vector that any process can tell from the text."""
    numbers = np.random.default_rng(list(text.encode()))
    return numbers.standard_normal(dimension).astype(np.float32)


def vectors_of(texts: list[str]) -> FloatArray:
    return np.stack([vector_of(text) for text in texts])


def assert_all_right(cache: EmbeddingCache, texts: list[str]) -> int:
    """Each vector is right or missing; returns how many are there."""
    found = 0
    for text, vector in zip(texts, cache.get_many(texts, MODEL, 8), strict=True):
        if vector is not None:
            found += 1
            np.testing.assert_array_equal(vector, vector_of(text))
    return found


@settings(
    max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    text=st.text(st.characters(codec=None), max_size=40),
    numbers=st.lists(st.floats(width=32), min_size=1, max_size=16),
)
def test_a_vector_comes_back_bit_for_bit(tmp_path: Path, text: str, numbers: list[float]) -> None:
    cache = EmbeddingCache(tmp_path)
    vector = np.array([numbers], dtype=np.float32)
    cache.put_many([text], vector, MODEL)
    (back,) = EmbeddingCache(tmp_path).get_many([text], MODEL, len(numbers))
    assert back is not None
    assert back.dtype == np.float32
    assert back.tobytes() == vector.tobytes()


def test_more_texts_than_one_query_takes(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path)
    texts = [f"text {i}" for i in range(1203)]
    cache.put_many(texts, vectors_of(texts), MODEL)
    assert assert_all_right(cache, [*texts, *texts[:3]]) == 1206
    stats = cache.stats()
    assert (stats.folder, stats.files, stats.entries) == (tmp_path, 1, 1203)
    assert (stats.hits, stats.misses) == (1206, 0)
    assert stats.size_bytes > 1203 * 8 * 4


def test_models_texts_and_dimensions_are_told_apart(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path)
    cache.put_many(["a"], vectors_of(["a"]), MODEL)
    assert cache.get_many(["b"], MODEL, 8) == [None]
    assert cache.get_many(["a"], MODEL + "x", 8) == [None]
    assert cache.get_many(["a"], MODEL, 7) == [None]
    assert assert_all_right(cache, ["a"]) == 1
    assert cache.get_many([], MODEL, 8) == []
    assert (cache.stats().hits, cache.stats().misses) == (1, 3)


def test_a_look_up_alone_creates_nothing(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path / "cache")
    assert cache.get_many(["a"], MODEL, 8) == [None]
    assert cache.stats().entries == 0
    assert not (tmp_path / "cache").exists()


def test_vectors_that_do_not_fit_the_texts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected \(2, E\) vectors, got shape \(1, 8\)"):
        EmbeddingCache(tmp_path).put_many(["a", "b"], vectors_of(["a"]), MODEL)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE embeddings SET vector = x'00'",
        "UPDATE embeddings SET vector = zeroblob(32)",
        "UPDATE embeddings SET vector = 'text'",
        "UPDATE embeddings SET vector = CAST(x'ff00' AS TEXT)",
        "UPDATE embeddings SET checksum = checksum + 1",
    ],
)
def test_a_damaged_row_is_a_miss_and_is_repaired(tmp_path: Path, damage: str) -> None:
    cache = EmbeddingCache(tmp_path)
    cache.put_many(["a"], vectors_of(["a"]), MODEL)
    connection = sqlite3.connect(cache.path(MODEL))
    connection.execute(damage)
    connection.commit()
    connection.close()
    assert cache.get_many(["a"], MODEL, 8) == [None]
    cache.put_many(["a"], vectors_of(["a"]), MODEL)
    assert assert_all_right(cache, ["a"]) == 1


def test_rows_that_changed_places_are_misses(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path)
    cache.put_many(["a", "b"], vectors_of(["a", "b"]), MODEL)
    connection = sqlite3.connect(cache.path(MODEL))
    rows = connection.execute("SELECT key, vector, checksum FROM embeddings").fetchall()
    for (key, _, _), (_, vector, checksum) in zip(rows, reversed(rows), strict=True):
        connection.execute(
            "UPDATE embeddings SET vector = ?, checksum = ? WHERE key = ?", (vector, checksum, key)
        )
    connection.commit()
    connection.close()
    assert cache.get_many(["a", "b"], MODEL, 8) == [None, None]


def test_a_file_that_is_no_database_is_a_warning_and_no_cache(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path)
    cache.path(MODEL).write_bytes(b"not a database, but a letter to a friend" * 100)
    with pytest.warns(RuntimeWarning, match=r"cannot be used \(file is not a database\)"):
        assert cache.get_many(["a"], MODEL, 8) == [None]
    # It was said once; from here on the file is left alone.
    cache.put_many(["a"], vectors_of(["a"]), MODEL)
    assert cache.get_many(["a"], MODEL, 8) == [None]
    assert cache.path(MODEL).read_bytes().startswith(b"not a database")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("PRAGMA user_version = 2", "written by a later masrouter"),
        ("UPDATE about SET identity = 'other'", "holds embeddings of"),
        ("DROP TABLE embeddings", "no such table"),
    ],
)
def test_a_foreign_database_is_a_warning_and_no_cache(
    tmp_path: Path, change: str, message: str
) -> None:
    cache = EmbeddingCache(tmp_path)
    cache.put_many(["a"], vectors_of(["a"]), MODEL)
    cache.close()
    connection = sqlite3.connect(cache.path(MODEL))
    connection.execute(change)
    connection.commit()
    connection.close()
    with pytest.warns(RuntimeWarning, match=message):
        assert cache.get_many(["a"], MODEL, 8) == [None]


def test_a_folder_that_cannot_be_made_is_a_warning_and_no_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = EmbeddingCache(tmp_path / "file" / "cache")
    with pytest.warns(RuntimeWarning, match="cannot be used"):
        cache.put_many(["a"], vectors_of(["a"]), MODEL)
    assert cache.get_many(["a"], MODEL, 8) == [None]


def test_the_default_folder_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASROUTER_CACHE", str(tmp_path))
    assert EmbeddingCache().folder == tmp_path / "embeddings"
    monkeypatch.delenv("MASROUTER_CACHE")
    assert EmbeddingCache().folder.parts[-2:] == ("masrouter", "embeddings")


def test_threads_share_a_cache(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for i in range(20):
                texts = [f"{number} {i}", f"shared {i}"]
                cache.put_many(texts, vectors_of(texts), MODEL)
                assert assert_all_right(cache, texts) == 2
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert cache.stats().entries == 4 * 20 + 20


def write_many(folder: Path, number: int) -> None:
    """One of several processes: writes its own texts and those that all write."""
    cache = EmbeddingCache(folder)
    for i in range(25):
        texts = [f"{number} {i}", f"shared {i}"]
        cache.put_many(texts, vectors_of(texts), MODEL)
        assert assert_all_right(cache, texts) == 2


def test_processes_that_start_together_share_a_cache(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=write_many, args=(tmp_path, n)) for n in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    texts = [f"{n} {i}" for n in (0, 1, 2, "shared") for i in range(25)]
    assert assert_all_right(EmbeddingCache(tmp_path), texts) == 100


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_cache_works_on_both_sides_of_a_fork(tmp_path: Path) -> None:
    script = (
        "import os, sys, tests.test_embedding_cache as t\n"
        "cache = t.EmbeddingCache(sys.argv[1])\n"
        "cache.put_many(['before'], t.vectors_of(['before']), t.MODEL)\n"
        "child = os.fork()\n"
        "name = 'parent' if child else 'child'\n"
        "for i in range(20):\n"
        "    cache.put_many([f'{name} {i}'], t.vectors_of([f'{name} {i}']), t.MODEL)\n"
        "assert t.assert_all_right(cache, ['before', f'{name} 19']) == 2\n"
        "if child: sys.exit(os.waitpid(child, 0)[1])\n"
    )
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=root, check=True)
    texts = ["before", *(f"{name} {i}" for name in ("parent", "child") for i in range(20))]
    assert assert_all_right(EmbeddingCache(tmp_path), texts) == 41


def test_a_killed_writer_leaves_whole_rows_and_no_lock(tmp_path: Path) -> None:
    script = (
        "import sys, itertools, tests.test_embedding_cache as t\n"
        "cache = t.EmbeddingCache(sys.argv[1])\n"
        "for i in itertools.count():\n"
        "    texts = [f'{i} {j}' for j in range(50)]\n"
        "    cache.put_many(texts, t.vectors_of(texts), t.MODEL)\n"
        "    print(i, flush=True)\n"
    )
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        for _ in range(5):
            writer.stdout.readline()
        time.sleep(0.003)  # so that it falls inside a write as often as not
        writer.send_signal(signal.SIGKILL)
        done = 5 + len(writer.stdout.read().split())
    cache = EmbeddingCache(tmp_path)
    reported = [f"{i} {j}" for i in range(done) for j in range(50)]
    assert assert_all_right(cache, reported) == len(reported)
    last = [f"{done} {j}" for j in range(50)]
    assert assert_all_right(cache, last) in (0, 50)
    assert assert_all_right(cache, [f"{done + 1} 0"]) == 0
    cache.put_many(["after"], vectors_of(["after"]), MODEL)
    assert assert_all_right(cache, ["after"]) == 1
