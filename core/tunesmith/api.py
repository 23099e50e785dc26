"""The stages of a run as functions: the command line, notebooks and tests call the same ones.

load_config -> start -> prepare -> plan -> train. Each takes what the one before gave. What needs torch is in the
engine, a distribution of its own: up to `start` a config can be checked without it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from tunesmith import checks, resume_rules
from tunesmith.config.load import Config
from tunesmith.engine import engine
from tunesmith.errors import TunesmithError, errors_of, raise_together
from tunesmith.plugins.manager import Hooks
from tunesmith.run import Run

if TYPE_CHECKING:
    from tunesmith_engine.training.run import Result


def start(config: tuple[Config, Hooks], tokenizer: Any = None, model: Any = None) -> Run:
    """A run of a config that the core and the plugins find consistent, or every problem together.

    What is allowed and most likely a mistake is in `run.notes`.
    """
    run = Run(*config, tokenizer=tokenizer, given_model=model)
    raise_together(faults(run))
    checks.warn(run)
    return run


def faults(run: Run) -> list[TunesmithError]:
    """What is wrong with the config of a run and the files it names, by the core and by every plugin."""
    own = (checks.check_keys, checks.check_folders, checks.check_resume, resume_rules.check_accepted)
    return [*errors_of(partial(check, run) for check in own), *run.hooks.validate(run), *run.hooks.inspect(run)]


def prepare(run: Run) -> Run:
    """Tokenise the data, or take it from the cache; fills run.tokenizer and run.data. Raises DataError, ModelError."""
    engine("data.prepare").prepare(run)
    return run


def plan(run: Run) -> dict[str, Any]:
    """What a prepared run will do, without reading weights: stages with who answers them, data, steps, parameters."""
    return engine("preflight.plan").make_plan(run)  # type: ignore[no-any-return]


def verify(run: Run) -> list[dict[str, Any]]:
    """Check the engine's promises on this model and the first row of this data. Raises NumericalError on a mismatch."""
    return engine("preflight.verify").verify(run)  # type: ignore[no-any-return]


def train(run: Run) -> Result:
    """Train from the first step, or from the checkpoint that resume_from_checkpoint names, to the final model.

    Prepares the data if that is not done. Raises DataError, ModelError, NumericalError, ...; Interrupted after SIGTERM
    or SIGINT, a checkpoint saved.
    """
    return engine("training.run").train(run)  # type: ignore[no-any-return]
