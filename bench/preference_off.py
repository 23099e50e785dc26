"""Switch off savings of the engine one by one, to measure their worth. This is a plugin for runs of the benchmark.

`bench_off: [sharing]` repeats the prompt for each answer. `bench_off: [scored]` computes the head at every token. The
training result is the same. `bench_peak: true` prints the peak memory in addition to the memory after loading.
"""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any, Literal

from tunesmith import Plugin, Settings, hookimpl


class OffSettings(Settings):
    """Savings to switch off, and measurements."""

    bench_off: list[Literal["sharing", "scored"]] = []
    """Savings to switch off: sharing of prompts, and computing the head only at scored tokens."""
    bench_peak: bool = False
    """Print the peak memory in addition to the memory after loading."""


plugin = Plugin(settings=OffSettings)


@hookimpl(wrapper=True)
def load_model(run: Any) -> Any:
    language_model = yield
    if "sharing" in run.settings(OffSettings).bench_off:
        language_model.shares_prompts = False
    return language_model


@hookimpl
def patch_model(run: Any, model: Any) -> Any:
    if "scored" in run.settings(OffSettings).bench_off:
        from tunesmith_engine.model import policy

        run.patches.replace(policy.PolicyModule, "forward", forward_at_every_token())
    return model


def forward_at_every_token() -> Any:
    """Return a forward method of PolicyModule that computes the head at every token and keeps the scored ones."""
    import torch
    from tunesmith_engine.model.scoring import ScoreRequest

    def forward(self: Any, batch: Any, needs: Any, call: Any = None) -> Any:
        if call is not None or batch is None:
            return call() if call else None
        hidden = self.language_model.hidden(batch, needs.hidden, needs.router)
        if not needs.logps:
            return {"heads": {"score": self.language_model.scores(hidden.last[batch.last_at])}}
        rest = torch.ones(batch.tokens, dtype=torch.bool)
        rest[batch.score_from] = False
        states = torch.cat([hidden.last[batch.score_from], hidden.last[rest]])
        targets = torch.cat([batch.target_ids, batch.input_ids[0, rest]])  # the other targets do not matter
        outputs = self.scorer(states, targets, ScoreRequest())
        return {"logps": outputs["logps"][: len(batch.target_ids)]}

    return forward


@hookimpl
def on_start(run: Any) -> None:
    clock.start(run.settings(OffSettings).bench_peak)


@hookimpl
def on_step(run: Any, record: Any) -> None:
    clock.step()
    if record.step == run.total_steps:
        clock.report()


class Clock:
    """A clock of the CPU seconds after the first step, and of the peak memory in addition to that before it, in MiB."""

    loaded: float | None = None
    first: float | None = None
    last = 0.0

    def start(self, peak: bool) -> None:
        """Start before the first step. With `peak`, reset the peak memory."""
        if peak:
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
            self.loaded = status("VmRSS")

    def step(self) -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        self.last = used.ru_utime + used.ru_stime
        self.first = self.last if self.first is None else self.first

    def report(self) -> None:
        """Pass the numbers to the parent after the last step, in the format of bench.child."""
        numbers: dict[str, float] = {"loop": self.last - (self.first or 0.0)}
        if self.loaded is not None:
            numbers |= {"loaded": self.loaded, "peak": status("VmHWM") - self.loaded}
        print("BENCH", json.dumps(numbers), flush=True)


def status(name: str) -> float:
    """Return a value of /proc/self/status, such as VmRSS, in MiB."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


clock = Clock()
