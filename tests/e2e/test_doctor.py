"""The findings of doctor agree with the run that follows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests import tiny
from tunesmith import DataError
from tunesmith.cli import main


@pytest.mark.parametrize("adapter", [None, "lora"])
def test_run_without_findings_trains_and_uses_the_predicted_disk_space(adapter: str | None, tmp_path: Path) -> None:

    path = tiny.sft_config(tmp_path, adapter=adapter, save_steps=1, save_total_limit=2)
    completed = CliRunner().invoke(main, ["doctor", str(path), "--json"])
    report = json.loads(completed.stdout)
    assert (completed.exit_code, report["exit_code"]) == (0, 0), completed.output
    assert report["next"] == f"tunesmith train {path}"
    findings = {finding["what"]: finding for finding in report["findings"]}
    names = {
        "config",
        "Python",
        "packages",
        "processes",
        "output_dir",
        "base_model",
        "model",
        "attention",
        "memory",
        "disk",
    }
    assert names <= set(findings) and {f["status"] for f in findings.values()} == {"ok"}, findings
    assert ("peft" in findings) == (adapter == "lora")
    assert not (tmp_path / "out").exists()
    page = (Path(__file__).parents[2] / "docs/doctor.md").read_text("utf-8")
    assert all(f"`{name}`" in page for name in set(findings) - {"peft"})

    needed = tiny.checkpoint_bytes(tiny.start(path))
    result = tiny.train(path)
    trained = sum(p.numel() for p in result.policy.model.parameters() if p.requires_grad)
    assert f", {trained:,} of them trained" in findings["model"]["detail"]
    kept = sorted((tmp_path / "out").glob("checkpoint-*"))
    assert (len(kept), needed.number) == (2, 3)  # a third one exists until the oldest is deleted
    written = sum(file.stat().st_size for file in kept[-1].rglob("*"))
    assert 0.95 * written < needed.checkpoint < 1.05 * written  # also tests/e2e/test_written_bytes.py


def test_problems_of_model_and_data_are_reported_together(tmp_path: Path) -> None:
    path = tiny.sft_config(tmp_path)
    (tmp_path / "model-llama/model.safetensors").unlink()
    (tmp_path / "data.jsonl").unlink()
    result = CliRunner().invoke(main, ["doctor", str(path)])
    assert result.exit_code == DataError.exit_code, "the exit code of the first problem"
    assert "no .safetensors weights" in result.stdout and "no such file" in result.stdout
    assert "2 problems" in result.stdout and "next:" not in result.stdout
