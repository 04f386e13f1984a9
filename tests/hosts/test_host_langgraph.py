"""LangGraph: a plan as a graph whose nodes are the team's seats."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from tests.hosts.host_samples import PLANS, QUERY, OneDown, Scripted, expected
from tests.topologies.scripted import plan as made

from masrouter.errors import CallError, ConfigError, ExecutionError, PlanError
from masrouter.hosts.langgraph import graph_from_plan, seat_node
from masrouter.llms import ChatModel, ChatRequest, Completion
from masrouter.topologies import topology_names
from masrouter.topologies.team import TeamError
from masrouter.types import Agent, Plan, Usage

every_plan = pytest.mark.parametrize("name", PLANS)
PANEL = PLANS["examples/plan.json"]


class Counting(Scripted):
    """Keeps what it was asked, and how much of it at once; may break down at a model, once."""

    def __init__(self, breaks_at: str | None = None) -> None:
        self.asked: list[str] = []
        self.breaks_at = breaks_at
        self.under_way = self.most_under_way = 0

    async def complete(self, request: ChatRequest, **options: Any) -> Completion:
        self.asked.append(request.model)
        if request.model == self.breaks_at:
            self.breaks_at = None
            raise RuntimeError("the process died here")
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        for _ in range(50):  # the others come meanwhile, if they come at once
            await asyncio.sleep(0)
        self.under_way -= 1
        return await super().complete(request)


def ask(plan: Plan, llm: ChatModel, **options: Any) -> dict[str, Any]:
    graph = graph_from_plan(plan, llm=llm, **options)
    return asyncio.run(graph.ainvoke({"query": QUERY}))


@every_plan
def test_the_graph_answers_as_the_team_does_with_the_same_messages(name: str) -> None:
    run = expected(PLANS[name])
    state = ask(PLANS[name], Scripted())
    assert state["answer"] == run.answer
    assert tuple(state["notes"]) == run.notes
    said = sorted((reply["agent"], reply["step"], reply["text"]) for reply in state["replies"])
    assert said == sorted((call.agent, call.step, call.reply) for call in run.calls)
    assert {reply["prompt_tokens"] for reply in state["replies"]} == {7}


def test_every_topology_that_ships_is_tried() -> None:
    assert set(topology_names()) <= {plan.topology for plan in PLANS.values()}


@every_plan
def test_the_nodes_of_the_graph_are_the_seats_of_the_team(name: str) -> None:
    plan = PLANS[name]
    drawn = graph_from_plan(plan, llm=Scripted()).get_graph()
    seats = [seat_node(plan, agent) for agent in range(len(plan.agents))]
    team = f"{plan.topology} team"
    assert set(drawn.nodes) == {"__start__", "question", team, *seats, "__end__"}
    edges = {(edge.source, edge.target) for edge in drawn.edges}
    assert edges >= {(team, seat) for seat in seats} | {(seat, team) for seat in seats}
    assert (team, "__end__") in edges


def test_seats_are_named_by_number_role_and_model() -> None:
    plan = Plan("debate", (Agent("critic", "llama3:8b"), Agent(None, "gpt-4o")))
    assert [seat_node(plan, 0), seat_node(plan, 1)] == [
        "agent 1 critic@llama3_8b",
        "agent 2 gpt-4o",
    ]
    assert ask(plan, Scripted())["answer"] == expected(plan).answer


def test_each_node_is_streamed_as_it_ends() -> None:
    async def updates() -> list[str]:
        graph = graph_from_plan(PLANS["chain"], llm=Scripted())
        stream = graph.astream({"query": QUERY}, stream_mode="updates")
        return [node async for update in stream for node in update]

    seats = [seat_node(PLANS["chain"], agent) for agent in range(4)]
    between = [node for seat in seats for node in (seat, "chain team")]
    assert asyncio.run(updates()) == ["question", "chain team", *between]


@pytest.mark.parametrize(("name", "at_once"), [("debate", 3), ("chain", 1), ("escalate", 3)])
def test_seats_that_are_asked_together_answer_together(name: str, at_once: int) -> None:
    llm = Counting()
    ask(PLANS[name], llm)
    assert llm.most_under_way == at_once


def test_a_run_that_broke_down_goes_on_where_it_was_without_asking_again() -> None:
    llm = Counting(breaks_at="gpt-4o")
    graph = graph_from_plan(PANEL, llm=llm, checkpointer=InMemorySaver())
    thread: Any = {"configurable": {"thread_id": "1"}}
    with pytest.raises(RuntimeError, match="died"):
        asyncio.run(graph.ainvoke({"query": QUERY}, thread))
    assert sorted(llm.asked) == ["gpt-4o", "gpt-4o-mini", "llama-3.1-70b-instruct"]
    state = asyncio.run(graph.ainvoke(None, thread))
    assert llm.asked[3:] == ["gpt-4o"]
    assert state["answer"] == expected(PANEL).answer


def test_a_second_question_on_the_same_thread_is_asked_anew() -> None:
    llm = Counting()
    graph = graph_from_plan(PLANS["io"], llm=llm, checkpointer=InMemorySaver())
    thread: Any = {"configurable": {"thread_id": "1"}}
    first = asyncio.run(graph.ainvoke({"query": QUERY}, thread))
    again = asyncio.run(graph.ainvoke({"query": QUERY}, thread))
    other = asyncio.run(graph.ainvoke({"query": "And 3 + 3?"}, thread))
    assert len(llm.asked) == 3
    assert first["answer"] == again["answer"] != other["answer"]
    assert len(other["replies"]) == 1


@every_plan
def test_a_member_that_fails_is_done_without_or_ends_the_run_as_for_the_team(name: str) -> None:
    plan = PLANS[name]
    for model in plan.models:
        try:
            run = expected(plan, down=model)
        except ExecutionError as error:
            run = error.run
        if run.answer is None:
            with pytest.raises(TeamError) as failed:
                ask(plan, OneDown(model))
            assert run.error == f"team: {failed.value}"
        else:
            state = ask(plan, OneDown(model))
            assert (state["answer"], tuple(state["notes"])) == (run.answer, run.notes)


def test_a_reply_without_text_is_a_failure_of_the_member() -> None:
    class Silent(Scripted):
        async def complete(self, request: ChatRequest, **options: Any) -> Completion:
            return Completion(" ", Usage(), request.model)

    with pytest.raises(TeamError, match="'m1' gave a completion without text") as failed:
        ask(PLANS["io"], Silent())
    error = failed.value.failures[0].error
    assert isinstance(error, CallError)
    assert error.kind == "empty"


def test_settings_reach_the_seats() -> None:
    seen: list[ChatRequest] = []

    class Keeping(Scripted):
        async def complete(self, request: ChatRequest, **options: Any) -> Completion:
            seen.append(request)
            return await super().complete(request)

    ask(PLANS["self_consistency"], Keeping(), max_tokens=99, seed=1)
    ask(PLANS["self_consistency"], Keeping(), max_tokens=99, seed=2)
    assert {(request.max_tokens, request.temperature) for request in seen} == {(99, 0.7)}
    assert len({request.seed for request in seen}) == 6


def test_what_no_team_could_run_is_refused() -> None:
    with pytest.raises(PlanError, match="2 to 8 agents, got 1"):
        graph_from_plan(made("debate", None), llm=Scripted())
    graph = graph_from_plan(PANEL, llm=Scripted())
    with pytest.raises(ConfigError, match="query: expected a text"):
        asyncio.run(graph.ainvoke({"query": " "}))
