"""Write a full model in the layout of transformers: an adapter merged into its base, or a copy in another type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith import ConfigError, ModelError, SavedModel
from tunesmith.files.untrusted import read_json
from tunesmith.plugins.discovery import installed
from tunesmith.plugins.offers import find
from tunesmith_export.folders import copy_beside, read_config

if TYPE_CHECKING:
    from tunesmith_export.exporting import Exported, Options, Report

MERGE = "merge"
"""The kind of the offers of the plugin merge."""
TORCH = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
SHARD = 4 << 30
"""Bytes of a file of weights, as on the hub."""


def base_config(saved: SavedModel) -> Any:
    """Return the config of the full model that an export writes, as far as it is known before the merge.

    A reward adapter becomes a sequence classifier, whose class its base does not have.
    """
    if not saved.peft_config:
        return read_config(saved.folder)
    config = read_config(base_folder(saved))
    task = {"SEQ_CLS": "ForSequenceClassification", "TOKEN_CLS": "ForTokenClassification"}
    if end := task.get(str(saved.peft_config.get("task_type"))):
        config.architectures = [str((config.architectures or [""])[0]).replace("ForCausalLM", end)]
    return config


def base_folder(saved: SavedModel) -> Path:
    """Return the folder of an adapter's base model; that of the hub's cache for a hub id."""
    from huggingface_hub import snapshot_download

    name = str(saved.keys().get("base_model"))
    if Path(name).is_dir():
        return Path(name)
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json"]))
    except Exception as error:  # of the network or the hub, which has many kinds
        message = f"the base model {name} is not a folder on this machine and can't be fetched"
        raise ModelError(message, code="export", help="name it: --base MODEL") from error


def offered(name: str) -> Any:
    """Return a function of the plugin merge. Raises ConfigError if it is not installed."""
    offer = find(installed(), MERGE, name)
    if offer is None:
        message = "exporting an adapter needs the plugin merge"
        raise ConfigError(message, where="command line", code="usage", help='pip install "tunesmith[merge]"')
    return offer.load()


def write_merged(saved: SavedModel, folder: Path, options: Options, report: Report) -> Exported:
    """Write a full model into a folder, and return what was written and how it was compared."""
    from tunesmith_export.exporting import Exported

    dtype = TORCH[options.kind] if options.kind else None
    if not saved.peft_config:
        return _copy(saved, folder, options)
    reason = offered("why_not_by_layer")(saved.peft_config)
    if reason is not None:
        return _merge_by_peft(saved, folder, options, reason)
    from tempfile import TemporaryDirectory

    with TemporaryDirectory(dir=folder if folder.is_dir() else folder.parent, prefix=".merging-") as place:
        given = {"base": saved.base, "dtype": dtype, "verify": options.verify, "report": report}
        done = offered("merge_adapter")(source_of(saved), Path(place) / "merged", **given)
        folder.mkdir(parents=True, exist_ok=True)
        for path in done.folder.iterdir():
            path.rename(folder / path.name)
    result = Exported(folder, folder, done.bytes)
    if done.largest:
        result.compared.append(
            f"{len(done.differences)} parts of the model; largest relative difference {done.largest.value:.1e}"
        )
    if not done.tied:
        result.notes.append(
            "untied: head and embeddings have a weight each, because the adapter changes them differently"
        )
    return result


def source_of(saved: SavedModel) -> str:
    """Return what merge gets as source: the YAML if the user named it, for its model card, or the folder."""
    source = saved.config.origin.source if saved.config is not None and saved.config.origin is not None else None
    return str(source) if isinstance(source, str | Path) else saved.path


def _merge_by_peft(saved: SavedModel, folder: Path, options: Options, reason: tuple[str, str]) -> Exported:
    """Merge an adapter whose layers can't be merged one by one, in memory, if its type changes weights at all."""
    import torch

    from tunesmith import open_model
    from tunesmith_export.exporting import Exported, precision
    from tunesmith_export.parity import ALLOWED, compare, folder_logits, quiet, run_prompts, sequences, trained_logits

    message, help = reason
    from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING

    prompts = {"PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "MULTITASK_PROMPT_TUNING", "ADAPTION_PROMPT", "CPT"}
    kind = str(saved.peft_config.get("peft_type"))
    if kind == "LORA" or kind in prompts or kind not in {str(one.value) for one in PEFT_TYPE_TO_PREFIX_MAPPING}:
        raise ModelError(f"{saved.folder}: {message}", code="export", help=help)
    with quiet(), open_model(saved, bf16=False, device="cpu") as model, torch.no_grad():
        wrapper = model.model._peft_wrapper
        try:
            merged = wrapper.merge_and_unload(safe_merge=True)
        except (NotImplementedError, AttributeError, ValueError) as error:
            detail = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise ModelError(f"peft can't merge an adapter of the type {kind}: {detail}", code="export") from error
        dtype = TORCH[options.kind or precision(base_folder(saved))]
        merged.to(getattr(torch, dtype)).save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)
    result = Exported(folder, folder, sum(path.stat().st_size for path in folder.glob("*.safetensors")))
    if options.verify:
        texts = sequences(model.tokenizer, run_prompts(saved))
        trained = trained_logits(saved, texts)
        result.compared.append(
            str(compare(trained, folder_logits(folder, texts), ALLOWED[options.kind or precision(folder)]))
        )
    return result


def _copy(saved: SavedModel, folder: Path, options: Options) -> Exported:
    """Copy a full model, with its numbers in another type if one is wanted."""
    from tunesmith_export.exporting import Exported, precision
    from tunesmith_export.folders import read_tokenizer
    from tunesmith_export.parity import ALLOWED, compare, folder_logits, run_prompts, sequences

    copy_beside(saved.folder, folder)
    size = _write_shards(saved.folder, folder, options.kind)
    if options.kind:
        config = read_json(folder / "config.json")
        config.pop("torch_dtype", None)
        config["dtype"] = TORCH[options.kind]
        (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    result = Exported(folder, folder, size)
    if options.verify:
        texts = sequences(read_tokenizer(folder), run_prompts(saved))
        kind = options.kind or precision(folder)
        result.compared.append(
            str(compare(folder_logits(saved.folder, texts), folder_logits(folder, texts), ALLOWED[kind]))
        )
    return result


def _write_shards(origin: Path, folder: Path, kind: str | None) -> int:
    """Write the weights of a folder into another one, file by file, and return their bytes."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    from tunesmith_export.weights import INDEX, weight_files

    size = 0
    for file in weight_files(origin):
        with safe_open(file, "pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        if kind:
            dtype = getattr(torch, TORCH[kind])
            tensors = {name: t.to(dtype) if t.is_floating_point() else t for name, t in tensors.items()}
            if wrong := next((n for n, t in tensors.items() if t.is_floating_point() and not t.isfinite().all()), None):
                help = "write --dtype bfloat16"
                raise ModelError(f"{wrong} has numbers that {kind} can't express", code="export", help=help)
        save_file(tensors, folder / file.name, metadata={"format": "pt"})
        size += (folder / file.name).stat().st_size
    if (origin / INDEX).is_file():
        index = read_json(origin / INDEX)
        index["metadata"] = {"total_size": size}
        (folder / INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")
    return size
