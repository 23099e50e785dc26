"""Rows of each kind, and configs of the methods that train on them, for the tests of several plugins."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import tiny

Records = list[dict[str, Any]]
SMOOTH = {"adam_epsilon": 1e-3}
"""Makes updates smooth in the gradient: rounding of small gradients does not change their direction."""


def pairs(count: int = 6, margins: bool = False) -> Records:
    """Return pairs of unequal lengths. With `margins`, each has a margin between its answers."""
    return [row | ({"margin": i / 4} if margins else {}) for i, row in enumerate(tiny.rows("pair", count))]


def close_pairs(count: int = 7) -> Records:
    """Return pairs whose answers have almost the same length, so that a step changes the order of their margins."""
    random_ = random.Random(3)
    prompts = [(random_.randint(4, 8), tiny.sentence(random_)) for _ in range(count)]
    return [
        {
            "prompt": prompt,
            "chosen": tiny.sentence(random_, length, length),
            "rejected": tiny.sentence(random_, length - 1, length + 1),
        }
        for length, prompt in prompts
    ]


def labelled(count: int = 7, seed: int = 3) -> Records:
    """Return labeled answers of unequal lengths. Of three successive rows, the first two have the same prompt."""
    return tiny.rows("labelled", count, seed)


def stepwise(count: int = 12, seed: int = 0) -> Records:
    """Return solutions of one to four steps. A step that mentions a dog is wrong."""
    return tiny.rows("stepwise", count, seed)


@dataclass(frozen=True)
class Recipe:
    """The rows of a method in tests, the name of their file, and the keys of its config."""

    file: str
    rows: Callable[[], Records]
    keys: dict[str, Any]
    type: str = "passthrough"


FOUR_STEPS = {"max_steps": 4, "num_epochs": 9, "learning_rate": 1e-3}
THREE_STEPS = {"max_steps": 3, "num_epochs": 9, **SMOOTH}
THREE_EPOCHS = {"max_steps": 3, "num_epochs": 3, "warmup_steps": 0, "weight_decay": 0.0}
METHODS = {
    "dpo": Recipe("pairs.jsonl", close_pairs, {"rl": "dpo", **FOUR_STEPS}),
    "kto": Recipe("labelled.jsonl", labelled, {"rl": "kto", **FOUR_STEPS, **SMOOTH}),
    "orpo": Recipe("pairs.jsonl", pairs, {"rl": "orpo", **THREE_STEPS}),
    "simpo": Recipe("pairs.jsonl", pairs, {"rl": "simpo", **THREE_STEPS}),
    "cpo": Recipe("pairs.jsonl", pairs, {"rl": "cpo", **THREE_STEPS}),
    "reward": Recipe("pairs.jsonl", functools.partial(pairs, 12), {"reward_model": True, **THREE_EPOCHS}),
    "prm": Recipe("steps.jsonl", stepwise, {"process_reward_model": True, **THREE_EPOCHS}, "stepwise_supervised"),
}


def config(
    folder: Path,
    method: str,
    name: str = "out",
    *,
    architecture: str = "llama",
    records: Records | None = None,
    entry: dict[str, Any] | None = None,
    **keys: Any,
) -> Path:
    """Write the config of a run that sees all rows in each step, and return its path.

    The file is `name`.yaml and the output folder is `name`. The model and the rows are written unless the folder has
    them; `records` replaces the rows. `entry` has further keys of the dataset entry, and `keys` of the config.
    """
    recipe, model = METHODS[method], folder / f"model-{architecture}"
    data = folder / recipe.file
    if not model.exists():
        tiny.model_folder(model, architecture)
    if records is not None or not data.exists():
        tiny.write_rows(data, recipe.rows() if records is None else records)
    defaults: dict[str, Any] = {
        "base_model": str(model),
        "datasets": [{"path": str(data), "type": recipe.type, **(entry or {})}],
        "sample_packing": False,
        "micro_batch_size": len(recipe.rows()),
        "max_grad_norm": 0,
        "lr_scheduler": "constant",
        "output_dir": str(folder / name),
    }
    return tiny.write_config(folder, f"{name}.yaml", **(defaults | recipe.keys | keys))


def real(test_data: Path, name: str, count: int | None = None) -> Records:
    """Return the first `count` rows of a file of real rows made from GSM8K, or all of them."""
    with (test_data / "gsm8k" / name).open(encoding="utf-8") as lines:
        return [json.loads(line) for _, line in zip(range(count or 10**9), lines, strict=False)]


@functools.cache
def byte_tokenizer(pattern: str = "<s> $A", eos: str | None = "</s>", marks: tuple[str, ...] = ()) -> Any:
    """Return a tokenizer of bytes, whose decoded tokens are the text that was tokenized.

    `pattern` has the special tokens that it adds to a text, and `marks` are further special tokens.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE({token: i for i, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<s>", "</s>", *marks])
    ends = [(text, core.token_to_id(text)) for text in ("<s>", "</s>")]
    core.post_processor = processors.TemplateProcessing(single=pattern, special_tokens=ends)
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token=eos)


def small_model(folder: Path, tokenizer: Any) -> Path:
    """Write a two-layer model with seeded random weights and the vocabulary of a tokenizer, and return the folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), num_attention_heads=4, **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def before_and_after(
    folder: Path, test_data: Path, train: Iterable[dict[str, Any]], held_out: Iterable[dict[str, Any]], **keys: Any
) -> tuple[dict[str, float], dict[str, float]]:
    """Train a small model with a real tokenizer on real rows; return its last metrics before and after training.

    The metrics before are those of one step whose learning rate is too small to change a weight. `type` and
    `prompt_format` in `keys` are those of the dataset entries.
    """
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(test_data / "tokenizer-gpt2-chatml")
    form = {key: keys.pop(key) for key in ("type", "prompt_format") if key in keys}
    entries = {
        key: [{"path": str(tiny.write_rows(folder / f"{key}.jsonl", list(records))), **form}]
        for key, records in (("datasets", train), ("test_datasets", held_out))
    }
    defaults = {
        "base_model": str(small_model(folder / "small", tokenizer)),
        "sequence_len": 1024,
        "learning_rate": 1e-3,
    }
    path = tiny.write_config(folder, **(defaults | entries | keys))
    tiny.train(path, "max_steps=1", "learning_rate=1e-30", f"output_dir={folder / 'untrained'}")
    tiny.train(path)
    before, after = (tiny.metrics(folder / name)[-1] for name in ("untrained", "out"))
    return before, after
