"""Check the folder of a merged model, and write the files beside its weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tunesmith import ConfigError, write_card
from tunesmith.files.untrusted import leads_out, read_json
from tunesmith.redact import redact
from tunesmith_merge.model import read_tokenizer
from tunesmith_merge.source import Source

TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "chat_template.jinja", "chat_template.json",
    "preprocessor_config.json", "processor_config.json",
)  # fmt: skip
ROLES = ("bos_token", "eos_token", "pad_token")


def check_output(out: Path, base: Path, adapter: Path) -> None:
    """Raise ConfigError for an output folder that would overwrite something."""

    def wrong(message: str) -> ConfigError:
        help = "write --output with another folder"
        return ConfigError(message, where="command line (--output)", code="usage", help=help)

    for folder, what in ((base, "the base model"), (adapter, "the adapter")):
        if out.resolve() == folder.resolve():
            raise wrong(f"{out} is the folder of {what}, which would be overwritten")
    if out.resolve().is_relative_to(base.resolve()):
        raise wrong(f"{out} is inside the folder of the base model")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise wrong(f"{out} already exists")


def write_configs(folder: Path, base: Path, model: Any, dtype: str, special: dict[str, Any]) -> None:
    """Write config.json and generation_config.json, with the special tokens of the run.

    Args:
        folder: the folder of the merged model.
        base: that of the base model.
        model: the merged model without weights, whose config is written.
        dtype: the type of the weights, by torch's name.
        special: the tokens that the run gave a role, by role; None for the others.
    """
    import torch

    config = model.config
    config.dtype = getattr(torch, dtype)
    config.architectures = [type(model).__name__]
    ids = special_ids(folder, special)
    for role, number in ids.items():
        for part in (config, config.get_text_config()):
            setattr(part, f"{role}_id", number)
    config.save_pretrained(folder)
    if (base / "generation_config.json").is_file() and not leads_out(base, base / "generation_config.json"):
        generation = read_json(base / "generation_config.json")
        for role, number in ids.items():
            old = generation.get(f"{role}_id")
            if role == "eos_token" and old is not None:  # servers stop at all of them
                both = [number, *(one for one in (old if isinstance(old, list) else [old]) if one != number)]
                number = both if len(both) > 1 else number
            generation[f"{role}_id"] = number
        (folder / "generation_config.json").write_text(json.dumps(generation, indent=2), encoding="utf-8")


def special_ids(folder: Path, special: dict[str, Any]) -> dict[str, int]:
    """Return the ids of the special tokens that a run has set, by role."""
    roles = [role for role in ROLES if special.get(role) is not None]
    if not roles or not (folder / "tokenizer_config.json").is_file():
        return {}
    tokenizer = read_tokenizer(folder)
    return {role: getattr(tokenizer, f"{role}_id") for role in roles}


def copy_tokenizer(folder: Path, *origins: Path) -> None:
    """Copy tokenizer and chat template from the first folder that has a tokenizer."""
    for origin in origins:
        if any((origin / name).is_file() for name in ("tokenizer_config.json", "tokenizer.json")):
            for name in TOKENIZER:
                if (origin / name).is_file() and not leads_out(origin, origin / name):
                    shutil.copyfile(origin / name, folder / name)
            return


def card(folder: Path, source: Source, model: Any) -> None:
    """Write the model card: that of the run if a YAML file names it, otherwise what the adapter says."""
    kind = str(source.adapter.config.get("peft_type"))
    name = type(model).__name__
    usage = f'from transformers import AutoTokenizer, {name}\n\nmodel = {name}.from_pretrained("FOLDER")\n'
    usage += 'tokenizer = AutoTokenizer.from_pretrained("FOLDER")'
    if source.run is not None:
        source.run.step = int(source.record.get("step") or 0)
        source.run.total_steps = int(source.record.get("total_steps") or 0)
        write_card(source.run, folder, f"an adapter ({kind}), merged into all weights", usage, ["transformers", "peft"])
        return
    base = source.base if not Path(source.base).exists() else Path(source.base).name
    header = "library_name: transformers\ntags: [tunesmith]\n"
    header += f"base_model: {json.dumps(base)}\n" if "/" in base else ""
    text = f"---\n{header}---\n\n# {base}, merged\n\nThe weights of {base} with an adapter ({kind}) merged into them.\n"
    text += f"\n## Use\n\n```python\n{usage}\n```\n"
    (folder / "README.md").write_text(redact(text), encoding="utf-8")
