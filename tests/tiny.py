"""Build tiny models, a tokenizer and data for tests, and run them in this process."""

from __future__ import annotations

import functools
import json
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tunesmith.testing import rows, sentence, worker, write_rows

__all__ = ["rows", "sentence", "write_rows"]

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ARCHITECTURES = ("llama", "qwen3", "gemma3", "gpt_neox", "mixtral")


@functools.cache
def tokenizer() -> Any:
    """Return a byte-level BPE tokenizer of 320 entries with the ChatML template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    bpe.train_from_iterator([sentence(random.Random(i)) for i in range(200)], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = CHATML
    return fast


def config(architecture: str, **changes: Any) -> Any:
    """Return the transformers config of a two-layer model; `changes` override its values."""
    import transformers

    sizes: dict[str, Any] = {
        "vocab_size": 320, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 512,
    }  # fmt: skip
    grouped = sizes | {"num_key_value_heads": 2, "head_dim": 8}
    class_name, values = {
        "llama": ("LlamaConfig", grouped),
        "qwen3": ("Qwen3Config", grouped),
        "gemma3": (
            "Gemma3TextConfig",
            grouped | {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
        ),
        "gpt_neox": ("GPTNeoXConfig", sizes),
        "mixtral": ("MixtralConfig", grouped | {"num_local_experts": 4, "num_experts_per_tok": 2}),
        "qwen3_moe": (
            "Qwen3MoeConfig",
            grouped | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
        ),
        "lfm2": ("Lfm2Config", grouped | {"layer_types": ["conv", "full_attention"]}),
    }[architecture]
    return getattr(transformers, class_name)(**(values | changes))


def model_folder(folder: Path, architecture: str = "llama", **changes: Any) -> Path:
    """Write a config, seeded random weights and the tokenizer to a folder, and return the folder."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config(architecture, **changes), dtype=torch.float32)
        for parameter in model.parameters():  # larger than usual, so that attention across examples changes the loss
            parameter.data.mul_(3.0) if parameter.ndim > 1 else None
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def write_config(folder: Path, name: str = "run.yaml", **keys: Any) -> Path:
    """Write a config with small numbers to a folder. `keys` must set base_model and datasets; None removes a key."""
    values: dict[str, Any] = {
        "sequence_len": 128, "micro_batch_size": 2, "learning_rate": 1e-2, "output_dir": str(folder / "out"),
        "device": "cpu", "seed": 7, **keys,
    }  # fmt: skip
    path = folder / name
    path.write_text(
        yaml.safe_dump({k: v for k, v in values.items() if v is not None}, sort_keys=False), encoding="utf-8"
    )
    return path


def sft_config(folder: Path, architecture: str = "llama", number: int = 24, **keys: Any) -> Path:
    """Write the config of a supervised run, with its model and data unless the folder already has them."""
    model = folder / f"model-{architecture}"
    if not model.exists():
        model_folder(model, architecture)
    data = folder / "data.jsonl"
    if not data.exists():
        write_rows(data, rows("conversation", number))
    defaults = {"base_model": str(model), "datasets": [{"path": str(data), "type": "chat_template"}], "max_steps": 4}
    return write_config(folder, **(defaults | keys))


def start(config: Path, *overrides: str) -> Any:
    """Start a run of a config, without training it."""
    from tunesmith.api import start as start_run
    from tunesmith.config.load import load_config

    return start_run(load_config(config, overrides))


def train(config: Path, *overrides: str) -> Any:
    """Train a config in this process and return the api.Result."""
    from tunesmith.api import train as train_run

    return train_run(start(config, *overrides))


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]


def weights(folder: Path) -> dict[str, Any]:
    """Return the tensors of the model or adapter in a folder, by name."""
    from safetensors.torch import load_file

    name = "model.safetensors" if (folder / "model.safetensors").exists() else "adapter_model.safetensors"
    return load_file(folder / name)


def checkpoint_bytes(run: Any) -> Any:
    """Return the disk.CheckpointBytes of a started run, counted on its model without weights."""
    from torch import nn
    from tunesmith_engine.checkpoint.disk import bytes_of
    from tunesmith_engine.model.build import abstract_models

    with abstract_models(run) as models:
        policy = models["policy"]
        return bytes_of(run, nn.ModuleList([policy.module, policy.heads]), full_export=run.adapter is None)


def torchrun(processes: int, *configs: Path) -> None:
    """Train configs one after the other in one torchrun launch with `processes` processes."""
    command = worker.command(processes, configs)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    completed = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=240)
    assert completed.returncode == 0, completed.stdout[-2000:] + completed.stderr[-4000:]


def assert_same_weights(folder: Path, other: Path) -> None:
    """Assert that the models or adapters in two folders have the same tensors, bit for bit."""
    own, expected = weights(folder), weights(other)
    assert own.keys() == expected.keys()
    assert all(own[name].equal(expected[name]) for name in expected)


def rewards_config(folder: Path, rows: list[dict[str, Any]], rewards: list[Any], **keys: Any) -> Path:
    """Write the config of one step of GRPO on one group, with the rewards that score it."""
    values = {
        "base_model": str(model_folder(folder / "model")), "rl": "grpo", "rewards": rewards, "max_steps": 1,
        "datasets": [{"path": str(write_rows(folder / "data.jsonl", rows)), "type": "prompt"}], "micro_batch_size": 4,
        "trl": {"num_generations": 4, "max_completion_length": 8},
    }  # fmt: skip
    return write_config(folder, **(values | keys))
