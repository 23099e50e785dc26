"""LoRA: train small low-rank matrices next to frozen weights, with peft."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith import Finding, Plugin, hookimpl
from tunesmith_lora.config import options
from tunesmith_lora.settings import LoraSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from torch import nn

    from tunesmith import Policy, Run

__all__ = ["LoraSettings", "options", "plugin"]

plugin = Plugin(
    settings=LoraSettings,
    answers={"adapter": ("lora", "qlora")},
    before=("tiledmlp",),
    # What any adapter of peft needs, for plugins of other types: see wrapping.py.
    offers={
        "saved_models": {"LoRA adapters": "tunesmith_lora.opening:keys"},
        "peft": {
            "inject": "tunesmith_lora.wrapping:inject",
            "attach": "tunesmith_lora.wrapping:attach",
            "load": "tunesmith_lora.wrapping:load",
            "tied_modules": "tunesmith_lora.wrapping:tied_modules",
            "check_tied": "tunesmith_lora.wrapping:check_tied",
            "linear_layers": "tunesmith_lora.wrapping:linear_layers",
            "left_out": "tunesmith_lora.wrapping:left_out",
            "saved_names": "tunesmith_lora.wrapping:saved_names",
            "save": "tunesmith_lora.wrapping:save",
            "check_folder": "tunesmith_lora.saved:check",
            "origin": "tunesmith_lora.saved:origin",
        },
    },
)


@hookimpl
def validate(run: Run) -> None:
    from tunesmith_lora.config import check

    check(run, run.settings(LoraSettings))


@hookimpl
def inspect(run: Run) -> None:
    folder = run.settings(LoraSettings).lora_model_dir
    if folder:
        from tunesmith_lora.saved import check

        check(Path(folder), run.config.place("lora_model_dir"))


@hookimpl
def diagnose(run: Run) -> Iterator[Finding]:
    from tunesmith_lora.saved import origin

    yield Finding.of_module("peft", 'pip install "tunesmith[lora]"')
    if folder := run.settings(LoraSettings).lora_model_dir:
        yield origin(Path(folder), run.core.base_model)


@hookimpl
def patch_model(run: Run, name: str, model: nn.Module) -> nn.Module:
    from tunesmith_lora.adapter import add

    return add(run, model, run.settings(LoraSettings)) if name == "policy" else model


@hookimpl
def learning_rate_factors(run: Run, model: nn.Module) -> Mapping[str, float]:
    from tunesmith_lora.adapter import factors

    return factors(run, model, run.settings(LoraSettings))


@hookimpl
def saved_parameters(policy: Policy) -> Iterable[str]:
    from tunesmith_lora.wrapping import saved_names

    return saved_names(policy.model)


@hookimpl
def save_model(run: Run, policy: Policy, path: Path) -> None:
    from tunesmith_lora.adapter import save

    save(run, policy, path)
