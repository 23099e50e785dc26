"""A plugin for bench/groups.py: completions from a function of the row instead of the model, and a clock."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.preference_off import clock
from tunesmith import Plugin, Settings, hookimpl


class RecordedSettings(Settings):
    """Measurements."""

    bench_peak: bool = False
    """Print the peak memory in addition to the memory after loading."""


plugin = Plugin(settings=RecordedSettings, offers={"rewards": {"bench_sum": None}})


@hookimpl
def rollout(run: Any, prompts: Any) -> Any:
    import numpy as np

    from bench.groups_work import Work, completions
    from tunesmith import Completion, Group

    folder = Path(run.config.datasets[0].settings.path).parent
    work = Work(**json.loads((folder / "work.json").read_text("utf-8")))
    groups = []
    for prompt in prompts:
        answers = []
        for ids in completions(work, prompt.example.origin[1]):
            tokens, zeros = np.array(ids, np.int32), np.zeros(len(ids), np.float32)
            answers.append(Completion(tokens, zeros, zeros + 1, zeros == 0, "length", np.zeros(len(ids), np.int32)))
        groups.append(Group(prompt.example, answers))
    return groups


@hookimpl
def score_rewards(groups: Any) -> Any:
    from bench.groups_work import reward

    return [reward([c.tokens.tolist() for c in group.completions]) for group in groups]


@hookimpl
def on_start(run: Any) -> None:
    clock.start(run.settings(RecordedSettings).bench_peak)


@hookimpl
def on_step(run: Any, record: Any) -> None:
    clock.step()
    if record.step == run.total_steps:
        clock.report()
