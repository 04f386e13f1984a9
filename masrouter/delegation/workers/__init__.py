"""Workers that are no chat models: any callable with a description and a price."""

from masrouter.delegation.workers.hugging_face import summarisation_worker, translation_worker
from masrouter.delegation.workers.matching import MatchingRule, match_workers, plan_steps
from masrouter.delegation.workers.mcp_tool import HttpServer, StdioServer, mcp_worker
from masrouter.delegation.workers.text_model import Generation
from masrouter.delegation.workers.worker import Produced, Worker, with_workers
from masrouter.delegation.workers.worker_file import read_worker_file

__all__ = [
    "Generation",
    "HttpServer",
    "MatchingRule",
    "Produced",
    "StdioServer",
    "Worker",
    "match_workers",
    "mcp_worker",
    "plan_steps",
    "read_worker_file",
    "summarisation_worker",
    "translation_worker",
    "with_workers",
]
