"""The collection's file: one collector at a time, durable, and clear about what it is not."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.collection.worlds import PLANS, Scripted, gather, sums

from masrouter.collection import Store, export, grid, status
from masrouter.collection.store import Statement, insert
from masrouter.errors import CollectionError


def run_row(name: str, answer: str | None = "an answer") -> Statement:
    row = {"run_id": name, "prompt_version": "v", "record": "{}", "answer": answer}
    return insert("runs", row)


BAD: Statement = ("INSERT INTO runs (run_id) VALUES (?)", ["without the rest"])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "some.sqlite"


@pytest.fixture
def store(file: Path) -> Iterator[Store]:
    with Store(file) as opened:
        yield opened


def test_what_was_written_is_there_when_the_file_is_opened_again(file: Path) -> None:
    with Store(file) as store:
        asyncio.run(store.write(run_row("one"), run_row("two", None)))
    with Store(file) as store:
        assert store.finished() == {"one", "two"}
        assert store.failed() == {"two"}


def test_the_file_is_a_write_ahead_log_that_waits_for_the_disk(store: Store) -> None:
    assert store.read("PRAGMA journal_mode")[0][0] == "wal"
    assert store._writer.execute("PRAGMA synchronous").fetchone()[0] == 2


def test_a_second_collector_is_refused_until_the_first_has_ended(file: Path) -> None:
    with Store(file), pytest.raises(CollectionError, match="another collector is at work"):
        Store(file)
    Store(file).close()


def test_a_second_collector_by_another_path_is_refused_too(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.sqlite"
    with Store(file):
        link.symlink_to(file)
        with pytest.raises(CollectionError, match="another collector is at work"):
            Store(link)


def test_a_second_collector_in_another_process_is_refused(file: Path) -> None:
    code = f"from masrouter.collection import Store\nStore({str(file)!r})"
    with Store(file):
        second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "another collector is at work on this file" in second.stderr


def test_another_kind_of_database_is_refused_and_left_alone(file: Path) -> None:
    file.parent.mkdir()
    with sqlite3.connect(file) as foreign:
        foreign.execute("CREATE TABLE mine (x)")
    foreign.close()
    before = file.read_bytes()
    with pytest.raises(CollectionError, match="a database, but not of a collection"):
        Store(file)
    with pytest.raises(CollectionError, match="a database, but not of a collection"):
        status(file)
    assert file.read_bytes() == before


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"short"])
def test_a_file_that_is_no_database_is_refused_and_left_alone(file: Path, content: bytes) -> None:
    file.parent.mkdir()
    file.write_bytes(content)
    for use in (Store, status):
        with pytest.raises(CollectionError, match=r"damaged.*not a database"):
            use(file)
    assert file.read_bytes() == content


def test_a_later_format_is_refused_by_its_number(file: Path) -> None:
    Store(file).close()
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    for use in (Store, status):
        with pytest.raises(CollectionError, match=r"format 7, this masrouter knows 1; update"):
            use(file)


@pytest.mark.parametrize("damage", ["overwritten", "cut off"])
def test_a_damaged_file_is_told(file: Path, tmp_path: Path, damage: str) -> None:
    gather(file, list(grid(sums(20), PLANS)), Scripted())
    size = file.stat().st_size
    assert size > 100_000
    if damage == "cut off":
        os.truncate(file, size // 2)
    else:
        with file.open("r+b") as damaged:
            damaged.seek(4096)
            damaged.write(os.urandom(size - 8192))
    for use in (Store, status, lambda file: export(file, tmp_path / "x.jsonl")):
        with pytest.raises(CollectionError, match="damaged"):
            use(file)


def test_a_missing_an_empty_and_an_unreachable_file_are_told(tmp_path: Path) -> None:
    with pytest.raises(CollectionError, match=r"none\.sqlite: no such file; `masrouter collect`"):
        status(tmp_path / "none.sqlite")
    (tmp_path / "empty.sqlite").touch()
    with pytest.raises(CollectionError, match=r"empty\.sqlite: empty, no collection"):
        status(tmp_path / "empty.sqlite")
    with pytest.raises(CollectionError, match="cannot be made"):
        Store(tmp_path / "empty.sqlite" / "below.sqlite")


def test_looking_makes_and_changes_nothing(file: Path) -> None:
    gather(file, list(grid(sums(1), PLANS)), Scripted())
    before = {path.name: path.read_bytes() for path in file.parent.iterdir()}
    status(file)
    assert {path.name: path.read_bytes() for path in file.parent.iterdir()} == before


def test_a_statement_that_fails_is_told_and_the_store_lives_on(store: Store) -> None:
    with pytest.raises(CollectionError, match=r"some\.sqlite: cannot be used: NOT NULL"):
        asyncio.run(store.write(BAD, keep=False))
    assert store.failure is not None
    assert not store.room()
    asyncio.run(store.write(run_row("later")))
    assert store.finished() == {"later"}


def test_a_value_that_no_file_can_hold_is_told_and_the_store_lives_on(store: Store) -> None:
    with pytest.raises(CollectionError, match="OverflowError"):
        asyncio.run(store.write(insert("pins", {"key": "k", "value": 10**30}), keep=False))
    asyncio.run(store.write(run_row("later")))
    assert store.finished() == {"later"}


def test_half_of_a_surrogate_pair_is_replaced(store: Store) -> None:
    asyncio.run(store.write(run_row("one", "a\ud800b")))
    assert store.read("SELECT answer FROM runs")[0]["answer"] == "a?b"


def test_what_could_not_be_written_is_tried_again_at_the_end(file: Path) -> None:
    store = Store(file)
    store._writer.execute("PRAGMA max_page_count = 9")
    big = run_row("big", "x" * 100_000)
    with pytest.raises(CollectionError, match="the disk is full"):
        asyncio.run(store.write(big))
    with pytest.raises(CollectionError, match="the disk is full"):
        asyncio.run(store.write(run_row("dropped"), keep=False))
    assert not store.room()
    store._writer.execute("PRAGMA max_page_count = 10000")
    store.close()
    assert store.unsaved == 0
    with Store(file) as again:
        assert again.finished() == {"big"}


def test_what_could_not_be_written_to_the_end_is_counted(file: Path) -> None:
    store = Store(file)
    store._writer.execute("PRAGMA max_page_count = 9")
    with pytest.raises(CollectionError, match="the disk is full"):
        asyncio.run(store.write(run_row("big", "x" * 100_000)))
    store.close()
    assert store.unsaved == 1


def test_a_write_whose_waiting_is_cancelled_is_made_all_the_same(store: Store) -> None:
    async def main() -> None:
        writes = [asyncio.create_task(store.write(run_row(f"run {i}"))) for i in range(200)]
        await asyncio.sleep(0)
        for write in writes:
            write.cancel()
        await asyncio.gather(*writes, return_exceptions=True)
        await store.write(run_row("last"))

    asyncio.run(main())
    assert len(store.finished()) == 201


def test_writing_to_a_closed_store_is_refused(file: Path) -> None:
    store = Store(file)
    store.close()
    store.close()
    with pytest.raises(CollectionError, match="closed"):
        asyncio.run(store.write(run_row("one")))


def test_a_collection_can_be_read_while_it_grows(file: Path) -> None:
    seen: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            seen.append(sum(row.runs for row in status(file).policies))

    with Store(file):
        pass
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        gather(file, list(grid(sums(20), PLANS)), Scripted())
    finally:
        over.set()
        watcher.join()
    assert seen == sorted(seen)
    assert len(set(seen)) > 3


def test_a_pinned_setting_holds_for_the_whole_collection(file: Path) -> None:
    with Store(file) as store:
        store.pin("provider", "real")
        store.pin("provider", "real")
    with (
        Store(file) as store,
        pytest.raises(CollectionError, match="was collected with provider real, now it is simul"),
    ):
        store.pin("provider", "simulated")
