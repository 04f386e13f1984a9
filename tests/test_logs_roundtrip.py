"""Records survive JSONL and Parquet unchanged, and damaged files never give a wrong record."""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from masrouter.errors import LogError
from masrouter.logs import (
    Logs,
    LogWriter,
    append_record,
    convert,
    read_logs,
    write_jsonl,
    write_parquet,
)
from masrouter.types import Agent, LogRecord, Plan, Usage

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
count = st.none() | st.integers(0, 2**62)
amount = st.none() | st.floats(0, 1e300)
probability = st.floats(0, 1, exclude_min=True)
stages = st.dictionaries(
    st.text(max_size=5),
    st.one_of(
        probability,
        st.just(1),
        st.lists(probability, max_size=3),
        st.dictionaries(st.text(max_size=3), probability, max_size=2),
    ),
    max_size=4,
)


@st.composite
def records(draw: st.DrawFn) -> LogRecord:
    agents = draw(st.lists(st.builds(Agent, role=st.none() | text, model=text), min_size=1))
    split = tuple(Usage(draw(count), draw(count)) for _ in agents)
    return LogRecord(
        run_id=draw(text),
        query_id=draw(text),
        query=draw(text),
        dataset=draw(text),
        plan=Plan(draw(text), tuple(agents)),
        score=draw(st.none() | st.floats(0, 1)),
        score_source=draw(text),
        usage=Usage(draw(count), draw(count), draw(amount)),
        # No known number in the split is the same as no split.
        agent_usage=split if any(usage != Usage() for usage in split) else (),
        task=draw(st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)),
        latency_s=draw(amount),
        propensity=draw(st.none() | probability),
        stage_propensities=draw(st.none() | stages),
        policy=draw(st.none() | text),
        seed=draw(st.none() | st.integers(-(2**63), 2**63 - 1)),
        error=draw(st.none() | text),
        timestamp=draw(st.none() | st.datetimes().map(lambda t: t.isoformat() + "Z")),
    )


many = st.lists(records(), max_size=4, unique_by=(lambda r: r.run_id, lambda r: r.query_id))
relaxed = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


@relaxed
@given(many)
def test_records_survive_every_format(given_records: list[LogRecord]) -> None:
    logs = Logs.from_records(given_records)
    assert list(logs) == given_records
    with tempfile.TemporaryDirectory() as folder:
        for name, write in (
            ("a.jsonl", write_jsonl),
            ("a.jsonl.gz", write_jsonl),
            ("a.parquet", write_parquet),
        ):
            path = Path(folder) / name
            write(logs, path)
            read = read_logs(path, strict=True)
            assert list(read) == given_records
            assert read.report.unknown_fields == {}


@relaxed
@given(many)
def test_appended_and_converted_records_are_the_same(given_records: list[LogRecord]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        collected = Path(folder) / "runs.jsonl"
        with LogWriter(collected) as writer:
            for record in given_records:
                writer.append(record)
        convert(collected, Path(folder) / "runs.parquet")
        convert(Path(folder) / "runs.parquet", Path(folder) / "back.jsonl")
        assert list(read_logs(Path(folder) / "back.jsonl", strict=True)) == given_records


def sample(index: int = 0) -> LogRecord:
    return LogRecord(
        run_id=f"run-{index}",
        query_id=f"query-{index % 7}",
        query=f"What is {index % 7} + 2? Ünïcode too.",
        dataset="sums",
        plan=Plan("chain", (Agent("coder", "gpt-4o"), Agent(None, f"model-{index % 3}"))),
        score=index % 5 / 4,
        score_source="tests",
        usage=Usage(100 + index, 20, 0.001 * index),
        agent_usage=(Usage(60, 10), Usage(40 + index, 10)) if index % 2 else (),
        task="math",
        propensity=0.25,
        stage_propensities={"topology": 0.5, "roles": [0.5, 1.0]},
        policy="uniform",
        seed=index,
        timestamp="2025-01-31T12:00:00Z",
    )


def is_valid(record: LogRecord) -> bool:
    names = (record.run_id, record.query_id, record.query, record.dataset, record.score_source)
    counts = [record.usage.prompt_tokens, record.usage.completion_tokens]
    counts += [n for u in record.agent_usage for n in (u.prompt_tokens, u.completion_tokens)]
    return (
        all(names)
        and (record.score is None or 0 <= record.score <= 1)
        and (record.propensity is None or 0 < record.propensity <= 1)
        and all(n is None or n >= 0 for n in counts)
        and all(
            n is None or (n >= 0 and math.isfinite(n))
            for n in (record.usage.cost_usd, record.latency_s)
        )
        and record.schema_version == 1
    )


def mutated(data: bytes, chance: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        kind, at = chance.randrange(4), chance.randrange(len(out))
        if kind == 0:
            out[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            out[at] = chance.randrange(256)
        elif kind == 2:
            del out[at : at + chance.randint(1, 20)]
        else:
            out[at:at] = bytes(chance.randrange(256) for _ in range(chance.randint(1, 8)))
    return bytes(out) or b"\0"


WRITERS: dict[str, Callable[[Logs, Path], None]] = {
    ".jsonl": write_jsonl,
    ".jsonl.gz": write_jsonl,
    ".parquet": write_parquet,
}


def fuzz(folder: Path, suffix: str, times: int, seed: int) -> None:
    originals = {record.run_id: record for record in map(sample, range(20))}
    path = folder / f"runs{suffix}"
    WRITERS[suffix](Logs.from_records(originals.values()), path)
    data = path.read_bytes()
    chance = random.Random(seed)
    refused = read = rejected = 0
    for _ in range(times):
        path.write_bytes(mutated(data, chance))
        try:
            logs = read_logs(path)
        except LogError:
            refused += 1
            continue
        read += 1
        rejected += logs.report.rejected
        report = logs.report
        assert report.rows_kept == len(logs)
        assert report.rows_read == report.rows_kept + report.rejected + report.duplicates
        assert all(is_valid(record) for record in logs)
        if suffix != ".jsonl" and report.ok and not report.unknown_fields:
            # Checksums: where nothing is reported, what is read is what was written.
            assert {record.run_id: record for record in logs} == originals
    assert refused + read == times
    assert rejected > 0 if suffix == ".jsonl" else refused > 0


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_mutated_file_is_an_error_or_gives_valid_records(tmp_path: Path, suffix: str) -> None:
    fuzz(tmp_path, suffix, times=300, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", WRITERS)
def test_a_thousand_mutations(tmp_path: Path, suffix: str) -> None:
    fuzz(tmp_path, suffix, times=1000, seed=1)


def test_a_record_after_a_cut_off_line_starts_its_own_line(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    append_record(path, sample(0))
    with path.open("a") as file:
        file.write('{"run_id": "killed wh')
    append_record(path, sample(1), fsync=True)
    logs = read_logs(path)
    assert list(logs) == [sample(0), sample(1)]
    assert logs.report.rejected == 1
    assert logs.report.examples[0].startswith(f"{path}:2: line: not valid JSON")


def test_the_writer_refuses_what_breaks_the_schema(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    bad = LogRecord("r", "q", "text", "d", Plan("io", (Agent(None, "m"),)), 2.0, "tests")
    with LogWriter(path) as writer:
        with pytest.raises(LogError, match=r"new record:row 1: score: expected a number"):
            writer.append(bad)
        priced = (Usage(1, 1, 0.5), Usage(1, 1))
        with pytest.raises(LogError, match="no cost for single agents"):
            writer.append(replace(sample(0), agent_usage=priced))
        with pytest.raises(LogError, match="one entry for each of the 2 agents"):
            writer.append(replace(sample(0), agent_usage=(Usage(1, 1),)))
    with pytest.raises(LogError, match="writer is closed"):
        writer.append(sample(0))
    assert path.read_bytes() == b""
    with pytest.raises(LogError, match=r"named \.jsonl"):
        LogWriter(tmp_path / "runs.parquet")


def test_a_parquet_column_of_another_name_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "runs.parquet"
    write_parquet(Logs.from_records([sample(0)]), path)
    renamed = path.read_bytes().replace(b"completion_tokens", b"completion_tokenz", 2)
    path.write_bytes(renamed)
    with pytest.raises(LogError, match="columns are not those it was written with"):
        read_logs(path)


def test_a_failed_conversion_leaves_nothing_behind(tmp_path: Path) -> None:
    source, target = tmp_path / "runs.jsonl", tmp_path / "out.parquet"
    append_record(source, sample(0))
    write_parquet(Logs.from_records([sample(5)]), target)
    before = target.read_bytes()
    with source.open("a") as file:
        file.write("{}\n")
    with pytest.raises(LogError, match=r"runs\.jsonl:2: "):
        convert(source, target, strict=True)
    assert target.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.parquet", "runs.jsonl"]
    report = convert(source, target)
    assert (report.rows_kept, report.rejected) == (1, 1)
    assert list(read_logs(target)) == [sample(0)]
    with pytest.raises(LogError, match="expected a name that ends in"):
        convert(source, tmp_path / "out.csv")


def test_written_files_are_the_same_every_time(tmp_path: Path) -> None:
    logs = Logs.from_records(map(sample, range(10)))
    for suffix, write in WRITERS.items():
        write(logs, tmp_path / f"a{suffix}")
        write(logs, tmp_path / f"b{suffix}")
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
