"""Refuse adapters that add virtual tokens in front of each sequence, because a pack has no place for them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from tunesmith.errors import PluginError


def refuse(module: nn.Module) -> None:
    """Raise PluginError if a module that patch_model returned is the wrapper of a prompt-learning adapter.

    Its virtual tokens are added in the forward of the wrapper, which the engine does not call: it runs the body of the
    model on a pack of many sequences. They would be trained without effect.
    """
    adapters = getattr(module, "peft_config", None)
    for config in adapters.values() if isinstance(adapters, Mapping) else ():
        if getattr(config, "is_prompt_learning", False):
            kind = getattr(config.peft_type, "value", config.peft_type)
            message = f"patch_model returned a model with an adapter of type {kind}, which adds tokens to each sequence"
            help = "a pack has no place for them: use an adapter that changes layers, such as LoRA"
            raise PluginError(message, help=help, code="prompt-learning")
