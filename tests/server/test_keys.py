"""Who may ask: keys, and this machine alone without them."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from tests.server.serving import MakeService, ask, post

from masrouter.errors import ConfigError
from masrouter.server.keys import KeyEntry, environment_entry, find_key, key_digest, new_key

KEY = "mr-a-key-of-enough-characters"
QUERY = {"query": "What is 1 plus 5?"}
ENTRIES = tuple(KeyEntry(name, key_digest(f"{KEY}-{name}")) for name in ("ann", "bob", "cay"))


def test_a_key_is_accepted_by_either_header_and_names_the_caller(
    make_service: MakeService,
) -> None:
    service = make_service(keys=ENTRIES)
    for headers in (
        {"authorization": f"Bearer {KEY}-bob"},
        {"authorization": f"bearer  {KEY}-bob "},
        {"x-api-key": f"{KEY}-bob"},
    ):
        assert post(service, "/v1/decision", QUERY, **headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"Bearer {KEY}-bob2"},
        {"authorization": f"Basic {KEY}-bob"},
        {"authorization": "Bearer "},
        {"authorization": f"{KEY}-bob"},
        {"authorization": f"Bearer {ENTRIES[0].sha256}"},
        {"x-api-key": ""},
        {"authorization": f"Bearer wrong-{KEY}", "x-api-key": f"{KEY}-bob"},
    ],
    ids=lambda headers: str(headers)[:60],
)
def test_without_a_valid_key_nothing_is_answered(
    make_service: MakeService, headers: dict[str, str]
) -> None:
    service = make_service(keys=ENTRIES)

    async def work(client: httpx.AsyncClient) -> list[httpx.Response]:
        return [
            await client.post("/v1/decision", json=QUERY),
            await client.post("/v1/outcomes", json={"decision_id": "dec_1", "score": 1}),
            await client.post("/v1/chat/completions", json={}),
            await client.get("/v1/models"),
        ]

    for reply in ask(service, work, **headers):
        assert reply.status_code == 401
        assert reply.headers["www-authenticate"] == "Bearer"
        error = reply.json()["error"]
        assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")
        assert KEY not in reply.text


def test_health_needs_no_key(make_service: MakeService) -> None:
    service = make_service(keys=ENTRIES)
    assert ask(service, lambda client: client.get("/health")).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "localhost"}, 200),
        ({"host": "localhost:8484"}, 200),
        ({"host": "127.0.0.1:1"}, 200),
        ({"host": "127.8.8.8"}, 200),
        ({"host": "[::1]:8484"}, 200),
        ({"host": "localhost:8484", "origin": "http://localhost:8484"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "evil.example:8484"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"host": "localhost@evil.example"}, 403),
        ({"host": "192.168.0.7"}, 403),
        ({"host": "[::2]"}, 403),
        ({"host": "["}, 403),
        ({"host": ""}, 403),
        ({"host": "localhost:8484", "origin": "http://localhost:3000"}, 403),
        ({"host": "localhost:8484", "origin": "https://evil.example"}, 403),
        ({"host": "localhost:8484", "origin": "null"}, 403),
    ],
)
def test_without_keys_no_web_page_can_have_a_browser_ask(
    make_service: MakeService, headers: dict[str, str], status: int
) -> None:
    reply = post(make_service(), "/v1/decision", QUERY, **headers)
    assert reply.status_code == status
    if status == 403:
        assert reply.json()["error"]["code"] == "not_local"


def test_with_keys_any_name_and_origin_may_ask(make_service: MakeService) -> None:
    headers = {"host": "router.example", "origin": "https://app.example", "x-api-key": f"{KEY}-ann"}
    assert post(make_service(keys=ENTRIES), "/v1/decision", QUERY, **headers).status_code == 200


def test_each_key_is_found_wherever_it_stands() -> None:
    for entry in ENTRIES:
        assert find_key(ENTRIES, f"{KEY}-{entry.name}") is entry
    assert find_key(ENTRIES, KEY) is None
    assert find_key((), KEY) is None
    assert find_key(ENTRIES, "ünï\udc00") is None


def test_new_keys_are_long_random_and_told_apart() -> None:
    keys = {new_key() for _ in range(50)}
    assert len(keys) == 50
    assert all(re.fullmatch(r"mr-[\w-]{43}", key) for key in keys)
    assert len({key_digest(key) for key in keys}) == 50


def test_the_environment_may_hold_a_key_that_cannot_be_guessed() -> None:
    assert environment_entry({}) is None
    assert environment_entry({"MASROUTER_SERVER_KEY": ""}) is None
    entry = environment_entry({"MASROUTER_SERVER_KEY": KEY})
    assert entry == KeyEntry("environment", key_digest(KEY))
    with pytest.raises(ConfigError, match="at least 16 characters, got 5") as refusal:
        environment_entry({"MASROUTER_SERVER_KEY": "short"})
    assert "short" not in str(refusal.value)
    for unsent in (f"{KEY}\n", f" {KEY}", f"{KEY}-é"):
        with pytest.raises(ConfigError, match="expected printable ASCII") as refusal:
            environment_entry({"MASROUTER_SERVER_KEY": unsent})
        assert KEY not in str(refusal.value)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"name": ""}, "name: expected letters"),
        ({"name": "a b"}, "name: expected letters"),
        ({"name": "anonymous"}, "take another name"),
        ({"sha256": KEY}, "expected 64 lower-case hex digits"),
        ({"sha256": key_digest(KEY).upper()}, "expected 64 lower-case hex digits"),
        ({"sha256": key_digest("")}, "the hash of an empty text"),
        ({"budget_usd": -1}, "budget_usd: expected US dollars >= 0"),
        ({"budget_usd": float("nan")}, "budget_usd: expected US dollars >= 0"),
        ({"budget_usd": True}, "budget_usd: expected US dollars >= 0"),
    ],
)
def test_an_entry_that_cannot_be_meant_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told) as refusal:
        KeyEntry(**{"name": "ann", "sha256": key_digest(KEY)} | given)
    assert KEY not in str(refusal.value)
