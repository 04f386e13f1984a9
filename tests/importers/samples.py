"""Rows in the shapes that the tools document, whole, and a way to import them.

    litellm   StandardLoggingPayload: docs.litellm.ai/docs/proxy/logging_spec and the typed dict of
              that name in litellm/types/utils.py
    langfuse  blob storage export, observations_v2/ and scores/:
              langfuse.com/docs/api-and-data-platform/features/blob-storage-export-fields;
              the public API: fern/apis/server/definition/commons.yml of langfuse/langfuse
    otel      opentelemetry-proto examples/trace.json and examples/events.json, with the attributes
              of docs/gen-ai/gen-ai-spans.md, gen-ai-agent-spans.md, gen-ai-events.md and
              docs/gen-ai/non-normative/examples-llm-calls.md of the semantic conventions

Names and kinds of the fields are theirs; the values are made up.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from masrouter.importers import Format, Imported, ImportOptions, import_logs

Data = dict[str, Any]


def bring(
    source: Format, path: Path | Sequence[Path], *, dataset: str | None = "d", **options: Any
) -> Imported:
    """Import files; keywords that are no options go to `import_logs`."""
    given = {
        name: options.pop(name)
        for name in ("mapping", "scores", "strict", "rejects", "catalog")
        if name in options
    }
    paths = [path] if isinstance(path, Path) else path
    imported = import_logs(source, paths, ImportOptions(dataset=dataset, **options), **given)
    assert imported.report.accounted, imported.report
    assert imported.report.records == len(imported.logs)
    return imported


def lines(path: Path, rows: Iterable[Any]) -> Path:
    """Write JSON Lines; a text is written as it stands."""
    texts = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def payload(call: str, question: str = "What is 2 + 2?", **changes: Any) -> Data:
    """A standard logging payload of a chat completion that went well."""
    data: Data = {
        "id": call,
        "trace_id": f"trace-{call}",
        "call_type": "acompletion",
        "stream": False,
        "response_cost": 0.0006,
        "cost_breakdown": None,
        "response_cost_failure_debug_info": None,
        "status": "success",
        "status_fields": {"llm_api_status": "success", "guardrail_status": "not_run"},
        "custom_llm_provider": "openai",
        "total_tokens": 30,
        "prompt_tokens": 20,
        "completion_tokens": 10,
        "startTime": 1735689600.0,
        "endTime": 1735689601.5,
        "completionStartTime": 1735689601.0,
        "response_time": 1.5,
        "model_map_information": {
            "model_map_key": "gpt-4o-mini",
            "model_map_value": {
                "key": "gpt-4o-mini",
                "input_cost_per_token": 1.5e-7,
                "output_cost_per_token": 6e-7,
                "litellm_provider": "openai",
                "mode": "chat",
            },
        },
        "model": "gpt-4o-mini",
        "model_id": "8d7e",
        "model_group": "small",
        "api_base": "https://api.openai.com",
        "metadata": {
            "user_api_key_hash": "88dc28d0",
            "user_api_key_alias": None,
            "user_api_key_team_id": None,
            "user_api_key_user_id": None,
            "user_api_key_org_id": None,
            "user_api_key_team_alias": None,
            "spend_logs_metadata": None,
            "requester_ip_address": "127.0.0.1",
            "requester_metadata": {},
        },
        "cache_hit": None,
        "cache_key": None,
        "saved_cache_cost": 0.0,
        "request_tags": [],
        "end_user": "",
        "requester_ip_address": "127.0.0.1",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": question},
        ],
        "response": {"choices": [{"message": {"role": "assistant", "content": "4"}}]},
        "error_str": None,
        "error_information": {"error_code": "", "error_class": "", "llm_provider": ""},
        "model_parameters": {"temperature": 0.2, "seed": 7},
        "hidden_params": {"model_id": "8d7e", "cache_key": None, "response_cost": None},
    }
    return data | changes


def failure(call: str, **changes: Any) -> Data:
    """A payload of a call that failed: LiteLLM writes 0 for what it does not know."""
    return payload(
        call,
        **{
            "status": "failure",
            "response_cost": 0,
            "total_tokens": 0,
            "prompt_tokens": 0,
            "completion_tokens": 0,
            "response": {},
            "error_str": "litellm.RateLimitError: 429",
            "error_information": {
                "error_code": "429",
                "error_class": "RateLimitError",
                "llm_provider": "openai",
            },
        }
        | changes,
    )


def observation(
    span: str, kind: str = "GENERATION", trace: str = "t1", second: float = 0.0, **changes: Any
) -> Data:
    """A row of observations_v2/, as blob storage has it."""
    call = kind == "GENERATION"
    data: Data = {
        "id": span,
        "trace_id": trace,
        "project_id": "p1",
        "environment": "production",
        "type": kind,
        "parent_observation_id": "",
        "start_time": f"2025-01-01 00:00:{second:09.6f}",
        "end_time": f"2025-01-01 00:00:{second + 1:09.6f}",
        "name": span,
        "metadata": {},
        "level": "DEFAULT",
        "status_message": "",
        "version": "",
        "input": json.dumps([{"role": "user", "content": "Name a prime."}]) if call else "",
        "output": "7" if call else "",
        "provided_model_name": "gpt-4o" if call else "",
        "model_parameters": '{"temperature":0.7}' if call else "",
        "usage_details": {"input": 12, "output": 3, "total": 15} if call else {},
        "cost_details": {"input": 0.00003, "output": 0.00003, "total": 0.00006} if call else {},
        "completion_start_time": None,
        "total_cost": 0.00006 if call else 0,
        "latency": 1.0,
        "model_id": "m1" if call else "",
        "prompt_id": "",
        "tool_calls": [],
        "tool_definitions": {},
        "input_price": "0.0000025" if call else None,
        "user_id": "u1",
        "session_id": "s1",
        "trace_name": "answer",
        "tags": [],
        "release": "",
        "bookmarked": False,
        "public": False,
    }
    return data | changes


def langfuse_score(trace: str | None, value: float, name: str = "correct", **changes: Any) -> Data:
    """A row of scores/, as blob storage has it."""
    data: Data = {
        "id": f"score-{trace}-{name}-{value}",
        "timestamp": "2025-01-01 00:05:00.000000",
        "project_id": "p1",
        "environment": "production",
        "trace_id": trace,
        "observation_id": None,
        "session_id": None,
        "dataset_run_id": None,
        "name": name,
        "value": value,
        "source": "ANNOTATION",
        "comment": None,
        "data_type": "NUMERIC",
        "string_value": None,
        "created_at": "2025-01-01 00:05:01.000000",
        "updated_at": "2025-01-01 00:05:01.000000",
    }
    return data | changes


def any_value(value: Any) -> Data:
    """A value as OTLP's JSON encoding has it: 64-bit integers as text."""
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, Mapping):
        return {"kvlistValue": {"values": attributes(value)}}
    return {"arrayValue": {"values": [any_value(item) for item in value]}}


def attributes(values: Mapping[str, Any]) -> list[Data]:
    return [{"key": key, "value": any_value(value)} for key, value in values.items()]


def messages(text: str) -> list[Data]:
    """gen_ai.input.messages, as the conventions' JSON schema has it."""
    return [
        {"role": "system", "parts": [{"type": "text", "content": "You are a helpful bot"}]},
        {"role": "user", "parts": [{"type": "text", "content": text}]},
    ]


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def span(
    number: int, found: Mapping[str, Any], *, parent: int | None = None, trace: str = TRACE,
    start: int = 0, end: int = 1, **changes: Any,
) -> Data:  # fmt: skip
    """A span; times are whole seconds after 2018-12-13T14:51:00Z."""
    data: Data = {
        "traceId": trace,
        "spanId": f"{number:016x}",
        "name": "span",
        "kind": 3,
        "startTimeUnixNano": str((1544712660 + start) * 10**9),
        "endTimeUnixNano": str((1544712660 + end) * 10**9),
        "attributes": attributes(found),
        "status": {},
    }
    if parent is not None:
        data["parentSpanId"] = f"{parent:016x}"
    return data | changes


def chat(model: str = "gpt-4", text: str | None = "Weather in Paris?", **changes: Any) -> Data:
    """Attributes of a chat span."""
    found: Data = {
        "gen_ai.provider.name": "openai",
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": model,
        "gen_ai.request.max_tokens": 200,
        "gen_ai.request.top_p": 1.0,
        "gen_ai.response.id": "chatcmpl-9J3uIL87gldCFtiIbyaOvTeYBRA3l",
        "gen_ai.response.model": f"{model}-0613",
        "gen_ai.usage.output_tokens": 47,
        "gen_ai.usage.input_tokens": 52,
        "gen_ai.response.finish_reasons": ["stop"],
    }
    if text is not None:
        found["gen_ai.input.messages"] = messages(text)
    found |= changes
    return {name: value for name, value in found.items() if value is not None}


def agent(name: str, **changes: Any) -> Data:
    """Attributes of an invoke_agent span."""
    return {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.provider.name": "openai",
        "gen_ai.agent.name": name,
    } | changes


def spans(*items: Any) -> Data:
    """An export request of spans."""
    resource = {"attributes": attributes({"service.name": "my.service"})}
    scope = {"name": "my.library", "version": "1.0.0"}
    scopes = [{"scope": scope, "spans": list(items)}]
    return {"resourceSpans": [{"resource": resource, "scopeSpans": scopes}]}


def events(*items: Any) -> Data:
    """An export request of log records."""
    return {"resourceLogs": [{"resource": {}, "scopeLogs": [{"logRecords": list(items)}]}]}


def evaluation(
    value: float | None, *, number: int | None = None, name: str = "Correct", **changes: Any
) -> Data:
    """A gen_ai.evaluation.result event as a log record."""
    found: Data = {"gen_ai.evaluation.name": name, "gen_ai.evaluation.explanation": "because"}
    if value is not None:
        found["gen_ai.evaluation.score.value"] = float(value)
    data: Data = {
        "timeUnixNano": "1544712670000000000",
        "severityNumber": 9,
        "eventName": "gen_ai.evaluation.result",
        "traceId": TRACE,
        "attributes": attributes(found | changes),
    }
    if number is not None:
        data["spanId"] = f"{number:016x}"
    return data
