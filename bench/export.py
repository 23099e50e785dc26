"""Measure the memory of exporting a model of about a billion parameters that is divided over two processes (FSDP2).

The weights are random and in float32. The bound is 1.3 times the shard of a process plus the largest unit, in addition
to the memory after all imports. Gathering the model on one process would take twice the shard.

    python -m bench.export export FOLDER    one of the two processes, which torchrun starts

The peak is VmHWM of /proc/self/status. The full model exists as addresses only before it is divided: nothing is written
to them, so they take no memory.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import pairs
from bench.child import report, run
from bench.merge import MIB, sizes, status

ALLOWED, PROCESSES = 1.3, 2


def write(folder: Path) -> Path:
    """Write the config of a run of two processes, and the config of its model, which has no weights."""
    from transformers import LlamaConfig

    from tests import tiny

    LlamaConfig(**sizes(), architectures=["LlamaForCausalLM"]).save_pretrained(folder / "model-llama")
    tiny.tokenizer().save_pretrained(folder / "model-llama")
    return tiny.sft_config(folder, fsdp_config={}, bf16=False, reinit_weights=True)


def export(folder: Path) -> None:
    """Divide a model, export it, and report the peaks of memory of all processes."""
    import torch
    import transformers  # noqa: F401
    from tunesmith_engine.model.build import abstract_models, handle
    from tunesmith_hf import load, streamed  # noqa: F401

    from tests import tiny

    started = tiny.start(folder / "run.yaml")
    started.tokenizer = started.hooks.load_tokenizer(started)
    with abstract_models(started) as models:
        imports = status("VmRSS")
        policy = handle(started, "policy", models["policy"])
        policy.module = started.parallelism.wrap(policy.module.to_empty(device="cpu"))
        shard = 0
        for parameter in policy.unwrapped.parameters():
            local: Any = parameter.detach().to_local()  # type: ignore[attr-defined]
            shard += local.normal_().numel() * local.element_size()
        Path("/proc/self/clear_refs").write_text("5")
        before = status("VmRSS")
        (folder / "exported").mkdir(exist_ok=True)
        started.hooks.save_model(started, policy, folder / "exported")
        peaks = started.world.gather((status("VmHWM") - imports, before - imports, shard, imports))
        total = sum(p.numel() for p in policy.unwrapped.parameters())
        vocabulary = policy.model.get_input_embeddings().weight  # type: ignore[operator]
        if started.world.main:
            unit = vocabulary.numel() * vocabulary.element_size()
            report(peaks=peaks, parameters=total, unit=unit, files=len(list((folder / "exported").glob("m*.safet*"))))
    started.world.leave()
    assert torch.distributed.is_available()


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        write(Path(name))
        quick = ["--quick"] if pairs.quick else []
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={PROCESSES}"]
        child = run(sys.executable, *launcher, "-m", "bench.export", "export", name, *quick, OMP_NUM_THREADS="1")
    numbers = child.numbers
    print(f"export: {numbers['parameters'] / 1e9:.2f}e9 parameters, float32, FSDP2 on {PROCESSES} processes, "
          f"{numbers['files']} files")  # fmt: skip
    for rank, (added, divided, shard, imports) in enumerate(numbers["peaks"]):
        bound = ALLOWED * shard + numbers["unit"]
        print(f"  rank {rank}: peak above the {imports / MIB:,.0f} MiB after imports: {added / MIB:,.0f} MiB (before "
              f"the export {divided / MIB:,.0f}); bound: {ALLOWED} x {shard / MIB:,.0f} + "
              f"{numbers['unit'] / MIB:,.0f} = {bound / MIB:,.0f} MiB")  # fmt: skip
        assert added < bound, "the memory is above its bound"
    print(f"  {child.seconds:.0f} CPU seconds\n")


if __name__ == "__main__":
    pairs.quick = "--quick" in sys.argv
    export(Path(sys.argv[2]))
