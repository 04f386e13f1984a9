"""Find log files, and read the rows of Parquet ones in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from masrouter.errors import LogError
from masrouter.logs.lines import Block, read_lines
from masrouter.logs.schema import SEAL, column_names

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")

PathLike = str | Path


@dataclass(frozen=True, slots=True)
class LogFiles:
    """The files that a read takes, in reading order."""

    paths: tuple[Path, ...]
    ignored: tuple[Path, ...]
    """Files of the folders whose names are not those of logs."""

    @property
    def total_bytes(self) -> int:
        """Size on disk, for progress."""
        return sum(path.stat().st_size for path in self.paths)


def is_log(path: Path) -> bool:
    """True for the names .jsonl, .jsonl.gz and .parquet."""
    return path.name.endswith(SUFFIXES)


def find_files(paths: PathLike | Iterable[PathLike]) -> LogFiles:
    """The log files among files and folders (folders with all below them, in sorted order).

    A file met twice is read once. Raises LogError for a path that does not exist, a file that is
    not a log by its name, or a folder without logs.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    if not given:
        raise LogError("no logs given; name a .jsonl, .jsonl.gz or .parquet file, or a folder")
    found: dict[Path, Path] = {}
    ignored: list[Path] = []
    for path in map(Path, given):
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and not _hidden(p, path))
            logs = [p for p in inside if is_log(p)]
            if not logs:
                raise LogError(f"{path}: no {', '.join(SUFFIXES)} file in this folder")
            ignored += [p for p in inside if not is_log(p)]
        elif not path.exists():
            raise LogError(f"{path}: no such file or folder")
        elif not is_log(path):
            raise LogError(f"{path}: not a log by its name; expected {', '.join(SUFFIXES)}")
        else:
            logs = [path]
        for log in logs:
            found.setdefault(log.resolve(), log)
    return LogFiles(tuple(found.values()), tuple(ignored))


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def read_blocks(path: Path, batch_size: int) -> Iterator[Block]:
    """The rows of one file as they stand; raises LogError where it is damaged."""
    label = str(path)
    if path.name.endswith(".parquet"):
        return _read_parquet(path, label, batch_size)
    return read_lines(path, label)


def _read_parquet(path: Path, label: str, batch_size: int) -> Iterator[Block]:
    first = 1
    size = path.stat().st_size
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            names = file.schema_arrow.names
            twice = {name for name in names if names.count(name) > 1}
            if twice:
                raise LogError(f"{label}: columns {sorted(twice)} stand twice; rename or drop one")
            seal = (file.schema_arrow.metadata or {}).get(SEAL)
            if seal is not None and seal != column_names(file.schema_arrow):
                raise LogError(
                    f"{label}: damaged Parquet file: its columns are not those it was written "
                    "with; restore it from its source"
                )
            rows = max(file.metadata.num_rows, 1)
            for batch in file.iter_batches(batch_size=batch_size):
                batch.validate(full=True)
                n = batch.num_rows
                yield Block(
                    file=label,
                    unit="row ",
                    batch=batch,
                    numbers=np.arange(first, first + n),
                    read=n,
                    bytes_done=min(size, size * (first + n - 1) // rows),
                )
                first += n
            if first - 1 != file.metadata.num_rows:
                raise LogError(
                    f"{label}: damaged Parquet file: it declares {file.metadata.num_rows} rows "
                    f"and holds {first - 1}; restore it from its source"
                )
    except LogError:
        raise
    except (pa.ArrowException, OSError, ValueError, MemoryError, KeyError, TypeError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LogError(
            f"{label}: damaged Parquet file, or not one (at row {first}): {why}; "
            "restore it from its source"
        ) from error


def row_text(batch: Any, row: int) -> dict[str, Any]:
    """A row of a Parquet file as JSON-ready data, for the rejects file."""
    values: dict[str, Any] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            values[name] = column[row].as_py()
        except (pa.ArrowException, ValueError, OverflowError):
            values[name] = str(column[row])
    return values
