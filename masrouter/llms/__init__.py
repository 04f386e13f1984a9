"""Chat models: the protocol, clients for OpenAI-compatible endpoints, a simulated provider."""

from masrouter.llms.chat import (
    ChatModel,
    ChatRequest,
    Completion,
    Message,
    Meter,
    Price,
    Tool,
    ToolCall,
)
from masrouter.llms.circuit_breaker import Breaker
from masrouter.llms.openai_compatible import OpenAICompatible
from masrouter.llms.providers import Providers
from masrouter.llms.rate_limit import RateLimit
from masrouter.llms.retrying import RetryPolicy
from masrouter.llms.wire import ModelOptions

__all__ = [
    "Breaker",
    "ChatModel",
    "ChatRequest",
    "Completion",
    "Message",
    "Meter",
    "ModelOptions",
    "OpenAICompatible",
    "Price",
    "Providers",
    "RateLimit",
    "RetryPolicy",
    "Tool",
    "ToolCall",
]
