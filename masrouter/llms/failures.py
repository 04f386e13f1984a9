"""How one attempt of a call failed: its kind, whether another may help, whether it may be billed.

Internal: a call's last failure leaves this package as a CallError.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from masrouter.errors import CallKind, ConfigError
from masrouter.types import Usage

Retry = Literal["no", "yes", "broken"]
"""broken: the provider answered, and may bill, what cannot be used; tried again less often."""

_RETRIED_4XX = {408, 409, 425, 429}
_OUT_OF_MONEY = {"insufficient_quota", "billing_hard_limit_reached"}
LONGEST_REASON = 400


class Failure(Exception):
    """One attempt failed, or none could be sent."""

    def __init__(
        self,
        kind: CallKind,
        why: str,
        *,
        status: int | None = None,
        retry: Retry = "no",
        wait_s: float | None = None,
        billed: bool = False,
        usage: Usage | None = None,
        fault: bool = False,
    ) -> None:
        super().__init__(why)
        self.kind: CallKind = kind
        self.why = why
        self.status = status
        self.retry: Retry = retry
        self.wait_s = wait_s
        """What the provider asks to wait, as it says."""
        self.billed = billed
        """It may have been billed: `usage` where the provider said it, else unknown."""
        self.usage = usage
        self.note = ""
        """What this side adds, behind what the provider said."""
        self.fault = fault
        """It counts against the provider's circuit."""


def status_failure(status: int, body: Any, headers: Mapping[str, str]) -> Failure:
    """An HTTP status that is no success. body: JSON, or text where it was none."""
    said = error_text(body)
    why = f"HTTP {status}" + (f": {said}" if said else "")
    kind = _status_kind(status)
    helps = status in _RETRIED_4XX or (status >= 500 and status != 501)
    if status == 429 and _error_code(body) in _OUT_OF_MONEY:
        helps = False
    if headers.get("x-should-retry") == "false":
        helps = False
    if 300 <= status < 400:
        why += "; redirects are not followed, check base_url"
    return Failure(
        kind,
        why,
        status=status,
        retry="yes" if helps else "no",
        wait_s=retry_after_s(headers),
        fault=status >= 500,
    )


def error_in_answer(error: Any, usage: Usage | None, retry: Retry = "broken") -> Failure:
    """An error inside an answer of status 200, as gateways and broken-off streams give it."""
    code = error.get("code") if isinstance(error, Mapping) else None
    status = code if isinstance(code, int) and 400 <= code < 600 else None
    kind = "bad_response" if status is None else _status_kind(status)
    if status is not None and status < 500 and status not in _RETRIED_4XX:
        retry = "no"
    why = "an error instead of an answer"
    said = error_text(error)
    return Failure(
        kind,
        f"{why}: {said}" if said else why,
        status=200,
        retry=retry,
        billed=True,
        usage=usage,
        fault=status is not None and status >= 500,
    )


def _status_kind(status: int) -> CallKind:
    if status == 429:
        return "rate_limited"
    if status in (401, 403):
        return "unauthorised"
    return "server_error" if status >= 500 else "rejected"


def error_text(body: Any) -> str:
    """What an error body says, in one short line."""
    if isinstance(body, Mapping):
        inner = body.get("error", body)
        text = inner.get("message") if isinstance(inner, Mapping) else inner
        if text is None:
            text = body.get("detail")
        return "" if text is None else quoted(text)
    return quoted(body) if body else ""


def quoted(said: object) -> str:
    """A stranger's text for a message: one line, no control characters."""
    # Four times what is shown in the end, so that a key at the edge is still whole to be hidden.
    start = str(said)[: 4 * LONGEST_REASON].encode("utf-8", "replace").decode("utf-8")
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", start).strip()


def _error_code(body: Any) -> str | None:
    inner = body.get("error", body) if isinstance(body, Mapping) else None
    code = inner.get("code") if isinstance(inner, Mapping) else None
    return code if isinstance(code, str) else None


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that a response asks to wait: `retry-after-ms`, or Retry-After (RFC 9110, 10.2.3).

    None where it does not say, or not in a way that can be read.
    """
    in_ms, text = headers.get("retry-after-ms"), headers.get("retry-after")
    for number, unit in ((in_ms, 1000), (text, 1)):
        try:
            seconds = float(number or "") / unit
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    try:
        when = parsedate_to_datetime(text or "")
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())


def missing_extra(missing: ImportError) -> ConfigError:
    """The error, to be raised, where a package of the `llm` extra is not installed."""
    return ConfigError(
        f"calling a provider needs the package {missing.name}; "
        "install the extra: pip install 'masrouter[llm]'"
    )
