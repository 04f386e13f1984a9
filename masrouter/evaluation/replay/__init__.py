"""Replay: on logged traffic, what a router would have saved, and what it would have broken.

    replay(logs, router) -> Replay
    print_replay(found, console); to_markdown(found); found.to_json()

Not here: the HTML page (`masrouter.reporting.replay_page`).
"""

from masrouter.evaluation.replay.replaying import Limits, replay
from masrouter.evaluation.replay.report import print_replay, to_markdown
from masrouter.evaluation.replay.types import Replay

__all__ = ["Limits", "Replay", "print_replay", "replay", "to_markdown"]
