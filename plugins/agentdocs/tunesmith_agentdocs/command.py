"""Implement `tunesmith agent-docs`."""

from __future__ import annotations

import click

from tunesmith import ConfigError
from tunesmith.cli.commands import show


@click.command("agent-docs")
@click.argument("topic", required=False)
@click.option("--list", "listed", is_flag=True, help="List the topics.")
def agent_docs(topic: str | None, listed: bool) -> None:
    """Print a page for coding agents, with the keys, types and errors of what is installed.

    Without a topic, print the overview.

    \b
    Examples:
      tunesmith agent-docs
      tunesmith agent-docs grpo
      tunesmith agent-docs --list
    """
    from tunesmith_agentdocs.topics import page, topics

    if listed:
        rows = topics()
        width = max(map(len, rows))
        lines = [f"{name:<{width}}  {summary}" for name, summary in rows.items()]
        show(rows, False, lambda: click.echo("\n".join(lines)))
        return
    name = (topic or "overview").replace("-", "_")
    if name not in topics():
        from tunesmith.spelling import nearest

        close = nearest(name, set(topics()))
        help = f"did you mean {close!r}?" if close else f"topics: {', '.join(topics())}"
        raise ConfigError(f"unknown topic {topic!r}", where="command line", help=help, code="usage")
    text = page(name)
    show({"topic": name, "text": text}, False, lambda: click.echo(text, nl=False))
