"""The provider file, and which endpoint a model's name leads to."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.llms.faulty_server import FaultyServer

from masrouter.catalog import Catalog
from masrouter.errors import CallError, ConfigError
from masrouter.llms import ChatRequest, OpenAICompatible, Price, Providers, provider_file
from masrouter.llms.chat import messages

TWO = """\
providers:
  openai:
    base_url: {url}
    api_key_env: TEST_OPENAI_KEY
    max_tokens_field: max_completion_tokens
    models:
      gpt-4o-mini:
      shared: {{name: big, input_usd_per_mtok: 3, output_usd_per_mtok: 4}}
  local:
    base_url: {url}
    api_key_env: null
    headers: {{X-Title: masrouter}}
    input_usd_per_mtok: 0
    output_usd_per_mtok: 0
    max_concurrency: 2
    retry: {{tries: 2, first_wait_s: 0.5}}
    circuit_breaker: {{failures: 4}}
    models:
      "llama3.2:3b": {{extra_body: {{keep_alive: 5m}}, omit: [seed]}}
      vendor/model:free: {{}}
      shared:
"""


def load(path: Path, text: str, catalog: Catalog | None = None) -> Providers:
    file = path / "providers.yaml"
    file.write_text(text)
    return Providers.load(file, catalog=catalog)


def test_one_team_mixes_providers_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_OPENAI_KEY", "sk-of-openai")
    names = ["openai/gpt-4o-mini", "local/llama3.2:3b", "vendor/model:free", "local/a/b:thinking"]

    async def ask_all(providers: Providers) -> None:
        async with providers:
            for name in names:
                await providers.complete(ChatRequest(name, messages(None, "Hello"), 9, seed=1))

    with FaultyServer() as server:
        asyncio.run(ask_all(load(tmp_path, TWO.format(url=server.base_url))))
        calls = server.calls
    assert [call.model for call in calls] == [
        "gpt-4o-mini", "llama3.2:3b", "vendor/model:free", "a/b:thinking",
    ]  # fmt: skip
    keys = [call.headers.get("authorization") for call in calls]
    assert keys == ["Bearer sk-of-openai", None, None, None]
    assert calls[0].body["max_completion_tokens"] == 9
    assert calls[1].body["keep_alive"] == "5m"
    assert ["seed" in call.body for call in calls] == [True, False, True, True]


def test_a_key_is_asked_for_by_the_first_call_of_its_provider_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEST_OPENAI_KEY", raising=False)

    async def ask(name: str) -> str:
        async with providers:
            request = ChatRequest(name, messages(None, "Hello"), 9)
            return (await providers.complete(request)).text

    with FaultyServer() as server:
        providers = load(tmp_path, TWO.format(url=server.base_url))
        assert asyncio.run(ask("local/x")) == "the answer"
        with pytest.raises(CallError, match=r"providers\.yaml:4: .*TEST_OPENAI_KEY is not set"):
            asyncio.run(ask("openai/gpt-4o-mini"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("openai/gpt-4o-mini", Price(0.15, 0.6, "catalog")),
        ("gpt-4o-mini", Price(0.15, 0.6, "catalog")),
        ("openai/shared", Price(3.0, 4.0, "provider file")),
        ("local/shared", Price(0.0, 0.0, "provider file")),
        ("local/whatever", Price(0.0, 0.0, "provider file")),
        ("openai/unheard-of", None),
        ("nobody/x", None),
    ],
)
def test_the_providers_file_stands_before_the_catalog(
    name: str, expected: Price | None, tmp_path: Path
) -> None:
    text = TWO.format(url="http://localhost:9/v1")
    assert load(tmp_path, text, Catalog.default()).price(name) == expected


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("shared", "offered by several providers; name one: openai/shared, local/shared"),
        ("gpt-4o-mimi", "no provider lists it; did you mean 'gpt-4o-mini'?"),
        ("opnai/gpt-4o-mini", "there is no provider 'opnai', only local, openai"),
        ("openai/", "no provider"),
        ("", "no provider lists it"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused_with_those_there_are(
    name: str, says: str, tmp_path: Path
) -> None:
    providers = load(tmp_path, TWO.format(url="http://localhost:9/v1"))
    with pytest.raises(CallError) as error:
        asyncio.run(providers.complete(ChatRequest(name, messages(None, "Hello"), 9)))
    assert error.value.kind == "unknown_model"
    assert says in str(error.value)


def test_two_endpoints_of_one_name_are_refused() -> None:
    endpoint = OpenAICompatible("http://localhost:9/v1", name="a")
    with pytest.raises(ConfigError, match="provider 'a' is given twice"):
        Providers(endpoint, endpoint)


HEAD = "providers:\n  a:\n    base_url: http://x/v1\n    api_key_env: null\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "1: empty; expected providers"),
        ("providers:\n", "1: providers: expected a mapping, got null"),
        ("provider: {}\n", "1: provider: unknown key; did you mean 'providers'?"),
        ("providers:\n  a/b: {}\n", "2: providers.a/b: expected a name without a slash"),
        ("providers:\n  a: {}\n", "2: providers.a: base_url is missing"),
        ("providers:\n  a:\n    base_url: http://x\n", "2: providers.a: api_key_env is missing"),
        (
            HEAD + "    base_ulr: x\n",
            "5: providers.a.base_ulr: unknown key; did you mean",
        ),
        (HEAD + "    api_key: sk-secret\n", "5: providers.a.api_key: a key must not stand in a f"),
        (HEAD.replace("null", "sk-secret"), "4: providers.a.api_key_env: expected the name of an"),
        (HEAD.replace("http://x", "x"), "3: providers.a.base_url: expected a URL such as"),
        (HEAD.replace("http://x", "http://u:sk-secret@x"), "3: providers.a.base_url: holds a user"),
        (HEAD + "    models: [m]\n", "5: providers.a.models: expected a mapping, got a list"),
        (
            HEAD + "    models:\n      m: {nam: x}\n",
            "6: providers.a.models.m.nam: unknown",
        ),
        (HEAD + "    models:\n      m: {name: 3}\n", "6: providers.a.models.m.name: expected the"),
        (HEAD + "    omit: [top_p]\n", "5: providers.a.omit: expected a list of temperature, seed"),
        (HEAD + "    omit: [[]]\n", "5: providers.a.omit: expected a list of temperature, seed"),
        (HEAD + "    max_tokens_field: []\n", "5: providers.a.max_tokens_field: expected max_tok"),
        (HEAD + "    extra_body: {n: 9}\n", "5: providers.a.extra_body.n: each request sets this"),
        (HEAD + "    input_usd_per_mtok: 1\n", "2: providers.a: expected both of input_usd_per_m"),
        (HEAD + "    output_usd_per_mtok: -1\n", "5: providers.a.output_usd_per_mtok: expected US"),
        (HEAD + "    stream_usage: 1\n", "5: providers.a.stream_usage: expected true or false"),
        (HEAD + "    headers: {Authorization: sk-secret}\n", "5: providers.a.headers.Authorizatio"),
        (HEAD + "    headers: {X-Key: 5}\n", "5: providers.a.headers.X-Key: expected one line"),
        (HEAD + "    max_concurrency: 0\n", "5: providers.a.max_concurrency: expected a number a"),
        (HEAD + "    max_concurrency: 2.5\n", "5: providers.a.max_concurrency: expected a whole"),
        (HEAD + "    requests_per_minute: true\n", "5: providers.a.requests_per_minute: expected"),
        (HEAD + "    retry: {trys: 1}\n", "5: providers.a.retry.trys: unknown key; did you mean"),
        (HEAD + "    retry: {tries: 0}\n", "5: providers.a.retry.tries: expected at least 1, got"),
        (HEAD + "    retry: {deadline_s: 0}\n", "5: providers.a.retry.deadline_s: expected secon"),
        (HEAD + "    retry: 5\n", "5: providers.a.retry: expected a mapping, got 5"),
        (HEAD + "    circuit_breaker: {pause_s: 0}\n", "5: providers.a.circuit_breaker.pause_s: e"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, text)
    assert f"providers.yaml:{says}" in str(error.value)
    assert "sk-secret" not in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        Providers.load(tmp_path / "none.yaml")


def test_the_example_in_the_documentation_loads(tmp_path: Path) -> None:
    text = (provider_file.__doc__ or "").partition("\n\n")[2].partition("\n\nA key")[0]
    providers = load(tmp_path, "\n".join(line[4:] for line in text.splitlines()))
    assert list(providers.endpoints) == ["openai", "openrouter", "vllm", "ollama"]
    assert providers.endpoint_of("llama3.2:3b").name == "ollama"
    assert providers.price("vllm/anything") == Price(0.0, 0.0, "provider file")
