"""What happened, as trees of decisions with one final score each, and what can be learned of it."""

from masrouter.delegation.episodes.log import Episode, EpisodeLog, read_episodes

__all__ = ["Episode", "EpisodeLog", "read_episodes"]
