"""Check what the key `deepspeed` is combined with. Without torch."""

from __future__ import annotations

import re

from tunesmith import Run
from tunesmith_deepspeed import DeepSpeedSettings
from tunesmith_deepspeed.config import read
from tunesmith_deepspeed.zero import KEY, Zero

KNOWN = (
    "adamw", "adamw_torch", "adamw_torch_fused", "lion", "lion_32bit", "optimi_adamw", "sgd", "adagrad", "rmsprop",
    "adopt_adamw",
)  # fmt: skip
"""Optimizers that treat each number alone, with state in float32: DeepSpeed gives them flat parts of the weights."""
UNFIT = re.compile("8bit|4bit|fp8|paged|bnb|adafactor|muon|came|galore|stable|schedule_free|ademamix")
"""Names of optimizers that read whole weights, keep other state, or have two sets of weights."""


def check(run: Run) -> Zero:
    """Return the configuration. Raises ConfigError for one that is wrong, or that the run can't be combined with."""
    value = run.settings(DeepSpeedSettings).deepspeed
    core, config = run.core, run.config
    if value is None:
        raise config.error(KEY, "is not set, but the plugin is active", "write deepspeed: zero2", "missing-key")
    zero = read(run, value)
    with config.checking() as wrong:
        if core.fsdp_config is not None:
            wrong("fsdp_config", "does not go with deepspeed: both divide the weights", "keep one of them")
        for key in ("context_parallel_size", "tensor_parallel_size", "expert_parallel_size"):
            if getattr(core, key) > 1:
                wrong(key, "does not go with deepspeed here", "drop it, or write fsdp_config: {} in place of deepspeed")
        if zero.values.get("bf16", {}).get("enabled") and core.device == "cpu" and core.bf16 == "auto":
            wrong("bf16", "is auto, which is float32 on a CPU, but the configuration of DeepSpeed enables bf16",
                  "write bf16: true")  # fmt: skip
        if core.optimizer not in KNOWN and UNFIT.search(core.optimizer):
            message = f"{core.optimizer} does not go with deepspeed, which gives an optimizer flat parts of weights"
            wrong("optimizer", message, "write optimizer: adamw_torch_fused, or drop deepspeed")
    return zero
