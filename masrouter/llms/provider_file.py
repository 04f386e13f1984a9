"""Read a provider file: which endpoints there are, where their keys lie, how models are called.

    providers:
      openai:
        base_url: https://api.openai.com/v1
        api_key_env: OPENAI_API_KEY              # the variable's name; null for a server without
        max_tokens_field: max_completion_tokens
        requests_per_minute: 500
        models:                                  # names that plans use
          gpt-4o-mini:
          o4-mini: {omit: [temperature], extra_body: {reasoning_effort: low}}
      openrouter:
        base_url: https://openrouter.ai/api/v1
        api_key_env: OPENROUTER_API_KEY
        models:
          llama-3.3-70b: {name: "meta-llama/llama-3.3-70b-instruct:free"}
      vllm:
        base_url: http://localhost:8000/v1
        api_key_env: null
        max_concurrency: 32
        input_usd_per_mtok: 0                    # what a provider sets holds for all its models
        output_usd_per_mtok: 0
      ollama:
        base_url: http://localhost:11434/v1
        api_key_env: null
        max_concurrency: 2
        models:
          "llama3.2:3b":                         # a colon belongs to the model

A key never stands in the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from masrouter.errors import ConfigError
from masrouter.llms.chat import Price
from masrouter.llms.circuit_breaker import Breaker
from masrouter.llms.openai_compatible import checked_url
from masrouter.llms.rate_limit import RateLimit
from masrouter.llms.retrying import RetryPolicy
from masrouter.llms.wire import OMITTABLE, OWN_FIELDS, ModelOptions
from masrouter.strict_yaml import Document, Path, describe, load_strict

T = TypeVar("T")

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEADER = re.compile(r"[A-Za-z0-9-]+")
_PRICES = ("input_usd_per_mtok", "output_usd_per_mtok")
_OPTIONS = ("max_tokens_field", "omit", "extra_body", "stream_usage", *_PRICES)
_LIMITS = tuple(item.name for item in fields(RateLimit))
_PROVIDER = (
    "base_url", "api_key_env", "headers", "models", "retry", "circuit_breaker", *_OPTIONS, *_LIMITS
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ProviderEntry:
    """One provider of a file."""

    name: str
    base_url: str
    api_key_env: str | None
    source: str
    """`file:line` of its key variable, for messages."""
    headers: Mapping[str, str]
    options: ModelOptions
    models: Mapping[str, ModelOptions]
    rate_limit: RateLimit
    retry: RetryPolicy
    breaker: Breaker


def read_providers(text: str | bytes, source: str) -> tuple[ProviderEntry, ...]:
    """The providers of a YAML text; raises ConfigError as `source:line: key: why`."""
    document = load_strict(text, source, ConfigError)
    if document.value is None:
        raise document.problem((), "empty; expected providers")
    document.mapping((), ("providers",))
    if "providers" not in document.value or not document.mapping(("providers",)):
        raise document.problem((), "providers is missing or empty")
    return tuple(_provider(document, name) for name in document.mapping(("providers",)))


def _provider(document: Document, name: str) -> ProviderEntry:
    path: Path = ("providers", name)
    if not name.strip() or "/" in name:
        raise document.problem(path, "expected a name without a slash")
    given = document.mapping(path)
    if "api_key" in given:
        raise document.problem(
            (*path, "api_key"),
            "a key must not stand in a file; name its environment variable in api_key_env",
        )
    given = document.mapping(path, _PROVIDER)
    for needed in ("base_url", "api_key_env"):
        if needed not in given:
            hint = " (null for a server that needs no key)" if needed == "api_key_env" else ""
            raise document.problem(path, f"{needed} is missing{hint}")
    try:
        url = checked_url(given["base_url"] if isinstance(given["base_url"], str) else "")
    except ConfigError as error:
        why = str(error).removeprefix("base_url: ")
        raise document.problem((*path, "base_url"), why) from None
    variable = given["api_key_env"]
    if variable is not None and not (isinstance(variable, str) and _VARIABLE.fullmatch(variable)):
        # What stands there may be the key itself, so it is not shown.
        why = "expected the name of an environment variable, or null; never the key itself"
        raise document.problem((*path, "api_key_env"), why)
    shared = _options(document, path, given)
    return ProviderEntry(
        name=name,
        base_url=url,
        api_key_env=variable,
        source=f"{document.source}:{document.line((*path, 'api_key_env'))}",
        headers=_headers(document, path),
        options=_model_options(shared),
        models=_models(document, path, shared),
        rate_limit=_numbers(document, path, RateLimit, _LIMITS),
        retry=_section(document, (*path, "retry"), RetryPolicy),
        breaker=_section(document, (*path, "circuit_breaker"), Breaker),
    )


def _models(document: Document, path: Path, shared: Mapping[str, Any]) -> dict[str, ModelOptions]:
    found: dict[str, ModelOptions] = {}
    where = (*path, "models")
    if document.at(path).get("models") is None:
        return found
    for name in document.mapping(where):
        here = (*where, name)
        if not name.strip():
            raise document.problem(here, "expected a non-empty name")
        given: dict[str, Any] = {}
        if document.at(here) is not None:
            given = document.mapping(here, ("name", *_OPTIONS))
        own = given.get("name")
        if own is not None and not (isinstance(own, str) and own.strip()):
            why = f"expected the provider's own name of the model, got {describe(own)}"
            raise document.problem((*here, "name"), why)
        found[name] = _model_options({**shared, **_options(document, here, given), "name": own})
    return found


def _options(document: Document, path: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that stand at `path`, checked."""
    checks: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
        "max_tokens_field": (
            "expected max_tokens or max_completion_tokens",
            lambda v: v in ("max_tokens", "max_completion_tokens"),
        ),
        "omit": (
            f"expected a list of {', '.join(OMITTABLE)}",
            lambda v: isinstance(v, list) and all(item in OMITTABLE for item in v),
        ),
        "extra_body": ("expected a mapping", lambda v: isinstance(v, dict)),
        "stream_usage": ("expected true or false", lambda v: isinstance(v, bool)),
    }
    price = "expected US dollars per million tokens, a number >= 0"
    checks = {**checks, **{key: (price, lambda v: _is_number(v) and v >= 0) for key in _PRICES}}
    found = {key: given[key] for key in _OPTIONS if key in given}
    for key, value in found.items():
        expected, holds = checks[key]
        if not holds(value):
            raise document.problem((*path, key), f"{expected}, got {describe(value)}")
    for key in OWN_FIELDS & set(found.get("extra_body", ())):
        raise document.problem(
            (*path, "extra_body", key), "each request sets this itself; leave it out"
        )
    if len(set(_PRICES) & set(found)) == 1:
        raise document.problem(path, f"expected both of {' and '.join(_PRICES)}, or neither")
    return found


def _model_options(values: Mapping[str, Any]) -> ModelOptions:
    given = dict(values)
    prices = [given.pop(key, None) for key in _PRICES]
    if prices[0] is not None:
        given["price"] = Price(float(prices[0]), float(prices[1] or 0), "provider file")
    given["omit"] = tuple(given.get("omit", ()))
    return ModelOptions(**given)


def _headers(document: Document, path: Path) -> dict[str, str]:
    if "headers" not in document.at(path):
        return {}
    where = (*path, "headers")
    found = document.mapping(where)
    for name, value in found.items():
        if not _HEADER.fullmatch(name) or name.lower() == "authorization":
            why = "expected the name of a header; a key belongs in the variable of api_key_env"
            raise document.problem((*where, name), why)
        if not (isinstance(value, str) and value.isascii() and value.isprintable()):
            raise document.problem((*where, name), "expected one line of ASCII text")
    return found


def _section(document: Document, path: Path, kind: type[T]) -> T:
    if path[-1] not in document.at(path[:-1]):
        return kind()
    names = tuple(item.name for item in fields(kind))  # type: ignore[arg-type]
    document.mapping(path, names)
    return _numbers(document, path, kind, names)


def _numbers(document: Document, path: Path, kind: type[T], names: tuple[str, ...]) -> T:
    given = {key: value for key, value in document.at(path).items() if key in names}
    whole = {"tries", "broken_tries", "failures", "max_concurrency"}
    for key, value in given.items():
        fits = isinstance(value, int) if key in whole else _is_number(value)
        if not fits or isinstance(value, bool):
            expected = "a whole number" if key in whole else "a number"
            raise document.problem((*path, key), f"expected {expected}, got {describe(value)}")
        try:
            kind(**{key: value})
        except ConfigError as error:
            why = str(error).partition(f"{key}: ")[2]
            raise document.problem((*path, key), why) from None
    return kind(**given)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
