"""The stages of a run as functions: the command line, notebooks and tests call the same ones.

load_config -> start -> prepare -> plan -> train. Each takes what the one before gave. What needs torch is in the
engine, a distribution of its own: up to `start` a config can be checked without it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from tunesmith.config import Config
from tunesmith.engine import engine
from tunesmith.errors import ConfigError, Problem, errors_of, raise_together
from tunesmith.hooks import Hooks
from tunesmith.run import Run

if TYPE_CHECKING:
    from tunesmith_engine.train import Result


NEED_HELD_OUT = {
    "eval_steps",
    "evals_per_epoch",
    "eval_batch_size",
    "eval_sample_packing",
    "load_best_model_at_end",
    "metric_for_best_model",
    "greater_is_better",
}


def start(config: tuple[Config, Hooks], tokenizer: Any = None, model: Any = None) -> Run:
    """A run of a config that the plugins find consistent: `validate` and `inspect` of all, problems together."""
    run = Run(*config, tokenizer=tokenizer, given_model=model)
    raise_together([*errors_of([partial(_check_core, run)]), *run.hooks.validate(run), *run.hooks.inspect(run)])
    return run


def _check_core(run: Run) -> None:
    """Cross-checks of the core's own keys."""
    core, config = run.core, run.config
    problems: list[Problem] = []

    def wrong(key: str, message: str, help: str) -> None:
        problems.extend(config.error(key, message, help).problems)

    if core.datasets and core.pretraining_dataset:
        wrong("pretraining_dataset", "does not go with datasets", "keep one of them")
    if core.pretraining_dataset and core.max_steps is None:
        wrong("pretraining_dataset", "is a stream without an end", "write max_steps: ...")
    if core.pretraining_dataset and core.val_set_size:
        wrong("val_set_size", "can't be held out of a stream", "drop it")
    for one, other in (("save_steps", "saves_per_epoch"), ("eval_steps", "evals_per_epoch")):
        if getattr(core, one) is not None and getattr(core, other) is not None:
            wrong(one, f"and {other} say the same thing twice", "keep one of them")
    said = config.document.values
    if core.val_set_size > 1 and core.val_set_size != int(core.val_set_size):
        wrong("val_set_size", "is neither a share below 1 nor a whole number of rows", "write 0.05, or 100")
    if not core.val_set_size:
        for key in sorted(NEED_HELD_OUT & {k for k, value in said.items() if value not in (None, False)}):
            wrong(key, "needs held-out data", "write val_set_size: 0.05")
    if core.pretraining_dataset and "num_epochs" in said:
        wrong("num_epochs", "has no meaning for a stream", "max_steps says how long")
    if not core.pretraining_dataset and "streaming_multipack_buffer_size" in said:
        wrong("streaming_multipack_buffer_size", "is for pretraining_dataset", "drop it")
    if not core.gradient_checkpointing and "gradient_checkpointing_kwargs" in config.document.values:
        wrong(
            "gradient_checkpointing_kwargs",
            "has no effect without gradient_checkpointing",
            "write gradient_checkpointing: true",
        )
    if problems:
        raise ConfigError(problems)


def prepare(run: Run) -> Run:
    """Tokenise the data, or take it from the cache; fills run.tokenizer and run.data. Raises DataError, ModelError."""
    engine("prepare").prepare(run)
    return run


def plan(run: Run) -> dict[str, Any]:
    """What a prepared run will do, without reading weights: stages with who answers them, data, steps, parameters."""
    return engine("plan").make_plan(run)  # type: ignore[no-any-return]


def verify(run: Run) -> list[dict[str, Any]]:
    """Check the engine's promises on this model and the first row of this data. Raises NumericalError on a mismatch."""
    return engine("verify").verify(run)  # type: ignore[no-any-return]


def train(run: Run) -> Result:
    """Train from the first step, or from the checkpoint that resume_from_checkpoint names, to the final model.

    Prepares the data if that is not done. Raises DataError, ModelError, NumericalError, ...; Interrupted after SIGTERM
    or SIGINT, a checkpoint saved.
    """
    return engine("train").train(run)  # type: ignore[no-any-return]
