"""Run the stages of a run. The command line, notebooks and tests call the same functions.

    import tunesmith

    config = tunesmith.load_config("run.yaml", learning_rate=1e-4)
    print(tunesmith.plan(config))
    result = tunesmith.train(config)
    print(result.metrics, result.generate("Write a haiku about the sea."))

Every function takes a YAML file, a mapping with its content, the result of load_config, or that of start. start
needs only the core. The other stages are in the engine, a separate distribution that needs torch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from tunesmith import checks, first_rows, resume_rules
from tunesmith.config.config import Config
from tunesmith.config.load import load_config
from tunesmith.config.values import ConfigSource
from tunesmith.engine import engine
from tunesmith.errors import ConfigError, TunesmithError, errors_of, raise_together
from tunesmith.plugins.rewards import check_rewards
from tunesmith.run import Purpose, Run
from tunesmith.saved import SavedModel, find_saved

if TYPE_CHECKING:
    from tunesmith_engine.preflight.planned import Plan
    from tunesmith_engine.training.opened import OpenModel
    from tunesmith_engine.training.result import Result

Source: TypeAlias = "str | Path | Mapping[str, Any] | Config | Run"
"""The first argument of every stage: a YAML file, a mapping with its content, a loaded config, or a started run."""
OTHER_TOOLS = "keys of other tools"
"""The name of the note about config.translated."""
ONLY = "rows"
"""The name of rows that are given without one."""


def start(
    source: Source,
    *,
    model: Any = None,
    tokenizer: Any = None,
    datasets: Any = None,
    check_rows: bool = True,
    purpose: Purpose = "train",
    **keys: Any,
) -> Run:
    """Return a run of a config, after the core and all plugins have checked it. Raises their problems together.

    Values that are valid but most likely a mistake are reported in `run.notes`. A run is for one training: start
    another from the same config.

    Args:
        source: a YAML file, a mapping with its content, or a loaded config. A run that is started is returned as it is.
        model: your own model to train, instead of loading base_model.
        tokenizer: your own tokenizer, instead of the one that the config names.
        datasets: your own rows, by name: {"train": rows} for an entry with `path: rows://train`. Rows are an iterable
            of mappings that can be iterated again, such as a list or a datasets.Dataset. Without a name, they are the
            rows of the only entry of `datasets:`, whatever its path.
        check_rows: check the first row of each local dataset.
        purpose: "eval" for a run that only evaluates, which needs no training data.
        keys: further keys of the config by name, which replace its own: learning_rate=1e-4.
    """
    if isinstance(source, Run):
        if keys or any(given is not None for given in (model, tokenizer, datasets)):
            raise TypeError("this run is started already: pass model, tokenizer, datasets and keys to start()")
        return source
    rows = datasets if isinstance(datasets, Mapping) else {} if datasets is None else {ONLY: datasets}
    unnamed = rows is not datasets and bool(rows)
    config = _load(source, keys | ({"datasets.0.path": checks.ROWS + ONLY} if unnamed else {}))
    if unnamed and len(config.entries) > 1:
        message = f"has {len(config.entries)} entries, so rows need names"
        raise config.error("datasets", message, f"write path: {checks.ROWS}train, and pass datasets={{'train': rows}}")
    run = Run(
        config.copy(), config.hooks(), tokenizer=tokenizer, given_model=model, given_rows=dict(rows), purpose=purpose
    )
    raise_together(faults(run, check_rows))
    checks.warn(run)
    if translated := config.translated:
        run.note(OTHER_TOOLS, f"{len(translated)} accepted; `tunesmith check` lists them")
    return run


def _load(source: str | Path | Mapping[str, Any] | Config, keys: dict[str, Any]) -> Config:
    """Load a config, or a loaded config again with other keys."""
    if not isinstance(source, Config):
        return load(source, **keys)
    if not keys:
        return source
    assert source.origin is not None
    return load(source.origin.source, source.origin.overrides, **{**source.origin.keys, **keys})


def load(source: ConfigSource, overrides: Sequence[str] = (), /, **keys: Any) -> Config:
    """Return the result of load_config. Its error about keys that nothing reads gets the problems of all checks too."""
    try:
        return load_config(source, overrides, **keys)
    except ConfigError as error:
        if error.config is None:
            raise
        rest = Run(error.config, error.config.hooks())
        raise_together([error, *faults(rest, check_rows=False)])
        raise


def faults(run: Run, check_rows: bool = True) -> list[TunesmithError]:
    """Return the errors of the core and of all plugins in a run's config and in the files that it names.

    The first rows of local datasets are read only if there is no other error, which may be their cause.
    """
    core_checks = [checks.check_keys, checks.check_metric, checks.check_folders, checks.check_resume]
    core_checks += [checks.check_given_rows, resume_rules.check_accepted]
    errors = [*errors_of(partial(check, run) for check in core_checks)]
    errors += [*run.hooks.validate(run), *errors_of([partial(check_rewards, run)]), *run.hooks.inspect(run)]
    return errors or (first_rows.check(run) if check_rows else [])


def prepare(source: Source, **given: Any) -> Run:
    """Tokenize the data or read it from the cache; set run.tokenizer and run.data. Raises DataError, ModelError.

    The arguments are those of `start`.
    """
    run = start(source, **given)
    engine("data.prepare").prepare(run)
    return run


def plan(source: Source, *, processes: int = 1, **given: Any) -> Plan:
    """Return what a run will do, without reading weights: stages with their plugins, data, steps, memory.

    The result is a dict of JSON values, which a notebook shows as a table. `processes` is the number of processes to
    plan for: above 1, the plan has their mesh, and the memory and the traffic of each. The other arguments are those of
    `start`.
    """
    return engine("preflight.plan").make_plan(_prepared(source, given), processes)  # type: ignore[no-any-return]


def verify(source: Source, **given: Any) -> list[dict[str, Any]]:
    """Check the engine's promises (packing, shared prompts, chunks) on the run's model and the first row of its data.

    Returns one dict for each check, with its difference and tolerance. Raises NumericalError if one fails. The
    arguments are those of `start`.
    """
    return engine("preflight.verify").verify(_prepared(source, given))  # type: ignore[no-any-return]


def evaluate(source: Source, **given: Any) -> dict[str, float]:
    """Return what an evaluation of the model measures on held-out rows, without training: {"eval_loss": ...}.

    The model is base_model, with the weights of the checkpoint in resume_from_checkpoint, if there is one. No file
    of a run is written. The arguments are those of `start`. Raises ConfigError if nothing is evaluated.
    """
    return engine("training.run").evaluate_only(start(source, purpose="eval", **given))  # type: ignore[no-any-return]


def train(source: Source, **given: Any) -> Result:
    """Train to the final model, from the first step or from the checkpoint in resume_from_checkpoint.

    Trains in this process, on one device; `tunesmith train` and torchrun start several. The arguments are those of
    `start`. Raises DataError, ModelError, NumericalError and others; Interrupted after SIGTERM or SIGINT, when a
    checkpoint is saved.

    Example:
        result = train("run.yaml", model=model, tokenizer=tokenizer, datasets=rows, max_steps=100)
    """

    def explain(run: Run, error: BaseException) -> TunesmithError:
        return engine("preflight.out_of_memory").explain(run, error)  # type: ignore[no-any-return]

    return engine("training.run").train(start(source, **given), explain)  # type: ignore[no-any-return]


def _prepared(source: Source, given: dict[str, Any]) -> Run:
    run = start(source, **given)
    return run if run.data is not None else prepare(run)


@contextlib.contextmanager
def open_model(source: str | Path | SavedModel, *, base: str | None = None, **keys: Any) -> Iterator[OpenModel]:
    """Load a saved model to use it, without data and without training, and free it at the end of the block.

    Args:
        source: the YAML file of a run, its output_dir or a checkpoint, the folder of any model or adapter, or a hub id.
        base: the base model of an adapter, if it is not where it was.
        keys: further keys of the config by name: device="cpu".

    Raises ConfigError and ModelError for a model that does not exist or can't be loaded.

    Example:
        with tunesmith.open_model("outputs/first") as model:
            print(model.generate("Write a haiku about the sea.", max_new_tokens=64))
    """
    saved = find_saved(source, base)
    config = load(saved.keys() | {"output_dir": str(saved.folder)} | keys)
    run = Run(config, config.hooks())
    raise_together([*run.hooks.validate(run), *run.hooks.inspect(run)])
    with engine("training.opened").opened(run, saved) as model:
        yield model
