"""Runs, adapters and errors of `tunesmith merge-lora`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from tunesmith_merge import merge

from plugins.merge.tests.adapters import assert_same, load, unmerged, write_adapter
from tests.tiny import model_folder, sft_config, tokenizer, train, write_config
from tunesmith import ConfigError, EnvironmentProblem, ModelError, SafetyError
from tunesmith.cli import main
from tunesmith.testing import rows, write_rows

LORA = LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")


@pytest.fixture(scope="module")
def sft(tmp_path_factory: Any) -> Path:
    """Train an adapter and two new tokens; return the folder with the YAML file and the output."""
    folder = tmp_path_factory.mktemp("sft")
    config = sft_config(
        folder, adapter="lora", lora_r=4, max_steps=3, tokens=["<call>", "<end>"],
        lora_trainable_tokens=["<call>", "<end>"], special_tokens={"eos_token": "<end>"}, eot_tokens=["<|im_end|>"],
    )  # fmt: skip
    train(config)
    return folder


def test_the_command_merges_a_run_and_prints_the_comparison(sft: Path) -> None:
    result = CliRunner().invoke(main, ["merge-lora", str(sft / "run.yaml"), "--output", str(sft / "merged")])
    assert result.exit_code == 0, result.output
    assert "largest relative difference" in result.output
    merged = sft / "merged"
    config = json.loads((merged / "config.json").read_text())
    assert config["vocab_size"] == 322
    assert config["eos_token_id"] == 321
    words = tokenizer().__class__.from_pretrained(merged)
    assert words.get_vocab()["<call>"] == 320 and words.chat_template
    card = (merged / "README.md").read_text()
    assert "3 of 3" in card and "merged" in card
    from transformers import AutoModelForCausalLM

    class Grown:
        @staticmethod
        def from_pretrained(folder: Path, **options: Any) -> Any:
            model = AutoModelForCausalLM.from_pretrained(folder, **options)
            model.resize_token_embeddings(322, mean_resizing=False)
            return model

    ids = torch.tensor([[5, 320, 9, 321, 11]])
    expected = unmerged(sft / "model-llama", sft / "out", auto=Grown)(input_ids=ids).logits
    torch.testing.assert_close(load(merged)(input_ids=ids).logits, expected, rtol=1e-5, atol=1e-5)


def test_a_run_folder_and_a_checkpoint_are_merged_into_a_folder_of_their_own(sft: Path) -> None:
    done = merge(sft / "out")
    assert done.folder == sft / "out" / "merged"
    kept = merge(sft / "out" / "checkpoint-3", verify=False)
    assert kept.folder == sft / "out" / "checkpoint-3" / "merged" and not kept.differences
    ours, theirs = (load_file(one.folder / "model.safetensors") for one in (done, kept))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_preference_run_and_a_reward_model_are_merged(tmp_path: Path) -> None:
    model = model_folder(tmp_path / "base")
    write_rows(tmp_path / "pairs.jsonl", rows("pair", 8))
    common: dict[str, Any] = {"base_model": str(model), "adapter": "lora", "max_steps": 2, "val_set_size": None}
    entry = {"path": str(tmp_path / "pairs.jsonl"), "type": "chatml.prompt_pairs"}
    for name, keys in (("dpo", {"rl": "dpo"}), ("reward", {"reward_model": True})):
        keys = {**common, **keys, "datasets": [entry], "output_dir": str(tmp_path / name)}
        config = write_config(tmp_path, f"{name}.yaml", **keys)
        train(config)
        done = merge(config)
        assert done.largest is not None and done.largest.value < 1e-5
    from transformers import AutoModelForSequenceClassification

    head = load_file(tmp_path / "reward" / "merged" / "model.safetensors")["score.weight"]
    assert torch.equal(head, load(tmp_path / "reward" / "merged", AutoModelForSequenceClassification).score.weight)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: Any) -> tuple[Path, Path]:
    """Return the folders of a base model and of an adapter."""
    folder = tmp_path_factory.mktemp("pair")
    base = model_folder(folder / "base")
    return base, write_adapter(base, folder / "adapter", LORA)


def changed(adapter: Path, folder: Path, tensors: Any = None, **keys: Any) -> Path:
    """Return a copy of an adapter with other keys in its config, and other tensors."""
    folder.mkdir()
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file(weights | (tensors(weights) if tensors else {}), folder / "adapter_model.safetensors")
    config = json.loads((adapter / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | keys))
    return folder


def test_an_adapter_of_another_base_model_is_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    other = model_folder(tmp_path / "other", hidden_size=64, head_dim=16)
    with pytest.raises(ModelError, match="does not fit the base model"):
        merge(pair[1], tmp_path / "merged", base=str(other))
    shallow = model_folder(tmp_path / "shallow", num_hidden_layers=1)
    with pytest.raises(ModelError, match=r"no place for: base_model.model.model.layers.1"):
        merge(pair[1], tmp_path / "merged", base=str(shallow))
    deep = model_folder(tmp_path / "deep", num_hidden_layers=3)
    with pytest.raises(ModelError, match=r"no tensors for .*layers.2"):
        merge(pair[1], tmp_path / "merged", base=str(deep))
    assert not list(tmp_path.glob("*merg*"))


def test_every_tensor_of_the_adapter_is_used_or_named(pair: tuple[Path, Path], tmp_path: Path) -> None:
    odd = {"base_model.model.model.layers.0.odd.lora_A.weight": torch.ones(2)}
    more = changed(pair[1], tmp_path / "more", lambda weights: odd)
    with pytest.raises(ModelError, match=r"no place for: base_model.model.model.layers.0.odd"):
        merge(more, tmp_path / "merged", base=str(pair[0]))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"layer_replication": [[0, 1], [0, 2]]}, "layer_replication"),
        ({"peft_type": "PREFIX_TUNING"}, "nothing to merge"),
        ({"peft_type": "VERA"}, "not merged layer by layer"),
        ({"init_lora_weights": "pissa_niter_4"}, "has changed the base weights"),
        ({"alora_invocation_tokens": [1, 2]}, "aLoRA"),
    ],
)
def test_adapters_that_do_not_merge_are_refused(
    pair: tuple[Path, Path], tmp_path: Path, keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        merge(changed(pair[1], tmp_path / "adapter", **keys), tmp_path / "merged", base=str(pair[0]))


def test_unsafe_and_broken_adapters_are_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    base, adapter = pair
    with pytest.raises(SafetyError, match="names a module to import"):
        merge(changed(adapter, tmp_path / "module", megatron_config={"a": 1}), tmp_path / "merged", base=str(base))
    name = next(iter(load_file(adapter / "adapter_model.safetensors")))
    nan = changed(adapter, tmp_path / "nan", lambda w: {name: w[name] * float("nan")})
    with pytest.raises(ModelError, match="not finite"):
        merge(nan, tmp_path / "merged", base=str(base))
    (tmp_path / "link").mkdir()
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / "link" / file).symlink_to(adapter / file)
    with pytest.raises(SafetyError, match="outside the folder"):
        merge(tmp_path / "link", tmp_path / "merged", base=str(base))


def test_output_folders_that_would_overwrite_something_are_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    base, adapter = pair
    before = sorted(path.name for path in base.iterdir())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for out, message in (
        (base, "is the folder of the base model"),
        (base / "new", "is inside the folder of the base model"),
        (adapter, "is the folder of the adapter"),
        (tmp_path / "full", "already exists"),
    ):
        with pytest.raises(ConfigError, match=message):
            merge(adapter, out, base=str(base))
    assert sorted(path.name for path in base.iterdir()) == before


def test_wrong_arguments_are_errors_that_say_what_to_write(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, adapter = pair
    with pytest.raises(ConfigError, match="has no adapter"):
        merge(base)
    with pytest.raises(ConfigError, match="no such file"):
        merge(tmp_path / "absent")
    with pytest.raises(ConfigError, match="bfloat16, float16, float32"):
        merge(adapter, dtype="int8")
    with pytest.raises(ModelError, match="not a folder on this machine"):
        merge(adapter, tmp_path / "merged", base="./absent")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"owner/absent can't be fetched(.|\n)*--base MODEL"):
        merge(adapter, tmp_path / "merged", base="owner/absent")
    quantized = model_folder(tmp_path / "quantized")
    config = json.loads((quantized / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (quantized / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="not quantized: --base MODEL"):
        merge(adapter, tmp_path / "merged", base=str(quantized))


def test_a_wrong_merge_is_noticed_and_leaves_no_folder(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith_merge import layers

    monkeypatch.setattr(layers, "merge_linear", lambda layer, weight, dtype: weight)
    with pytest.raises(ModelError, match=r"differs from the unmerged one: model.layers"):
        merge(pair[1], tmp_path / "merged", base=str(pair[0]))
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_no_folder(pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    with pytest.raises(EnvironmentProblem, match="No space left"):
        merge(pair[1], tmp_path / "merged", base=str(pair[0]))
    assert not list(tmp_path.iterdir())


KILLED = """
import sys, time
from tunesmith_merge import merge, writing
def wait(*arguments):
    print("waiting", flush=True)
    time.sleep(60)
writing.merge = wait
merge(sys.argv[1], sys.argv[2], base=sys.argv[3])
"""


@pytest.mark.slow
def test_a_killed_merge_leaves_no_half_folder_and_the_next_one_succeeds(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    base, adapter = pair
    out = tmp_path / "merged"
    command = [sys.executable, "-c", KILLED, str(adapter), str(out), str(base)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "waiting\n"
        with pytest.raises(EnvironmentProblem, match="being written by another process"):
            merge(adapter, out, base=str(base))
        os.kill(process.pid, signal.SIGKILL)
    assert not out.exists()
    time.sleep(0.1)
    assert_same(merge(adapter, out, base=str(base)).folder, base, adapter)
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]
