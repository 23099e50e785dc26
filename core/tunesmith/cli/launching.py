"""Separate the arguments for a launcher from those of `tunesmith train`."""

from __future__ import annotations

from typing import Any

import click

FOR_LAUNCHER = "tunesmith.launcher"
"""The key of ctx.meta that has the arguments after `--`."""
PROCESSES = "Also show memory and traffic of each of N processes."
RESTARTS = "Let torchrun start the processes again up to N times; they resume from the newest checkpoint."


class Launching(click.Command):
    """A command whose arguments after `--` are for a launcher."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            args, ctx.meta[FOR_LAUNCHER] = args[:at], tuple(args[at + 1 :])
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[Any]:
        return [*super().collect_usage_pieces(ctx), "[-- ARGUMENTS OF THE LAUNCHER]"]
