"""Scan the files of a model for anything that asks to run code, before a library reads them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith import ModelError, SafetyError
from tunesmith.files.untrusted import TensorHeader, check_weights, leads_out, leaves, read_json
from tunesmith_hf.architecture import check_headers

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FOLDERS = ("additional_chat_templates", "custom_generate")
"""Subfolders of a model that libraries read."""
VOCABULARIES = {"tokenizer.json", "vocab.json"}
"""Files of words and rules. The tokenizers library reads them and never runs anything from them."""
IMPLEMENTATION = re.compile(r"_?\w*_implementation(_internal)?")
FOREIGN_CLASS = re.compile(r"[\w.-]+(/[\w.-]+)?--[\w./-]*\.\w+")
"""owner/name--module.Class: a class from another repository."""
OWN_CLASS = re.compile(r"([A-Za-z_]\w*)\.[A-Za-z_]\w*")
FILE_NAME = re.compile(r"[\w.-]+\.safetensors")
DATA_KEYS = {"dataset", "tokenizer", "model_name_or_path", "ignore", "targets"}
"""Keys of a quantization_config that may contain paths and hub ids, which are not code."""


def scan(folder: Path, where: str, advice: str, code: dict[str, bytes] | None) -> None:
    """Raise SafetyError or ModelError for what can't or shouldn't be loaded.

    `code` is the permitted code by file name, or None if no code may run. `advice` is the help of a SafetyError.
    """
    for path in _files(folder):
        if leads_out(folder, path):
            help = "copy the file itself into the folder if it should be read"
            raise SafetyError(f"{path} is a link to {path.resolve()}, outside the folder", where=where, help=help)
        if path.suffix == ".json" and path.name not in VOCABULARIES:
            _scan_json(path, read_json(path, where, kind=None), where, advice, code)
    if (folder / "adapter_config.json").exists():
        help = "set base_model to the adapter's base model; to resume the adapter: adapter: lora and lora_model_dir"
        raise ModelError(f"{folder} contains an adapter", where=where, help=help)


def _files(folder: Path) -> Iterator[Path]:
    for parent in (folder, *(folder / name for name in FOLDERS)):
        if parent.is_dir():
            yield from sorted(path for path in parent.iterdir() if path.is_symlink() or path.is_file())


def _scan_json(path: Path, content: Any, where: str, advice: str, code: dict[str, bytes] | None) -> None:
    for keys, value in leaves(content):
        why = (_why_foreign(keys, value) or _why_not_permitted(keys, value, code)) if value else None
        if why:
            name = ".".join(keys)
            raise SafetyError(f"{path}: {name} {why}: {str(value)[:100]!r}", where=where, help=advice)


def _why_foreign(keys: tuple[str, ...], value: Any) -> str | None:
    """Return why a value is refused with any permission: it names code or files from elsewhere."""
    text = value if isinstance(value, str) else ""
    if FOREIGN_CLASS.fullmatch(text):
        return "names code of another repository"
    if any(IMPLEMENTATION.fullmatch(key) for key in keys) and ("/" in text or "\\" in text):
        return "names code on the hub"
    if "_target_" in keys:
        return "names a Python object to call"
    if "quantization_config" in keys and "/" in text and not DATA_KEYS & set(keys):
        return "names a hub id"
    if keys[:1] == ("weight_map",) and not FILE_NAME.fullmatch(text):
        return "is not the name of a .safetensors file in this folder"
    if keys[:1] == ("transformers_weights",) and not FILE_NAME.fullmatch(text.removesuffix(".index.json")):
        return "is not the name of a .safetensors file in this folder"
    return None


def _why_not_permitted(keys: tuple[str, ...], value: Any, code: dict[str, bytes] | None) -> str | None:
    """Return why a value is refused without permission: it asks for the model's own code."""
    if "custom_generate" in keys and code is None:
        return "asks for code that comes with the model"
    if "auto_map" in keys:
        if code is None:
            return "asks for code that comes with the model"
        own = OWN_CLASS.fullmatch(value) if isinstance(value, str) else None
        if not own or f"{own[1]}.py" not in code:
            return "is not a class in a file of this folder"
    return None


def check_all_weights(folder: Path, config: dict[str, Any], where: str) -> None:
    """Raise ModelError for weight files that are missing or damaged, or whose headers contradict config.json."""
    index = weight_map(folder, where)
    weights: dict[str, TensorHeader] = {}
    named = {folder / name for name in index.values()}
    if not named and not config.get("transformers_weights") and not (folder / SINGLE).is_file():
        message = f"{folder} has weights, but neither {SINGLE} nor {INDEX}, which lists the parts"
        raise ModelError(message, where=where, help="fetch the missing file", code="weights")
    headers = {path: check_weights(path, where) for path in sorted({*folder.glob("*.safetensors"), *named})}
    for name, file in index.items():
        if name not in headers[folder / file]:
            message = f"{folder / INDEX} names {name} in {file}, which has no such tensor"
            raise ModelError(message, where=where, help="fetch the index and the weights again", code="weights")
    for path in named or {folder / SINGLE} & headers.keys():
        weights |= headers[path]
    check_headers(folder, config, weights, where)


def weight_map(folder: Path, where: str) -> dict[str, str]:
    """Return the file of each tensor of a sharded model, or nothing without an index. Raise ModelError."""
    index = folder / INDEX
    if not index.is_file():
        return {}
    names = read_json(index, where).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise ModelError(f"{index}: weight_map must map each tensor to a file name", where=where)
    return names


def named_weights(folder: Path, where: str) -> set[str]:
    """Return the files that the index of a sharded model lists, or none without an index. Raise ModelError."""
    return set(weight_map(folder, where).values())
