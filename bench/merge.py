"""Measure the memory of `tunesmith merge-lora` on a model of about a billion parameters with random weights.

Every linear layer has an adapter. The model has bfloat16 shards, about 2.2 GB on the disk, in the system's temporary
folder. The bound is 1.3 times the largest shard plus the adapter, in addition to the memory after all imports; the
comparison of the merged model with the unmerged one is part of the merge.

    python -m bench.merge merge FOLDER    one merge in a separate process: a child of the benchmark

The peak is VmHWM of /proc/self/status, which is reset through /proc/self/clear_refs before the merge.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import pairs
from bench.child import module, report

MIB = 2**20
SHARD, ALLOWED = "600MB", 1.3
RANK = 16


def sizes() -> dict[str, Any]:
    """Return the config of a model like Llama 3.2 1B, with a smaller vocabulary and a head of its own."""
    layers = 4 if pairs.quick else 16
    return {"vocab_size": 64_000, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": layers,
            "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64}  # fmt: skip


def make(folder: Path) -> None:
    """Write a base model and an adapter with random weights."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    model: Any = LlamaForCausalLM(LlamaConfig(**sizes(), dtype="bfloat16"))
    model.save_pretrained(folder / "base", max_shard_size=SHARD)
    config = LoraConfig(r=RANK, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM", use_dora=False)
    wrapped = get_peft_model(model, config)
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            parameter.data += 0.01 * torch.randn_like(parameter)
    wrapped.save_pretrained(folder / "adapter")
    report(parameters=sum(p.numel() for p in model.parameters()))


def merge(folder: Path) -> None:
    """Merge, and report the peak of the memory in addition to that after the imports."""
    from tunesmith_merge import compare, merging, writing  # noqa: F401

    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    done = merging.merge(folder / "adapter", folder / "merged", base=str(folder / "base"))
    assert done.largest is not None
    report(added=status("VmHWM") - before, imports=before, difference=done.largest.value, part=done.largest.part)


def status(name: str) -> int:
    """Return a line of /proc/self/status in bytes."""
    text = Path("/proc/self/status").read_text("utf-8")
    return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(f"{name}:"))


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = module("merge", *(["make", name, "--quick"] if pairs.quick else ["make", name])).numbers
        child = module("merge", "merge", name)
        shards = [path.stat().st_size for path in (folder / "base").glob("*.safetensors")]
        adapter = (folder / "adapter" / "adapter_model.safetensors").stat().st_size
    numbers = child.numbers
    bound = ALLOWED * max(shards) + adapter
    print(f"merge-lora: {model['parameters'] / 1e9:.2f}e9 parameters, bfloat16, {len(shards)} shards of at most "
          f"{max(shards) / MIB:,.0f} MiB, adapter of rank {RANK} with {adapter / MIB:,.0f} MiB")  # fmt: skip
    print(f"  peak above the {numbers['imports'] / MIB:,.0f} MiB after imports: {numbers['added'] / MIB:,.0f} MiB; "
          f"bound: {ALLOWED} x largest shard + adapter = {bound / MIB:,.0f} MiB")  # fmt: skip
    print(f"  {child.seconds:.0f} CPU seconds; largest relative difference to the unmerged model "
          f"{numbers['difference']:.1e}, in {numbers['part']}\n")  # fmt: skip
    assert numbers["added"] < bound, "the memory is above its bound"


if __name__ == "__main__":
    pairs.quick = "--quick" in sys.argv
    {"make": make, "merge": merge}[sys.argv[1]](Path(sys.argv[2]))
