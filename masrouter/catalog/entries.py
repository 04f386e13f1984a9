"""What a catalog knows of a model, a role and a topology."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model and its price. None is unknown; unknown is not free."""

    name: str
    description: str
    provider: str | None = None
    input_usd_per_mtok: float | None = None
    """US dollars for a million prompt tokens."""
    output_usd_per_mtok: float | None = None
    """US dollars for a million completion tokens."""
    context_window: int | None = None
    """Tokens that prompt and completion may fill together."""
    aliases: tuple[str, ...] = ()
    """Other names of the same model at the same price, as logs spell them."""
    known: bool = True
    """False for an entry that was made of a name met in logs."""

    def cost_usd(self, prompt_tokens: int | None, completion_tokens: int | None) -> float | None:
        """Price of a call; None where a price or a count is unknown."""
        if self.input_usd_per_mtok is None or self.output_usd_per_mtok is None:
            return None
        if prompt_tokens is None or completion_tokens is None:
            return None
        total = (
            prompt_tokens * self.input_usd_per_mtok + completion_tokens * self.output_usd_per_mtok
        )
        return total / 1e6


@dataclass(frozen=True, slots=True)
class RoleEntry:
    """What an agent is asked to be."""

    name: str
    description: str
    prompt: str = ""
    """System prompt; empty where none is known."""
    domain: str | None = None
    """`code`, `math`, `knowledge`, `writing`, ...; None for a role of any domain."""
    known: bool = True
    """False for an entry that was made of a name met in logs."""


@dataclass(frozen=True, slots=True)
class TopologyEntry:
    """How the agents of a team talk."""

    name: str
    description: str
    min_agents: int
    max_agents: int
    ordered: bool
    """True where the order of the seats changes what the team does."""
    known: bool = True
    """False for an entry that was made of a name met in logs."""

    def allows(self, agents: int) -> bool:
        """True when a team of this many agents can take this shape."""
        return self.min_agents <= agents <= self.max_agents
