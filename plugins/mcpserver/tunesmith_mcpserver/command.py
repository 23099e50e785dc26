"""Implement `tunesmith mcp`."""

from __future__ import annotations

import sys

import click


@click.command()
@click.option(
    "--root", "roots", multiple=True, metavar="FOLDER",
    help="A folder that the server may read. May be repeated. Default: the current folder.",
)  # fmt: skip
@click.option(
    "--timeout", type=click.FloatRange(min=1), default=300, show_default=True, help="Seconds that a tool may take."
)
def mcp(roots: tuple[str, ...], timeout: float) -> None:
    """Serve checks, schemas, plans and runs to a coding agent over stdio (MCP). It writes nothing.

    Your client starts this command; docs/agents.md shows how to configure it. Relative paths start at the first folder.
    """
    sys.dont_write_bytecode = True
    import os

    import anyio

    from tunesmith_mcpserver.server import serve

    for root in roots:
        if not os.path.isdir(root):
            raise click.BadParameter(f"{root}: no such folder", param_hint="--root")
    folders = [os.path.realpath(root) for root in roots] or [os.path.realpath(os.getcwd())]
    anyio.run(serve, folders, timeout)
