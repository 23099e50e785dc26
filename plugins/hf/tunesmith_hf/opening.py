"""Tell which keys load a saved model in the layout of transformers, and the tokens that its base was given."""

from __future__ import annotations

from typing import Any

from tunesmith import SavedModel
from tunesmith.files.paths import is_hub_id

TOKENS = ("tokenizer_config", "special_tokens", "tokens", "added_tokens_overrides", "resize_token_embeddings_to_32x")


def keys(saved: SavedModel) -> dict[str, Any] | None:
    """Return the keys that load a folder or a hub id; for the base model of an adapter, those of its tokens.

    A full model is saved with its tokenizer. An adapter is loaded on the base as the run changed it. Only a YAML that
    the user names can allow remote code.
    """
    keys = {key: value for key in ("trust_remote_code",) if (value := saved.trusted(key))}
    if saved.peft_config:
        keys |= {key: value for key in TOKENS if (value := _given(saved.get(key)))}
        if not saved.base and (revision := saved.get("revision_of_model") or saved.peft_config.get("revision")):
            keys["revision_of_model"] = revision
        if not saved.base and saved.get("reinit_weights"):  # the base has no weights: its random ones follow the seed
            keys |= {"reinit_weights": True} | ({"seed": seed} if (seed := saved.get("seed")) is not None else {})
        return keys
    if (saved.folder / "config.json").is_file() or (not saved.folder.exists() and is_hub_id(saved.path)):
        return keys | {"base_model": saved.path}
    return None


def _given(value: Any) -> Any:
    """Return a value without the members that are not set."""
    return {key: one for key, one in value.items() if one is not None} if isinstance(value, dict) else value
