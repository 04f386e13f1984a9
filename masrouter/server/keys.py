"""Who asks: API keys, told apart in constant time and known only by their hashes.

A key is random, so that its plain SHA-256 cannot be turned back. Without keys the server answers
whoever is on this machine, but no web page that merely runs in a browser there.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import math
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fastapi import Request

from masrouter.errors import ConfigError
from masrouter.server.api_errors import ApiError

if TYPE_CHECKING:
    from masrouter.server.settings import ServerSettings

ENVIRONMENT_KEY = "MASROUTER_SERVER_KEY"
ANONYMOUS = "anonymous"
_LEAST = 16
"""Characters of a key: a short one could be guessed."""
_DIGEST = re.compile(r"[0-9a-f]{64}")
_DIGEST_OF_NOTHING = hashlib.sha256(b"").hexdigest()
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_HOST = re.compile(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """A key as the configuration holds it."""

    name: str
    sha256: str
    """64 hex digits, of the key's UTF-8 bytes."""
    budget_usd: float | None = None
    """Of all requests with this key, as the server's own budget. None is no limit of its own."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"name: expected letters, digits, '.', '_', '@' and '-', got {self.name!r}"
            )
        if self.name == ANONYMOUS:
            raise ConfigError(f"name: {ANONYMOUS!r} is who asks without a key; take another name")
        if not isinstance(self.sha256, str) or not _DIGEST.fullmatch(self.sha256):
            # What stands there may be the key itself, so it is not shown.
            raise ConfigError(
                f"sha256: of key {self.name!r}: expected 64 lower-case hex digits; "
                "`masrouter serve --new-key NAME` prints the line to add"
            )
        if self.sha256 == _DIGEST_OF_NOTHING:
            # Whoever sends no key would have it.
            raise ConfigError(
                f"sha256: of key {self.name!r}: the hash of an empty text; "
                "`masrouter serve --new-key NAME` prints a key and its hash"
            )
        budget = self.budget_usd
        number = isinstance(budget, int | float) and not isinstance(budget, bool)
        if budget is not None and not (number and math.isfinite(budget) and budget >= 0):
            raise ConfigError(f"budget_usd: expected US dollars >= 0, got {budget!r}")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request."""

    name: str = ANONYMOUS
    """Of the key; `anonymous` where the server has none."""
    budget_usd: float | None = None


def new_key() -> str:
    """A fresh random key of 256 bits."""
    return f"mr-{secrets.token_urlsafe(32)}"


def key_digest(key: str) -> str:
    """What a `KeyEntry` holds of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def environment_entry(environment: Mapping[str, str]) -> KeyEntry | None:
    """The key of MASROUTER_SERVER_KEY.

    Raises ConfigError for one that could be guessed, or that no header could carry.
    """
    key = environment.get(ENVIRONMENT_KEY)
    if not key:
        return None
    if len(key) < _LEAST:
        raise ConfigError(
            f"{ENVIRONMENT_KEY}: expected at least {_LEAST} characters, got {len(key)}; "
            "`masrouter serve --new-key NAME` prints a random key"
        )
    if not (key.isascii() and key.isprintable() and key == key.strip()):
        raise ConfigError(
            f"{ENVIRONMENT_KEY}: expected printable ASCII without a space or line end around it, "
            "as a header carries it"
        )
    return KeyEntry("environment", key_digest(key))


def find_key(entries: Sequence[KeyEntry], presented: str) -> KeyEntry | None:
    """The entry of a key. Every entry is compared, so that the time says nothing of which fits."""
    digest = key_digest(presented)
    found = None
    for entry in entries:
        if hmac.compare_digest(entry.sha256, digest):
            found = entry
    return found


async def caller(request: Request) -> Caller:
    """FastAPI dependency: who sent the request. Raises ApiError 401, or 403 for a web page's."""
    settings: ServerSettings = request.app.state.service.settings
    if not settings.keys:
        _check_local(request)
        return Caller()
    entry = find_key(settings.keys, _presented(request) or "")
    if entry is None:
        raise ApiError(
            401,
            "a valid API key is needed: send `Authorization: Bearer KEY`",
            type="authentication_error",
            code="invalid_api_key",
            headers={"www-authenticate": "Bearer"},
        )
    return Caller(entry.name, entry.budget_usd)


def _presented(request: Request) -> str | None:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    return request.headers.get("x-api-key")


def _check_local(request: Request) -> None:
    """Without keys: refuse a name that leads here from elsewhere, and a page of another origin.

    A web page could otherwise have a browser on this machine spend money (DNS rebinding).
    """
    host = request.headers.get("host", "")
    origin = request.headers.get("origin")
    if not _is_local(host) or (origin is not None and origin != f"http://{host}"):
        raise ApiError(
            403,
            "without API keys only this machine is answered, by the names 127.0.0.1, ::1 and "
            "localhost, and no page of another origin; set a key to serve others",
            type="permission_error",
            code="not_local",
        )


def _is_local(host: str) -> bool:
    """Whether a Host header names this machine."""
    if not _HOST.fullmatch(host):
        return False
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
