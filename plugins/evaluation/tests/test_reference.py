"""Methods with a reference are evaluated against the model that training started from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests import tiny
from tunesmith.cli.main import main


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])


@pytest.mark.parametrize(
    "keys", [{"adapter": "lora"}, {}, {"adapter": "lora", "load_best_model_at_end": True, "eval_steps": 1}], ids=str
)
def test_the_rewards_of_dpo_are_those_of_training(keys: dict[str, Any], tmp_path: Path) -> None:
    rows = tiny.write_rows(tmp_path / "rows.jsonl", tiny.rows("pair", 16))
    datasets = [{"path": str(rows), "type": "chat_template"}]
    config = tiny.sft_config(tmp_path, datasets=datasets, rl="dpo", val_set_size=4, **keys)
    result = tiny.train(config)
    lines = [line for line in tiny.metrics(tmp_path / "out") if "eval_loss" in line]
    step = result.policy.run.best[0] if "load_best_model_at_end" in keys else result.steps
    (line,) = [line for line in lines if line["step"] == step]
    expected = {name: value for name, value in line.items() if name.startswith("eval_")}
    assert abs(expected["eval_rewards/margins"]) > 1e-4
    outcome = run(config, "--json")
    assert outcome.exit_code == 0, outcome.output
    assert json.loads(outcome.stdout)["metrics"] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_without_the_yaml_or_the_checkpoint_there_is_no_reference(tmp_path: Path) -> None:
    rows = tiny.write_rows(tmp_path / "rows.jsonl", tiny.rows("pair", 8))
    datasets = [{"path": str(rows), "type": "chat_template"}]
    config = tiny.sft_config(tmp_path, datasets=datasets, rl="dpo", val_set_size=2, adapter="lora", max_steps=1)
    tiny.train(config)
    outcome = run(tmp_path / "out", "--data", rows, "--type", "chat_template", "rl=dpo")
    assert outcome.exit_code == 2 and "name the YAML of the run" in outcome.stderr
    shutil.rmtree(tmp_path / "out/checkpoint-1")
    outcome = run(config)
    assert outcome.exit_code == 2 and "checkpoint-1 is gone" in outcome.stderr
