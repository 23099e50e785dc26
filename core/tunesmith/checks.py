"""Check the core's own keys against each other, and the folders that they name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tunesmith.config.config import Wrong
from tunesmith.config.secrets import is_secret, is_unexpanded
from tunesmith.config.yamlfile import KeyPath
from tunesmith.errors import ConfigError, EnvironmentProblem, ModelError, PluginError, Problem
from tunesmith.folders import check_output, contains_run
from tunesmith.plugins.discovery import LoadedPlugin
from tunesmith.run import Run
from tunesmith.spelling import nearest

NEED_HELD_OUT = {"eval_batch_size", "eval_sample_packing"}
"""Keys of the evaluation of held-out examples."""
CHOOSE_BEST = {"load_best_model_at_end", "metric_for_best_model", "greater_is_better"}
INTERVALS = {"eval_on_start", "eval_steps", "evals_per_epoch"}
"""Keys of the time of any evaluation: of held-out examples, or by a plugin."""
ROWS = "rows://"
"""The scheme of the paths of entries whose rows are Python values: `path: rows://train`."""
HOT = 1.0
"""A learning rate above this is most likely a mistake: the optimizers in use train at 1e-6 to 1e-2."""


def check_keys(run: Run) -> None:
    """Raise ConfigError with every contradiction among the core's keys."""
    core, config = run.core, run.config
    with config.checking() as wrong:
        _check_data(run, wrong)
        if core.precompute_ref_log_probs:
            if not run.needs.reference:
                wrong("precompute_ref_log_probs", "has no effect: no active plugin uses a reference model", "drop it")
            elif config.streamed or run.rollout:
                origin = "streamed" if config.streamed else "generated during the step"
                wrong("precompute_ref_log_probs", f"is not possible: examples are {origin}", "drop it")
        for steps, per_epoch in (("save_steps", "saves_per_epoch"), ("eval_steps", "evals_per_epoch")):
            if getattr(core, steps) is not None and getattr(core, per_epoch) is not None:
                wrong(steps, f"and {per_epoch} set the same thing", "keep one of them")
        if core.async_save and core.save_only_model:
            message = "does not go with async_save: a checkpoint would have neither a model nor the optimizer's state"
            wrong("save_only_model", message, "keep one of them")
        if core.val_set_size > 1 and core.val_set_size != int(core.val_set_size):
            wrong("val_set_size", "must be a share below 1 or a whole number of rows", "write 0.05, or 100")
        if not holds_out(run):
            evaluated = run.hooks.has("evaluate")
            for key in sorted((set() if evaluated else CHOOSE_BEST) & _written(run)):
                wrong(key, "needs held-out data", "write val_set_size: 0.05, or test_datasets: ...")
        if not core.metric_for_best_model.startswith("eval_"):
            message = f"is {core.metric_for_best_model!r}, but the names of evaluation metrics begin with eval_"
            wrong(
                "metric_for_best_model", message, f"write eval_{core.metric_for_best_model}, or drop it for eval_loss"
            )
        for name in ("dp_replicate_size", "dp_shard_size"):
            if getattr(core, name) is not None and core.fsdp_config is None:
                wrong(name, "has no effect without fsdp_config", "write fsdp_config: {} with it")
        if not core.gradient_checkpointing and "gradient_checkpointing_kwargs" in config.document.values:
            message = "has no effect without gradient_checkpointing"
            wrong("gradient_checkpointing_kwargs", message, "write gradient_checkpointing: true")


def check_given_rows(run: Run) -> None:
    """Raise ConfigError for an entry with `path: rows://NAME` without rows, and for rows that no entry reads."""
    paths = {spec.settings.path: spec for spec in run.config.entries if spec.source == ROWS.removesuffix("://")}
    names = {path.removeprefix(ROWS): spec for path, spec in paths.items()}
    with run.config.checking() as wrong:
        for name in names.keys() - run.given_rows.keys():
            spec = names[name]
            help = f"pass them in Python: tunesmith.train(config, datasets={{{name!r}: rows}})"
            wrong((spec.group, spec.index, "path"), f"is {ROWS}{name}, but no such rows were passed", help)
        for name in run.given_rows.keys() - names.keys():
            help = f"write path: {ROWS}{name} in an entry of datasets"
            wrong("datasets", f"has no entry that reads the rows {name!r}", help)


def holds_out(run: Run) -> bool:
    """Return True if rows are held out for evaluation."""
    return bool(run.core.val_set_size or run.core.test_datasets)


def _written(run: Run) -> set[str]:
    """Return the keys that are set, except for those set to null or false."""
    return {key for key, value in run.config.document.values.items() if value not in (None, False)}


def metrics_of(run: Run, plugin: LoadedPlugin) -> Sequence[str] | None:
    """Return the names of metrics that a plugin declares; None if it declares none, or does not know them yet."""
    metrics = plugin.declaration.metrics
    return metrics(run) if callable(metrics) else metrics


def names_pending(run: Run) -> bool:
    """Return True if a plugin that evaluates does not know the names of its metrics yet."""
    acting = {call.plugin for call in run.hooks.calls("evaluate")}
    return any(metrics_of(run, run.hooks.by_name[name]) is None for name in acting)


def declared_metrics(run: Run, *hooks: str) -> dict[str, str]:
    """Return the declared names of evaluation metrics, each with its plugin.

    With `hooks`, take only the plugins that implement one of them. Raises PluginError if two plugins declare a name.
    """
    names: dict[str, str] = {}
    acting = {call.plugin for hook in hooks for call in run.hooks.calls(hook)}
    for plugin in run.hooks.plugins:
        for name in metrics_of(run, plugin) or () if not hooks or plugin.name in acting else ():
            if (other := names.setdefault(f"eval_{name}", plugin.name)) != plugin.name:
                message = f"two plugins declare the metric {name!r}: {other} and {plugin}"
                raise PluginError(message, help="rename one of them, or use one plugin", code="plugin-conflict")
    return names


def unmeasured(run: Run, names: Iterable[str]) -> ConfigError:
    """Return the error to raise if metric_for_best_model is none of the measured names."""
    metric, measured = run.core.metric_for_best_model, sorted(names)
    close = nearest(metric, measured)
    help = f"did you mean {close!r}?" if close else "write one of them, or declare it in Plugin(metrics=...)"
    message = f"{metric} is not measured; measured: {', '.join(measured) or 'nothing'}"
    return run.config.error("metric_for_best_model", message, help)


def check_metric(run: Run) -> None:
    """Raise ConfigError if metric_for_best_model is not measured, as far as that is known without a model.

    The terms of a method that does not declare their names are known on the first batch; the engine checks them there.
    A plugin that learns the names of its metrics later calls this function then.
    """
    for call in run.hooks.calls("evaluate"):
        if not run.hooks.by_name[call.plugin].declaration.metrics:
            message = f"plugin {run.hooks.by_name[call.plugin]} answers evaluate and declares no names"
            help = 'write Plugin(metrics=("name",)) with every name that it returns'
            raise PluginError(message, where=call.location, help=help, code="plugin-shape")
    if names_pending(run):
        return
    known, core = set(declared_metrics(run, "evaluate")), run.core
    if holds_out(run):
        known |= {"eval_loss", *declared_metrics(run)}
        answers = [run.hooks.by_name[call.plugin].declaration for call in run.hooks.calls("compute_loss")]
        if any(declaration.metrics is None for declaration in answers):
            return
    elif not known or not CHOOSE_BEST & _written(run):
        return  # nothing is evaluated, or the best evaluation does not matter
    if core.metric_for_best_model.startswith("eval_") and core.metric_for_best_model not in known:
        raise unmeasured(run, known)


def _check_data(run: Run, wrong: Wrong) -> None:
    """Report contradictions among training data, evaluation data, and the way entries are mixed."""
    core, config = run.core, run.config
    if not config.datasets and not config.streamed and run.purpose == "train":
        wrong((), "nothing to train on", "write datasets: ...", code="no-data")
    if core.datasets and core.pretraining_dataset:
        wrong("pretraining_dataset", "does not go with datasets", "keep one of them")
    if core.streaming and core.pretraining_dataset:
        wrong("streaming", "has no effect: pretraining_dataset is always streamed", "drop it")
    if core.test_datasets and core.val_set_size:
        wrong("val_set_size", "does not go with test_datasets", "keep one of them")
    for index, spec in enumerate(config.test_datasets):
        if "weight" in spec.settings.model_fields_set:
            wrong(("test_datasets", index, "weight"), "has no effect: each row is evaluated once", "drop it")
    for spec in config.entries:
        shards, index = spec.settings.shards, spec.settings.shards_idx
        key = (spec.group, spec.index, "shards_idx")
        if shards is None and "shards_idx" in spec.settings.model_fields_set:
            wrong(key, "has no effect without shards", "write shards: ... with it")
        elif shards is not None and index >= shards:
            wrong(key, f"is {index}, but the shards are 0 to {shards - 1}", "the first is 0")
    _check_stream(run, wrong) if config.streamed else _check_prepared(run, wrong)


def _check_prepared(run: Run, wrong: Wrong) -> None:
    written = run.config.document.values
    if "streaming_multipack_buffer_size" in written:
        wrong("streaming_multipack_buffer_size", "is for streamed data", "drop it, or write streaming: true")
    if run.core.curriculum_sampling and "shuffle_merged_datasets" in written:
        wrong("shuffle_merged_datasets", "has no effect: curriculum_sampling keeps the order", "drop it")


def _check_stream(run: Run, wrong: Wrong) -> None:
    core, config = run.core, run.config
    stream = "streaming" if core.streaming else "pretraining_dataset"
    if core.dataset_num_proc > 1 and not config.test_datasets:
        wrong("dataset_num_proc", "is for data that is prepared", "drop it")
    if core.max_steps is None:
        wrong(stream, "has no end", "write max_steps: ...")
    if core.val_set_size:
        wrong("val_set_size", "can't be held out of a stream", "write test_datasets: ...")
    if core.mixing_temperature is not None:
        wrong("mixing_temperature", "is for data that is prepared", "drop it")
    for spec in config.streamed:
        if "weight" in spec.settings.model_fields_set:
            wrong((spec.group, spec.index, "weight"), "is for data that is prepared", "drop it")
    for call in run.hooks.calls("filter_rows"):
        wrong(stream, f"does not go with the plugin {call.plugin}, which has to see all rows first", "keep one of them")


def check_folders(run: Run) -> None:
    """Raise an error for a folder that could not be written to, or whose files would be overwritten."""
    with run.config.checking() as wrong:
        check_output(run, wrong)
    problems = []
    for key in ("output_dir", "dataset_prepared_path"):
        path = getattr(run.core, key)
        if key == "dataset_prepared_path" and path is not None and Path(path).is_dir():
            continue  # to be read from, if nothing more
        if path is not None and (why := obstacle(Path(path))):
            message = f"{key} {path} can't be created: {why}"
            problems.append(Problem(message, run.config.place(key), "no-folder", "choose another folder"))
    if problems:
        raise EnvironmentProblem(problems)


def obstacle(folder: Path) -> str | None:
    """Return why a folder can't be created, or can't be written to if it exists; None if it can."""
    try:
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        if not existing.is_dir():
            return f"{existing} is a file"
        return None if os.access(existing, os.W_OK | os.X_OK) else f"no permission to write to {existing}"
    except OSError as error:
        return error.strerror


def check_resume(run: Run) -> None:
    """Raise ModelError if the checkpoint to resume from does not exist."""
    path = run.core.resume_from_checkpoint
    if path is None or path == "auto" or Path(path).is_dir():
        return
    parent = Path(path).parent
    close = nearest(Path(path).name, {p.name for p in parent.iterdir()} if parent.is_dir() else set())
    help = f"did you mean {parent / close}?" if close else "write auto for the newest one in output_dir"
    where = run.config.place("resume_from_checkpoint")
    raise ModelError(f"checkpoint {path}: no such folder", where=where, help=help, code="no-checkpoint")


def warn(run: Run) -> None:
    """Note values that are allowed and most likely a mistake."""
    core = run.core
    if not holds_out(run):
        intervals = set() if run.hooks.has("evaluate") else INTERVALS
        if idle := sorted((NEED_HELD_OUT | intervals) & _written(run)):
            others = f"; neither {'does' if len(idle) == 2 else 'do'} {', '.join(idle[1:])}" if idle[1:] else ""
            help = "write val_set_size: 0.05, or test_datasets: ..."
            run.warn(idle[0], f"has no effect without held-out data{others}: {help}")
    if core.learning_rate > HOT:
        run.warn("learning_rate", f"{core.learning_rate:g} is far above the usual range, 1e-5 to 1e-3")
    for key in ("num_epochs", "curriculum_sampling", "shuffle_merged_datasets") if run.config.streamed else ():
        if key in run.config.document.values:
            run.warn(key, "has no effect on a stream: it is read in its own order, and max_steps sets the length")
    if core.save_only_model:
        run.note("checkpoints", "without the optimizer's state (save_only_model): this run can't be resumed from them")
    if core.max_steps is not None:
        warn_of_intervals(run, core.max_steps)
    if core.resume_from_checkpoint is None and contains_run(Path(core.output_dir)):
        run.warn("output_dir", "already contains a run: write resume_from_checkpoint: auto, or another output_dir")
    for plugin in run.hooks.plugins:
        idle = [name for name in run.hooks.specs if any(call.plugin == plugin.name for call in run.hooks.idle(name))]
        model = plugin.declaration.settings
        for key in [key for key in model.model_fields if key in run.config.document.values] if idle and model else ():
            message = f"acts on the data alone, since only {', '.join(plugin.selected_by)} selected {plugin.name}"
            run.warn(key, f"{message}; write plugins: [{plugin.name}] for {', '.join(idle)}")
    for path, value in _leaves(run.config.document.values):
        if is_secret(path, value):
            run.warn(path, "looks like a secret: take it out of this file, and set it as an environment variable")
        elif is_unexpanded(value):
            run.warn(path, "is taken literally: environment variables and ~ are not expanded")


def warn_of_intervals(run: Run, steps: int) -> None:
    """Note every interval that is longer than the given number of optimizer steps."""
    for key, action in (("save_steps", "saved"), ("eval_steps", "evaluated"), ("logging_steps", "logged")):
        interval = getattr(run.core, key)
        if interval is not None and interval > steps:
            run.warn(key, f"{interval:,} is more than the {steps:,} steps of training: only the last step is {action}")


def _leaves(node: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Yield every value that is neither a list nor a group, with its path."""
    if isinstance(node, dict | list):
        for key, item in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _leaves(item, (*path, key))
    else:
        yield path, node
