"""`POST /v1/chat/completions`: routes, runs the team, and answers as one model would.

What a request may say is in `chat_request`, how a conversation reaches the team in `conversation`,
and what a stream tells in `chat_stream`. Here is the order of things, and the answer's shape:
OpenAI's, with the usage of the whole team. `masrouter.include` adds `masrouter`: the decision as
`/v1/decision` tells it, beside it the real cost, the usage of each agent, latency and notes.

`masrouter.dry_run` routes, records the decision and runs nothing: the message is empty, the usage
zero, finish_reason `stop`, and `masrouter` holds the decision.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from masrouter.server.api_errors import ApiError, documented
from masrouter.server.chat_request import ChatAsked, ChatBody, checked
from masrouter.server.chat_run import (
    TeamRun,
    finish_reason,
    told_decision,
    told_run,
    usage_json,
)
from masrouter.server.chat_stream import Chunks, stream_nothing, stream_team
from masrouter.server.decisions import SESSION_HEADER, session_of
from masrouter.server.keys import Caller, caller
from masrouter.server.models import fixed_plan_of
from masrouter.server.request_body import body_schema, read_json
from masrouter.server.service import DATASET, ServedDecision, Service, get_service
from masrouter.types import Run

router = APIRouter()


@router.post(
    "/v1/chat/completions",
    operation_id="create_chat_completion",
    summary="Route, run the team, answer as one model",
    responses={
        **documented(404, 502, 504),
        200: {
            "description": "OpenAI's chat.completion, or its chunks as server-sent events",
            "content": {"application/json": {}, "text/event-stream": {}},
        },
    },
    openapi_extra=body_schema(ChatBody),
)
async def create_chat_completion(
    request: Request,
    asking: Annotated[Caller, Depends(caller)],
    service: Annotated[Service, Depends(get_service)],
) -> Response:
    """OpenAI's chat completions. model: `masrouter/auto`, or a fixed plan's `masrouter/<name>`.

    The header `x-masrouter-session` keeps the team of a conversation. The answer's headers tell
    the decision: x-masrouter-decision-id, -plan, -policy, -expected-cost-usd and -cost-usd.
    """
    began = asyncio.get_running_loop().time()
    body = await read_json(request, ChatBody)
    asked = checked(body, service.settings.limits)
    session = session_of(request)
    fixed = fixed_plan_of(asked.model, service)
    llm = service.llm
    if llm is None and not asked.options.dry_run:
        raise ApiError(
            400,
            "this server has no provider of models and only routes: ask /v1/decision, or set "
            "masrouter.dry_run",
            code="no_provider",
        )
    served = await _decided(service, asked, fixed, asking, session)
    headers = _headers(served, session)
    head = {
        "id": f"chatcmpl-{served.id.removeprefix('dec_')}",
        "created": int(time.time()),
        "model": asked.model,
    }
    if llm is None or asked.options.dry_run:
        return _dry(served, asked, head, headers)
    spent_s = asyncio.get_running_loop().time() - began
    team = TeamRun(service, llm, asking, served, asked, spent_s=spent_s)
    return await _answered(team, asked, head, headers)


async def _decided(
    service: Service, asked: ChatAsked, fixed: str | None, asking: Caller, session: str | None
) -> ServedDecision:
    options = asked.options
    text = asked.conversation.routed_text(service.settings.limits.max_query_characters)
    dataset = options.dataset or DATASET
    if fixed is None:
        return await service.decide(
            text, options, caller=asking, session=session, dataset=dataset, task=options.task
        )
    routing = {
        "cost_weight", "willingness_to_pay", "max_agents", "models", "exclude_models", "topologies",
    }  # fmt: skip
    if idle := sorted(routing & options.model_fields_set):
        raise ApiError(
            400,
            f"masrouter.{idle[0]}: a fixed plan is not routed; leave it out, or ask masrouter/auto",
            code="unsupported_parameter",
            param=f"masrouter.{idle[0]}",
        )
    return await service.decide_fixed(
        text, fixed, caller=asking, dataset=dataset, task=options.task
    )


async def _answered(
    team: TeamRun, asked: ChatAsked, head: Mapping[str, Any], headers: Mapping[str, str]
) -> Response:
    options = asked.options
    if asked.stream:
        chunks = Chunks(head, with_usage=asked.stream_usage)
        return await stream_team(
            team, chunks, headers, events=options.events, include=options.include
        )
    run = await team.run()
    told = {**told_decision(team.served), **told_run(run)} if options.include else None
    cost = run.usage.cost_usd
    priced = {} if cost is None else {"x-masrouter-cost-usd": _usd(cost)}
    return _completion(head, run, told, {**headers, **priced})


def _dry(
    served: ServedDecision, asked: ChatAsked, head: Mapping[str, Any], headers: Mapping[str, str]
) -> Response:
    told = {**told_decision(served), "dry_run": True}
    if asked.stream:
        return stream_nothing(Chunks(head, with_usage=asked.stream_usage), headers, told)
    return _completion(head, None, told, {**headers, "x-masrouter-cost-usd": _usd(0.0)})


def _completion(
    head: Mapping[str, Any],
    run: Run | None,
    told: Mapping[str, Any] | None,
    headers: Mapping[str, str],
) -> Response:
    message = {
        "role": "assistant",
        "content": "" if run is None else run.answer,
        "refusal": None,
    }
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": "stop" if run is None else finish_reason(run),
    }
    data = {
        **head,
        "object": "chat.completion",
        "choices": [choice],
        "usage": usage_json(run),
        "system_fingerprint": None,
        **({} if told is None else {"masrouter": told}),
    }
    # ASCII, so that halves of surrogate pairs in a provider's text can be sent.
    content = json.dumps(data, allow_nan=False).encode()
    return Response(content, media_type="application/json", headers=dict(headers))


def _headers(served: ServedDecision, session: str | None) -> dict[str, str]:
    """What the answer's headers tell of the decision; names of models may hold anything."""
    headers = {
        "x-masrouter-decision-id": served.id,
        "x-masrouter-plan": _ascii(str(served.plan)),
        "x-masrouter-policy": _ascii(served.policy),
    }
    if served.expected_cost_usd is not None:
        headers["x-masrouter-expected-cost-usd"] = _usd(served.expected_cost_usd)
    if session is not None:
        headers[SESSION_HEADER] = session
    return headers


def _ascii(text: str) -> str:
    return text.encode("unicode_escape").decode("ascii")


def _usd(usd: float) -> str:
    return f"{usd:.9f}"
