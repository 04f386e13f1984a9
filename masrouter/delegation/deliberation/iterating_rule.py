"""How far `iterate` goes, as a rule that can be chosen on logs and kept in a file."""

from __future__ import annotations

from dataclasses import dataclass

from masrouter.errors import ConfigError
from masrouter.topologies.rules import check_count


@dataclass(frozen=True, slots=True, order=True)
class IteratingRule:
    """How far to go (`calibration.calibrate_iterating` chooses it).

    Raises ConfigError for rounds or requests below 1.
    """

    rounds: int = 3
    """Drafts at most."""
    requests: int = 4
    """Asked for after a draft, at most."""
    ahead: bool = False
    """Whether the goal itself is looked up before the first draft."""

    def __post_init__(self) -> None:
        check_count("rounds", self.rounds, least=1)
        check_count("requests", self.requests, least=1)
        if not isinstance(self.ahead, bool):
            raise ConfigError(f"ahead: expected true or false, got {self.ahead!r:.40}")


DEFAULT = IteratingRule()
"""Of `iterate`."""
