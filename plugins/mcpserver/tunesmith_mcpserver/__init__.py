"""`tunesmith mcp` serves checks, schemas, plans and runs to coding agents, and writes nothing."""

from __future__ import annotations

from tunesmith import Plugin

HELP = "Serve checks, schemas, plans and runs to a coding agent over stdio (MCP). It writes nothing."

plugin = Plugin(commands={"mcp": ("tunesmith_mcpserver.command:mcp", HELP)})
