"""Distribute a model with DeepSpeed: ZeRO stages 1 to 3, and offloading to the CPU."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from tunesmith import EnvironmentProblem, Finding, PathText, Plugin, Settings, hookimpl
from tunesmith.optional import show

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tunesmith import Parallelism, Run

INSTALL = 'pip install "tunesmith[deepspeed-library]"'


class DeepSpeedSettings(Settings):
    """The key of DeepSpeed."""

    deepspeed: PathText | dict[str, Any] | None = None
    """Distribute the model with DeepSpeed: the name of a ready configuration (zero1, zero2, zero3, zero2_offload, ...),
    a JSON file as DeepSpeed reads it, or its content."""


plugin = Plugin(settings=DeepSpeedSettings, switches=("deepspeed",), on_resume={"deepspeed": "accept"})


@hookimpl
def validate(run: Run) -> None:
    from tunesmith_deepspeed.checks import check

    check(run)


@hookimpl
def inspect(run: Run) -> None:
    show("deepspeed")
    if importlib.util.find_spec("deepspeed") is None:
        where = run.config.place("deepspeed")
        raise EnvironmentProblem("deepspeed is not installed", where=where, help=INSTALL, code="package")


@hookimpl
def diagnose() -> Iterator[Finding]:
    show("deepspeed")
    yield Finding.of_module("deepspeed", INSTALL)


@hookimpl
def build_parallelism(run: Run) -> Parallelism:
    from tunesmith_deepspeed.build import build

    return build(run)
