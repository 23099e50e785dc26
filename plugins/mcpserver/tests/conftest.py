"""A project with a model, rows, configs and a run, and files that must not be read or run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import tiny

EVIL = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\n"
GOOD = """\
base_model: ./models/my-model
datasets:
  - {path: ./data/train.jsonl, type: chat_template}
adapter: lora
sequence_len: 256
learning_rate: 1e-3
output_dir: ./outputs/first
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model, rows, configs, a run, and files that must not run or be read."""
    folder = tmp_path_factory.mktemp("mcp") / "project"
    tiny.model_folder(folder / "models" / "my-model")
    (folder / "data").mkdir()
    tiny.write_rows(folder / "data" / "train.jsonl", tiny.rows("conversation", 40))
    (folder / "run.yaml").write_text(GOOD, encoding="utf-8")
    (folder / "wrong.yaml").write_text(GOOD + "lerning_rate: 1\nrl: dop\n", encoding="utf-8")
    (folder / "evil.py").write_text(EVIL, encoding="utf-8")
    (folder / "evil.yaml").write_text(GOOD + "plugins: [./evil.py]\n", encoding="utf-8")
    (folder.parent / "secret.jsonl").write_text('{"text": "TOP"}\n', encoding="utf-8")
    (folder / "link.jsonl").symlink_to(folder.parent / "secret.jsonl")
    run = folder / "outputs" / "old"
    (run / "checkpoint-7").mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"status": "done", "step": 7, "outline": {"method": "sft"}}), "utf-8")
    (run / "metrics.jsonl").write_text('{"step": 6, "loss": 2.0}\n{"step": 7, "loss": 1.5}\n{"step": ', "utf-8")
    return folder
