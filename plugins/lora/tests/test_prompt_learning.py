"""Adapters that add tokens to each sequence are refused with the reason, before the first step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import tiny
from tests.contract.fakes import local_plugin
from tunesmith import ModelError, PluginError
from tunesmith.api import plan, prepare

PLUGIN = """
import peft

plugin = Plugin()


@hookimpl
def patch_model(run, model):
    return peft.get_peft_model(model, peft.{config}(task_type="CAUSAL_LM", num_virtual_tokens=4))
"""


@pytest.mark.parametrize("config", ["PrefixTuningConfig", "PromptTuningConfig", "PromptEncoderConfig"])
def test_a_plugin_that_adds_one_is_refused_in_training_and_in_plan(config: str, tmp_path: Path) -> None:
    local_plugin(tmp_path, "virtual", PLUGIN.replace("{config}", config))
    path = tiny.sft_config(tmp_path, plugins=["./virtual.py"])
    for act in (tiny.train, lambda path: plan(prepare(tiny.start(path)))):
        with pytest.raises(PluginError, match="adds tokens to each sequence") as caught:
            act(path)
        assert caught.value.problems[0].code == "prompt-learning"


def test_a_saved_one_is_refused_with_the_reason(tmp_path: Path) -> None:
    tiny.train(tiny.sft_config(tmp_path, adapter="lora", max_steps=1))
    file = tmp_path / "out/adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"peft_type": "PREFIX_TUNING"}))
    keys = {"lora_model_dir": str(tmp_path / "out"), "output_dir": str(tmp_path / "next")}
    with pytest.raises(ModelError, match="'PREFIX_TUNING', which adds tokens to each sequence"):
        tiny.start(tiny.sft_config(tmp_path, adapter="lora", **keys))
