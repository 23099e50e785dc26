"""The profiler writes a trace of the steps that were asked for, and changes nothing else."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tunesmith import ConfigError
from tunesmith.testing.conformance import conformance

test_conformance = conformance("profiler")

FAIL = """
from tunesmith import Plugin, hookimpl
plugin = Plugin()
@hookimpl(wrapper=True)
def compute_loss(run):
    if run.step == 2:
        raise ValueError("no more")
    return (yield)
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.sft_config(tmp_path_factory.mktemp("profiler"), max_steps=4, save_steps=3)


def trace(out: Path, rank: int = 0) -> dict[str, Any]:
    with gzip.open(out / f"profile/rank-{rank}.pt.trace.json.gz") as file:
        return json.load(file)  # type: ignore[no-any-return]


def steps(out: Path) -> int:
    """Return the number of optimizer steps in a trace."""
    names = [event.get("name", "") for event in trace(out)["traceEvents"]]
    return sum(name.startswith("Optimizer.step#") for name in names)


def note(out: Path) -> str:
    return str(json.loads((out / "run.json").read_text())["notes"]["profile"])


def test_steps_are_recorded_and_weights_are_the_same(config: Path, tmp_path: Path) -> None:
    tiny.train(config, f"output_dir={tmp_path / 'plain'}")
    tiny.train(config, f"output_dir={tmp_path / 'profiled'}", "profiler_steps=2", "profiler_steps_start=1")
    assert steps(tmp_path / "profiled") == 2
    assert note(tmp_path / "profiled").startswith("steps 2 to 3")
    plain, profiled = tiny.weights(tmp_path / "plain"), tiny.weights(tmp_path / "profiled")
    assert all(torch.equal(plain[name], profiled[name]) for name in plain)


def test_a_resumed_run_records_the_steps_that_it_takes(config: Path, tmp_path: Path) -> None:
    out = f"output_dir={tmp_path / 'out'}"
    tiny.train(config, out, "max_steps=3")
    tiny.train(config, out, "resume_from_checkpoint=auto", "profiler_steps=3", "profiler_steps_start=1", "max_steps=5")
    assert steps(tmp_path / "out") == 1
    assert note(tmp_path / "out").startswith("steps 4 to 4")


def test_steps_that_the_run_does_not_take_are_an_error_or_a_note(config: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="profiler_steps_start is 4, but the run has 4 steps"):
        tiny.train(config, "profiler_steps=1", "profiler_steps_start=4")
    tiny.train(config, f"output_dir={tmp_path}", "max_steps=null", "profiler_steps=1", "profiler_steps_start=99")
    assert note(tmp_path).startswith("none")
    assert not (tmp_path / "profile").exists()


def test_a_run_that_fails_leaves_what_was_recorded(config: Path, tmp_path: Path) -> None:
    (tmp_path / "fail.py").write_text(FAIL)
    with pytest.raises(Exception, match="no more"):
        tiny.train(config, f"output_dir={tmp_path / 'out'}", "profiler_steps=4", f"plugins=[{tmp_path / 'fail.py'}]")
    assert steps(tmp_path / "out") == 2


@pytest.mark.slow
def test_each_process_writes_its_own_trace(config: Path, tmp_path: Path) -> None:
    values = {"profiler_steps": 1, "output_dir": str(tmp_path / "two")}
    tiny.torchrun(2, tiny.sft_config(config.parent, name="two.yaml", **values))
    names = {event.get("name", "") for rank in (0, 1) for event in trace(tmp_path / "two", rank)["traceEvents"]}
    assert any("gloo:all_reduce" in name for name in names)
