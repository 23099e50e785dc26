"""A real session over stdio: every tool answers, and the server leaves every file as it was."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tunesmith_mcpserver.tools import TOOLS

from plugins.mcpserver.tests.conftest import GOOD


def snapshot(*folders: Path) -> dict[str, str]:
    """Return path -> kind, size, time of change and content of everything below the folders."""
    state = {}
    for folder in folders:
        for path in [folder, *folder.rglob("*")]:
            status = path.lstat()
            content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else os.fspath(path.resolve())
            state[str(path)] = f"{status.st_mode} {status.st_size} {status.st_mtime_ns} {content}"
    return state


def calls() -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Yield (tool, arguments, whether it is an error)."""
    for name in ("schema", "agent_docs", "runs"):
        yield name, {}, False
    yield "check", {"path": "run.yaml"}, False
    yield "check", {"yaml": GOOD}, False
    yield "plan", {"path": "run.yaml", "overrides": ["dataset_prepared_path=prepared"]}, False
    yield "lint", {"yaml": GOOD, "off": ["duplicate"]}, False
    yield "explain", {"name": "lora_r", "path": "run.yaml"}, False
    yield "check", {"path": "wrong.yaml"}, True
    yield "check", {"path": "evil.yaml"}, True
    yield "plan", {"path": "evil.yaml"}, True
    yield "lint", {"path": "/etc/passwd"}, True
    yield "plan", {"path": "run.yaml", "overrides": ["datasets.0.path=https://example.invalid/x.jsonl"]}, True
    yield "explain", {"name": "nothing-like-this"}, True
    yield "check", {"nonsense": 1}, True


@pytest.mark.slow
def test_a_session_answers_every_tool_and_leaves_every_file_as_it_was(project: Path, tmp_path: Path) -> None:
    from mcp import Client, StdioServerParameters, stdio_client
    from mcp.shared.exceptions import MCPError

    home = tmp_path / "home"
    home.mkdir()
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONDONTWRITEBYTECODE", "HF_HOME")}
    env = {**kept, "HOME": str(home), "TMPDIR": str(tmp_path), "HF_TOKEN": "hf_abcdefghijklmnop1234"}
    command = ["-P", "-m", "tunesmith", "mcp"]
    server = StdioServerParameters(command=sys.executable, args=command, cwd=str(project), env=env)
    before = snapshot(project, tmp_path)

    async def session() -> None:
        async with Client(stdio_client(server)) as client:
            tools = (await client.list_tools()).tools
            assert [tool.name for tool in tools] == list(TOOLS)
            assert all(tool.annotations and tool.annotations.read_only_hint for tool in tools)
            for name, arguments, wrong in calls():
                result = await client.call_tool(name, arguments)
                text = result.content[0].text  # type: ignore[union-attr]
                assert result.is_error == wrong, (name, arguments, text)
                assert "Traceback" not in text and "hf_abc" not in text and (result.structured_content or not wrong)
                if wrong:
                    assert all(problem["code"] and problem["message"] for problem in json.loads(text)["problems"])
            resources = (await client.list_resources()).resources
            page = (await client.read_resource(str(resources[0].uri))).contents[0]
            assert page.text.startswith("# ") and len(resources) >= 10  # type: ignore[union-attr]
            for wrong_call in (client.call_tool("train", {}), client.read_resource("tunesmith://agent-docs/nothing")):
                with pytest.raises(MCPError, match="unknown"):
                    await wrong_call

    asyncio.run(session())
    assert snapshot(project, tmp_path) == before


@pytest.mark.slow
def test_a_call_that_takes_too_long_is_ended_with_all_that_it_started(project: Path) -> None:
    from tunesmith_mcpserver.server import Workers

    async def call() -> dict[str, Any]:
        return await Workers([str(project)], 0.3).call("plan", {"path": "run.yaml"})

    answer = asyncio.run(call())
    here = [path for path in Path("/proc").glob("[0-9]*/cwd") if path.exists() and path.resolve() == project]
    assert not [path for path in here if b"tunesmith_mcpserver" in path.with_name("cmdline").read_bytes()]
    assert "took more than 0.3 seconds" in answer["error"]["problems"][0]["message"]
