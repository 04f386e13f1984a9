"""LiteLLM's standard logging payload: one JSON object for each call, as its callbacks write it.

Fields: docs.litellm.ai/docs/proxy/logging_spec. Calls that share a `trace_id` are one run. The
model is `model`, as it was sent; metadata keys are looked up in `metadata`, then in its
`requester_metadata` and `spend_logs_metadata`, then among `request_tags` written `key:value`.

LiteLLM writes a cost that it could not work out as 0. So 0 is taken for a cost only where the
payload says why nothing was billed: the answer came from the cache, or the price map has 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from masrouter.importers.messages import asked
from masrouter.importers.options import ImportOptions, facts
from masrouter.importers.report import Account
from masrouter.importers.rows import Row
from masrouter.importers.scores import ScoreBook
from masrouter.importers.traces import Kind, Span, Traces
from masrouter.importers.values import (
    BadValue,
    amount,
    count,
    lookup,
    mapping,
    moment,
    name_of,
    needed,
    text,
)  # fmt: skip
from masrouter.logs.report import quote

CALL_TYPES = frozenset(
    {
        "completion", "acompletion", "text_completion", "atext_completion", "responses",
        "aresponses", "anthropic_messages", "generate_content", "agenerate_content",
        "generate_content_stream", "agenerate_content_stream", "completion_with_fallbacks",
        "acompletion_with_fallbacks",
    }
)  # fmt: skip
"""Kinds of calls that answer a prompt with text."""

_READ = frozenset(
    {
        "id", "trace_id", "call_type", "response_cost", "status", "prompt_tokens",
        "completion_tokens", "startTime", "endTime", "model", "metadata", "messages", "error_str",
        "error_information", "cache_hit", "model_map_information", "request_tags",
        "response_cost_failure_debug_info", "litellm_call_id",
    }
)  # fmt: skip


class LiteLLM:
    """Takes payloads."""

    def __init__(
        self, traces: Traces, book: ScoreBook, options: ImportOptions, account: Account
    ) -> None:
        self._traces, self._options, self._account = traces, options, account

    def leaves(self, row: Row) -> Iterator[Row]:
        """The payload, also where it lies in a callback's keyword arguments."""
        inner = row.data.get("standard_logging_object") if isinstance(row.data, dict) else None
        yield Row(row.file, row.where, inner, row.raw) if isinstance(inner, dict) else row

    def trace_of(self, row: Row) -> str | None:
        """The trace that a row says it is of, as far as it can be read."""
        if not isinstance(row.data, Mapping):
            return None
        found = row.data.get("trace_id") or row.data.get("id")
        return found if isinstance(found, str) else None

    def take(self, row: Row) -> None:
        """Take one payload; raises BadValue."""
        data = row.data
        if not isinstance(data, Mapping):
            raise BadValue("row", "expected a JSON object", f"got {quote(data)}")
        call_id = needed(data.get("id"), "id")
        call_type = needed(data.get("call_type"), "call_type")
        if call_type not in CALL_TYPES:
            self._account.ignore(f"call_type {call_type}")
            return
        failed = _failed(data)
        metadata = mapping(data.get("metadata"), "metadata")
        scopes = [data, metadata] + [
            mapping(metadata.get(name), f"metadata.{name}")
            for name in ("requester_metadata", "spend_logs_metadata")
        ]
        key = self._options.agent_key
        prompt = count(data.get("prompt_tokens"), "prompt_tokens")
        completion = count(data.get("completion_tokens"), "completion_tokens")
        if not prompt and not completion:
            # Every call has a prompt: 0 and 0 say that no usage came back.
            prompt = completion = None
        span = Span(
            id=call_id,
            kind=Kind.CALL,
            agent=None if key is None else name_of(lookup(scopes, key), key),
            model=needed(data.get("model"), "model"),
            prompt_tokens=prompt,
            completion_tokens=completion,
            cost_usd=self._cost(data, scopes, failed),
            start=moment(data.get("startTime"), "startTime"),
            end=moment(data.get("endTime"), "endTime"),
            error=_error(data) if failed else None,
            also=text(data.get("litellm_call_id"), "litellm_call_id"),
            facts=facts(scopes, self._options),
            asked=asked(data.get("messages")),
        )
        trace_id = text(data.get("trace_id"), "trace_id") or call_id
        self._traces.add(trace_id, span, row)
        self._account.unmapped({name: 1 for name in data if name not in _READ and data[name]})

    def finish(self) -> None:
        """Nothing waits for the end."""

    def _cost(
        self, data: Mapping[str, Any], scopes: list[Mapping[str, Any]], failed: bool
    ) -> float | None:
        if self._options.cost_key is not None:
            return amount(lookup(scopes, self._options.cost_key), self._options.cost_key)
        cost = amount(data.get("response_cost"), "response_cost")
        if cost:
            return cost
        if data.get("cache_hit") is True and cost is not None:
            self._account.notes["calls answered from LiteLLM's cache, so at cost 0"] += 1
            return 0.0
        if cost is not None and not failed and _free(data):
            return 0.0
        if cost is not None:
            self._account.notes[
                "calls whose cost LiteLLM gives as 0 without a reason: unknown"
            ] += 1
        return None


def _failed(data: Mapping[str, Any]) -> bool:
    status = text(data.get("status"), "status")
    if status is None:  # payloads before the field was added
        return bool(data.get("error_str"))
    if status not in ("success", "failure"):
        raise BadValue("status", "expected success or failure", f"got {quote(status)}")
    return status == "failure"


def _free(data: Mapping[str, Any]) -> bool:
    """Whether LiteLLM's price map has the model at price 0, and nothing failed on the way."""
    if data.get("response_cost_failure_debug_info"):
        return False
    known = mapping(data.get("model_map_information"), "model_map_information")
    prices = mapping(known.get("model_map_value"), "model_map_information.model_map_value")
    return all(
        type(prices.get(name)) in (int, float) and prices[name] == 0
        for name in ("input_cost_per_token", "output_cost_per_token")
    )


def _error(data: Mapping[str, Any]) -> str:
    told = mapping(data.get("error_information"), "error_information")
    found = (data.get("error_str"), told.get("error_message"), told.get("error_class"))
    return next((str(item) for item in found if item), "failure")
