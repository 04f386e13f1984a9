"""Sessions: who may see which, and what is forgotten."""

from __future__ import annotations

import threading

import pytest

from masrouter.errors import ConfigError
from masrouter.server.sessions import Sessions, is_session_name
from masrouter.types import Agent, Plan

ONE = Plan("io", (Agent(None, "one"),))
TWO = Plan("io", (Agent(None, "two"),))


class Clock:
    """Time that goes on when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_session_is_seen_by_the_caller_who_named_it_alone() -> None:
    sessions = Sessions(60)
    sessions.put("ann", "s", ONE)
    assert sessions.get("ann", "s") == ONE
    assert sessions.get("bob", "s") is None
    sessions.put("bob", "s", TWO)
    assert (sessions.get("ann", "s"), sessions.get("bob", "s")) == (ONE, TWO)
    assert sessions.get("ann", "t") is None


def test_a_session_is_forgotten_so_long_after_its_last_use() -> None:
    clock = Clock()
    sessions = Sessions(10, clock=clock)
    sessions.put("ann", "used", ONE)
    sessions.put("ann", "idle", ONE)
    clock.now += 6
    assert sessions.get("ann", "used") == ONE
    clock.now += 6
    assert sessions.get("ann", "idle") is None
    assert sessions.get("ann", "used") == ONE
    assert len(sessions) == 1
    clock.now += 10
    assert sessions.get("ann", "used") is None
    assert len(sessions) == 0


def test_the_one_that_was_not_used_for_longest_makes_room() -> None:
    sessions = Sessions(60, most=2)
    sessions.put("ann", "a", ONE)
    sessions.put("ann", "b", ONE)
    assert sessions.get("ann", "a") == ONE
    sessions.put("ann", "c", TWO)
    assert sessions.get("ann", "b") is None
    assert sessions.get("ann", "a") == ONE
    assert sessions.get("ann", "c") == TWO


def test_no_caller_pushes_out_what_another_has() -> None:
    sessions = Sessions(60, most=3)
    sessions.put("ann", "mine", ONE)
    for number in range(100):
        sessions.put("bob", f"s{number}", TWO)
    assert sessions.get("ann", "mine") == ONE
    assert len(sessions) == 4


def test_threads_keep_to_the_bound() -> None:
    sessions = Sessions(60, most=50)

    def work(name: int) -> None:
        for number in range(500):
            sessions.put("ann", f"{name}-{number}", ONE)
            sessions.get("ann", f"{name}-{number // 2}")

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sessions) == 50


@pytest.mark.parametrize("name", ["", " x", "x ", "a" * 129, "é", "a\nb", "a\x7f", "\ud800"])
def test_what_is_no_name_of_a_session_is_refused(name: str) -> None:
    assert not is_session_name(name)
    with pytest.raises(ConfigError, match="session: expected 1 to 128 printable ASCII"):
        Sessions(60).put("ann", name, ONE)


@pytest.mark.parametrize("name", ["x", "a b", "7f3c/turn#1", "a" * 128])
def test_names_of_printable_ascii_are_taken(name: str) -> None:
    assert is_session_name(name)


def test_a_time_or_a_number_that_keeps_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="session_ttl_s"):
        Sessions(0)
    with pytest.raises(ConfigError, match="session_ttl_s"):
        Sessions(float("nan"))
    with pytest.raises(ConfigError, match="room for at least 1"):
        Sessions(1, most=0)
