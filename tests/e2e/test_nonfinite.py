"""A loss or gradient that is not finite is reported before the update, and stops, skips or rolls back the step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tunesmith import NumericalError

PLUGIN = """
import torch
from tunesmith import Plugin, hookimpl

plugin = Plugin()
STEP = {step}


@hookimpl
def patch_model(run, model):
    layer = model.model.layers[1].mlp.down_proj
    if {activation}:
        layer.register_forward_hook(lambda m, i, out: out * float("nan") if run.step in STEP else None)
    if {gradient}:
        first = torch.tensor([0])
        layer.weight.register_hook(lambda g: g.index_fill(0, first, float("inf")) if run.step in STEP else g)
    return model


@hookimpl(wrapper=True)
def compute_loss(run):
    terms = yield
    if {loss!r} and run.step in STEP:
        terms["nll"].sum = terms["nll"].sum * float({loss!r} or 0)
    return terms
"""
FAULTS: dict[str, dict[str, Any]] = {
    "nan in the loss": {"loss": "nan"},
    "inf in the loss": {"loss": "inf"},
    "inf in one gradient element": {"gradient": True},
    "nan in one activation": {"activation": True},
}


def config(folder: Path, fault: dict[str, Any], steps: set[int], **keys: Any) -> Path:
    """Write a config with a plugin that injects a fault into some steps."""
    values = {"loss": "", "gradient": False, "activation": False} | fault
    (folder / "fault.py").write_text(PLUGIN.format(step=steps, **values))
    defaults = {"plugins": ["./fault.py"], "max_steps": 6, "num_epochs": 9, "save_steps": 2}
    return tiny.sft_config(folder, "llama", **(defaults | keys))


@pytest.mark.parametrize("fault", FAULTS)
def test_nonfinite_step_stops_before_the_update_with_its_place(fault: str, tmp_path: Path) -> None:
    with pytest.raises(NumericalError) as error:
        tiny.train(config(tmp_path, FAULTS[fault], {3}))
    text = str(error.value)
    assert error.value.exit_code == 7 and "step 4: " in text and "on_nonfinite" in text
    assert ("data.jsonl:" in text) == ("gradient" not in fault)  # a gradient cannot be traced to its rows
    assert ("look at these rows" in text) == ("data.jsonl:" in text)
    if "activation" in fault:
        assert "first in the output of model.layers.1.mlp.down_proj" in text
    if "gradient" in fault:
        assert "loss finite, gradient not; 1 gradients affected, first model.layers.1.mlp.down_proj.weight" in text
    for folder in sorted((tmp_path / "out").glob("checkpoint-*")):
        assert all(value.isfinite().all() for value in tiny.weights(folder).values())


@pytest.mark.parametrize("fault", FAULTS)
def test_skipped_step_keeps_the_weights_and_training_continues(fault: str, tmp_path: Path) -> None:
    result = tiny.train(config(tmp_path, FAULTS[fault], {3}, save_steps=1, save_total_limit=None, on_nonfinite="skip"))
    assert result.steps == 6
    before, after, later = (tiny.weights(tmp_path / f"out/checkpoint-{step}") for step in (3, 4, 5))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not all(torch.equal(after[name], later[name]) for name in after)
    notes = json.loads((tmp_path / "out/run.json").read_text())["notes"]
    assert any("step 4: not finite, skipped" in name for name in notes)


def test_rollback_restores_the_newest_checkpoint_and_skips_the_rows(tmp_path: Path) -> None:
    keys = {"save_steps": 2, "save_total_limit": None, "on_nonfinite": "rollback", "max_steps": 4}
    tiny.train(config(tmp_path, {"loss": "nan"}, {3}, **keys))
    saved, final = tiny.weights(tmp_path / "out/checkpoint-2"), tiny.weights(tmp_path / "out")
    assert all(torch.equal(saved[name], final[name]) for name in saved)


def test_more_than_three_nonfinite_steps_in_a_row_always_stop(tmp_path: Path) -> None:
    with pytest.raises(NumericalError, match="step 5"):
        tiny.train(config(tmp_path, {"loss": "nan"}, {1, 2, 3, 4}, on_nonfinite="skip"))


@pytest.mark.slow
def test_nonfinite_step_of_one_process_stops_both(tmp_path: Path) -> None:
    path = config(tmp_path, {"loss": "nan"}, {1}, gradient_accumulation_steps=1)
    plugin = tmp_path / "fault.py"
    plugin.write_text(plugin.read_text().replace("run.step in STEP:", "run.step in STEP and run.world.rank == 1:"))
    with pytest.raises(AssertionError, match=r"step 2: loss not finite"):
        tiny.torchrun(2, path)
    assert not (tmp_path / "out/model.safetensors").exists()


def zero_gradients(folder: Path, steps: str, **keys: Any) -> Path:
    """Write a config with a plugin that multiplies the loss by 0 in the steps for which a condition holds."""
    source = "from tunesmith import Plugin, hookimpl\nplugin = Plugin()\n@hookimpl(wrapper=True)\n"
    source += "def compute_loss(run):\n    terms = yield\n"
    (folder / "zero.py").write_text(
        f"{source}    terms['nll'].sum = terms['nll'].sum * float(not ({steps}))\n    return terms\n"
    )
    return tiny.sft_config(folder, plugins=[str(folder / "zero.py")], num_epochs=99, number=4, **keys)


def test_run_without_any_gradient_is_stopped_with_its_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        NumericalError, match=r"no-gradient.: the gradient is 0 in 50 steps in a row, up to step 52"
    ) as error:
        tiny.train(zero_gradients(tmp_path, "run.step >= 2", max_steps=60, save_steps=60))
    assert "auto resumes from checkpoint-52" in str(error.value) and error.value.exit_code == 7
    assert "warning: the gradient is 0 in 10 steps in a row, up to step 12" in capsys.readouterr().err


def test_some_steps_without_a_gradient_are_allowed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = tiny.train(zero_gradients(tmp_path, "run.step % 10", max_steps=60))
    assert result.steps == 60 and "gradient" not in result.policy.run.notes
    assert "warning: the gradient" not in capsys.readouterr().err
