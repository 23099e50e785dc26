"""Every adapter of peft beside LoRA: OFT, VeRA, (IA)³, BOFT, LoKr, AdaLoRA and others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith import Finding, Plugin, hookimpl
from tunesmith_adapters.settings import REFUSED, TYPES, AdaptersSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torch import nn
    from torch.optim import Optimizer

    from tunesmith import Batch, Policy, Run, Term

PROMPT = ("adaption_prompt", "p_tuning", "prefix_tuning", "prompt_tuning")
"""Refused types that the core knows, because people write them without this plugin."""

plugin = Plugin(
    settings=AdaptersSettings,
    answers={"adapter": tuple(sorted({*TYPES, *REFUSED} - {*PROMPT}))},
    before=("tiledmlp",),
    offers={"saved_models": {"adapters of peft": "tunesmith_adapters.opening:keys"}},
)


@hookimpl
def validate(run: Run) -> None:
    from tunesmith_adapters.checks import check

    check(run, run.settings(AdaptersSettings))


@hookimpl
def inspect(run: Run) -> None:
    from tunesmith_adapters.checks import check_library

    check_library(run)
    if folder := run.settings(AdaptersSettings).adapter_model_dir:
        place = run.config.place("adapter_model_dir")
        run.offered("peft", "check_folder", "adapter")(Path(folder), place, str(run.core.adapter).upper())


@hookimpl
def diagnose(run: Run) -> Iterator[Finding]:
    yield Finding.of_module("peft", 'pip install "tunesmith[adapters]"')
    if folder := run.settings(AdaptersSettings).adapter_model_dir:
        yield run.offered("peft", "origin", "adapter")(Path(folder), run.core.base_model, "adapter_model_dir")


@hookimpl
def patch_model(run: Run, name: str, model: nn.Module) -> nn.Module:
    from tunesmith_adapters.build import add

    return add(run, model, run.settings(AdaptersSettings)) if name == "policy" else model


@hookimpl
def saved_parameters(run: Run, policy: Policy) -> Iterable[str]:
    names: Iterable[str] = run.offered("peft", "saved_names", "adapter")(policy.model)
    return names


@hookimpl
def save_model(run: Run, policy: Policy, path: Path) -> None:
    title = TYPES[str(run.core.adapter)]["title"]
    run.offered("peft", "save", "adapter")(run, policy, path, f"an adapter of type {title}")


@hookimpl(wrapper=True)
def build_optimizer(run: Run) -> Iterator[Optimizer]:
    optimizer: Any = yield  # type: ignore[misc]
    if run.core.adapter == "adalora":
        from tunesmith_adapters.adalora import Allocation

        run.owned(Allocation).follow(optimizer)
    return optimizer


@hookimpl
def prepare_step(run: Run, batches: Sequence[Batch]) -> None:
    if run.core.adapter == "adalora":
        for batch in batches:
            batch.counts["adalora"] = 1


@hookimpl(wrapper=True)
def compute_loss(run: Run) -> Iterator[dict[str, Term]]:
    terms: Any = yield  # type: ignore[misc]
    if run.core.adapter == "adalora" and run.purpose == "train":
        from tunesmith_adapters.adalora import Allocation

        return terms | run.owned(Allocation).term()
    return terms
