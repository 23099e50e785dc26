"""Record the steps of a process with torch.profiler, and write its files."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from tunesmith import EnvironmentProblem, Run
from tunesmith_profiler import ProfilerSettings

FOLDER = "profile"
EVENTS = 100_000
"""Most allocations of memory that are kept, the newest: enough for several steps of a large model."""


class Profile:
    """The recording of a run in this process. It is written when its last step is over, or when the run ends."""

    def __init__(self, run: Run):
        settings = run.settings(ProfilerSettings)
        self.run = run
        self.first = settings.profiler_steps_start + 1
        self.last = settings.profiler_steps_start + (settings.profiler_steps or 0)
        self.cuda = run.device.type == "cuda"
        self.recorder: Any = None
        self.steps: list[int] = []

    def begin(self) -> None:
        """Begin at the start of a run, if its next step is to be recorded. Note it if no step will be."""
        if self.run.total_steps < self.first or self.run.step >= self.last:
            steps = f"steps {self.first} to {self.last}"
            self.run.note(
                "profile", f"none: the run takes steps {self.run.step + 1} to {self.run.total_steps}, not {steps}"
            )
        self._record_after(self.run.step)

    def step(self, step: int) -> None:
        """End a step: begin to record the next one, or write what is recorded."""
        if self.recorder is not None:
            self.steps.append(step)
            self.recorder.step()
            if step >= self.last:
                self._write()
        self._record_after(step)

    def close(self) -> None:
        """Write what is recorded if the run ends before the last step that was to be recorded."""
        if self.recorder is not None:
            with contextlib.suppress(EnvironmentProblem):  # the run may end because the disk is full
                self._write()

    def _record_after(self, step: int) -> None:
        if self.recorder is None and self.first <= step + 1 <= self.last:
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.cuda else [])]
            self.recorder = profile(activities=activities, record_shapes=True, profile_memory=True)
            if self.cuda:
                torch.cuda.memory._record_memory_history(max_entries=EVENTS)
            self.recorder.start()

    def _write(self) -> None:
        recorder, self.recorder = self.recorder, None
        folder = Path(self.run.output_dir, FOLDER)
        name = f"rank-{self.run.world.rank}"
        recorder.stop()
        try:
            folder.mkdir(exist_ok=True)
            recorder.export_chrome_trace(str(folder / f"{name}.pt.trace.json.gz"))
            if self.cuda:
                torch.cuda.memory._dump_snapshot(str(folder / f"{name}.memory.pickle"))
        except OSError as error:
            message = f"the profile could not be written to {folder}: {error.strerror or error}"
            raise EnvironmentProblem(message, code="disk", help="make room in output_dir") from error
        finally:
            if self.cuda:
                torch.cuda.memory._record_memory_history(enabled=None)
        recorded = f"steps {self.steps[0]} to {self.steps[-1]}" if self.steps else f"a part of step {self.run.step + 1}"
        self.run.note("profile", f"{recorded}, in {folder}: open the traces at ui.perfetto.dev")
