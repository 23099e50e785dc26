"""config.json and the headers of the weights are compared before a weight is read, and errors name the key."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tunesmith_hf.architecture import check_config, check_headers

from tests import tiny
from tunesmith import ModelError, build_policy
from tunesmith.api import prepare
from tunesmith.files.untrusted import TensorHeader

UP = "model.layers.0.mlp.up_proj.weight"
LAYERS = ["model.layers.0.a.weight", "model.layers.1.a.weight"]


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.model_folder(tmp_path_factory.mktemp("intact") / "model")


@pytest.fixture
def folder(intact: Path, tmp_path: Path) -> Path:
    """Return the model folder of the run in tmp_path, to damage it."""
    return Path(shutil.copytree(intact, tmp_path / "model-llama"))


def configure(folder: Path, file: str = "config.json", **values: Any) -> None:
    content = json.loads((folder / file).read_text("utf-8"))
    (folder / file).write_text(json.dumps(content | values))


def change_weights(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, {"format": "pt"})


def error_of(folder: Path, act: Callable[[Any], Any] = lambda run: None) -> str:
    """Return the error of starting the run of a damaged model and of `act`. Its exit code is 4."""
    with pytest.raises(ModelError) as caught:
        act(tiny.start(tiny.sft_config(folder.parent)))
    assert caught.value.exit_code == 4
    return str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"attention_dropout": 2.0}, "attention_dropout must be between 0 and 1, got 2.0"),
        ({"num_attention_heads": 0}, "num_attention_heads must be a positive integer, got 0"),
        ({"hidden_size": -32}, "hidden_size must be a positive integer, got -32"),
        ({"hidden_size": "32"}, "hidden_size must be a positive integer, got str '32'"),
        ({"vocab_size": 0}, "vocab_size must be a positive integer, got 0"),
        ({"num_hidden_layers": -1}, "num_hidden_layers must be a positive integer, got -1"),
        ({"num_attention_heads": 3}, r"num_attention_heads must be a multiple of num_key_value_heads \(2\), got 3"),
        ({"eos_token_id": 9999}, r"eos_token_id is 9999, but the model has 320 tokens"),
        ({"eos_token_id": [2, 320]}, r"eos_token_id is 320, but the model has 320 tokens"),
        ({"pad_token_id": 320}, r"pad_token_id must be less than vocab_size \(320\), got 320"),
    ],
)
def test_check_names_the_key_of_a_value_that_no_model_can_have(
    values: dict[str, Any], message: str, intact: Path, tmp_path: Path
) -> None:
    content = json.loads((intact / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(content | values))
    with pytest.raises(ModelError, match=f"config.json: {message}"):
        check_config(tmp_path, "run.yaml:1:13")


def test_values_of_a_nested_config_are_checked(tmp_path: Path) -> None:
    """A model with images has the config of its language model in text_config, and its end token at the top."""
    nested = {"vocab_size": 320, "num_attention_heads": 0}
    (tmp_path / "config.json").write_text(json.dumps({"text_config": nested, "eos_token_id": 320}))
    with pytest.raises(ModelError, match=r"config.json: text_config.num_attention_heads must be a positive integer"):
        check_config(tmp_path, "run.yaml:1:13")
    (tmp_path / "config.json").write_text(json.dumps({"text_config": {"vocab_size": 320}, "eos_token_id": 320}))
    with pytest.raises(ModelError, match="eos_token_id is 320, but the model has 320 tokens"):
        check_config(tmp_path, "run.yaml:1:13")


def test_an_end_token_of_the_yaml_replaces_one_that_the_model_does_not_have(folder: Path) -> None:
    configure(folder, eos_token_id=9999)
    configure(folder, "generation_config.json", eos_token_id=9999)
    assert "write the id of the tokenizer's end token there" in error_of(folder)
    run = tiny.start(tiny.sft_config(folder.parent, special_tokens={"eos_token": "<|im_end|>"}))
    assert build_policy(prepare(run)).model.config.eos_token_id == run.tokenizer.eos_token_id  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_attention_heads": 5, "num_key_value_heads": 5, "head_dim": None}, "not a multiple of the number of att"),
        ({"hidden_act": "nope"}, "hidden_act of config.json is 'nope', which transformers .* does not know"),
        ({"rope_parameters": {"rope_type": "nope", "rope_theta": 1e4}}, "rope_parameters.rope_type of config.json is"),
        ({"model_type": "nope"}, "does not support model_type 'nope' of config.json"),
        ({"rms_norm_eps": "small"}, "config.json does not fit its model_type: .*rms_norm_eps"),
    ],
)
def test_what_transformers_refuses_is_an_error_of_the_config_and_not_of_the_tokenizer(
    values: dict[str, Any], message: str, folder: Path
) -> None:
    configure(folder, **values)
    error = error_of(folder, lambda run: build_policy(prepare(run)))
    assert re.search(message, error, re.S) and "error[model-config]" in error and "no tokenizer" not in error


def test_fewer_layers_in_the_config_than_in_the_files_are_refused(folder: Path) -> None:
    configure(folder, num_hidden_layers=1)
    assert "num_hidden_layers: 1, but the weights have 2 layers (model.layers)" in error_of(folder)


def test_more_layers_or_another_width_in_the_config_are_found_by_check(folder: Path) -> None:
    configure(folder, num_hidden_layers=3)
    assert "num_hidden_layers: 3, but the weights have 2 layers" in error_of(folder)
    configure(folder, num_hidden_layers=2, hidden_size=64)
    assert "model.embed_tokens.weight has shape [320, 32], but config.json has vocab_size: 320 and hidden_size: 64" in (
        error_of(folder)
    )
    configure(folder, hidden_size=32, vocab_size=640)
    assert "[320, 32], but config.json has vocab_size: 640" in error_of(folder)


def test_layers_that_the_headers_do_not_place_are_refused_when_the_model_is_loaded(folder: Path) -> None:
    """`check` can't place them, because this config counts layers twice."""
    change_weights(
        folder,
        lambda w: w | {k.replace("layers.1", "layers.2"): v.clone() for k, v in w.items() if "layers.1" in k},
    )
    configure(folder, num_layers=3)  # without this, `check` would compare
    error = error_of(folder, lambda run: build_policy(prepare(run)))
    assert "the files have weights of model.layers.2, and config.json describes 2 of these layers" in error


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_weights_without_their_scales_are_refused(dtype: torch.dtype, folder: Path) -> None:
    change_weights(folder, lambda weights: weights | {UP: weights[UP].to(dtype)})
    assert f"{UP} is of type" in error_of(folder)


def sharded(folder: Path, **files: str) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    names = dict.fromkeys(weights, "model-00001-of-00001.safetensors") | files
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


def test_an_index_that_names_a_tensor_no_shard_has_is_refused(folder: Path) -> None:
    sharded(folder, ghost="model-00001-of-00001.safetensors")
    assert "names ghost in model-00001-of-00001.safetensors, which has no such tensor" in error_of(folder)


def test_shards_without_their_index_are_refused(folder: Path) -> None:
    sharded(folder)
    tiny.start(tiny.sft_config(folder.parent))
    (folder / "model.safetensors.index.json").unlink()
    assert "neither model.safetensors nor model.safetensors.index.json" in error_of(folder)


def test_headers_of_a_large_model_are_compared_in_milliseconds() -> None:
    """A mixture of experts with 60 layers of 128 experts: 23,000 tensors."""
    config = {"num_hidden_layers": 60, "vocab_size": 150_000, "hidden_size": 4096}
    names = [f"model.layers.{i}.mlp.experts.{j}.{k}.weight" for i in range(60) for j in range(128) for k in "abc"]
    weights = dict.fromkeys(names, TensorHeader("BF16", (1024, 4096)))
    weights |= {"model.embed_tokens.weight": TensorHeader("BF16", (150_000, 4096))}
    started = time.process_time()
    check_headers(Path("folder"), config, weights, "run.yaml:1:13")
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (
            {"num_hidden_layers": 1, "num_nextn_predict_layers": 1},
            LAYERS,
        ),
        ({"num_hidden_layers": 4, "num_layers": 2}, LAYERS),
        ({"num_hidden_layers": 1}, ["model.layers.0.a.weight", "visual.blocks.5.a.weight"]),
        ({"text_config": {"num_hidden_layers": 1}, "num_hidden_layers": 9}, ["model.language_model.layers.0.a.weight"]),
    ],
)
def test_layers_that_the_config_counts_in_its_own_way_are_accepted(config: dict[str, Any], names: list[str]) -> None:
    """Layers that predict further tokens, layers that count twice, those of a vision model, and a nested config."""
    check_headers(Path("folder"), config, dict.fromkeys(names, TensorHeader("BF16", (4, 4))), "run.yaml:1:13")


def test_check_compares_headers_without_torch(folder: Path) -> None:
    configure(folder, num_hidden_layers=1)
    path = tiny.sft_config(folder.parent)
    code = (
        f"import sys; from tunesmith.cli import main; sys.argv = ['tunesmith', 'check', {str(path)!r}]\ntry: main()\n"
    )
    code += "except SystemExit as error: print(error.code, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["4", "False"] and "the weights have 2 layers" in done.stderr


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_not_finite_is_named_before_the_first_step(value: float, folder: Path) -> None:
    def damage(weights: dict[str, Any]) -> dict[str, Any]:
        weights[UP][3, 5] = value
        return weights

    change_weights(folder, damage)
    assert f"{UP} of {folder} contains numbers that are not finite" in error_of(
        folder, lambda r: build_policy(prepare(r))
    )
