"""Looks at the files of a model as text, before any library reads them: is there something that asks for code?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith import ModelError, SafetyError
from tunesmith.files.untrusted import check_weights, leads_out, leaves, read_json

INDEX = "model.safetensors.index.json"
FOLDERS = ("additional_chat_templates", "custom_generate")
"""Folders of a model that libraries look into, beside the model's own."""
VOCABULARIES = {"tokenizer.json", "vocab.json"}
"""Words and rules, read by the tokenizers library, which knows nothing that runs."""
IMPLEMENTATION = re.compile(r"_?\w*_implementation(_internal)?")
OF_ANOTHER = re.compile(r"[\w.-]+(/[\w.-]+)?--[\w./-]*\.\w+")
"""owner/name--module.Class: a class from another repository."""
OWN_CLASS = re.compile(r"([A-Za-z_]\w*)\.[A-Za-z_]\w*")
FILE_NAME = re.compile(r"[\w.-]+\.safetensors")
NAMES_OF_DATA = {"dataset", "tokenizer", "model_name_or_path", "ignore", "targets"}
"""Keys of a quantization_config that may hold paths and hub ids: no code."""


def scan(folder: Path, where: str, advice: str, code: dict[str, bytes] | None) -> None:
    """Raise SafetyError or ModelError for what can't or shouldn't be loaded; `code` is what may run, if any may."""
    for path in _files(folder):
        if leads_out(folder, path):
            help = "put the file itself into the folder, if it is to be read"
            raise SafetyError(f"{path} is a link to {path.resolve()}, outside the folder", where=where, help=help)
        if path.suffix == ".json" and path.name not in VOCABULARIES:
            _scan_json(path, read_json(path, where, kind=None), where, advice, code)
    if (folder / "adapter_config.json").exists():
        help = "base_model is what the adapter was trained on; adapter: lora and lora_model_dir: go on with it"
        raise ModelError(f"{folder} has an adapter in it", where=where, help=help)


def _files(folder: Path) -> Iterator[Path]:
    for place in (folder, *(folder / name for name in FOLDERS)):
        if place.is_dir():
            yield from sorted(path for path in place.iterdir() if path.is_symlink() or path.is_file())


def _scan_json(path: Path, content: Any, where: str, advice: str, code: dict[str, bytes] | None) -> None:
    for keys, value in leaves(content):
        why = (_foreign(keys, value) if value else None) or (_code(keys, value, code) if value else None)
        if why:
            name = ".".join(keys)
            raise SafetyError(f"{path}: {name} {why}: {str(value)[:100]!r}", where=where, help=advice)


def _foreign(keys: tuple[str, ...], value: Any) -> str | None:
    """What is refused in any case: code and files from elsewhere."""
    text = value if isinstance(value, str) else ""
    if OF_ANOTHER.fullmatch(text):
        return "names code of another repository"
    if any(IMPLEMENTATION.fullmatch(key) for key in keys) and ("/" in text or "\\" in text):
        return "names code on the hub"
    if "_target_" in keys:
        return "names something to call"
    if "quantization_config" in keys and "/" in text and not NAMES_OF_DATA & set(keys):
        return "names something on the hub"
    if keys[:1] == ("weight_map",) and not FILE_NAME.fullmatch(text):
        return "names no .safetensors file of this folder"
    if keys[:1] == ("transformers_weights",) and not FILE_NAME.fullmatch(text.removesuffix(".index.json")):
        return "names no .safetensors file of this folder"
    return None


def _code(keys: tuple[str, ...], value: Any, code: dict[str, bytes] | None) -> str | None:
    """What needs permission: code of the model's own."""
    if "custom_generate" in keys and code is None:
        return "asks for code that comes with the model"
    if "auto_map" in keys:
        if code is None:
            return "asks for code that comes with the model"
        own = OWN_CLASS.fullmatch(value) if isinstance(value, str) else None
        if not own or f"{own[1]}.py" not in code:
            return "names no class in a file of this folder"
    return None


def check_all_weights(folder: Path, where: str) -> None:
    """Raise ModelError for weights that are not there, or whose headers do not describe them."""
    for path in sorted({*folder.glob("*.safetensors"), *(folder / name for name in named_weights(folder, where))}):
        check_weights(path, where)


def named_weights(folder: Path, where: str) -> set[str]:
    """The files that the index of a model in several parts names; none without an index. Raises ModelError."""
    index = folder / INDEX
    if not index.is_file():
        return set()
    names = read_json(index, where).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise ModelError(f"{index}: weight_map has to name a file for each tensor", where=where)
    return set(names.values())
