"""A port that is closed while clients connect."""

from __future__ import annotations

import socket
import sys
from contextlib import closing

import pytest

from masrouter.server.listening import listening, refuse_newcomers


@pytest.mark.skipif(sys.platform != "linux", reason="socket filters are Linux's")
def test_who_was_connected_is_accepted_and_who_comes_later_is_never_connected() -> None:
    [listener] = listening("127.0.0.1", 0)
    address = listener.getsockname()
    with closing(listener), socket.create_connection(address) as early:
        refuse_newcomers(listener)
        with socket.socket() as late:
            late.settimeout(0.2)
            with pytest.raises(TimeoutError):
                late.connect(address)
        accepted, _ = listener.accept()
        with closing(accepted):
            early.sendall(b"still here")
            accepted.settimeout(5)
            assert accepted.recv(10) == b"still here"
        with pytest.raises(BlockingIOError):
            listener.accept()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
