"""Log-probabilities by the kernels of cut-cross-entropy, which write no logits to memory."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from tunesmith import EnvironmentProblem, Finding, Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from tunesmith import LanguageModel, Policy, Run

INSTALL = 'pip install "tunesmith[cut-cross-entropy]"'


class CCESettings(Settings):
    """What the kernels do."""

    cut_cross_entropy: bool = False
    """Compute log-probabilities of targets by the kernels of cut-cross-entropy (arXiv 2411.09009), on a GPU."""
    cut_cross_entropy_filter: bool = True
    """Let the backward pass leave out blocks of the vocabulary whose probabilities all are below the data type's
    precision; false computes every one."""


plugin = Plugin(settings=CCESettings, switches=("cut_cross_entropy",))


@hookimpl
def validate(run: Run) -> None:
    if not run.needs.logps:
        message = "has no effect: nothing in this run asks for log-probabilities of tokens"
        raise run.config.error("cut_cross_entropy", message, "drop it")
    if run.core.bf16 is False:
        help = "drop it, or write bf16: auto"
        raise run.config.error("cut_cross_entropy", "computes in bfloat16, and bf16: false asks for float32", help)


@hookimpl
def inspect(run: Run) -> None:
    where = run.config.document.where(("cut_cross_entropy",), value=True)
    if run.core.device == "cpu":
        message, help = "cut_cross_entropy needs a GPU, and device: cpu asks for none", "drop it, or write device: auto"
        raise EnvironmentProblem(message, where=where, help=help)
    if importlib.util.find_spec("cut_cross_entropy") is None:
        raise EnvironmentProblem("cut_cross_entropy is not installed", where=where, help=INSTALL, code="package")


@hookimpl
def diagnose() -> Iterator[Finding]:
    yield Finding.of_module("cut_cross_entropy", INSTALL)


@hookimpl(wrapper=True)
def load_model(run: Run, role: str) -> Generator[None, LanguageModel, LanguageModel]:
    language_model = yield
    if role in ("policy", "reference"):
        from tunesmith_cce.kernel import attach

        attach(run, language_model, not run.settings(CCESettings).cut_cross_entropy_filter, INSTALL)
    return language_model


@hookimpl
def on_start(run: Run, policy: Policy) -> None:
    from tunesmith_cce.kernel import note

    note(run, policy)
