"""Find the rows of the embeddings and the head that an adapter trains."""

from __future__ import annotations

from typing import Any

from tunesmith import ConfigError, Run
from tunesmith_lora.settings import LoraSettings

KEY = "lora_trainable_tokens"


def trainable_rows(run: Run, model: Any, settings: LoraSettings) -> dict[str, list[int]]:
    """Return the ids of lora_trainable_tokens for the embeddings and the head, by the last part of their names.

    A head that shares its weight with the embeddings is left out, because peft ties it again. Raise ConfigError.
    """
    if not settings.lora_trainable_tokens:
        return {}
    vocabulary, problems = run.tokenizer.get_vocab(), []
    for index, text in enumerate(settings.lora_trainable_tokens):
        if text not in vocabulary:
            help = "add it with tokens:, and train it with this key"
            problems += run.config.error((KEY, index), f"{text!r} is not in the vocabulary", help).problems
    if problems:
        raise ConfigError(problems)
    inputs, head = model.get_input_embeddings(), model.get_output_embeddings()
    ends = [inputs] if head is None or head.weight is inputs.weight else [inputs, head]
    names = {name.rpartition(".")[2]: module for name, module in model.named_modules() if module in ends}
    for index, name in enumerate(settings.lora_modules_to_save or ()):
        if name in names:
            message = f"{name} is already trained completely, so {KEY} can't train some of its rows"
            raise run.config.error(("lora_modules_to_save", index), message, f"drop {name}, or drop {KEY}")
    if head is not None and getattr(head, "bias", None) is not None:
        message = "does not work for a head with a bias, which peft would drop"
        raise run.config.error(KEY, message, f"write lora_modules_to_save: [{', '.join(names)}]")
    ids = sorted({vocabulary[text] for text in settings.lora_trainable_tokens})
    return dict.fromkeys(names, ids)
