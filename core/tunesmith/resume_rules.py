"""What may change between a checkpoint and its resumption: freely, with a word in accept_changes, or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tunesmith.errors import ConfigError
from tunesmith.plugins.plugin import OnResume, Plugin, rules_of
from tunesmith.spelling import nearest

if TYPE_CHECKING:
    from tunesmith.run import Run

FREE = (
    "accept_changes", "dataset_num_proc", "dataset_prepared_path", "eval_batch_size", "eval_sample_packing",
    "eval_steps", "evals_per_epoch", "greater_is_better", "load_best_model_at_end", "logging_steps", "max_steps",
    "metric_for_best_model", "num_epochs", "on_nonfinite", "output_dir", "resume_from_checkpoint", "save_steps",
    "save_total_limit", "saves_per_epoch",
)  # fmt: skip
"""They do not touch what a step computes, or only how many there are."""
BY_CONTENT = (
    "datasets", "excess_length_strategy", "plugins", "pretraining_dataset", "special_tokens", "test_datasets",
    "tokenizer_config", "val_set_size",
)  # fmt: skip
"""What they name is compared itself, as `data` and `plugins`: a file may move."""
WORD = (
    "attn_implementation", "base_model", "bf16", "device", "fsdp_config", "gradient_checkpointing",
    "gradient_checkpointing_kwargs", "learning_rate", "lr_scheduler", "max_grad_norm", "precompute_ref_log_probs",
    "tf32",
)  # fmt: skip
"""They change the steps to come, and nothing that a checkpoint holds."""
IF_ROWS_STAY = ("gradient_accumulation_steps", "micro_batch_size")
"""With a word, as long as a step has as many rows over all processes: then it is still the same rows."""
WORDS = ("data", "plugins", "processes")
"""What else accept_changes may name, beside keys."""


def rules(plugins: Iterable[Plugin]) -> dict[str, OnResume]:
    """The rule of each key of the core and of some plugins; a key that is not in it may not change."""
    made: dict[str, OnResume] = {
        **dict.fromkeys(FREE + BY_CONTENT, "free"),
        **dict.fromkeys(WORD + IF_ROWS_STAY, "accept"),
    }
    for plugin in plugins:
        made |= rules_of(plugin)
    return made


def check_words(run: Run) -> None:
    """Raise ConfigError for a name in accept_changes that is no key which a word would let change."""
    rule = rules(plugin.declaration for plugin in run.hooks.plugins)
    known = {key for key, value in rule.items() if value == "accept"} | set(WORDS)
    problems: list[Any] = []
    for place, name in enumerate(run.core.accept_changes):
        if name not in known:
            close = nearest(name, known)
            help = f"did you mean {close!r}?" if close else f"one of: {', '.join(sorted(known))}"
            why = "may change without a word" if rule.get(name) == "free" else "is nothing that may change with a word"
            problems += run.config.error(("accept_changes", place), f"{name!r} {why}", help).problems
    if problems:
        raise ConfigError(problems)
