"""LangGraph: a plan as a graph whose nodes are the team's seats.

    pip install 'masrouter[langchain]'
    python examples/with_langgraph.py

Prints the nodes of the graph, each as it ends, and the team's answer.
"""

from __future__ import annotations

import asyncio

from stand_ins import PLAN, QUESTION, show_team
from with_langchain import chat_models

from masrouter.hosts.langchain import LangChainModel
from masrouter.hosts.langgraph import graph_from_plan


async def main() -> None:
    graph = graph_from_plan(PLAN, llm=LangChainModel(chat_models()))
    print("nodes:", ", ".join(graph.get_graph().nodes))
    answer = None
    calls = 0
    async for update in graph.astream({"query": QUESTION}, stream_mode="updates"):
        for node, added in update.items():
            print("ended:", node)
            answer = (added or {}).get("answer", answer)
            calls += node.startswith("agent ")
    show_team(calls, answer)


if __name__ == "__main__":
    asyncio.run(main())
