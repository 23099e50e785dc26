"""LoRA: train small low-rank matrices next to frozen weights, with peft."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, PositiveFloat

from tunesmith import Finding, PathText, Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import nn

    from tunesmith import Policy, Run


class LoraSettings(Settings):
    """Keys of LoRA, with the names that are usual for them."""

    lora_r: int = Field(16, gt=0, le=100_000)
    """Rank of the update."""
    lora_alpha: PositiveFloat = 32.0
    """Scale of the update, which is multiplied by lora_alpha / lora_r."""
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout before the update."""
    lora_target_modules: list[str] | str | None = None
    """Modules that get an update: a list of names (last parts), or a regular expression that matches full names."""
    lora_target_linear: bool = False
    """Adapt all linear layers except the head. This is the default if lora_target_modules is not set."""
    lora_modules_to_save: list[str] | None = None
    """Modules that are trained completely and saved with the adapter, for example embed_tokens."""
    lora_trainable_tokens: list[str] = []
    """Tokens whose rows in the embeddings and the head are trained and saved with the adapter. Others stay frozen."""
    lora_model_dir: PathText | None = None
    """Continue to train the adapter in this folder, with its own rank and targets."""
    peft_use_rslora: bool = False
    """Scale by lora_alpha / sqrt(lora_r) (arXiv 2312.03732)."""
    peft_use_dora: bool = False
    """Split weights into magnitude and direction, and update both (arXiv 2402.09353)."""


plugin = Plugin(settings=LoraSettings, answers={"adapter": ("lora", "qlora")}, before=("tiledmlp",))


@hookimpl
def validate(run: Run) -> None:
    settings = run.settings(LoraSettings)
    if settings.lora_target_linear and settings.lora_target_modules:
        raise run.config.error("lora_target_linear", "and lora_target_modules are both set", "keep one of them")
    if isinstance(settings.lora_target_modules, str):
        try:
            re.compile(settings.lora_target_modules)
        except re.error as error:
            help = "write a list of names, or fix the expression"
            raise run.config.error("lora_target_modules", f"is not a regular expression: {error}", help) from None
    if settings.lora_model_dir:
        ignored = sorted(settings.model_fields_set - {"lora_model_dir"})
        if ignored:
            message = "has no effect: the adapter in lora_model_dir has its own settings"
            raise run.config.error(ignored[0], message, "drop it")


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
def saved_parameters(policy: Policy) -> Iterable[str]:
    from tunesmith_lora.adapter import saved_names

    return saved_names(policy.model)


@hookimpl
def save_model(run: Run, policy: Policy, path: Path) -> None:
    from tunesmith_lora.adapter import save

    save(run, policy, path)


def options(
    settings: LoraSettings,
    classifier: bool,
    rows: dict[str, list[int]] | None = None,
    left_out: list[str] | None = None,
) -> dict[str, Any]:
    """Return the arguments of peft's LoraConfig. The head of a classifier is trained completely.

    `rows` maps the names of modules to the rows that are trained. `left_out` lists the
    modules without an adapter.
    """
    return {
        "r": settings.lora_r,
        "lora_alpha": settings.lora_alpha,
        "lora_dropout": settings.lora_dropout,
        "target_modules": settings.lora_target_modules or "all-linear",
        "exclude_modules": left_out or None,
        "modules_to_save": settings.lora_modules_to_save,
        "trainable_token_indices": rows,
        "use_rslora": settings.peft_use_rslora,
        "use_dora": settings.peft_use_dora,
        "task_type": "SEQ_CLS" if classifier else "CAUSAL_LM",
    }
