"""Decisions, chat completions and outcomes over HTTP (`pip install 'masrouter[serve]'`).

    request ──► limits ──► key ──► decide (router) ──► run the team (execution) ──► records
                                                                                   ▲
                                                   outcomes ────────────────────────┘

Not here: the commands (`masrouter serve`, `masrouter served`), and learning from what was served.
"""

from __future__ import annotations

try:
    import fastapi as _fastapi  # noqa: F401
    import uvicorn as _uvicorn  # noqa: F401
except ModuleNotFoundError as missing:
    from masrouter.errors import MasRouterError

    raise MasRouterError(
        f"masrouter.server needs the package {missing.name!r}: pip install 'masrouter[serve]'"
    ) from missing

from masrouter.server.app import create_app
from masrouter.server.service import Service
from masrouter.server.settings import Limits, ServerSettings

__all__ = ["Limits", "ServerSettings", "Service", "create_app"]
