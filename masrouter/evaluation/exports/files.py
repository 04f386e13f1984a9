"""Files that appear when they are complete."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from masrouter.errors import EvaluationError


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A path to write to beside `path`, moved there at the end; folders are made.

    Raises EvaluationError where it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=path.suffix)
        os.close(handle)
        partial = Path(name)
        try:
            yield partial
            mask = os.umask(0)
            os.umask(mask)
            partial.chmod(0o666 & ~mask)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be written: {error.strerror}") from error


def write_json(path: Path, data: Any) -> None:
    """Strict JSON, in ASCII, so that no text can fail to be encoded."""
    with appearing(path) as partial:
        partial.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n", encoding="ascii")
