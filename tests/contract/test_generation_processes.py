"""Processes with unequal requests generate what one process does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import tiny

PLUGIN = """
import json
from tunesmith import Plugin, Request, Sampling, hookimpl
plugin = Plugin()
@hookimpl
def on_start(run, policy):
    prompts = [[5], [40, 41, 42, 43, 44], [7, 8, 9]]
    requests = [Request(p, 4 + 3 * i, 2, Sampling(1.5), seed=(i,)) for i, p in enumerate(prompts)]
    own = requests if run.world.size == 1 else [requests, []][run.world.rank]
    groups = policy.generate(own)
    groups = policy.generate(requests[run.world.rank :: run.world.size] if run.world.size > 1 else requests[:2]), groups
    values = [[[c.tokens.tolist() for c in g] for g in part] for part in groups]
    (run.output_dir / f"groups-{run.world.size}-{run.world.rank}.json").write_text(json.dumps(values))
"""


@pytest.mark.slow
def test_processes_with_unequal_requests_generate_what_one_process_does(tmp_path: Path) -> None:
    """With data parallelism and with sharding, where every process has to run the same number of forwards."""
    (tmp_path / "writes.py").write_text(PLUGIN)
    keys: dict[str, Any] = {"plugins": ["./writes.py"], "max_steps": 1, "gradient_accumulation_steps": 2}
    half = keys | {"gradient_accumulation_steps": 1}
    tiny.train(tiny.sft_config(tmp_path, name="one.yaml", **keys, output_dir=str(tmp_path / "one")))
    ways = {"parallel": {}, "sharded": {"fsdp_config": {}}}
    paths = [
        tiny.sft_config(tmp_path, name=f"{way}.yaml", **half, **more, output_dir=str(tmp_path / way))
        for way, more in ways.items()
    ]
    tiny.torchrun(2, *paths)
    _, every = json.loads((tmp_path / "one/groups-1-0.json").read_text())
    losses = {way: tiny.metrics(tmp_path / way)[0]["loss"] for way in ("one", *ways)}
    for way in ways:
        (own, first), (others, none) = (
            json.loads((tmp_path / way / f"groups-2-{rank}.json").read_text()) for rank in (0, 1)
        )
        assert first == every and none == [], way
        assert own == every[::2] and others == every[1::2], way
        assert losses[way] == pytest.approx(losses["one"], abs=1e-5)
