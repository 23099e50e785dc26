"""A checked configuration of DeepSpeed, and the ready ones. Without torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tunesmith import Run
from tunesmith_deepspeed import rules

AUTO = "auto"
KEY = "deepspeed"
READY = Path(__file__).with_name("ready")
OTHER_NAMES = {
    "zero1_torch_compile": "zero1",
    "zero2_torch_compile": "zero2",
    "zero3_bf16": "zero3",
    "zero3_bf16_cpuoffload_all": "zero3_offload",
    "zero3_bf16_cpuoffload_params": "zero3_offload_params",
}
"""Files of Axolotl that are another ready configuration here."""


@cache
def ready() -> dict[str, Path]:
    """Return the files of the ready configurations by name."""
    return {path.stem: path for path in sorted(READY.glob("*.json"))}


def ready_name(path: str) -> str | None:
    """Return the ready configuration that a path or a name means: zero2 for deepspeed_configs/zero2.json."""
    stem = path.replace("\\", "/").rpartition("/")[2].removesuffix(".json")
    name = OTHER_NAMES.get(stem, stem)
    return name if name in ready() else None


@dataclass(frozen=True)
class Zero:
    """A checked configuration: `values` as it was written, without what has no effect; `notes` on what was left out."""

    stage: int
    values: dict[str, Any]
    notes: tuple[str, ...] = ()

    def offloads(self, what: str) -> bool:
        """Return True if "optimizer" or "param" is kept in the memory of the CPU."""
        return bool(self.values["zero_optimization"].get(f"offload_{what}"))

    def describe(self) -> str:
        """Return the stage and what is offloaded, in words."""
        words = {"optimizer": "optimizer", "param": "parameters"}
        offloaded = [word for key, word in words.items() if self.offloads(key)]
        return f"ZeRO-{self.stage}" + (f" with {' and '.join(offloaded)} on the CPU" if offloaded else "")

    def complete(self, run: Run, processes: int, half: bool, device: str, width: int | None) -> dict[str, Any]:
        """Return the configuration as DeepSpeed reads it, for a model whose hidden states have a width."""
        zero = dict(self.values["zero_optimization"])
        for name, factor in rules.BY_WIDTH.items():
            if zero.get(name) == AUTO:
                del zero[name]
                if width is not None:
                    zero[name] = int(factor * width * (1 if name.endswith("threshold") else width))
        for name in ("offload_optimizer", "offload_param"):
            if name in zero:
                zero[name] = {"pin_memory": device != "cpu", **zero[name]}
        if self.stage == 3:
            zero["memory_efficient_linear"] = False  # it replaces torch's linear function in the whole process
        core = run.core
        return {
            "communication_data_type": "fp32",  # a sum over many processes in bfloat16 would lose its small terms
            **self.values,
            "zero_optimization": zero,
            "bf16": {"enabled": half},
            "data_types": {"grad_accum_dtype": "fp32"},
            "train_micro_batch_size_per_gpu": core.micro_batch_size,
            "gradient_accumulation_steps": 1,  # the loop says which micro-batch is the last
            "train_batch_size": core.micro_batch_size * processes,
            "gradient_clipping": core.max_grad_norm,
            "zero_allow_untested_optimizer": True,  # validate has checked it
            "zero_force_ds_cpu_optimizer": False,
        }
