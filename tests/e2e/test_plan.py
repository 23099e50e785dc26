"""`plan` reports what train then does, reads no weights, and does not change the caller's model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tunesmith_engine.preflight import doctor
from tunesmith_hf import attention

from tests import tiny
from tunesmith.api import plan, prepare, start, train
from tunesmith.config.load import load_config


@pytest.mark.parametrize("adapter", [None, "lora"])
def test_planned_steps_parameters_and_stages_equal_those_of_the_run(adapter: str | None, tmp_path: Path) -> None:
    path = tiny.sft_config(tmp_path, adapter=adapter, max_steps=None, num_epochs=2)
    (tmp_path / "model-llama/model.safetensors").rename(tmp_path / "weights")
    planned = plan(prepare(tiny.start(path, "reinit_weights=true")))
    (tmp_path / "weights").rename(tmp_path / "model-llama/model.safetensors")
    result = tiny.train(path)
    parameters = list(result.policy.model.parameters())
    assert planned["steps"] == result.steps
    assert planned["parameters"] == sum(p.numel() for p in parameters)
    assert planned["trained_parameters"] == sum(p.numel() for p in parameters if p.requires_grad)
    assert planned["attention"] == "slices" and planned["packing_efficiency"] > 0.5
    called = json.loads((tmp_path / "out/run.json").read_text())["hook_calls"]
    assert {f"{row['plugin']}.{row['hook']}" for row in planned["stages"]} >= set(called)
    assert all(row["location"].rpartition(":")[2].isdigit() for row in planned["stages"])


def test_model_of_the_caller_is_not_changed(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    path = tiny.sft_config(tmp_path, adapter="lora", max_steps=1)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model-llama")
    names = {name for name, _ in model.named_parameters()}
    run = prepare(start(load_config(path), model=model))
    assert plan(run)["trained_parameters"] < sum(p.numel() for p in model.parameters())
    assert {name for name, _ in model.named_parameters()} == names
    assert sum("lora_A" in name for name, _ in train(run).policy.model.named_parameters()) == 14


def test_plan_and_doctor_name_both_backends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = prepare(tiny.start(tiny.sft_config(tmp_path)))
    monkeypatch.setattr(attention, "choose", lambda *args, **named: attention.Choice(plain="slices", forked="dense"))
    both = "dense for packs that fork, slices for the others"
    assert plan(run)["attention"] == both
    assert [f.detail for f in doctor.model(run) if f.what == "attention"] == [both]
    monkeypatch.setattr(attention, "choose", lambda *args, **named: attention.Choice(plain="slices", forked="flex"))
    (finding,) = (f for f in doctor.model(run) if f.what == "attention")
    assert (finding.status, finding.detail) == ("problem", "flex does not run on this device")


def test_max_steps_beyond_the_default_epoch_is_noted(tmp_path: Path) -> None:
    planned = plan(prepare(tiny.start(tiny.sft_config(tmp_path, max_steps=5000))))
    assert "to go on, set num_epochs" in str(planned["notes"])


def test_adapter_on_random_weights_is_noted(tmp_path: Path) -> None:
    planned = plan(prepare(tiny.start(tiny.sft_config(tmp_path, adapter="lora"), "reinit_weights=true")))
    assert "are not saved" in str(planned["notes"])
