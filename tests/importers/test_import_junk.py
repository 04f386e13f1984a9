"""Whatever stands in the files: every row is accounted for, and what is written is valid."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.importers.samples import (
    agent,
    bring,
    chat,
    evaluation,
    events,
    failure,
    langfuse_score,
    lines,
    observation,
    payload,
    span,
    spans,
)

from masrouter.catalog import Catalog
from masrouter.errors import MasRouterError
from masrouter.importers import Format
from masrouter.logs.validate import check

MAPPING = """
query: {column: messages}
topology: {column: call_type}
agents: [{role: {column: model_group}, model: {column: model}, prompt_tokens: {column: prompt_tokens}}]
score: {column: response_cost}
score_source: {value: x}
stage_propensities: {column: metadata}
seed: {column: completion_tokens}
timestamp: {column: startTime, unit: s}
"""  # noqa: E501
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["", "0", "1e999", "\ud800", "[[", '{"role": "user"}', "9" * 30, 1e308])
)
junk = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "total", "input", "x"]), inner)
    ),
    max_leaves=6,
)
ROWS: dict[Format, list[Any]] = {
    Format.litellm: [payload("a"), payload("b", trace_id="t"), failure("c", trace_id="t")],
    Format.langfuse: [
        observation("root", "AGENT"),
        observation("g", parent_observation_id="root"),
        observation("h", trace="t2"),
        langfuse_score("t1", 1.0),
        langfuse_score("t2", 0.0, observation_id="h"),
        {"id": "t2", "timestamp": "2025-01-01", "input": "Hi", "metadata": {}, "tags": []},
    ],
    Format.otel: [
        spans(span(1, agent("a")), span(2, chat(), parent=1), span(3, chat(), trace="b" * 32)),
        events(evaluation(1.0, number=1), evaluation(0.0)),
    ],
    Format.table: [payload("a"), payload("b")],
}


def spots(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to every value inside a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, item in inner if isinstance(value, dict | list) else ():
        found.append((*path, key))
        if isinstance(item, dict | list):
            found += spots(item, (*path, key))
    return found


def planted(rows: list[Any], path: tuple[Any, ...], value: Any) -> list[Any]:
    """The rows with a value put at a path; one that is no longer there changes nothing."""
    copy = json.loads(json.dumps(rows))
    here = copy
    for step in path[:-1]:
        try:
            here = here[step]
        except (KeyError, IndexError, TypeError):
            return copy
    try:
        here[path[-1]] = value
    except (KeyError, IndexError, TypeError):
        return copy
    return copy


@st.composite
def spoiled(draw: st.DrawFn, source: Format) -> list[Any]:
    rows = ROWS[source]
    places = spots(rows)
    for _ in range(draw(st.integers(0, 3))):
        rows = planted(rows, draw(st.sampled_from(places)), draw(junk))
    return rows


def imports_or_says_why(source: Format, write: Callable[[Path], Path], rows: int = 0) -> None:
    """rows: how many the files hold at least; of LiteLLM and tables, how many they hold."""
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"score_source": "x", "topology": "chain"}
        if source is Format.table:
            (Path(folder) / "map.yaml").write_text(MAPPING)
            options = {"mapping": Path(folder) / "map.yaml"}
        options |= {"rejects": Path(folder) / "rejects.txt", "catalog": Catalog.empty()}
        said = ""
        try:
            imported = bring(source, write(Path(folder)), **options)
        except MasRouterError as error:
            said = str(error)
        assert "please report" not in said
        if said:
            return
        told = options["rejects"].read_text().splitlines()
        assert len(told) == imported.report.rejected
        assert imported.report.rows_read >= rows
        if rows and source in (Format.litellm, Format.table):
            assert imported.report.rows_read == rows
        assert all(line.isprintable() for line in imported.report.lines())
        for batch in imported.logs.batches():
            assert not check(batch).faults


relaxed = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("source", list(Format))
@relaxed
@given(data=st.data())
def test_rows_with_anything_in_their_fields_are_accounted_for(
    source: Format, data: st.DataObject
) -> None:
    rows = data.draw(spoiled(source))
    imports_or_says_why(
        source, lambda folder: lines(folder / "rows.jsonl", map(json.dumps, rows)), len(rows)
    )


@pytest.mark.parametrize("source", list(Format))
@relaxed
@given(rows=st.lists(junk, max_size=4), name=st.sampled_from(["r.json", "r.jsonl"]))
def test_json_of_any_shape_is_accounted_for(source: Format, rows: list[Any], name: str) -> None:
    def write(folder: Path) -> Path:
        if name == "r.jsonl":
            return lines(folder / name, map(json.dumps, rows))
        (folder / name).write_text(json.dumps(rows))
        return folder / name

    imports_or_says_why(source, write, len(rows))


@pytest.mark.parametrize("source", list(Format))
@relaxed
@given(content=st.binary(max_size=80), name=st.sampled_from(["r.json", "r.jsonl", "r.csv"]))
def test_bytes_of_any_kind_are_accounted_for(source: Format, content: bytes, name: str) -> None:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    imports_or_says_why(source, write)


@pytest.mark.parametrize("source", list(Format))
def test_a_row_nested_without_end_is_rejected(source: Format, tmp_path: Path) -> None:
    deep = "[" * 900 + "]" * 900
    texts = [json.dumps(row).replace('"gpt-4o"', deep) for row in ROWS[source]]
    texts.append('{"id": ' + "[" * 100_000 + "]" * 100_000 + "}")
    imports_or_says_why(source, lambda folder: lines(folder / "r.jsonl", texts))


@pytest.mark.parametrize("name", ["r.parquet", "r.jsonl.gz"])
def test_a_file_that_is_not_what_its_name_says_is_an_error(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x1f\x8bPAR1 and then nothing")
    with pytest.raises(MasRouterError):
        bring(Format.litellm, tmp_path / name)
