"""Decide which settings may change when a run resumes: freely, if listed in accept_changes, or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tunesmith.plugins.plugin import OnResume, Plugin, rules_of
from tunesmith.spelling import nearest

if TYPE_CHECKING:
    from tunesmith.run import Run

FREE = (
    "accept_changes", "async_save", "dataset_num_proc", "dataset_prepared_path", "eval_batch_size",
    "eval_sample_packing", "eval_on_start", "eval_steps", "evals_per_epoch", "greater_is_better",
    "load_best_model_at_end", "logging_steps", "max_steps", "metric_for_best_model", "num_epochs", "on_nonfinite",
    "output_dir", "resume_from_checkpoint", "save_only_model", "save_steps", "save_total_limit", "saves_per_epoch",
)  # fmt: skip
"""Keys that change nothing that a step computes, except perhaps the number of steps."""
BY_CONTENT = (
    "datasets", "excess_length_strategy", "plugins", "pretraining_dataset", "special_tokens", "test_datasets",
    "tokenizer_config", "val_set_size",
)  # fmt: skip
"""Keys whose content is compared, as `data` and `plugins`: a file may move."""
ACCEPT = (
    "attn_implementation", "base_model", "bf16", "device", "gradient_checkpointing", "gradient_checkpointing_kwargs",
    "learning_rate", "lr_scheduler", "max_grad_norm", "precompute_ref_log_probs", "tf32",
)  # fmt: skip
"""Keys that change the steps to come, and nothing that a checkpoint contains."""
LAYOUT = (
    "context_parallel_size", "dp_replicate_size", "dp_shard_size", "expert_parallel_size", "fsdp_config",
    "tensor_parallel_size",
)  # fmt: skip
"""Keys that divide the same computation over processes in another way."""
IF_ROWS_STAY = ("gradient_accumulation_steps", "micro_batch_size")
"""Keys that may change as long as a step has the same number of packs over all processes."""
OTHERS = ("data", "plugins")
"""Names that accept_changes takes besides keys."""


def rules(plugins: Iterable[Plugin]) -> dict[str, OnResume]:
    """Return the rule of each key of the core and of these plugins; a key without a rule may not change."""
    table: dict[str, OnResume] = {
        **dict.fromkeys(FREE + BY_CONTENT + LAYOUT + IF_ROWS_STAY, "free"),
        **dict.fromkeys(ACCEPT, "accept"),
    }
    for plugin in plugins:
        table |= rules_of(plugin)
    return table


def check_accepted(run: Run) -> None:
    """Raise ConfigError for a name in accept_changes whose change can't be accepted."""
    rule = rules(plugin.declaration for plugin in run.hooks.plugins)
    known = {key for key, value in rule.items() if value == "accept"} | set(OTHERS)
    with run.config.checking() as wrong:
        for index, name in enumerate(run.core.accept_changes):
            if name not in known:
                close = nearest(name, known)
                help = f"did you mean {close!r}?" if close else f"one of: {', '.join(sorted(known))}"
                free = rule.get(name) == "free" or name == "processes"
                message = "may change freely" if free else "is not a change that can be accepted"
                wrong(("accept_changes", index), f"{name!r} {message}", "drop it" if free else help)
