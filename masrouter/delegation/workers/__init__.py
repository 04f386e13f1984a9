"""Workers that are no chat models: any callable with a description and a price."""

from masrouter.delegation.workers.hugging_face import summarisation_worker, translation_worker
from masrouter.delegation.workers.matching import match_workers, plan_steps
from masrouter.delegation.workers.mcp_tool import HttpServer, StdioServer, mcp_worker
from masrouter.delegation.workers.text_model import Generation
from masrouter.delegation.workers.worker import Produced, Worker, with_workers

__all__ = [
    "Generation",
    "HttpServer",
    "Produced",
    "StdioServer",
    "Worker",
    "match_workers",
    "mcp_worker",
    "plan_steps",
    "summarisation_worker",
    "translation_worker",
    "with_workers",
]
