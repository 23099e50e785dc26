"""Write docs/keys-from-elsewhere.md: what to write instead of the keys of other tools."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from config_page import owners, type_of
from pieces import metadata, page, table

from tunesmith.config import foreign, keys

HEAD = """
This page lists the keys and values of other tools. A config of Axolotl can be used as it is: `tunesmith check` accepts
its keys, and prints one block that says what each of them is here. `tunesmith migrate` rewrites the file.

A key is one of the following.

- **same as**: a key here has the same meaning under another name.
- **accepted**: it changes nothing here, or other keys express it, which are then set. A key that the config sets itself
  keeps its value.
- **speed**: it changes only the speed or the memory. The result is the same without it.
- **refused**: it is an error, with the advice in its row. Where the row says "may stay", the key may have these values,
  because they describe what happens anyway. A key without a value (`null`) may always stay.
"""
VALUES_HEAD = "These values belong to keys that exist here under the same name:"
UNUSED_HEAD = "Axolotl accepts these keys in configs in which nothing reads them. They get a note:"

# The keys that configs of Axolotl use most, most used first: those in at least 35 of its 250 example files.
MOST_USED = """
base_model learning_rate micro_batch_size output_dir sequence_len bf16 optimizer datasets gradient_accumulation_steps
lr_scheduler logging_steps num_epochs tf32 sample_packing warmup_ratio saves_per_epoch val_set_size attn_implementation
gradient_checkpointing weight_decay wandb_name wandb_entity wandb_log_model wandb_project wandb_watch evals_per_epoch
adapter lora_alpha lora_r dataset_prepared_path lora_dropout special_tokens resume_from_checkpoint load_in_4bit
load_in_8bit lora_model_dir lora_target_modules plugins lora_target_linear model_type chat_template tokenizer_type
gradient_checkpointing_kwargs fsdp_config eval_sample_packing pad_to_sequence_len strict trust_remote_code fp16
liger_glu_activation liger_rms_norm
"""


def owned() -> dict[str, tuple[str, dict[str, Any]]]:
    """Return key -> its owner and the owner's schema, for every top-level key."""
    schemas = {**{name: info["schema"] for name, info in metadata().items()}, "core": keys.core_schema()}
    return {key: (name, schema) for name, schema in schemas.items() for key in schema.get("properties", {})}


def supported_row(key: str) -> list[str]:
    """Return the row of a key that exists here."""
    owner, root = owned()[key]
    schema = root["properties"][key]
    anchor = f"{owner}.{key}" if len(owners(key)) > 1 else key
    return [f"[`{key}`](config.md#{anchor})", owner, type_of(root, schema), schema.get("description", "")]


def foreign_row(name: str, key: foreign.ForeignKey) -> list[str]:
    """Return the row of a key that does not exist here."""
    if key.alias:
        return [f"`{name}`", "same as", f"`{key.alias}`"]
    values = [f"`{value}`: {advice_text(advice)}" for value, advice in key.values.items()]
    stays = [f"may stay: {', '.join(f'`{foreign.as_text(value)}`' for value in key.default)}"] if key.default else []
    if key.reason:
        return [f"`{name}`", "refused", "; ".join([f"{key.reason}: {key.write}", *values, *stays])]
    sets = [f"sets {setting(key.set)}"] if key.set else []
    text = "; ".join([*sets, key.note or key.speed, *values])
    return [f"`{name}`", "speed" if key.speed else "accepted", text]


def advice_text(advice: str | Mapping[str, Any]) -> str:
    """Return what to write instead of a value, or what happens if it is accepted."""
    if isinstance(advice, str):
        return advice
    action = foreign.Action(**advice)
    becomes = [] if action.to is foreign.DROP else [f"becomes `{foreign.as_text(action.to)}`"]
    sets = [f"sets {setting(action.set)}"] if action.set else []
    return "; ".join([*becomes, *sets, *filter(None, [action.note])]) or "accepted"


def setting(keys: Mapping[str, Any]) -> str:
    """Return the keys that are set, with their values."""
    return ", ".join(f"`{key.lstrip('/')}: {json.dumps(value)}`".replace('"', "") for key, value in keys.items())


def elsewhere_page() -> str:
    """Return docs/keys-from-elsewhere.md. Raises SystemExit for a common key that is neither here nor listed."""
    if missing := [key for key in MOST_USED.split() if key not in owned() and key not in foreign.foreign_keys()]:
        raise SystemExit(f"common keys that are neither here nor in core/tunesmith/data/foreign/: {missing}")
    same = [supported_row(key) for key in MOST_USED.split() if key in owned()]
    parts = ["## Keys with the same name", "Of the keys that Axolotl configs use most often, these exist here. Their "]
    parts[-1] += "values can differ, so the type lists the ones that Tunesmith accepts."
    parts += [table(["key", "owner", "type", "meaning"], same)]
    tools = dict.fromkeys(key.tool for key in foreign.foreign_keys().values())
    for tool in tools:
        rows = {name: key for name, key in foreign.foreign_keys().items() if key.tool == tool}
        lines = [foreign_row(*row) for row in sorted(rows.items())]
        parts += [f"## {tool}", table(["key", "", "what it is here"], lines)]
    advice = {key: values for key, values in foreign.foreign_values().items() if values}
    rows = [
        [f"`{key}: {value}`", advice_text(values[value])] for key, values in advice.items() for value in sorted(values)
    ]
    parts += ["## Values", VALUES_HEAD, table(["value", "what it is here"], rows)]
    unused = [[f"`{key}`", entry["note"]] for key, entry in foreign.unused_keys().items()]
    parts += ["## Unused keys", UNUSED_HEAD, table(["key", "note"], unused)]
    end = "Any other unknown key is an error too, with the nearest spelling. [config.md](config.md) lists all keys."
    return page("Keys from elsewhere", HEAD, *parts, end)
