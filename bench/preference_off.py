"""A plugin beside a run.yaml of the benchmark: takes from the engine what it saves, to see what each saving is worth.

`bench_off: [sharing, scored]` repeats the prompt for each answer, and computes the head at every token as plain code
does. What is trained stays the same. `bench_peak: true` prints the peak of memory above what is there after loading.
"""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any, Literal

from tunesmith import Plugin, Settings, hookimpl


class OffSettings(Settings):
    """What is switched off, and what is measured."""

    bench_off: list[Literal["sharing", "scored"]] = []
    """sharing of prompts; the head at scored tokens alone."""
    bench_peak: bool = False
    """Print the peak of memory above after-load."""


plugin = Plugin(settings=OffSettings)


@hookimpl(wrapper=True)
def load_model(run: Any, role: str) -> Any:
    language_model = yield
    if "sharing" in run.settings(OffSettings).bench_off:
        language_model.shares_prompts = False
    return language_model


@hookimpl
def patch_model(run: Any, model: Any) -> Any:
    if "scored" in run.settings(OffSettings).bench_off:
        from tunesmith_engine.model import policy

        run.patches.replace(policy.Root, "forward", everywhere(policy))
    return model


def everywhere(policy: Any) -> Any:
    """The forward of the engine's root with the head at every token, of which the scored ones are taken."""
    import torch

    def forward(self: Any, batch: Any, needs: Any, call: Any = None) -> Any:
        if call is not None or batch is None:
            return call() if call else None
        hidden = self.language_model.hidden(batch, needs.hidden, needs.router)
        if not needs.logps:
            return {"scores": self.language_model.scores(hidden.last[batch.point_at])}
        other = torch.ones(batch.tokens, dtype=torch.bool)
        other[batch.score_from] = False
        states = torch.cat([hidden.last[batch.score_from], hidden.last[other]])
        targets = torch.cat([batch.target_ids, batch.input_ids[0, other]])  # any target: it is not looked at
        found = policy.score_tokens(self.language_model.logits, states, targets, needs)
        return {"logps": found["logps"][: len(batch.target_ids)]}

    return forward


@hookimpl
def on_start(run: Any) -> None:
    clock.start(run.settings(OffSettings).bench_peak)


@hookimpl
def on_step(run: Any, record: Any) -> None:
    clock.step()
    if record.step == run.total_steps:
        clock.tell()


class Clock:
    """CPU seconds of this process from the end of the first step on, and the peak of memory above what was there
    before it, in MiB."""

    loaded: float | None = None
    first: float | None = None
    last = 0.0

    def start(self, peak: bool) -> None:
        """Before the first step. With `peak`, let the peak count from here."""
        if peak:
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
            self.loaded = status("VmRSS")

    def step(self) -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        self.last = used.ru_utime + used.ru_stime
        self.first = self.last if self.first is None else self.first

    def tell(self) -> None:
        """After the last step: numbers for the parent, as bench.child reads them."""
        told: dict[str, float] = {"loop": self.last - (self.first or 0.0)}
        if self.loaded is not None:
            told |= {"loaded": self.loaded, "peak": status("VmHWM") - self.loaded}
        print("BENCH", json.dumps(told), flush=True)


def status(name: str) -> float:
    """A line of /proc/self/status in MiB."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


clock = Clock()
