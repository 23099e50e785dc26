"""Several training processes: each calls the rewards of its share, and all end if a reward fails on one of them."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from tests import tiny
from tests.contract.test_rewards import config
from tunesmith.testing import worker

FUNCTIONS = """
import os

def odd(completion_ids):
    return [sum(token % 2 for token in tokens) / len(tokens) for tokens in completion_ids]

def fails_once(prompts):
    if os.environ["RANK"] == "1":
        raise KeyError("missing")
    return [float(i) for i, _ in enumerate(prompts)]
"""


@pytest.mark.slow
def test_two_processes_score_what_one_scores(tmp_path: Path) -> None:
    model = tiny.model_folder(tmp_path / "model")
    path = config(tmp_path, model, "./scored.py:odd", code=FUNCTIONS)
    tiny.train(path)
    keys = {"gradient_accumulation_steps": 1, "output_dir": str(tmp_path / "two")}
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | keys))
    tiny.torchrun(2, tmp_path / "two.yaml")
    for line, one in zip(tiny.metrics(tmp_path / "two"), tiny.metrics(tmp_path / "out"), strict=True):
        assert line["rewards/odd/mean"] == pytest.approx(one["rewards/odd/mean"], abs=1e-6)
        assert line["loss"] == pytest.approx(one["loss"], abs=1e-5)


@pytest.mark.slow
def test_a_reward_that_fails_on_one_process_ends_all_with_its_error(tmp_path: Path) -> None:
    model = tiny.model_folder(tmp_path / "model")
    path = config(tmp_path, model, "./scored.py:fails_once", code=FUNCTIONS)
    started = time.monotonic()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    completed = subprocess.run(
        worker.command(2, [path]), capture_output=True, text=True, env=environment, check=False, timeout=120
    )
    assert completed.returncode != 0 and time.monotonic() - started < 60
    assert "reward 'fails_once' failed on row" in completed.stderr and "KeyError: 'missing'" in completed.stderr
