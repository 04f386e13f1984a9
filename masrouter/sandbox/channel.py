"""Messages over a pipe: four bytes of length, then as many bytes. Knows no meanings."""

from __future__ import annotations

import os
import struct

_LENGTH = struct.Struct(">I")
_CHUNK = 1 << 16


class ChannelClosed(Exception):
    """The other side is gone."""


class MessageTooLarge(Exception):
    """The other side announced more bytes than allowed."""


def write_message(descriptor: int, data: bytes) -> None:
    """Send one message; raises ChannelClosed."""
    view = memoryview(_LENGTH.pack(len(data)) + data)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError as error:
        raise ChannelClosed(str(error)) from None


def read_message(descriptor: int, longest: int) -> bytes:
    """Receive one message; raises ChannelClosed, or MessageTooLarge before reading it."""
    (length,) = _LENGTH.unpack(_read_exactly(descriptor, _LENGTH.size))
    if length > longest:
        raise MessageTooLarge(f"{length} bytes, more than {longest}")
    return _read_exactly(descriptor, length)


def _read_exactly(descriptor: int, size: int) -> bytes:
    parts = []
    while size:
        try:
            part = os.read(descriptor, min(size, _CHUNK))
        except OSError as error:
            raise ChannelClosed(str(error)) from None
        if not part:
            raise ChannelClosed("end of file")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
