"""Check the keys of online DPO before anything is read: conflicts, and keys without effect."""

from __future__ import annotations

from tunesmith import Run
from tunesmith_onlinedpo import TRL


def check(run: Run, trl: TRL) -> None:
    """Raise all mistakes together."""
    size, group = run.core.micro_batch_size, trl.num_generations
    with run.config.checking() as wrong:
        if group < 2:
            wrong(("trl", "num_generations"), f"is {group}, but a pair has two completions", "write num_generations: 2")
        elif size % group:
            message = f"{size} is not a multiple of num_generations {group}, but a micro-batch has to contain both "
            message += "completions of a pair"
            wrong("micro_batch_size", message, f"write micro_batch_size: {group * -(-size // group)}")
        if trl.missing_eos_penalty is not None and trl.mask_truncated_completions:
            message = "has no effect with mask_truncated_completions, which leaves out completions without an end"
            wrong(("trl", "missing_eos_penalty"), message, "drop one of them")
