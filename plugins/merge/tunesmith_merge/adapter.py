"""Read an adapter in peft's format, after checking that its files are safe and that it can be merged."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith import ModelError, SafetyError
from tunesmith.files.untrusted import check_weights, leads_out, read_json

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
MERGED = ("LORA", "IA3", "LOHA", "LOKR", "OFT", "BOFT", "HRA", "FOURIERFT")
"""Types of adapters whose layers merge one at a time. Other types share weights between layers, or do not merge."""
PROMPTS = ("PREFIX_TUNING", "PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "CPT", "ADAPTION_PROMPT")
RESIDUAL = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Initializations that change the base weights, which the files of the base model do not have."""
WHOLE = (
    "merge it with peft, which needs memory for the whole model: "
    "PeftModel.from_pretrained(base, FOLDER).merge_and_unload().save_pretrained(OUT)"
)


@dataclass(frozen=True)
class AdapterFiles:
    """The folder of an adapter, and its config."""

    folder: Path
    config: dict[str, Any]

    @property
    def task(self) -> str | None:
        return self.config.get("task_type")

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor by name."""
        return {name: header.shape for name, header in check_weights(self.folder / WEIGHTS, code="merge").items()}

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors in float32, except for integers. Raises ModelError for numbers that are not finite."""
        from tunesmith_merge.shards import read, stored_in

        tensors = {}
        for name, stored in stored_in(self.folder / WEIGHTS).items():
            tensor = read(stored)
            if tensor.is_floating_point():
                tensor = tensor.float()
                if not tensor.isfinite().all():
                    message = f"{name} of {self.folder / WEIGHTS} has numbers that are not finite (NaN or infinite)"
                    raise ModelError(message, help="merge an earlier checkpoint of the adapter", code="merge")
            tensors[name] = tensor
        return tensors


def open_adapter(folder: Path) -> AdapterFiles:
    """Return the adapter in a folder. Raises ModelError or SafetyError for one that can't or shouldn't be merged."""
    if not (folder / WEIGHTS).is_file():
        message = f"{folder} has no {WEIGHTS}"
        raise ModelError(message, help="name a run with an adapter, or the folder of an adapter", code="merge")
    for name in (WEIGHTS, CONFIG):
        if leads_out(folder, folder / name):
            message = f"{folder / name} is a link to {(folder / name).resolve()}, outside the folder"
            raise SafetyError(message, help="copy the file itself into the folder")
    config = read_json(folder / CONFIG, code="merge")
    if config.get("megatron_config"):
        message = f"{folder / CONFIG}: megatron_config names a module to import: {config.get('megatron_core')!r}"
        raise SafetyError(message, help="remove it from the file")
    if reason := why_unmergeable(config):
        message, help = reason
        raise ModelError(f"{folder / CONFIG}: {message}", help=help, code="merge")
    return AdapterFiles(folder, config)


def why_unmergeable(config: dict[str, Any]) -> tuple[str, str] | None:
    """Return why an adapter can't be merged layer by layer and what to do instead; None if it can."""
    kind, start = str(config.get("peft_type")), config.get("init_lora_weights")
    if kind in PROMPTS:
        return f"{kind} adds tokens and changes no weight, so there is nothing to merge", "use it with peft as it is"
    if kind not in MERGED:
        return f"adapters of the type {kind} are not merged layer by layer", WHOLE
    if config.get("layer_replication"):
        return "layer_replication uses layers of the base model several times, with an update for each", WHOLE
    if config.get("alora_invocation_tokens"):
        return "an activated LoRA (aLoRA) acts on the end of a sequence only", "use it with peft as it is"
    if config.get("arrow_config"):
        return "an Arrow router chooses between adapters for each token", "use it with peft as it is"
    if isinstance(start, str) and start.startswith(RESIDUAL):
        message = f"init_lora_weights: {start} has changed the base weights, and the adapter is relative to those"
        return message, f"save it with path_initial_model_for_weight_conversion; or {WHOLE}"
    return None
