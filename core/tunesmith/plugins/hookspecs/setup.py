"""Hooks of every command: check the config and the machine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tunesmith.plugins.dispatch import spec

if TYPE_CHECKING:
    from tunesmith.finding import Finding
    from tunesmith.run import Run


@spec("all")
def validate(run: Run) -> None:
    """Check settings against each other. Raise ConfigError with every problem; `run.config.checking()` collects them.

    When: in every command with a RUN.YAML, after each key is valid alone. Use no torch, disk or network. Answers: all.

    Example:
        @hookimpl
        def validate(run):
            if run.core.sequence_len < run.settings(Settings).stride:
                raise run.config.error("stride", "is longer than sequence_len")
    """


@spec("all")
def inspect(run: Run) -> None:
    """Check the files and packages that the run needs, such as folders and headers. Raise an error for what is wrong.

    When: in every command with a RUN.YAML, after validate and before rows are read. Use neither torch nor the network.
    Answers: all.

    Example:
        @hookimpl
        def inspect(run):
            check_header(run.settings(Settings).wordlist)  # raises run.config.error("wordlist", "no such file")
    """


@spec("all")
def diagnose(run: Run) -> Iterable[Finding]:
    """Yield a Finding for each thing that the run needs on this machine: a package, a service, a model on the hub.

    When: only in `doctor`, after inspect, even if inspect raised errors. Use the network with a time limit; read no
    weights. A Finding is ok, a warning or a problem; an error that you raise is a problem too. Answers: all.

    Example:
        @hookimpl
        def diagnose(run):
            yield Finding.of_module("tensorboard")
    """
