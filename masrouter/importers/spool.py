"""Texts that wait on disk until their run is complete, so that memory holds places alone."""

from __future__ import annotations

import tempfile
from types import TracebackType
from typing import Self

from masrouter.errors import LogError

_IN_MEMORY_BYTES = 64 << 20

Ref = tuple[int, int]
"""Offset and length of a text."""


class Spool:
    """A temporary file of texts; it vanishes when it is closed."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115
        self._end = 0

    def put(self, text: str) -> Ref:
        """Keep a text; raises LogError where the disk is full."""
        data = text.encode("utf-8", "surrogatepass")
        try:
            self._file.seek(self._end)
            self._file.write(data)
        except OSError as error:
            raise LogError(f"temporary file: cannot be written: {error.strerror}") from error
        ref = (self._end, len(data))
        self._end += len(data)
        return ref

    def get(self, ref: Ref) -> str:
        """A text that was kept."""
        self._file.seek(ref[0])
        return self._file.read(ref[1]).decode("utf-8", "surrogatepass")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
