"""Bad files of models, tokenizers and adapters: one answer with the key that names them, what to do, and exit code 4.

Not here: what asks for code (tests/e2e and plugins/hf have the whole list; two cases stand for it), gated and missing
repositories of the hub (a network; `tunesmith doctor` tells them apart), templates that are not prefix-stable
(plugins/chat), NaN in weights, which the first loss shows before any update (tests/e2e/test_nonfinite.py), and merging.
A tokenizer without a pad token is no error: nothing is padded. One whose end token also pads is none either.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.contract.bad import Case, judge, tunesmith
from tunesmith.cli import main

BASE = "device: cpu\noutput_dir: out\nmax_steps: 2\nsequence_len: 64\n"
TEXT = "datasets: [{path: ./data/text.jsonl, type: completion}]\n"
CHAT = "datasets: [{path: ./data/chat.jsonl, type: chat_template}]\n"
Damage = Callable[[Path], Any]


@dataclasses.dataclass
class Bad:
    """What is done to a copy of a good model, `./models/bad`, or adapter, `./adapter`; and what is to be said of it."""

    damage: Damage
    said: str
    help: str | None
    exit_code: int = 4
    command: str = "check"
    keys: str = ""
    data: str = TEXT
    place: str = "run.yaml:1:13"

    def case(self) -> Case:
        text = f"base_model: ./models/bad\n{BASE}{self.keys}{self.data}"
        return Case(text, self.exit_code, self.said, self.help, self.place, self.command)


def remove(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def write(name: str, content: str | bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def cut(name: str) -> Damage:
    """Leave the first half of a file, as an interrupted download does."""

    def damage(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return damage


def change(name: str, **values: Any) -> Damage:
    """Set keys of a JSON file; those that are None are taken out."""

    def damage(folder: Path) -> None:
        content = json.loads((folder / name).read_text("utf-8")) | values
        (folder / name).write_text(json.dumps({k: v for k, v in content.items() if v is not None}))

    return damage


def tensors(name: str, edit: Callable[[dict[str, Any]], dict[str, Any]]) -> Damage:
    def damage(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        save_file(edit(load_file(folder / name)), folder / name, {"format": "pt"})

    return damage


def without(part: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda weights: {k: v for k, v in weights.items() if part not in k}


def in_parts(folder: Path) -> None:
    """An index that names a second file, which is not there."""
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


WEIGHTS, OLD = "model.safetensors", "pytorch_model.bin"
MODELS = {
    "no config.json": Bad(remove("config.json"), "config.json is missing", "a model folder has a config.json"),
    "config.json no JSON": Bad(write("config.json", '{\n "a": }'), "models/bad/config.json:2:7: Expecting value", None),
    "config.json no object": Bad(write("config.json", "[1]"), "holds no JSON object", None),
    "config.json no UTF-8": Bad(write("config.json", b'{"a": "\xfc"}'), "is not UTF-8: byte 7", None),
    "architecture misspelt": Bad(
        change("config.json", model_type="lama"), "model_type 'lama', which transformers", "'llama'", command="train"
    ),
    "no architecture": Bad(
        change("config.json", model_type=None), "config.json has no model_type", "copy the folder", command="train"
    ),
    "not a language model": Bad(
        change("config.json", model_type="vit"), "Unrecognized configuration class", "hub id", command="train"
    ),
    "recurrent": Bad(
        change("config.json", model_type="mamba"), "has linear_attention layers: slices can't do that",
        "write attn_implementation: auto", command="train",
        keys="reinit_weights: true\nattn_implementation: slices\n", place="run.yaml:7:22",
    ),
    "attention of a GPU": Bad(
        lambda folder: None, "flex needs a GPU", "write attn_implementation: auto", 5, "train",
        "attn_implementation: flex\n", place="run.yaml:6:22",
    ),
    "no weights": Bad(remove(WEIGHTS), "has no .safetensors weights", "reinit_weights: true"),
    "weights empty": Bad(write(WEIGHTS, b""), "model.safetensors is damaged", "fetch it again"),
    "weights cut off": Bad(cut(WEIGHTS), "model.safetensors is damaged", "fetch it again"),
    "weights of something else": Bad(write(WEIGHTS, b"\xff" * 999), "model.safetensors is damaged", "fetch it again"),
    "a part missing": Bad(in_parts, "model-00002-of-00002.safetensors is missing", "fetch it again"),
    "one weight missing": Bad(
        tensors(WEIGHTS, without("layers.1.mlp.down_proj")),
        "1 weights are missing, first model.layers.1.mlp.down_proj.weight", "reinit_weights: true", command="train",
    ),
    "a weight of another shape": Bad(
        tensors(WEIGHTS, lambda weights: weights | {"model.norm.weight": weights["model.norm.weight"][:3]}),
        "model.norm.weight is [3], and the model has [32]", "not those of this config.json", command="train",
    ),
    "quantized": Bad(
        change("config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
        "are quantized: they can't be trained", "take the bfloat16 model",
    ),
    "a package missing": Bad(
        change("config.json", quantization_config={"quant_method": "gptq", "bits": 4}),
        "requires optimum", None, 5, "train", "adapter: lora\n",
    ),
    "pickles": Bad(lambda f: (f / WEIGHTS).rename(f / OLD), "pickles only: pytorch_model.bin", "safetensors", 9),
    "code": Bad(change("config.json", auto_map={"AutoModel": "code.Model"}), "auto_map", "trust_remote_code", 9),
}  # fmt: skip
TOKENIZERS = {
    "missing": Bad(remove("tokenizer.json"), "has no tokenizer.json", "write tokenizer_config", command="preprocess"),
    "no JSON": Bad(cut("tokenizer.json"), "no tokenizer could be loaded", "tokenizer_config", command="preprocess"),
    "of another kind": Bad(write("tokenizer.json", "{}"), "no tokenizer could be loaded", "tokenizer_config",
                           command="preprocess"),
    "larger than the model": Bad(
        change("config.json", vocab_size=300), "the tokenizer has 320 tokens, the model 300", "that of another model",
        command="train", keys="reinit_weights: true\n",
    ),
    "no end token": Bad(
        change("tokenizer_config.json", eos_token=None), "has no end token", "special_tokens: {eos_token:",
        command="train",
    ),
    "end token unknown": Bad(
        lambda folder: None, "'<|im_ned|>' is not in the vocabulary", "'<|im_end|>'", 2, "preprocess",
        "special_tokens: {eos_token: <|im_ned|>}\n", place="run.yaml:6:29",
    ),
    "folder misspelt": Bad(
        lambda folder: None, "tokenizer_config models/tniy: no such folder", "did you mean models/tiny?",
        keys="tokenizer_config: ./models/tniy\n", place="run.yaml:6:19",
    ),
    "no template": Bad(remove("chat_template.jinja"), "has no chat template", "chat_template_jinja", data=CHAT,
                       place="models/bad"),
}  # fmt: skip
ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
FITS = "the base_model that it was trained on"
ADAPTERS = {
    "missing": Bad(remove(ADAPTER), "adapter has no adapter_model.safetensors", "adapter: lora"),
    "cut off": Bad(cut(ADAPTER), "adapter_model.safetensors is damaged", "fetch it again"),
    "no config": Bad(remove(ADAPTER_CONFIG), "adapter_config.json is missing", None),
    "config no JSON": Bad(write(ADAPTER_CONFIG, "{"), "adapter_config.json:1:2: Expecting property name", None),
    "of another kind": Bad(change(ADAPTER_CONFIG, peft_type="IA3"), "is of 'IA3', not of LORA", "a LoRA adapter"),
    "without tensors": Bad(tensors(ADAPTER, lambda _: {}), "lacks 28 of its 28 tensors", FITS, command="train"),
    "without a layer": Bad(tensors(ADAPTER, without("layers.1.")), "lacks 14 of its 28 tensors", FITS, command="train"),
    "of a deeper model": Bad(
        tensors(ADAPTER, lambda w: w | {k.replace("layers.1.", "layers.9."): v.clone() for k, v in w.items()}),
        "has 14 that this model has no place for", FITS, command="train",
    ),
    "of a wider model": Bad(
        tensors(ADAPTER, lambda w: {k: v[:3].clone() for k, v in w.items()}), "size mismatch for", FITS, command="train"
    ),
    "target misspelt": Bad(
        lambda folder: None, "matches no module: v_prj", "q_proj, up_proj, v_proj", 2, "train",
        "lora_target_modules: [v_prj]\n", place="run.yaml:7:23",
    ),
    "module to save misspelt": Bad(
        lambda folder: None, "matches no module: lm_haed", "linear layers of this model: ", 2, "train",
        "lora_modules_to_save: [lm_haed]\n", place="run.yaml:7:24",
    ),
}  # fmt: skip


@pytest.fixture
def bad(project: Path) -> Path:
    """The project with a copy of its model, to be damaged."""
    shutil.copytree(project / "models/tiny", project / "models/bad")
    return project


@pytest.fixture(scope="module")
def small_adapter(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests import tiny

    folder = tmp_path_factory.mktemp("adapter")
    data = [{"path": str(tiny.write_rows(folder / "text.jsonl", tiny.rows("text", 4))), "type": "completion"}]
    keys = {"base_model": str(small_model), "datasets": data, "adapter": "lora", "max_steps": 1}
    tiny.train(tiny.write_config(folder, **keys))
    (folder / "small").mkdir()
    for name in (ADAPTER, ADAPTER_CONFIG):
        shutil.copy(folder / "out" / name, folder / "small" / name)
    return folder / "small"


@pytest.mark.parametrize("name", MODELS)
def test_a_bad_model_is_answered_with_the_key_that_names_it(name: str, bad: Path) -> None:
    MODELS[name].damage(bad / "models/bad")
    judge(MODELS[name].case(), bad)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_bad_tokenizer_is_answered_with_the_key_that_names_it(name: str, bad: Path) -> None:
    TOKENIZERS[name].damage(bad / "models/bad")
    judge(TOKENIZERS[name].case(), bad)


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_bad_adapter_is_answered_with_the_key_that_names_it(name: str, bad: Path, small_adapter: Path) -> None:
    one = ADAPTERS[name]
    if not one.keys:
        shutil.copytree(small_adapter, bad / "adapter")
        one.damage(bad / "adapter")
        one = dataclasses.replace(one, keys="lora_model_dir: ./adapter\n", place="run.yaml:7:17")
    judge(dataclasses.replace(one, keys=f"adapter: lora\n{one.keys}").case(), bad)


PATHS = {  # base_model -> words of the message, of the help
    "./models/tniy": ("base_model models/tniy: no such folder", "did you mean models/tiny?"),
    "models/tniy": ("base_model models/tniy: no such folder", "did you mean models/tiny?"),
    "modles/old/tiny": ("no such folder", "did you mean models/old/tiny?"),
    "/nowhere/at/all": ("no such folder", "folders in /: "),
    "data/text.jsonl": ("is a file, not a folder", "name the folder that holds config.json"),
    "${HOME}/model": ("no such folder", "neither ~ nor environment variables are looked up"),
    "m" * 300: ("File name too long", None),
}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path[:20])
def test_a_misspelt_model_is_not_taken_for_one_of_the_hub(path: str, project: Path) -> None:
    said, help = PATHS[path]
    judge(Case(f"base_model: {path}\n{BASE}{TEXT}", 4, said, help, "run.yaml:1:13"), project)


@pytest.mark.parametrize("keys", ["base_model: modles/tiny", "base_model: models/tniy\nrevision_of_model: main"])
def test_what_can_only_be_one_of_the_hub_is_taken_for_one_and_said(keys: str, project: Path) -> None:
    (project / "run.yaml").write_text(f"{keys}\n{BASE}{TEXT}")
    result = tunesmith("check", "run.yaml")
    assert result.exit_code == 0
    assert "warning: run.yaml:1:13: base_model: " in result.stderr and "here there is models/tiny" in result.stderr


def test_without_a_network_both_ways_to_a_model_are_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    text = f"base_model: nobody/nothing\n{BASE}{TEXT}"
    judge(Case(text, 4, "cached snapshot", "tunesmith doctor", "run.yaml:1:13", "train"), project)


def test_a_model_longer_than_its_positions_is_a_warning(project: Path) -> None:
    (project / "run.yaml").write_text(f"base_model: ./models/tiny\n{BASE}{TEXT}".replace("64", "4096"))
    result = tunesmith("check", "run.yaml")
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: run.yaml:5:15: sequence_len: 4,096 is more than the 512 positions")


@pytest.mark.parametrize("pad", [None, "<|im_end|>"])
def test_a_tokenizer_needs_no_pad_token(pad: str | None, bad: Path) -> None:
    change("tokenizer_config.json", pad_token=pad)(bad / "models/bad")
    (bad / "run.yaml").write_text(f"base_model: ./models/bad\n{BASE}{CHAT}")
    result = CliRunner().invoke(main, ["train", "run.yaml"])
    assert (result.exit_code, "2 of 2 steps done" in result.stdout) == (0, True), result.output


def test_a_metric_that_no_evaluation_gives_is_found_by_the_first(project: Path) -> None:
    text = f"base_model: ./models/tiny\n{BASE}val_set_size: 0.5\nmetric_for_best_model: @eval_lsos\n{TEXT}"
    said = "is not measured; measured: eval_loss, eval_perplexity"
    judge(Case(text, 2, said, "did you mean 'eval_loss'?", command="train", began=True), project)


def test_intervals_longer_than_the_data_lasts_are_said_in_the_summary(project: Path) -> None:
    text = f"base_model: ./models/tiny\n{BASE}save_steps: 1000\n{TEXT}".replace("max_steps: 2\n", "")
    (project / "run.yaml").write_text(text)
    result = CliRunner().invoke(main, ["train", "run.yaml"])
    assert result.exit_code == 0
    assert "run.yaml:5:13: save_steps: 1,000 is more than the" in result.stdout
