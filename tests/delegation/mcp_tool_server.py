"""An MCP server for tests, run as a child process over stdio: `python mcp_tool_server.py`.

`server()` is the same for tests that serve it over HTTP.
"""

from __future__ import annotations

import asyncio
import os
from typing import Annotated, Literal

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ImageContent, TextContent
from pydantic import Field


def server() -> MCPServer:
    """Tools that count, shout, fail, dawdle, draw and die."""
    made = MCPServer("tools")

    @made.tool()
    def shout(text: Annotated[str, Field(max_length=40)], mark: Literal["!", "?"] = "!") -> str:
        """Writes a text in capital letters."""
        return text.upper() + mark

    @made.tool()
    def count(text: str, letter: str) -> str:
        """Counts a letter in a text."""
        return str(text.count(letter))

    @made.tool()
    def fail(text: str) -> str:
        """Fails."""
        raise ToolError(f"cannot do {text!r}")

    @made.tool()
    async def dawdle(text: str) -> str:
        """Takes its time."""
        await asyncio.sleep(60)
        return text

    @made.tool(structured_output=False)
    def draw(text: str) -> list[TextContent | ImageContent]:
        """Draws a text, and says so."""
        return [
            TextContent(type="text", text=f"drawn: {text}"),
            ImageContent(type="image", data="AAAA", mime_type="image/png"),
        ]

    @made.tool(structured_output=False)
    def picture(text: str) -> ImageContent:
        """Draws a text, and says nothing."""
        return ImageContent(type="image", data="AAAA", mime_type="image/png")

    @made.tool()
    def die(text: str) -> str:
        """Ends the server's process."""
        os._exit(3)

    @made.tool()
    def number(value: int) -> str:
        """Takes a number."""
        return str(value)

    @made.tool()
    def variables(text: str) -> str:
        """Tells variables of the server's environment."""
        return ", ".join(os.environ.get(name, "not set") for name in text.split())

    return made


if __name__ == "__main__":
    server().run("stdio")
