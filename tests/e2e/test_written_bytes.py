"""`doctor` and the check before the first step predict the bytes that a run writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tunesmith.cli.doctor import diagnose

PLUGINS = Path(__file__).parent.parent / "contract/plugins"
RUNS: dict[str, dict[str, Any]] = {
    "adapter": {"adapter": "lora"},
    "adapter with a saved module": {"adapter": "lora", "lora_modules_to_save": ["lm_head"]},
    "all weights": {},
    "a further model": {"plugins": [str(PLUGINS / "teacher.py")]},
}


def written(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", RUNS)
def test_predicted_bytes_are_those_that_are_written(name: str, tied: bool, tmp_path: Path) -> None:
    tiny.model_folder(tmp_path / "model-llama", tie_word_embeddings=tied)
    keys = RUNS[name] | ({"teacher_model": str(tmp_path / "model-llama")} if "plugins" in RUNS[name] else {})
    path = tiny.sft_config(tmp_path, number=8, max_steps=1, save_steps=1, **keys)
    needed = tiny.checkpoint_bytes(tiny.start(path))
    tiny.train(path)
    checkpoint = written(tmp_path / "out/checkpoint-1")
    assert 0.95 * checkpoint < needed.checkpoint < 1.05 * checkpoint
    names = [file.name for file in (tmp_path / "out/checkpoint-1").iterdir()]
    final = sum((tmp_path / "out" / file).stat().st_size for file in names if (tmp_path / "out" / file).is_file())
    assert 0.9 * final < needed.final < 1.1 * final


def test_heads_are_counted(tmp_path: Path) -> None:
    """A head of 320 x 32 numbers is in a checkpoint four times: weights, two means, and the export."""
    from torch import nn
    from tunesmith_engine.checkpoint.disk import bytes_of

    run = tiny.start(tiny.sft_config(tmp_path, number=4))
    body, head = nn.Linear(4, 4), nn.Linear(32, 320, bias=False)
    without = bytes_of(run, nn.ModuleList([body, nn.ModuleDict()]), full_export=False)
    counted = bytes_of(run, nn.ModuleList([body, nn.ModuleDict({"value": head})]), full_export=False)
    assert counted.checkpoint - without.checkpoint == pytest.approx(4 * 4 * 320 * 32, rel=0.05)
    assert counted.final - without.final == 4 * 320 * 32


def test_doctor_shows_these_bytes(tmp_path: Path) -> None:
    path = tiny.sft_config(tmp_path, adapter="lora", save_steps=1, max_steps=1)
    needed = tiny.checkpoint_bytes(tiny.start(path))
    disk = next(finding for finding in diagnose(str(path), []) if finding.what == "disk")
    assert disk.status == "ok" and str(needed) in disk.detail
