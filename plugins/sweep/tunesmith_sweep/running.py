"""Run the trials of a sweep: start processes, follow them, end them, and keep sweep.json up to date."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tunesmith import TunesmithError
from tunesmith.engine import engine
from tunesmith.files.record import last_record
from tunesmith_sweep.checking import Base, write_config
from tunesmith_sweep.devices import gpus, shares
from tunesmith_sweep.measures import values_of
from tunesmith_sweep.processes import STOPPED, Process, Signals, command_of, reason
from tunesmith_sweep.search import Search
from tunesmith_sweep.state import State, finish, record_of, settle, unfinished
from tunesmith_sweep.trial import FAILED, FINISHED, INTERRUPTED, PRUNED, RUNNING, Trial, text_of

POLL = 0.1
"""Seconds between two looks at the processes."""


@dataclass
class Sweep:
    """A sweep in progress.

    Args:
        base: the config that all trials share.
        search: chooses values and ends trials, with method: optuna.
        jobs: processes at the same time.
        retry_failed: start failed trials again.
        report: prints a line.
        refresh: called after each trial, to write the results.
    """

    state: State
    base: Base
    search: Search | None
    jobs: int
    retry_failed: bool
    report: Callable[[str], object]
    refresh: Callable[[], object]
    running: dict[int, Process] = field(default_factory=dict)
    """Slot -> process."""

    def run(self) -> int | None:
        """Train all trials that have no result. Return the number of the signal that ended the sweep, or None."""
        environments = shares(gpus() if self.jobs > 1 else [], self.jobs)
        self._wait_for_orphans()
        if self.search is not None:
            self.search.replay(self.state.trials, self.retry_failed)
        self._settle()
        waiting = list(unfinished(self.state.trials, self.retry_failed))
        try:
            with Signals() as signals:
                passed_on = 0
                while True:
                    if signals.count > passed_on:
                        passed_on = signals.count
                        self._stop(passed_on)
                    for slot in range(self.jobs if not signals.count else 0):
                        if slot not in self.running and (trial := self._next(waiting)) is not None:
                            self._start(slot, trial, environments[slot])
                    if not self.running and (signals.count or not self._more(waiting)):
                        return signals.number
                    time.sleep(POLL)
                    for slot, process in list(self.running.items()):
                        self._follow(slot, process)
        finally:
            for process in self.running.values():
                process.kill()

    def _open(self) -> list[Trial]:
        return [trial for trial in self.state.trials if trial.state not in (FINISHED, PRUNED, FAILED)]

    def _wait_for_orphans(self) -> None:
        """Wait for trials of a sweep that was killed and that are still trained."""
        holder = engine("runtime.lock").holder
        for trial in self._open():
            folder = self.state.folder / trial.name
            if (process := holder(folder)) is not None:
                self.report(f"{trial.name} is still trained by {process}; waiting for it")
            while holder(folder) is not None:
                time.sleep(POLL)

    def _settle(self) -> None:
        """Set the state of trials that have no process any more, because the sweep was killed."""
        for trial in self._open():
            if self._judged(trial):
                self._prune(trial)
            else:
                settle(self.state, trial)
            if self.search is not None:
                self.search.tell(trial)
        self.state.write()

    def _more(self, waiting: list[Trial]) -> bool:
        return bool(waiting) or (self.search is not None and len(self.state.trials) < self.state.planned)

    def _next(self, waiting: list[Trial]) -> Trial | None:
        if waiting:
            return waiting.pop(0)
        if self.search is not None and len(self.state.trials) < self.state.planned:
            trial = self.search.ask(len(self.state.trials) + 1)
            self.state.trials.append(trial)
            return trial
        return None

    def _start(self, slot: int, trial: Trial, environment: dict[str, str]) -> None:
        folder = self.state.folder / trial.name
        try:
            write_config(self.base, trial, self.state.folder)
        except TunesmithError as error:  # of optuna's trials, only the corners of the ranges were checked
            trial.state, trial.reason = FAILED, str(error.problems[0])
            self._ended(trial)
            return
        before = trial.state
        trial.state, trial.reason, trial.attempts = RUNNING, None, trial.attempts + 1
        self.state.write()
        verb = "resuming" if before in (INTERRUPTED, FAILED) and last_record(folder) else "training"
        self.report(f"trial {trial.number} of {self._total()}: {verb} {trial.name}")
        command = command_of(self.base, trial, self.state.folder)
        self.running[slot] = Process(trial, command, folder, environment)

    def _total(self) -> int:
        return max(self.state.planned, len(self.state.trials))

    def _follow(self, slot: int, process: Process) -> None:
        """Look at a process: end it early if optuna says so, or take its result if it has ended."""
        trial, code = process.trial, process.poll()
        if not process.pruned and self._judged(trial):
            process.pruned = True
            process.interrupt()
        if code is None:
            return
        del self.running[slot]
        trial.seconds = round(trial.seconds + process.seconds, 3)
        if process.pruned:
            self._prune(trial)
        elif code == 0:
            finish(self.state, trial)
        elif code in STOPPED:
            trial.state = INTERRUPTED
        else:
            trial.state, trial.reason = FAILED, reason(process.path, code)
        record_of(self.state, trial)
        self._ended(trial)

    def _judged(self, trial: Trial) -> bool:
        """Return True if optuna ends a trial at one of its evaluations so far."""
        if self.search is None or self.search.keys.pruning is None:
            return False
        return self.search.judge(trial, values_of(self.state.folder / trial.name, self.state.metric))

    def _prune(self, trial: Trial) -> None:
        trial.state = PRUNED
        trial.step, trial.value = trial.values[-1]
        trial.reason = f"ended early at step {trial.step}"

    def _ended(self, trial: Trial) -> None:
        if self.search is not None:
            self.search.tell(trial)
        self.state.write()
        value = f"  {self.state.metric} {text_of(trial.value)}" if trial.value is not None else ""
        self.report(f"trial {trial.number} of {self._total()}: {trial.state}{value}  {trial.reason or ''}".rstrip())
        self.refresh()

    def _stop(self, times: int) -> None:
        """Pass a signal on to the processes."""
        number = len(self.running)
        again = "; a second signal stops now" if times == 1 else ""
        self.report(f"stopping: {number} trial{'' if number == 1 else 's'} will save a checkpoint{again}")
        for process in self.running.values():
            if not process.pruned or times > 1:
                process.interrupt()
