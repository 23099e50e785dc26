"""Warnings that libraries give about themselves are hidden, and files that nothing runs are not reported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tunesmith import build_policy
from tunesmith.api import prepare


def command(*arguments: str) -> Any:
    environment = {key: value for key, value in os.environ.items() if key != "TRANSFORMERS_VERBOSITY"}
    line = [sys.executable, "-m", "tunesmith", *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False, env=environment | {"OMP_NUM_THREADS": "1"})


@pytest.mark.slow
def test_plan_of_a_saved_adapter_prints_no_warning_of_a_library(tmp_path: Path) -> None:
    """Without the filters: "copying from a non-meta parameter" for each matrix, a FutureWarning, and a wrong id."""
    tiny.train(tiny.sft_config(tmp_path, adapter="lora", max_steps=1, number=4))
    config = tmp_path / "model-llama/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"bos_token_id": 9999}))
    keys: dict[str, Any] = {"lora_model_dir": str(tmp_path / "out"), "output_dir": str(tmp_path / "next")}
    keys["plugins"] = ["-console"]  # which prints phases to stderr
    done = command("plan", str(tiny.sft_config(tmp_path, adapter="lora", max_steps=1, number=4, **keys)))
    assert done.returncode == 0 and done.stderr == "", done.stderr


def test_scripts_that_no_library_runs_are_not_reported(tmp_path: Path) -> None:
    path = tiny.sft_config(tmp_path, number=2)
    (tmp_path / "model-llama/make.py").write_text("")
    run = prepare(tiny.start(path))
    build_policy(run)
    assert "code in base_model" not in run.notes
    (tmp_path / "model-llama/modeling_mine.py").write_text("")
    run = prepare(tiny.start(path))
    assert run.notes["code in base_model"] == "not run, transformers has its own: modeling_mine.py"  # type: ignore[union-attr]
