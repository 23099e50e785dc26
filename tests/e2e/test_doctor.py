"""The findings of doctor agree with the run that follows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests import tiny
from tunesmith import DataError
from tunesmith.cli import main


def tensors_in(folder: Path) -> int:
    """Return the bytes of the tensors in a folder, without the random number states of the processes."""
    from safetensors.torch import load_file

    files = [path for path in folder.glob("*.safetensors") if not path.name.startswith("rank-")]
    return sum(tensor.nbytes for path in files for tensor in load_file(path).values())


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
    steps = 4 * len(list(result.policy.model.parameters()))  # AdamW stores a float32 step count per parameter
    assert 0 <= tensors_in(kept[-1]) - needed.checkpoint <= steps
    assert tensors_in(tmp_path / "out") == needed.final


def test_problems_of_model_and_data_are_reported_together(tmp_path: Path) -> None:
    path = tiny.sft_config(tmp_path)
    (tmp_path / "model-llama/model.safetensors").unlink()
    (tmp_path / "data.jsonl").unlink()
    result = CliRunner().invoke(main, ["doctor", str(path)])
    assert result.exit_code == DataError.exit_code, "the exit code of the first problem"
    assert "no .safetensors weights" in result.stdout and "no such file" in result.stdout
    assert "2 problems" in result.stdout and "next:" not in result.stdout
