"""Serve the tools over stdio. Each call runs in a process of its own, with a time limit (see worker.py)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from typing import Any

import anyio
import jsonschema
import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPError

from tunesmith_mcpserver.tools import TOOLS

URI = "tunesmith://agent-docs/"
MEMORY = "/dev/shm"
WORKERS = 2
"""Processes at the same time."""
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}
INSTRUCTIONS = (
    "Tunesmith fine-tunes language models from one YAML file. Begin with the tool agent_docs. Write a config, call "
    "check until it has no problems, then plan. This server only reads. To train, use the command line: "
    "tunesmith train run.yaml."
)


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """Return an empty folder for one call, in memory where the system has such a place. It is deleted at the end."""
    place = MEMORY if os.access(MEMORY, os.W_OK) else None
    return tempfile.TemporaryDirectory(prefix="tunesmith-mcp-", dir=place)


class Workers:
    """Runs the tools, each call in a process of its own.

    Args:
        roots: the folders that may be read.
        timeout: seconds that a call may take.
    """

    def __init__(self, roots: Sequence[str], timeout: float):
        self.roots, self.timeout = list(roots), timeout
        self.limiter = anyio.Semaphore(WORKERS)

    async def call(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return {"result": ...}, or {"error": ...} with the problems of a Tunesmith error."""
        async with self.limiter:
            with scratch_folder() as scratch, anyio.move_on_after(self.timeout):
                request = {"tool": tool, "arguments": arguments, "roots": self.roots, "scratch": scratch}
                return await self._run(json.dumps(request))
        help = "start the server with a longer --timeout, or give it less data"
        return failure(f"{tool} took more than {self.timeout:g} seconds, and was ended", "environment", help)

    async def _run(self, request: str) -> dict[str, Any]:
        command = [sys.executable, "-P", "-m", "tunesmith_mcpserver.worker"]
        process = await anyio.open_process(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=self.roots[0],
            env={**os.environ, **OFFLINE}, start_new_session=True,
        )  # fmt: skip
        try:
            assert process.stdin and process.stdout
            with suppress(anyio.BrokenResourceError):  # a process that died is reported below
                await process.stdin.send(request.encode())
            await process.stdin.aclose()
            answer = b"".join([part async for part in process.stdout])
            await process.wait()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # also what it has started
            with anyio.CancelScope(shield=True):
                await process.aclose()
        try:
            return json.loads(answer)  # type: ignore[no-any-return]
        except ValueError:
            message = f"the process of the tool ended with status {process.returncode} and without an answer"
            return failure(message, "unexpected", "run the command of the same name in a terminal")


def failure(message: str, code: str, help: str) -> dict[str, Any]:
    """Return the answer for an error that has no other place."""
    problem = {"message": message, "where": None, "code": code, "help": help}
    return {"error": {"exit_code": 2 if code == "usage" else 5, "problems": [problem], "docs": None}}


def result_of(answer: dict[str, Any]) -> types.CallToolResult:
    """Return the answer of a worker as the result of a tool: as JSON, or as text if it is a page."""
    value = answer.get("error", answer.get("result"))
    page = value.get("text") if isinstance(value, dict) and set(value) == {"topic", "text"} else None
    text = types.TextContent(type="text", text=page or json.dumps(value, indent=1))
    return types.CallToolResult(content=[text], structured_content=value, is_error="error" in answer)


def make_server(roots: Sequence[str], timeout: float) -> Server[Any]:
    """Return the server for these folders."""
    workers = Workers(roots, timeout)

    async def list_tools(context: Any, params: Any) -> types.ListToolsResult:
        hints = types.ToolAnnotations(read_only_hint=True, destructive_hint=False, open_world_hint=False)
        tools = [
            types.Tool(name=name, description=tool.description, input_schema=tool.schema, annotations=hints)
            for name, tool in TOOLS.items()
        ]
        return types.ListToolsResult(tools=tools)

    async def call_tool(context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        if params.name not in TOOLS:
            raise MCPError(types.INVALID_PARAMS, f"unknown tool {params.name!r}; tools: {', '.join(TOOLS)}")
        arguments = params.arguments or {}
        try:
            jsonschema.validate(arguments, TOOLS[params.name].schema)
        except jsonschema.ValidationError as error:
            where = ".".join(map(str, error.absolute_path)) or "arguments"
            return result_of(failure(f"{where}: {error.message}", "usage", f"see the schema of {params.name}"))
        return result_of(await workers.call(params.name, arguments))

    async def list_resources(context: Any, params: Any) -> types.ListResourcesResult:
        answer = await workers.call("topics", {})
        resources = [
            types.Resource(uri=URI + topic, name=topic, description=summary, mime_type="text/markdown")
            for topic, summary in answer.get("result", {}).items()
        ]
        return types.ListResourcesResult(resources=resources)

    async def read_resource(context: Any, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        uri = str(params.uri)
        answer = await workers.call("agent_docs", {"topic": uri.removeprefix(URI)}) if uri.startswith(URI) else {}
        if "result" not in answer:
            raise MCPError(types.INVALID_PARAMS, f"unknown resource {uri}")
        content = types.TextResourceContents(uri=uri, mime_type="text/markdown", text=answer["result"]["text"])
        return types.ReadResourceResult(contents=[content])

    return Server(
        "tunesmith", version=version("tunesmith-mcpserver"), instructions=INSTRUCTIONS, on_list_tools=list_tools,
        on_call_tool=call_tool, on_list_resources=list_resources, on_read_resource=read_resource,
    )  # fmt: skip


async def serve(roots: Sequence[str], timeout: float) -> None:
    """Serve over stdin and stdout until the client closes them."""
    server = make_server(roots, timeout)
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())
