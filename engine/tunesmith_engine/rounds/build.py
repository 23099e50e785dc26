"""Build the rounds of a run, and count its optimizer steps."""

from __future__ import annotations

import math

from tunesmith.checks import warn_of_intervals
from tunesmith.errors import PluginError
from tunesmith.run import Run
from tunesmith_engine.model.policy import Policy
from tunesmith_engine.rounds.rollout import Rollouts
from tunesmith_engine.rounds.rounds import Rounds
from tunesmith_engine.rounds.stored import StoredRounds
from tunesmith_engine.rounds.streamed import StreamedRounds


def build_rounds(run: Run, policy: Policy | None = None) -> Rounds:
    """Return the rounds of a prepared run: of rollouts, of prepared data, or of a stream.

    Without a policy, rollouts can be counted but not generated. Raises PluginError if a method that trains on prompts
    declares no rollout.
    """
    assert run.data is not None
    if run.rollout is not None:
        return Rollouts(run, policy, run.rollout)
    if any(spec.row_kind == "prompt" for spec in run.config.entries):
        message = "the method trains on prompts, but declares no completions for them"
        raise PluginError(message, help="declare Plugin(rollout=Rollout(...))", code="plugin-shape")
    return StreamedRounds(run) if run.data.train is None else StoredRounds(run, run.data.train)


def count_steps(run: Run, rounds: Rounds) -> int:
    """Return the optimizer steps of the full run: num_epochs of data, at most max_steps.

    Notes settings of intervals (such as save_steps) that are longer than the run, and max_steps if the default of
    num_epochs ends the run earlier.
    """
    if rounds.per_epoch is None:
        assert run.core.max_steps is not None  # checked by the core for streams
        return run.core.max_steps
    steps = math.ceil(rounds.per_epoch * rounds.steps * run.core.num_epochs)
    limit = run.core.max_steps or steps
    if limit > steps and "num_epochs" not in run.config.document.values:
        message = f"{limit:,} is more than the {steps:,} steps of 1 epoch, where the run ends; to go on, set num_epochs"
        run.warn("max_steps", message)
    steps = min(steps, limit)
    warn_of_intervals(run, steps)
    return steps
