"""The four configs of docs/rlhf.md train one after the other, each from what the ones before wrote."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunesmith import api
from tunesmith.config.load import load_config

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples" / "rlhf"
NAMES = ("sft", "reward", "grpo", "dpo")


def config(name: str, folder: Path) -> dict[str, Any]:
    """Return a config of the page with few steps, whose results are written below a folder."""
    text = (FOLDER / f"{name}.yaml").read_text("utf-8")
    text = re.sub(r"\boutputs/", f"{folder}/", re.sub(r"\bexamples/(tiny|data)", rf"{ROOT}/examples/\1", text))
    keys: dict[str, Any] = yaml.safe_load(text)
    short = {"max_steps": 2, "logging_steps": 1, "device": "cpu", "micro_batch_size": 8 if name == "grpo" else 1}
    return {**keys, **short, "plugins": [*keys.get("plugins", []), "-console"]}


def test_page_shows_what_the_files_have() -> None:
    page = (ROOT / "docs" / "rlhf.md").read_text("utf-8")
    for name in NAMES:
        [block] = re.findall(rf"^```yaml\n# examples/rlhf/{name}\.yaml\n(.*?)^```$", page, re.M | re.S)
        shown, real = yaml.safe_load(block), yaml.safe_load((FOLDER / f"{name}.yaml").read_text("utf-8"))
        assert shown == {key: real[key] for key in shown}, name
        assert set(real) - set(shown) <= {"test_datasets"}, name


@pytest.mark.slow
def test_each_run_starts_from_the_result_of_the_one_before(tmp_path: Path) -> None:
    for name in NAMES:
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config(name, tmp_path)), encoding="utf-8")
        result = api.train(api.start(load_config(path)))
        assert result.steps == 2, name
    lines = (tmp_path / "rlhf-grpo" / "metrics.jsonl").read_text("utf-8").splitlines()
    measured = [json.loads(line) for line in lines]
    assert any("rewards/reward_model/mean" in record for record in measured)
    scored = json.loads((tmp_path / "rlhf-reward" / "config.json").read_text("utf-8"))
    assert scored["architectures"] == ["LlamaForSequenceClassification"]
