"""Check the keys of online DPO before anything is read: conflicts, and keys without effect."""

from __future__ import annotations

from collections.abc import Iterator

from tunesmith import Run
from tunesmith.online import Mistake
from tunesmith_onlinedpo import TRL


def mistakes(run: Run, trl: TRL) -> Iterator[Mistake]:
    """Yield the mistakes in the keys of this method."""
    size, group = run.core.micro_batch_size, trl.num_generations
    if group < 2:
        yield ("trl", "num_generations"), f"is {group}, but a pair has two completions", "write num_generations: 2"
    elif size % group:
        message = f"{size} is not a multiple of num_generations {group}, but a micro-batch has to contain both "
        message += "completions of a pair"
        yield "micro_batch_size", message, f"write micro_batch_size: {group * -(-size // group)}"
    if trl.missing_eos_penalty is not None and trl.mask_truncated_completions:
        message = "has no effect with mask_truncated_completions, which leaves out completions without an end"
        yield ("trl", "missing_eos_penalty"), message, "drop one of them"
