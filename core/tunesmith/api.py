"""Run the stages of a run. The command line, notebooks and tests call the same functions.

    run = start(load_config("run.yaml"))
    prepare(run)
    print(plan(run))
    train(run)

load_config and start need only the core. The other stages are in the engine, a separate distribution that needs torch.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from tunesmith import checks, first_rows, resume_rules
from tunesmith.config.load import Config
from tunesmith.engine import engine
from tunesmith.errors import TunesmithError, errors_of, raise_together
from tunesmith.plugins.manager import Hooks
from tunesmith.run import Run

if TYPE_CHECKING:
    from tunesmith_engine.training.run import Result


def start(config: tuple[Config, Hooks], tokenizer: Any = None, model: Any = None, check_rows: bool = True) -> Run:
    """Return a run of a config, after the core and all plugins have checked it. Raises their problems together.

    Values that are valid but most likely a mistake are reported in `run.notes`.

    Args:
        config: the result of load_config.
        tokenizer: your own tokenizer, instead of the one that the config names.
        model: your own model to train, instead of loading base_model.
        check_rows: check the first row of each local dataset.
    """
    run = Run(*config, tokenizer=tokenizer, given_model=model)
    raise_together(faults(run, check_rows))
    checks.warn(run)
    return run


def faults(run: Run, check_rows: bool = True) -> list[TunesmithError]:
    """Return the errors of the core and of all plugins in a run's config and in the files that it names.

    The first rows of local datasets are read only if there is no other error, which may be their cause.
    """
    core_checks = [checks.check_keys, checks.check_metric, checks.check_folders, checks.check_resume]
    core_checks += [resume_rules.check_accepted]
    errors = [*errors_of(partial(check, run) for check in core_checks)]
    errors += [*run.hooks.validate(run), *run.hooks.inspect(run)]
    return errors or (first_rows.check(run) if check_rows else [])


def prepare(run: Run) -> Run:
    """Tokenize the data or read it from the cache; set run.tokenizer and run.data. Raises DataError, ModelError."""
    engine("data.prepare").prepare(run)
    return run


def plan(run: Run) -> dict[str, Any]:
    """Return what a prepared run will do, without reading weights: stages with their plugins, data, steps, memory."""
    return engine("preflight.plan").make_plan(run)  # type: ignore[no-any-return]


def verify(run: Run) -> list[dict[str, Any]]:
    """Check the engine's promises (packing, shared prompts, chunks) on the run's model and the first row of its data.

    Returns one dict for each check, with its difference and tolerance. Raises NumericalError if one fails.
    """
    return engine("preflight.verify").verify(run)  # type: ignore[no-any-return]


def train(run: Run) -> Result:
    """Train to the final model, from the first step or from the checkpoint in resume_from_checkpoint.

    Prepares the data if `prepare` was not called. Raises DataError, ModelError, NumericalError and others; Interrupted
    after SIGTERM or SIGINT, when a checkpoint is saved.
    """
    return engine("training.run").train(run)  # type: ignore[no-any-return]
