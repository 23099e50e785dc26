"""Plan the memory of a step for models of known sizes, and name the smallest GPU that it fits on: docs/hardware.md.

Nothing is downloaded and no weight exists: a folder has the config.json of the model, a tokenizer, and the header of
a file of weights, whose content is a hole in the file system. `plan` counts the tensors of a step without content. What
it adds for the heap of a CPU is left out; a GPU needs about 1 GiB for its context and kernels instead.
"""

from __future__ import annotations

import json
import shutil
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

import tunesmith
from bench import pairs
from bench.child import ROOT

GPUS = {"12 GB": 12, "16 GB": 16, "24 GB": 24, "48 GB": 48, "80 GB": 80, "141 GB": 141}
"""Memory of GPUs as their makers state it, in units of 10^9 bytes."""
CONTEXT = 2**30
LLAMA: dict[str, dict[str, Any]] = {
    "Llama 3.2 1B": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
                     "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": True},
    "Llama 3.2 3B": {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28,
                     "num_attention_heads": 24, "num_key_value_heads": 8, "tie_word_embeddings": True},
    "Llama 3.1 8B": {"hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
                     "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": False},
    "Llama 3.1 70B": {"hidden_size": 8192, "intermediate_size": 28_672, "num_hidden_layers": 80,
                      "num_attention_heads": 64, "num_key_value_heads": 8, "tie_word_embeddings": False},
}  # fmt: skip
WAYS = {
    "QLoRA": {"adapter": "qlora", "lora_r": 16, "lora_alpha": 32},
    "LoRA": {"adapter": "lora", "lora_r": 16, "lora_alpha": 32},
    "DPO with LoRA": {"adapter": "lora", "lora_r": 16, "lora_alpha": 32, "rl": "dpo"},
    "all weights": {},
}
SKIPPED = {("Llama 3.1 70B", "DPO with LoRA"), ("Llama 3.1 70B", "all weights")}
"""Plans that take long, and whose result is more than one GPU in any case."""


def weights(folder: Path, config: Any) -> None:
    """Write a file of weights in bfloat16 that has only its header."""
    import torch
    import transformers

    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    header: dict[str, Any] = {}
    place = 0
    tied = set(getattr(model, "_tied_weights_keys", None) or ()) if config.tie_word_embeddings else set()
    for name, tensor in model.state_dict().items():
        if name not in tied:
            size = tensor.numel() * 2
            header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [place, place + size]}
            place += size
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + place)


def folder_of(root: Path, name: str) -> Path:
    """Write the folder of a model: config, tokenizer, and weights without content."""
    import transformers

    folder = root / name.replace(" ", "-")
    folder.mkdir()
    config = transformers.LlamaConfig(
        vocab_size=128_256, max_position_embeddings=131_072, rms_norm_eps=1e-5, bos_token_id=0, eos_token_id=2,
        pad_token_id=0, architectures=["LlamaForCausalLM"], **LLAMA[name],
    )  # fmt: skip
    config.save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(ROOT / "examples/tiny" / file, folder / file)
    weights(folder, config)
    return folder


def plan(root: Path, model: Path, keys: dict[str, Any]) -> dict[str, int]:
    """Return the memory of a step of 2,048 tokens by component, in bytes."""
    data = "pairs" if "rl" in keys else "chat"
    values = {
        "base_model": str(model),
        "datasets": [{"path": str(ROOT / f"examples/data/{data}.jsonl"), "type": "chat_template"}],
        "sequence_len": 2048, "micro_batch_size": 1, "gradient_checkpointing": True, "bf16": True, "device": "cpu",
        "output_dir": str(root / "out"), "plugins": ["-console"], **keys,
    }  # fmt: skip
    memory = tunesmith.plan(values)["memory"]
    return {name: memory[name] for name in ("weights", "gradients", "optimizer", "activations", "loss")}


def main() -> None:
    names = list(LLAMA)[:1] if pairs.quick else list(LLAMA)
    print("| model | way | weights | gradients and optimizer | activations | in all | fits on |")
    for name in names:
        with tempfile.TemporaryDirectory() as root:
            model = folder_of(Path(root), name)
            for way, keys in WAYS.items():
                if (name, way) in SKIPPED:
                    continue
                memory = plan(Path(root), model, keys)
                total = sum(memory.values()) + CONTEXT
                gpu = next((gpu for gpu, size in GPUS.items() if total <= size * 10**9), "several GPUs")
                sizes = (
                    memory["weights"],
                    memory["gradients"] + memory["optimizer"],
                    memory["activations"] + memory["loss"],
                )
                cells = [f"{size / 2**30:.1f}" for size in (*sizes, total)]
                print(f"| {name} | {way} | {' | '.join(cells)} | {gpu} |", flush=True)
    sys.stdout.flush()
