"""What the core finds wrong with its own keys, and with the folders that they name, before a plugin is asked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith.config.secrets import is_secret, is_unexpanded
from tunesmith.config.yamlfile import KeyPath
from tunesmith.errors import ConfigError, EnvironmentProblem, ModelError, Problem
from tunesmith.run import Run
from tunesmith.spelling import nearest

NEED_HELD_OUT = {
    "eval_steps", "evals_per_epoch", "eval_batch_size", "eval_sample_packing", "load_best_model_at_end",
    "metric_for_best_model", "greater_is_better",
}  # fmt: skip
HOT = 1.0
"""A learning rate above it is most likely a slip: optimizers in use here train at 1e-6 to 1e-2."""


def check_keys(run: Run) -> None:
    """Raise ConfigError with every contradiction among the core's keys."""
    core, config = run.core, run.config
    problems: list[Problem] = []

    def wrong(key: str, message: str, help: str) -> None:
        problems.extend(config.error(key, message, help).problems)

    problems += _of_data(run)
    if core.precompute_ref_log_probs:
        if not run.needs.reference:
            wrong("precompute_ref_log_probs", "has no effect: nothing here is held to a reference", "drop it")
        elif config.streamed or run.hooks.has("expand"):
            what = "streamed" if config.streamed else "made during the step"
            wrong("precompute_ref_log_probs", f"can't be: examples are {what}", "drop it")
    for one, other in (("save_steps", "saves_per_epoch"), ("eval_steps", "evals_per_epoch")):
        if getattr(core, one) is not None and getattr(core, other) is not None:
            wrong(one, f"and {other} say the same thing twice", "keep one of them")
    said = config.document.values
    if core.val_set_size > 1 and core.val_set_size != int(core.val_set_size):
        wrong("val_set_size", "is neither a share below 1 nor a whole number of rows", "write 0.05, or 100")
    if not core.val_set_size and not core.test_datasets:
        for key in sorted(NEED_HELD_OUT & {k for k, value in said.items() if value not in (None, False)}):
            wrong(key, "needs held-out data", "write val_set_size: 0.05, or test_datasets: ...")
    if not core.metric_for_best_model.startswith("eval_"):
        message = f"is {core.metric_for_best_model!r}, and what an evaluation measures begins with eval_"
        wrong("metric_for_best_model", message, f"write eval_{core.metric_for_best_model}, or drop it for eval_loss")
    if not core.gradient_checkpointing and "gradient_checkpointing_kwargs" in config.document.values:
        message = "has no effect without gradient_checkpointing"
        wrong("gradient_checkpointing_kwargs", message, "write gradient_checkpointing: true")
    if problems:
        raise ConfigError(problems)


def _of_data(run: Run) -> list[Problem]:
    """Contradictions among what is trained on, what is evaluated on, and how it is mixed."""
    core, config, said = run.core, run.config, run.config.document.values
    stream = "streaming" if core.streaming else "pretraining_dataset"
    found: list[Problem] = []

    def wrong(key: str | KeyPath, message: str, help: str) -> None:
        found.extend(config.error(key, message, help).problems)

    if not config.datasets and not config.streamed:
        where = config.document.where(())
        found.append(Problem("there is nothing to train on", where, "no-data", "write datasets: ..."))
    if core.datasets and core.pretraining_dataset:
        wrong("pretraining_dataset", "does not go with datasets", "keep one of them")
    if core.streaming and core.pretraining_dataset:
        wrong("streaming", "is what pretraining_dataset does anyway", "drop it")
    if core.test_datasets and core.val_set_size:
        wrong("val_set_size", "does not go with test_datasets", "keep one of them")
    for index, spec in enumerate(config.test_datasets):
        if "weight" in spec.settings.model_fields_set:
            wrong(("test_datasets", index, "weight"), "has no effect: all of it is evaluated once", "drop it")
    for spec in config.entries:
        shards, index = spec.settings.shards, spec.settings.shards_idx
        if shards is None and "shards_idx" in spec.settings.model_fields_set:
            wrong((spec.group, spec.index, "shards_idx"), "has no effect without shards", "write shards: ... with it")
        elif shards is not None and index >= shards:
            told = f"is {index}, and there are shards 0 to {shards - 1}"
            wrong((spec.group, spec.index, "shards_idx"), told, "the first is 0")
    if not config.streamed:
        if "streaming_multipack_buffer_size" in said:
            wrong("streaming_multipack_buffer_size", "is for streamed data", "drop it, or write streaming: true")
        if core.curriculum_sampling and "shuffle_merged_datasets" in said:
            wrong("shuffle_merged_datasets", "has no effect: curriculum_sampling keeps the order", "drop it")
        return found
    if core.dataset_num_proc > 1 and not config.test_datasets:
        wrong("dataset_num_proc", "is for data that is prepared", "drop it")
    if core.max_steps is None:
        wrong(stream, "is a stream without an end", "write max_steps: ...")
    if core.val_set_size:
        wrong("val_set_size", "can't be held out of a stream", "write test_datasets: ...")
    if "num_epochs" in said:
        wrong("num_epochs", "has no meaning for a stream", "max_steps says how long")
    for key in ("curriculum_sampling", "shuffle_merged_datasets", "mixing_temperature"):
        if said.get(key) is not None:
            wrong(key, "is for data that is prepared, and a stream is read in its order", "drop it")
    for spec in config.streamed:
        if "weight" in spec.settings.model_fields_set:
            wrong((spec.group, spec.index, "weight"), "is for data that is prepared", "drop it")
    for call in run.hooks.calls("filter_rows"):
        wrong(stream, f"does not go with the plugin {call.plugin}, which has to see all rows first", "keep one of them")
    return found


def check_folders(run: Run) -> None:
    """Raise EnvironmentProblem for a folder that could not be written to."""
    problems = []
    for key in ("output_dir", "dataset_prepared_path"):
        path = getattr(run.core, key)
        if key == "dataset_prepared_path" and path is not None and Path(path).is_dir():
            continue  # to be read from, if nothing more
        if path is not None and (why := obstacle(Path(path))):
            where = run.config.document.where((key,), value=True)
            problems.append(Problem(f"{key} {path} can't be made: {why}", where, "no-folder", "choose another folder"))
    if problems:
        raise EnvironmentProblem(problems)


def obstacle(folder: Path) -> str | None:
    """Why a folder can't be made, or written to where it is there already."""
    try:
        above = next(path for path in (folder, *folder.parents) if path.exists())
        if not above.is_dir():
            return f"{above} is a file"
        return None if os.access(above, os.W_OK | os.X_OK) else f"{above} may not be written to"
    except OSError as error:
        return error.strerror


def check_resume(run: Run) -> None:
    """Raise ModelError for a checkpoint to go on from that is not there."""
    path = run.core.resume_from_checkpoint
    if path is None or path == "auto" or Path(path).is_dir():
        return
    parent = Path(path).parent
    close = nearest(Path(path).name, {p.name for p in parent.iterdir()} if parent.is_dir() else set())
    help = f"did you mean {parent / close}?" if close else "write auto for the newest one in output_dir"
    where = run.config.document.where(("resume_from_checkpoint",), value=True)
    raise ModelError(f"checkpoint {path}: no such folder", where=where, help=help, code="no-checkpoint")


# what is allowed, and said


def warn(run: Run) -> None:
    """Note what is most likely a mistake."""
    core = run.core
    if core.learning_rate > HOT:
        run.warn("learning_rate", f"{core.learning_rate:g} is far more than models are trained with: 1e-5 to 1e-3")
    if core.max_steps is not None:
        warn_of_intervals(run, core.max_steps)
    for path, value in _leaves(run.config.document.values):
        if is_secret(path, value):
            run.warn(path, "looks like a secret: take it out of this file, and set it as an environment variable")
        elif is_unexpanded(value):
            run.warn(path, "is taken as it stands: environment variables and ~ are not looked up")


def warn_of_intervals(run: Run, steps: int) -> None:
    """Note every interval that is longer than a training of so many steps."""
    for key, what in (("save_steps", "saved"), ("eval_steps", "evaluated"), ("logging_steps", "logged")):
        every = getattr(run.core, key)
        if every is not None and every > steps:
            run.warn(key, f"{every:,} is more than the {steps:,} steps of training: only the last is {what}")


def _leaves(node: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Every value that is neither a list nor a group, with its path."""
    if isinstance(node, dict | list):
        for key, item in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _leaves(item, (*path, key))
    else:
        yield path, node
