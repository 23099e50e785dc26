"""Which rows of the embeddings and the head an adapter trains."""

from __future__ import annotations

from typing import Any

from tunesmith import ConfigError, Run
from tunesmith_lora import LoraSettings

KEY = "lora_trainable_tokens"


def trainable_rows(run: Run, model: Any, settings: LoraSettings) -> dict[str, list[int]]:
    """Last part of a module's name -> the ids of lora_trainable_tokens; a head that shares its weight is left to peft,
    which ties it again. Raises ConfigError."""
    if not settings.lora_trainable_tokens:
        return {}
    vocabulary, problems = run.tokenizer.get_vocab(), []
    for index, text in enumerate(settings.lora_trainable_tokens):
        if text not in vocabulary:
            help = "tokens: adds one, and this key trains it"
            problems += run.config.error((KEY, index), f"{text!r} is not in the vocabulary", help).problems
    if problems:
        raise ConfigError(problems)
    inputs, head = model.get_input_embeddings(), model.get_output_embeddings()
    ends = [inputs] if head is None or head.weight is inputs.weight else [inputs, head]
    names = {name.rpartition(".")[2]: module for name, module in model.named_modules() if module in ends}
    for index, name in enumerate(settings.lora_modules_to_save or ()):
        if name in names:
            message = f"{name} is trained whole, and some of its rows by {KEY}"
            raise run.config.error(("lora_modules_to_save", index), message, f"drop one of them, or {KEY}")
    if head is not None and getattr(head, "bias", None) is not None:
        raise run.config.error(
            KEY, "is not for a head with a bias, which peft drops", f"write lora_modules_to_save: [{', '.join(names)}]"
        )
    ids = sorted({vocabulary[text] for text in settings.lora_trainable_tokens})
    return dict.fromkeys(names, ids)
