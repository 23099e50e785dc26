"""What doctor says of a run is what the run then does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests import tiny
from tunesmith import DataError
from tunesmith.cli import main


def tensors_in(folder: Path) -> int:
    """Bytes of the tensors in the files of a folder, but for the random numbers of each process."""
    from safetensors.torch import load_file

    files = [path for path in folder.glob("*.safetensors") if not path.name.startswith("rank-")]
    return sum(tensor.nbytes for path in files for tensor in load_file(path).values())


@pytest.mark.parametrize("adapter", [None, "lora"])
def test_a_run_that_doctor_passes_trains_and_takes_the_room_that_was_foreseen(
    adapter: str | None, tmp_path: Path
) -> None:

    path = tiny.sft_config(tmp_path, adapter=adapter, save_steps=1, save_total_limit=2)
    done = CliRunner().invoke(main, ["doctor", str(path), "--json"])
    told = json.loads(done.stdout)
    assert (done.exit_code, told["exit_code"]) == (0, 0), done.output
    assert told["next"] == f"tunesmith train {path}"
    found = {finding["what"]: finding for finding in told["findings"]}
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
    assert names <= set(found) and {f["status"] for f in found.values()} == {"ok"}, found
    assert ("peft" in found) == (adapter == "lora")
    assert not (tmp_path / "out").exists()
    page = (Path(__file__).parents[2] / "docs/doctor.md").read_text("utf-8")
    assert all(f"`{name}`" in page for name in set(found) - {"peft"})

    needed = tiny.checkpoint_bytes(tiny.start(path))
    result = tiny.train(path)
    trained = sum(p.numel() for p in result.policy.model.parameters() if p.requires_grad)
    assert f", {trained:,} of them trained" in found["model"]["detail"]
    kept = sorted((tmp_path / "out").glob("checkpoint-*"))
    assert (len(kept), needed.number) == (2, 3)  # a third one is there while the oldest is not deleted yet
    steps = 4 * len(list(result.policy.model.parameters()))  # AdamW keeps the number of steps for each parameter
    assert 0 <= tensors_in(kept[-1]) - needed.checkpoint <= steps
    assert tensors_in(tmp_path / "out") == needed.final


def test_a_problem_of_the_model_and_one_of_the_data_are_told_together(tmp_path: Path) -> None:
    path = tiny.sft_config(tmp_path)
    (tmp_path / "model-llama/model.safetensors").unlink()
    (tmp_path / "data.jsonl").unlink()
    done = CliRunner().invoke(main, ["doctor", str(path)])
    assert done.exit_code == DataError.exit_code, "that of the first problem"
    assert "no .safetensors weights" in done.stdout and "no such file" in done.stdout
    assert "2 problems" in done.stdout and "next:" not in done.stdout
