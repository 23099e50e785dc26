"""Look at the files of a model, without torch and without the network: size, context, chat template, special tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith import ModelError
from tunesmith.files.paths import advice, is_hub_id

WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")
LARGE = 300_000_000
"""Weights from which an adapter is the default: 16 bytes for each weight are 5 GB."""


@dataclass(frozen=True)
class Model:
    """What the files of a model say.

    Args:
        name: the folder or hub id.
        folder: the folder with its files: its own, or that of the cache of the hub; None if there is none here.
        config: config.json.
        template: its chat template, "" if it has none; None if that is not known.
        tokens: its special tokens.
        weights: False if a local folder has no weights; None if that is not known.
    """

    name: str
    folder: Path | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    template: str | None = None
    tokens: frozenset[str] = frozenset()
    weights: bool | None = None

    @property
    def context(self) -> int | None:
        """The longest sequence that the model was made for; None if that is not known."""
        value = self.config.get("max_position_embeddings")
        return value if isinstance(value, int) and value > 0 else None

    @property
    def parameters(self) -> int | None:
        """About how many weights the model has; None if config.json does not say."""
        sizes = [
            self.config.get(key) for key in ("hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size")
        ]
        if not all(isinstance(size, int) and size > 0 for size in sizes):
            return None
        hidden, layers, inner, words = (int(size) for size in sizes if size is not None)
        return layers * (4 * hidden * hidden + 3 * hidden * inner) + words * hidden

    @property
    def is_chat(self) -> bool:
        """True if the model has a chat template, or looks like it by its name."""
        if self.template is not None:
            return bool(self.template)
        return any(word in self.name.lower() for word in ("instruct", "chat", "-it", "assistant"))

    @property
    def writes_tools(self) -> bool | None:
        """True if the chat template writes tools; None if there is no template to read."""
        return None if self.template is None else "tools" in self.template


def look_at(name: str) -> Model:
    """Return what the files of a model say. Raise ModelError if it is neither a folder with a model nor a hub id."""
    folder = Path(name)
    if not folder.is_dir():
        if not is_hub_id(name):
            raise ModelError(f"{name}: no such folder", where="command line (--model)", help=advice(name, folders=True))
        cached = _cached(name)
        return Model(name) if cached is None else _of_folder(name, cached, None)
    if not (folder / "config.json").is_file():
        help = "name the folder with config.json, the tokenizer and the weights"
        raise ModelError(f"{name} has no config.json", where="command line (--model)", help=help)
    return _of_folder(name, folder, any(next(folder.glob(pattern), None) for pattern in WEIGHTS))


def _of_folder(name: str, folder: Path, weights: bool | None) -> Model:
    settings, tokenizer = _json(folder / "tokenizer_config.json"), _json(folder / "tokenizer.json")
    config = _json(folder / "config.json")
    text = config.get("text_config")
    if isinstance(text, dict):  # of a model of several modalities
        config = {**config, **text}
    file = folder / "chat_template.jinja"
    template: Any = file.read_text("utf-8", errors="replace") if file.is_file() else settings.get("chat_template") or ""
    if isinstance(template, list):  # several templates by name
        template = "\n".join(str(item.get("template")) for item in template if isinstance(item, dict))
    added = tokenizer.get("added_tokens")
    tokens = {str(t.get("content")) for t in added if isinstance(t, dict)} if isinstance(added, list) else set()
    return Model(name, folder, config, str(template), frozenset(tokens), weights)


def _cached(name: str) -> Path | None:
    """Return the folder with the files of a model of the hub that were downloaded before; None if there are none."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(name, "config.json")
    return Path(path).parent if isinstance(path, str) else None


def _json(path: Path) -> dict[str, Any]:
    """Return the mapping in a file; {} if there is none. Raise ModelError for a file that is not JSON."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} can't be read: {error}", help="copy the file again") from error
    return value if isinstance(value, dict) else {}
