"""Looks at a saved adapter before peft reads it: neither torch nor network."""

from __future__ import annotations

from pathlib import Path

from tunesmith import Finding, ModelError, SafetyError
from tunesmith.files.untrusted import check_weights, leads_out, read_json

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def check(folder: Path, where: str) -> None:
    """Raise ModelError or SafetyError for an adapter that can't or shouldn't be loaded."""
    if not (folder / WEIGHTS).is_file():
        pickles = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.pkl") for p in folder.glob(pattern))
        if pickles:
            help = "convert it to safetensors in a place that may run its code"
            message = f"{folder} has its adapter as a pickle only: {pickles[0]}"
            raise SafetyError(message, where=where, help=help, code="pickles")
        help = "name a folder that a run with adapter: lora wrote"
        raise ModelError(f"{folder} has no {WEIGHTS}", where=where, help=help, code="adapter")
    for name in (WEIGHTS, CONFIG):
        if leads_out(folder, folder / name):
            message = f"{folder / name} is a link to {(folder / name).resolve()}, outside the folder"
            raise SafetyError(message, where=where, help="put the file itself into the folder")
    config = read_json(folder / CONFIG, where, code="adapter")
    if config.get("megatron_config"):
        message = f"{folder / CONFIG}: megatron_config names a module to import: {config.get('megatron_core')!r}"
        raise SafetyError(message, where=where, help="take it out of the file")
    if config.get("peft_type") != "LORA":
        message = f"{folder / CONFIG} is of {config.get('peft_type')!r}, not of LORA"
        raise ModelError(message, where=where, help="name the folder of a LoRA adapter", code="adapter")
    check_weights(folder / WEIGHTS, where, code="adapter")


def origin(folder: Path, model: str) -> Finding:
    """Whether a saved adapter was trained on this model, by the names of both: it fits no other."""
    base = read_json(folder / CONFIG).get("base_model_name_or_path")
    if base and Path(str(base)).name != Path(model).name:
        help = "make sure that it is the same model: an adapter fits no other"
        return Finding("lora_model_dir", "warning", f"{folder} was trained on {base}, base_model is {model}", help)
    return Finding("lora_model_dir", "ok", f"{folder} was trained on {base or 'a model that it does not name'}")
