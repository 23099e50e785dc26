"""Open the models of `tunesmith chat`, and start a conversation in the terminal or on a page."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunesmith import ConfigError
from tunesmith_playground.settings import RANGES, Settings

if TYPE_CHECKING:
    from tunesmith_playground.server import PageServer

PORT = 8765


def converse(
    source: str,
    *,
    web: bool = False,
    port: int | None = None,
    save: Path | None = None,
    system: str | None = None,
    compare: str | None = None,
    base: str | None = None,
    device: str | None = None,
    **sampling: Any,
) -> None:
    """Talk to the model of a source until the user leaves. The options are those of the command."""
    if port is not None and not web:
        raise ConfigError("--port has no effect without --web", where="command line", help="add --web", code="usage")
    if web and save is not None:
        message, help = "--save has no effect with --web", "download the conversation on the page"
        raise ConfigError(message, where="command line", help=help, code="usage")
    given = {key: value for key, value in sampling.items() if value is not None}
    assert given.keys() <= RANGES.keys()
    settings = Settings().changed(given)
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    from tunesmith_playground.server import PageServer
    from tunesmith_playground.session import Session
    from tunesmith_playground.speakers import speakers

    with speakers(source, compare, base, **({"device": device} if device else {})) as sides:
        if web:
            return serve(PageServer(PORT if port is None else port, sides, settings, system))
        Session(sides, settings, system, save, interactive).run()


def serve(server: PageServer) -> None:
    """Serve the page until Ctrl-C."""
    click.echo(f"open {server.url}\nonly this machine can; Ctrl-C ends it")
    sys.stdout.flush()
    with server, contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()
