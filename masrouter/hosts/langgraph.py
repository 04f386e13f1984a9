"""LangGraph: a plan as a compiled graph, with the team's seats as its nodes.

    graph = graph_from_plan(plan, llm=LangChainModel(models))
    state = await graph.ainvoke({"query": "..."})            # state["answer"]

    question ──► debate team ◄──► agent 1 critic@gpt-4o
                      │      ◄──► agent 2 gpt-4o-mini
                      ▼
                     END

The team's node is the topology: it decides who is asked what, and each seat answers in a node of
its own, those that are asked together in one step. Between steps nothing lives but the graph's
state, which is plain data: the topology's own coroutine is run again from its start on the replies
so far (what it asks depends on nothing else), until it asks what has no reply yet. So a
checkpointer can keep, resume and fork a run, and `astream` tells of every seat.

The answer is that of `execute`. Money and time are the graph's business here: no budget, no
deadline, and the examples that a query shows are not run. Nodes are asynchronous: use `ainvoke` and
`astream`.
"""

from __future__ import annotations

import asyncio
import operator
from typing import Annotated, Any, TypedDict

from masrouter.catalog import Catalog
from masrouter.errors import CallError, CallKind, ConfigError
from masrouter.hosts.choosing import missing_host
from masrouter.llms.chat import ChatModel, ChatRequest, Completion, Message
from masrouter.topologies.registry import Topology, check_plan
from masrouter.topologies.registry import topology as find_topology
from masrouter.topologies.team import MaxTokens, Team
from masrouter.types import Plan, Usage

try:
    from langgraph.checkpoint.base import BaseCheckpointSaver
    from langgraph.graph import END, START, StateGraph
    from langgraph.graph.state import CompiledStateGraph
    from langgraph.types import Command, Overwrite, Send
except ImportError as missing:
    raise missing_host("langchain", missing) from None

QUESTION = "question"
"""The first node: it clears what an earlier run of the same thread left."""


class Asked(TypedDict):
    """One call that a seat is to make; what its node gets."""

    agent: int
    """Index into `plan.agents`."""
    step: str
    messages: list[list[str]]
    """[speaker, content] of each."""
    max_tokens: int
    temperature: float | None
    seed: int | None


class Replied(TypedDict):
    """What came of one call; what a seat's node adds to the state."""

    agent: int
    step: str
    text: str
    """Empty where the call failed."""
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cost_usd: float | None
    error: list[str] | None
    """[kind, message] of a failure."""


class Query(TypedDict):
    """The graph's input."""

    query: str


class TeamState(Query, total=False):
    """The graph's state."""

    replies: Annotated[list[Replied], operator.add]
    answer: str | None
    """None until the team is done."""
    notes: list[str]
    """What the topology decided."""


def graph_from_plan(
    plan: Plan,
    *,
    llm: ChatModel,
    catalog: Catalog | None = None,
    seed: int = 0,
    max_tokens: MaxTokens | int | None = None,
    topology: Topology | None = None,
    checkpointer: BaseCheckpointSaver[Any] | None = None,
) -> CompiledStateGraph[TeamState, None, Query, TeamState]:
    """A graph that answers `{"query": ...}` as the plan's team would.

    llm: any ChatModel; `masrouter.hosts.langchain.LangChainModel` for LangChain's. The other
    arguments are those of `execute`. The state that comes back holds `answer`, every reply with its
    tokens and cost in `replies`, and `notes`.

    Raises PlanError for a plan that no team could run. Running the graph raises TeamError where too
    many members fail.
    """
    catalog = Catalog.default() if catalog is None else catalog
    shape = find_topology(plan.topology) if topology is None else topology
    check_plan(plan, catalog, shape)
    caps = MaxTokens.at_most(max_tokens) if isinstance(max_tokens, int) else max_tokens
    names = [seat_node(plan, agent) for agent in range(len(plan.agents))]
    hub = _node(f"{plan.topology} team")

    async def begin(state: TeamState) -> dict[str, Any]:
        if not isinstance(state.get("query"), str) or not state["query"].strip():
            raise ConfigError(f"query: expected a text, got {state.get('query')!r}")
        return {"replies": Overwrite([]), "answer": None, "notes": []}

    async def decide(state: TeamState) -> Command[Any]:
        replies = {(reply["agent"], reply["step"]): reply for reply in state["replies"]}
        asked: list[Asked] = []
        stuck = asyncio.Event()

        async def send(agent: int, step: str, request: ChatRequest) -> Completion:
            if (agent, step) in replies:
                return _completion(replies[agent, step], request)
            asked.append(_asked(agent, step, request))
            stuck.set()
            await asyncio.Future[None]()  # no reply comes in this step of the graph
            raise AssertionError

        team = Team(plan, state["query"], catalog=catalog, send=send, seed=seed, max_tokens=caps)
        answering = asyncio.ensure_future(shape.answer(team))
        waiting = asyncio.ensure_future(stuck.wait())
        try:
            await asyncio.wait({answering, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                # Those who are asked together reached `send` in the same turn of the loop.
                return Command(goto=[Send(names[ask["agent"]], ask) for ask in asked])
            return Command(update={"answer": answering.result(), "notes": team.notes}, goto=END)
        finally:
            answering.cancel()
            waiting.cancel()
            await asyncio.wait({answering, waiting})

    async def reply(state: Asked) -> dict[str, list[Replied]]:
        return {"replies": [await _reply(llm, plan, state)]}

    graph = StateGraph(TeamState, input_schema=Query)
    graph.add_node(QUESTION, begin)
    graph.add_node(hub, decide, destinations=(*names, END))
    for name in names:
        graph.add_node(name, reply, input_schema=Asked)
        graph.add_edge(name, hub)
    graph.add_edge(START, QUESTION)
    graph.add_edge(QUESTION, hub)
    return graph.compile(checkpointer=checkpointer, name=str(plan))


def seat_node(plan: Plan, agent: int) -> str:
    """The name of a seat's node: `agent 1 critic@gpt-4o`. LangGraph allows neither `:` nor `|`."""
    return _node(f"agent {agent + 1} {plan.agents[agent]}")


def _node(name: str) -> str:
    return name.replace(":", "_").replace("|", "_")


async def _reply(llm: ChatModel, plan: Plan, ask: Asked) -> Replied:
    request = ChatRequest(
        model=plan.agents[ask["agent"]].model,
        messages=tuple(Message(speaker, content) for speaker, content in ask["messages"]),  # type: ignore[arg-type]
        max_tokens=ask["max_tokens"],
        temperature=ask["temperature"],
        seed=ask["seed"],
    )
    error: list[str] | None = None
    completion = Completion("", Usage(), request.model)
    try:
        completion = await llm.complete(request)
        if not completion.text.strip():
            error = ["empty", f"model {request.model!r} gave a completion without text"]
    except CallError as failure:
        error = [failure.kind, str(failure)]
    return Replied(
        agent=ask["agent"],
        step=ask["step"],
        text="" if error else completion.text,
        finish_reason=completion.finish_reason,
        prompt_tokens=completion.usage.prompt_tokens,
        completion_tokens=completion.usage.completion_tokens,
        cost_usd=completion.usage.cost_usd,
        error=error,
    )


def _asked(agent: int, step: str, request: ChatRequest) -> Asked:
    return Asked(
        agent=agent,
        step=step,
        messages=[[message.speaker, message.content] for message in request.messages],
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        seed=request.seed,
    )


def _completion(replied: Replied, request: ChatRequest) -> Completion:
    if replied["error"] is not None:
        kind: CallKind = replied["error"][0]  # type: ignore[assignment]
        raise CallError(replied["error"][1], kind=kind, model=request.model)
    usage = Usage(replied["prompt_tokens"], replied["completion_tokens"], replied["cost_usd"])
    return Completion(replied["text"], usage, request.model, replied["finish_reason"])
