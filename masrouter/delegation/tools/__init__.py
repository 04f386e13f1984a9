"""Delegation for language models: tools in OpenAI's function form, and over MCP (`mcp_server`)."""

from masrouter.delegation.tools.calling import TOOLS, call_tool, openai_tools, tools_of

__all__ = ["TOOLS", "call_tool", "openai_tools", "tools_of"]
