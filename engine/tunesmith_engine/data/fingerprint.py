"""Compute the fingerprint of prepared data: a hash of everything that it depends on."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from tunesmith.config.config import digest
from tunesmith.plugins.discovery import core_version
from tunesmith.run import Run
from tunesmith_engine.data.lengths import completion_length


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """Return a hash of everything that a tokenizer does: vocabulary, rules, special tokens, template."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend is not None else repr(tokenizer)
    special = {k: str(v) for k, v in sorted(getattr(tokenizer, "special_tokens_map", {}).items())}
    return digest([rules, special, getattr(tokenizer, "chat_template", None)])


def fingerprint(run: Run, rows: list[Any]) -> str:
    """Return a hash of everything that prepared data depends on, and of nothing else.

    Settings of training (weights, temperature, packing) are not in it. The seed is only if it draws a held-out split.
    """
    core, config = run.core, run.config
    hooks = ("load_rows", "filter_rows", "load_tokenizer", "build_dataset")
    makers = sorted({call.plugin for hook in hooks for call in run.hooks.calls(hook)})  # wrappers are among them
    parts: dict[str, Any] = {
        "versions": [core_version(), metadata.version("tunesmith-engine")],
        "makers": [_maker(run, name) for name in makers],
        "tokenizer": tokenizer_fingerprint(run.tokenizer),
        "lengths": [core.sequence_len, core.excess_length_strategy, *filter(None, [completion_length(run)])],
        "split": [core.val_set_size, core.seed] if core.val_set_size else None,
        "rows": rows,
        "strategies": [
            [s.group, s.strategy, s.row_kind, s.settings.type, s.settings.keep, _values(s.options)]
            for s in config.entries
        ],
    }
    if config.streamed:
        parts["stream"] = [spec.settings.model_dump(mode="json") for spec in config.streamed]
        parts["buffer"] = core.streaming_multipack_buffer_size
    return digest(parts)


def _maker(run: Run, name: str) -> list[Any]:
    """Return what identifies a plugin that takes part in preparing: its version (local: its content) and settings."""
    plugin = run.hooks.by_name[name]
    return [name, plugin.distribution, plugin.content or plugin.version, _values(run.config.plugins.get(name))]


def _values(settings: Any) -> Any:
    return settings.model_dump(mode="json") if settings is not None else None
