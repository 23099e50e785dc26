"""Log-probabilities from the kernels of cut-cross-entropy, which do not write logits to memory."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from tunesmith import EnvironmentProblem, Finding, Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from tunesmith import LanguageModel, Policy, Run

INSTALL = 'pip install "tunesmith[cut-cross-entropy]"'


class CCESettings(Settings):
    """Keys of cut-cross-entropy."""

    cut_cross_entropy: bool = False
    """Compute log-probabilities of targets with the kernels of cut-cross-entropy (arXiv 2411.09009), on a GPU."""
    cut_cross_entropy_filter: bool = True
    """Skip blocks of the vocabulary in the backward pass if all of their probabilities are below the data type's
    precision. `false` computes all blocks."""


plugin = Plugin(settings=CCESettings, switches=("cut_cross_entropy",))


@hookimpl
def validate(run: Run) -> None:
    if not run.needs.logps:
        message = "has no effect: nothing in this run uses log-probabilities of tokens"
        raise run.config.error("cut_cross_entropy", message, "drop it")
    if run.core.bf16 is False:
        help = "drop it, or write bf16: auto"
        raise run.config.error("cut_cross_entropy", "computes in bfloat16, but bf16: false sets float32", help)


@hookimpl
def inspect(run: Run) -> None:
    where = run.config.place("cut_cross_entropy")
    if run.core.device == "cpu":
        message, help = "cut_cross_entropy needs a GPU, but device is cpu", "drop it, or write device: auto"
        raise EnvironmentProblem(message, where=where, help=help)
    if importlib.util.find_spec("cut_cross_entropy") is None:
        raise EnvironmentProblem("cut_cross_entropy is not installed", where=where, help=INSTALL, code="package")


@hookimpl
def diagnose() -> Iterator[Finding]:
    yield Finding.of_module("cut_cross_entropy", INSTALL)


@hookimpl(wrapper=True)
def load_model(run: Run) -> Generator[None, LanguageModel, LanguageModel]:
    from tunesmith_cce.kernel import attach

    language_model = yield
    attach(run, language_model, not run.settings(CCESettings).cut_cross_entropy_filter, INSTALL)
    return language_model


@hookimpl
def on_start(run: Run, policy: Policy) -> None:
    from tunesmith_cce.kernel import note

    note(run, policy)
