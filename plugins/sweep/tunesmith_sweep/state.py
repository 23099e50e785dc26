"""Keep the state of a sweep in sweep.json, which is replaced at once, and continue the sweep in a folder."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesmith import EnvironmentProblem
from tunesmith.engine import engine
from tunesmith.files.record import json_object, last_record
from tunesmith.redact import clean
from tunesmith_sweep.measures import result_of
from tunesmith_sweep.spec import Spec
from tunesmith_sweep.trial import FAILED, FINISHED, INTERRUPTED, OVER, PENDING, RUNNING, Trial, text_of

FILE = "sweep.json"
FORMAT = 1


@dataclasses.dataclass
class State:
    """The content of sweep.json.

    Args:
        folder: the folder of the sweep.
        metric, greater: what trials are compared by, and whether more of it is better.
        method, seed: how their values are chosen.
        base: hash of each key of the config that all trials share.
        trials: those that exist so far; optuna adds one at a time.
    """

    folder: Path
    metric: str
    greater: bool
    method: str
    seed: int
    base: dict[str, str]
    config: str
    trials: list[Trial] = dataclasses.field(default_factory=list)
    planned: int = 0
    space: dict[str, str] = dataclasses.field(default_factory=dict)
    """Each parameter as text, for optuna, whose trials are not known in advance."""

    def write(self) -> None:
        """Replace sweep.json."""
        content = dataclasses.asdict(self) | {"folder": str(self.folder), "format": FORMAT}
        atomic = engine("runtime.atomic")
        with atomic.writing(FILE, self.folder, "make room, and check its permissions"):
            atomic.write_text(self.folder / FILE, json.dumps(clean(content), indent=1))

    def best_first(self) -> list[Trial]:
        """Return the trials with a value, the best first, then the others by number."""
        valued = [trial for trial in self.trials if trial.value is not None and trial.state == FINISHED]
        valued.sort(key=lambda trial: (-(trial.value or 0) if self.greater else (trial.value or 0), trial.number))
        return [*valued, *(trial for trial in self.trials if trial not in valued)]


def read_state(folder: Path) -> State | None:
    """Return the state of the sweep in a folder; None if it has none. Raises EnvironmentProblem for a damaged file."""
    path = folder / FILE
    if not path.exists():
        return None
    values = json_object(path)
    try:
        known = {one.name for one in dataclasses.fields(State)} - {"folder", "trials"}
        trials = [Trial.from_json(entry) for entry in values["trials"]]
        return State(folder, trials=trials, **{key: values[key] for key in known})
    except (KeyError, TypeError, ValueError) as error:
        help = "choose another output_dir, or delete it to start the sweep again: finished trials stay"
        raise EnvironmentProblem(f"{path} is damaged: {error!r}", help=help, code="disk") from error


def merged(spec: Spec, old: State, new: State) -> State:
    """Return the state of a sweep that continues: the trials of `old`, and further ones of `new`.

    Raises ConfigError if the base config, the metric or the trials of `old` are not those of `new`.
    """
    changed = sorted(key for key in {*old.base, *new.base} if old.base.get(key) != new.base.get(key))
    place = f"{new.config}:1:1"
    back = "change it back, or write another output_dir for a new sweep"
    if changed:
        names = f"{', '.join(changed[:5])}{' and others' if len(changed) > 5 else ''}"
        raise _changed(f"the config changed since the sweep in {old.folder} began: {names}", place, back)
    for name in ("method", "metric", "greater", "seed"):
        if getattr(old, name) != getattr(new, name):
            key = "direction" if name == "greater" else name
            message = f"the sweep in {old.folder} began with another {key}"
            raise _changed(message, spec.document.where((key,), value=True), back)
    for earlier, later in zip(old.trials, new.trials, strict=False):
        if earlier.params != later.params:
            written = ", ".join(f"{key} {text_of(value)}" for key, value in later.params.items())
            message = f"trial {earlier.name} of the sweep in {old.folder} would now be {written}"
            raise _changed(message, spec.document.where(("parameters",)), f"add values at the end, or {back}")
    if new.trials and len(new.trials) < len(old.trials):
        message = f"the sweep in {old.folder} has {len(old.trials)} trials, and the file now has {len(new.trials)}"
        raise _changed(message, spec.document.where(("parameters",)), back)
    strange = [name for name in {**old.space, **new.space} if old.space.get(name) != new.space.get(name)]
    if not new.trials and strange:
        message = f"the sweep in {old.folder} began with other values of {', '.join(strange)}"
        raise _changed(message, spec.document.where(("parameters",)), back)
    old.trials += new.trials[len(old.trials) :]
    old.planned = max(new.planned, len(old.trials))
    old.config, old.space = new.config, new.space
    return old


def _changed(message: str, where: str, help: str) -> Exception:
    from tunesmith import ConfigError

    return ConfigError(message, where=where, help=help, code="sweep-changed")


def settle(state: State, trial: Trial) -> None:
    """Set the state of a trial whose process is gone, from what it left in its folder."""
    record = record_of(state, trial)
    status = record.get("status")
    if status == "done":
        finish(state, trial)
    elif status == "failed" and trial.state != RUNNING:
        trial.state = FAILED
    elif record or trial.state == RUNNING:
        trial.state = INTERRUPTED
    else:
        trial.state = PENDING


def record_of(state: State, trial: Trial) -> dict[str, Any]:
    """Return the record of a trial's run, and set the trial's number of steps from it."""
    record = last_record(state.folder / trial.name)
    total = record.get("total_steps")
    trial.total_steps = total if isinstance(total, int) else trial.total_steps
    return record


def finish(state: State, trial: Trial) -> None:
    """Set the result of a trial whose run is done; it failed if the metric was not measured."""
    folder = state.folder / trial.name
    result = result_of(folder, state.metric)
    if result is None:
        from tunesmith_sweep.measures import names_in

        trial.state = FAILED
        trial.reason = f"{state.metric} is not in metrics.jsonl, which has {', '.join(names_in(folder)) or 'nothing'}"
        return
    trial.state, (trial.step, trial.value), trial.reason = FINISHED, result, None


def unfinished(trials: Sequence[Trial], retry_failed: bool) -> Iterator[Trial]:
    """Yield the trials to start: new and interrupted ones and, if asked for, failed ones."""
    for trial in trials:
        if trial.state not in OVER and (trial.state != FAILED or retry_failed):
            yield trial


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let only this process continue the sweep in a folder. Raises EnvironmentProblem if another one does."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"output_dir {folder} could not be created: {error.strerror}"
        raise EnvironmentProblem(message, help="choose a place with write permission", code="disk") from error
    with engine("runtime.lock").locked(folder):
        yield


def summary(trials: Sequence[Trial]) -> Mapping[str, int]:
    """Return the number of trials in each state."""
    counts: dict[str, int] = {}
    for trial in trials:
        counts[trial.state] = counts.get(trial.state, 0) + 1
    return counts
