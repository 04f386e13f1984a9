"""How a team works together: one file a topology, a registry, and the team that it is given."""

from masrouter.topologies.prompts import question
from masrouter.topologies.registry import (
    Topology,
    check_plan,
    prompt_version,
    topology,
    topology_names,
)
from masrouter.topologies.team import (
    Ask,
    ExampleReport,
    ExampleTests,
    MaxTokens,
    Reply,
    Sender,
    Team,
    TeamError,
)

__all__ = [
    "Ask",
    "ExampleReport",
    "ExampleTests",
    "MaxTokens",
    "Reply",
    "Sender",
    "Team",
    "TeamError",
    "Topology",
    "check_plan",
    "prompt_version",
    "question",
    "topology",
    "topology_names",
]
