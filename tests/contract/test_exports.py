"""An export that fails loses no step, and every trained parameter is exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tunesmith_engine.checkpoint.save import is_exported
from tunesmith_engine.runtime.atomic import why_invalid

from tests import tiny
from tests.contract.fakes import local_plugin
from tunesmith import PluginError, build_policy
from tunesmith.api import prepare

PLUGINS = Path(__file__).parent / "plugins"


def words_config(folder: Path, **keys: Any) -> Path:
    folder.mkdir(exist_ok=True)
    plugins = [str(PLUGINS / "words.py")]
    return tiny.sft_config(folder, plugins=plugins, words_folder=str(folder / "words"), save_steps=2, **keys)


def write_words(folder: Path) -> None:
    (folder / "words").mkdir()
    (folder / "words/words.txt").write_text("the cat")


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train without a failure and return the folder."""
    folder = tmp_path_factory.mktemp("complete")
    write_words(folder)
    tiny.train(words_config(folder))
    return folder


def test_export_that_fails_at_the_last_step_loses_no_step(tmp_path: Path, complete: Path) -> None:
    assert len((PLUGINS / "words.py").read_text().splitlines()) <= 40
    path = words_config(tmp_path)
    with pytest.raises(PluginError, match=r"words .* failed in save_model: FileNotFoundError") as error:
        tiny.train(path)
    assert "resume_from_checkpoint: auto resumes from checkpoint-4" in str(error.value)
    kept = tmp_path / "out/checkpoint-4"
    assert why_invalid(kept) is None and not is_exported(kept)
    assert not (kept / "model.safetensors").exists() and not list((tmp_path / "out").glob(".*"))
    write_words(tmp_path)
    result = tiny.train(path, "resume_from_checkpoint=auto")
    assert result.policy.run.notes["resumed from"] == "checkpoint-4" and result.steps == 4
    assert why_invalid(kept) is None and is_exported(kept)
    for folder in (tmp_path / "out", kept):
        assert json.loads((folder / "words.json").read_text()) == ["the", "cat"]
        weights, expected = tiny.weights(folder), tiny.weights(complete / "out")
        assert weights.keys() == expected.keys() and all(torch.equal(weights[k], expected[k]) for k in weights)
    assert {p.name for p in kept.iterdir()} == {p.name for p in (complete / "out/checkpoint-4").iterdir()}


def test_checkpoint_whose_export_failed_again_stays(tmp_path: Path) -> None:
    path = words_config(tmp_path)
    for overrides in ([], ["resume_from_checkpoint=auto"]):
        with pytest.raises(PluginError, match="auto resumes from checkpoint-4"):
            tiny.train(path, *overrides)
        assert why_invalid(tmp_path / "out/checkpoint-4") is None
    assert len(tiny.metrics(tmp_path / "out")) == 4


def test_export_changes_no_step(tmp_path: Path, complete: Path) -> None:
    """The plugin draws random numbers when it exports, and dropout uses the same generators."""
    losses = {}
    tiny.model_folder(tmp_path / "model-llama", attention_dropout=0.3)
    draw = "plugin = Plugin()\n@hookimpl\ndef save_model():\n    import torch; torch.rand(9)\n"
    for name, saves in (("often", 1), ("rarely", 4)):
        plugins = [str(local_plugin(tmp_path, "draw", draw))]
        tiny.train(tiny.sft_config(tmp_path, plugins=plugins, save_steps=saves, output_dir=str(tmp_path / name)))
        losses[name] = [line["loss"] for line in tiny.metrics(tmp_path / name)]
    assert losses["often"] == losses["rarely"]


def test_export_under_the_name_of_a_file_of_the_checkpoint_is_an_error(tmp_path: Path) -> None:
    source = "plugin = Plugin()\n@hookimpl\ndef save_model(path):\n    (path / 'state.json').write_text('{}')\n"
    path = tiny.sft_config(tmp_path, plugins=[str(local_plugin(tmp_path, "state", source))], max_steps=1)
    with pytest.raises(PluginError, match=r"save_model wrote state.json, which is a file of the checkpoint itself"):
        tiny.train(path)
    assert why_invalid(tmp_path / "out/checkpoint-1") is None


SAVES = """
from safetensors.torch import save_file

@hookimpl
def saved_parameters():
    return ["value.weight", "value.bias"]


@hookimpl
def save_model(run, policy, path):
    state = {name: value for name, value in policy.state_dict(trained=True).items() if name.startswith("value.")}
    run.world.main and save_file(state, path / "value.safetensors")
"""


@pytest.mark.parametrize("adapter", [None, "lora"])
def test_trained_parameter_that_no_plugin_saves_is_an_error_before_the_first_step(
    adapter: str | None, tmp_path: Path
) -> None:
    source = (PLUGINS / "unsaved.py").read_text()
    assert len(source.splitlines()) <= 40
    path = tmp_path / "unsaved.py"
    config = tiny.sft_config(tmp_path, plugins=[str(path)], adapter=adapter, max_steps=1)
    path.write_text(source)
    with pytest.raises(
        PluginError, match=r"not-saved.: trained, but not saved by any plugin: value.weight, value.bias"
    ):
        tiny.train(config)
    assert not list((tmp_path / "out").glob("checkpoint-*"))
    path.write_text(source + SAVES)
    tiny.train(config)
    assert set(load_file(tmp_path / "out/value.safetensors")) == {"value.weight", "value.bias"}
    assert not [name for name in tiny.weights(tmp_path / "out") if name.startswith("value.")]


@pytest.mark.parametrize(
    "keys",
    [{"lora_modules_to_save": ["lm_head"]}, {"peft_use_dora": True}, {"lora_trainable_tokens": ["<|im_end|>"]}],
    ids=lambda keys: next(iter(keys)),
)
def test_lora_names_every_parameter_that_it_trains(keys: dict[str, Any], tmp_path: Path) -> None:
    for tied in (False, True):
        model = str(tiny.model_folder(tmp_path / f"tied-{tied}", tie_word_embeddings=tied))
        run = tiny.start(tiny.sft_config(tmp_path, base_model=model, adapter="lora", **keys))
        with run.alive():
            policy = build_policy(prepare(run))
            names = set(run.hooks.saved_parameters(run, policy))
            trained = {name for name, p in policy.model.named_parameters() if p.requires_grad}
        assert trained and names >= trained and not any("base_layer" in name for name in names)
