"""Define the hooks of a run. docs/hooks.md is generated from the docstrings, in the order in which hooks are called.

`spec` sets the arity of a hook (see dispatch.py). An implementation may take a subset of the arguments. The call order
is that of `plugins:`, then that of the other active plugins' names, refined by `after` and `before`.
"""

from __future__ import annotations

from typing import Any

from tunesmith.plugins.hookspecs import data, model, rounds, setup, training

ORDER = (
    "validate", "inspect", "check_row", "diagnose", "on_progress", "build_parallelism", "load_tokenizer", "load_rows",
    "filter_rows",
    "build_dataset", "configure", "load_model", "patch_model", "saved_parameters", "build_scorer", "build_generator",
    "learning_rate_factors", "build_optimizer", "build_scheduler",
    "on_start", "rollout", "score_rewards", "compute_advantages", "prepare_step",
    "compute_loss", "evaluate", "on_step", "write_log", "save_model", "on_end",
)  # fmt: skip
"""The hooks in the order in which a run first calls them."""
_SPECS = {name: value for part in (setup, data, model, rounds, training) for name, value in vars(part).items()}
HOOKS: dict[str, Any] = {name: _SPECS[name] for name in ORDER}
"""The specification of every hook, by name, in the order of a run."""
