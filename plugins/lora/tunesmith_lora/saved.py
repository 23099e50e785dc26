"""Check a saved adapter before peft reads it, without torch and without network access."""

from __future__ import annotations

from pathlib import Path

from tunesmith import Finding, ModelError, SafetyError
from tunesmith.files.untrusted import check_weights, leads_out, read_json

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
PROMPT_LEARNING = {"PREFIX_TUNING", "PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING"}
"""Types of adapters that the engine refuses in any plugin; see the error code prompt-learning."""


def check(folder: Path, where: str, peft_type: str = "LORA") -> None:
    """Raise ModelError or SafetyError for an adapter of a type that can't or shouldn't be loaded."""
    if not (folder / WEIGHTS).is_file():
        pickles = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.pkl") for p in folder.glob(pattern))
        if pickles:
            help = "convert it to safetensors on a machine where its code may run"
            message = f"{folder} has its adapter as a pickle only: {pickles[0]}"
            raise SafetyError(message, where=where, help=help, code="pickles")
        help = f"name the output folder of a run with adapter: {peft_type.lower()}"
        raise ModelError(f"{folder} has no {WEIGHTS}", where=where, help=help, code="adapter")
    for name in (WEIGHTS, CONFIG):
        if leads_out(folder, folder / name):
            message = f"{folder / name} is a link to {(folder / name).resolve()}, outside the folder"
            raise SafetyError(message, where=where, help="copy the file itself into the folder")
    config = read_json(folder / CONFIG, where, code="adapter")
    if config.get("megatron_config"):
        message = f"{folder / CONFIG}: megatron_config names a module to import: {config.get('megatron_core')!r}"
        raise SafetyError(message, where=where, help="remove it from the file")
    if config.get("peft_type") != peft_type:
        message = f"{folder / CONFIG}: peft_type must be {peft_type}, got {config.get('peft_type')!r}"
        help = f"name the folder of an adapter of type {peft_type}, or write the adapter: that it has"
        if config.get("peft_type") in PROMPT_LEARNING:
            message += ", which adds tokens to each sequence: a pack has no place for them"
        raise ModelError(message, where=where, help=help, code="adapter")
    check_weights(folder / WEIGHTS, where, code="adapter")


def origin(folder: Path, model: str, key: str = "lora_model_dir") -> Finding:
    """Return a warning if a saved adapter was trained on a model of another name, because it fits only its own."""
    base = read_json(folder / CONFIG).get("base_model_name_or_path")
    if base and Path(str(base)).name != Path(model).name:
        help = "make sure that it is the same model: an adapter fits only the model that it was trained on"
        return Finding(key, "warning", f"{folder} was trained on {base}, but base_model is {model}", help)
    return Finding(key, "ok", f"{folder} was trained on {base or 'an unnamed model'}")
