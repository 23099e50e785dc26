"""Bad files of models, tokenizers and adapters are reported once, with the key that names them, advice and exit code 4.

Some problems are tested elsewhere: files that need remote code (two cases here, the full list in tests/e2e and
plugins/hf), gated and missing repositories of the hub (they need a network; `tunesmith doctor` distinguishes them),
templates that are not prefix-stable (plugins/chat), headers and weights that contradict config.json or are not finite
(plugins/hf/tests/test_architecture.py), and merging (plugins/lora/tests/test_tied.py). A tokenizer
without a pad token is valid, because nothing is padded. One whose end token is also its pad token is valid, too.
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
    """The damage to a copy of a valid model, `./models/bad`, or adapter, `./adapter`, and the expected problem."""

    damage: Damage
    message: str
    help: str | None
    exit_code: int = 4
    command: str = "check"
    keys: str = ""
    data: str = TEXT
    place: str = "run.yaml:1:13"

    def case(self) -> Case:
        """Return the case of a config that names the damaged model."""
        text = f"base_model: ./models/bad\n{BASE}{self.keys}{self.data}"
        return Case(text, self.exit_code, self.message, self.help, self.place, self.command)


def remove(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def write(name: str, content: str | bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def cut(name: str) -> Damage:
    """Keep only the first half of a file, as an interrupted download does."""

    def damage(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return damage


def change(name: str, **values: Any) -> Damage:
    """Set keys of a JSON file, and remove those whose value is None."""

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
    """Add an index that names a second weights file, which does not exist."""
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


WEIGHTS, OLD = "model.safetensors", "pytorch_model.bin"
MODELS = {
    "no config.json": Bad(remove("config.json"), "config.json is missing", "name a folder that contains config.json"),
    "config.json not JSON": Bad(write("config.json", '{\n "a": }'), "models/bad/config.json:2:7: Expecting value",
                                None),
    "config.json not an object": Bad(write("config.json", "[1]"), "must be a JSON object", None),
    "config.json not UTF-8": Bad(write("config.json", b'{"a": "\xfc"}'), "is not UTF-8: byte 7", None),
    "misspelled architecture": Bad(
        change("config.json", model_type="lama"), "does not support model_type 'lama'", "'llama'", command="train"
    ),
    "no architecture": Bad(
        change("config.json", model_type=None), "config.json has no model_type", "copy the complete", command="train"
    ),
    "not a language model": Bad(
        change("config.json", model_type="vit"), "Unrecognized configuration class", "hub id", command="train"
    ),
    "recurrent": Bad(
        change("config.json", model_type="mamba"),
        "has linear_attention layers, which attn_implementation: slices does", "write attn_implementation: auto",
        command="train", keys="reinit_weights: true\nattn_implementation: slices\n", place="run.yaml:7:22",
    ),
    "attention for a GPU": Bad(
        lambda folder: None, "flex needs a GPU", "write attn_implementation: auto", 5, "train",
        "attn_implementation: flex\n", place="run.yaml:6:22",
    ),
    "no weights": Bad(remove(WEIGHTS), "has no .safetensors weights", "reinit_weights: true"),
    "weights empty": Bad(write(WEIGHTS, b""), "model.safetensors is damaged", "fetch it again"),
    "weights cut off": Bad(cut(WEIGHTS), "model.safetensors is damaged", "fetch it again"),
    "not weights": Bad(write(WEIGHTS, b"\xff" * 999), "model.safetensors is damaged", "fetch it again"),
    "missing part": Bad(in_parts, "model-00002-of-00002.safetensors is missing", "fetch it again"),
    "missing weight": Bad(
        tensors(WEIGHTS, without("layers.1.mlp.down_proj")), command="train", help="reinit_weights: true",
        message="1 weights are missing, the first is model.layers.1.mlp.down_proj.weight",
    ),
    "weight of another shape": Bad(
        tensors(WEIGHTS, lambda weights: weights | {"model.norm.weight": weights["model.norm.weight"][:3]}),
        "model.norm.weight has shape [3] in the files and [32] in the model", "of this config.json", command="train",
    ),
    "quantized": Bad(
        change("config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
        "are quantized and can't be trained", "use the bfloat16 model",
    ),
    "missing package": Bad(
        change("config.json", quantization_config={"quant_method": "gptq", "bits": 4}),
        "requires optimum", None, 5, "train", "adapter: qlora\n",
    ),
    "pickles": Bad(lambda f: (f / WEIGHTS).rename(f / OLD), "pickles only: pytorch_model.bin", "safetensors", 9),
    "code": Bad(change("config.json", auto_map={"AutoModel": "code.Model"}), "auto_map", "trust_remote_code", 9),
}  # fmt: skip
TOKENIZERS = {
    "missing": Bad(remove("tokenizer.json"), "has no tokenizer.json", "set tokenizer_config", command="preprocess"),
    "not JSON": Bad(cut("tokenizer.json"), "no tokenizer could be loaded", "tokenizer_config", command="preprocess"),
    "of another kind": Bad(write("tokenizer.json", "{}"), "no tokenizer could be loaded", "tokenizer_config",
                           command="preprocess"),
    "larger than the model": Bad(
        change("config.json", vocab_size=300), "the tokenizer has 320 tokens, but the model has 300 embedding rows",
        "belongs to another model", command="train", keys="reinit_weights: true\n",
    ),
    "no end token": Bad(change("tokenizer_config.json", eos_token=None), "has no end token",
                        "special_tokens: {eos_token:", command="train"),
    "end token unknown": Bad(
        lambda folder: None, "'<|im_ned|>' is not in the vocabulary", "'<|im_end|>'", 2, "preprocess",
        "special_tokens: {eos_token: <|im_ned|>}\n", place="run.yaml:6:29",
    ),
    "misspelled folder": Bad(
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
    "config not JSON": Bad(write(ADAPTER_CONFIG, "{"), "adapter_config.json:1:2: Expecting property name", None),
    "of another kind": Bad(change(ADAPTER_CONFIG, peft_type="IA3"), "must be LORA, got 'IA3'", "of type LORA"),
    "without tensors": Bad(tensors(ADAPTER, lambda _: {}), "is missing 28 of 28 tensors", FITS, command="train"),
    "without a layer": Bad(tensors(ADAPTER, without("layers.1.")), "missing 14 of 28 tensors", FITS, command="train"),
    "of a deeper model": Bad(
        tensors(ADAPTER, lambda w: w | {k.replace("layers.1.", "layers.9."): v.clone() for k, v in w.items()}),
        "has 14 tensors that do not fit this model", FITS, command="train",
    ),
    "of a wider model": Bad(
        tensors(ADAPTER, lambda w: {k: v[:3].clone() for k, v in w.items()}), "size mismatch for", FITS, command="train"
    ),
    "misspelled target": Bad(
        lambda folder: None, "does not match any module: v_prj", "q_proj, up_proj, v_proj", 2, "train",
        "lora_target_modules: [v_prj]\n", place="run.yaml:7:23",
    ),
    "misspelled module to save": Bad(
        lambda folder: None, "does not match any module: lm_haed", "linear layers of this model: ", 2, "train",
        "lora_modules_to_save: [lm_haed]\n", place="run.yaml:7:24",
    ),
}  # fmt: skip


@pytest.fixture
def bad(project: Path) -> Path:
    """Return the project folder with a copy of its model to damage, in models/bad."""
    shutil.copytree(project / "models/tiny", project / "models/bad")
    return project


@pytest.fixture(scope="module")
def small_adapter(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a LoRA adapter for one step and return its folder."""
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
def test_bad_model_is_reported_at_the_key_that_names_it(name: str, bad: Path) -> None:
    MODELS[name].damage(bad / "models/bad")
    judge(MODELS[name].case(), bad)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_bad_tokenizer_is_reported_at_the_key_that_names_it(name: str, bad: Path) -> None:
    TOKENIZERS[name].damage(bad / "models/bad")
    judge(TOKENIZERS[name].case(), bad)


@pytest.mark.parametrize("name", ADAPTERS)
def test_bad_adapter_is_reported_at_the_key_that_names_it(name: str, bad: Path, small_adapter: Path) -> None:
    entry = ADAPTERS[name]
    if not entry.keys:
        shutil.copytree(small_adapter, bad / "adapter")
        entry.damage(bad / "adapter")
        entry = dataclasses.replace(entry, keys="lora_model_dir: ./adapter\n", place="run.yaml:7:17")
    judge(dataclasses.replace(entry, keys=f"adapter: lora\n{entry.keys}").case(), bad)


PATHS = {  # base_model -> parts of the message and of the advice
    "./models/tniy": ("base_model models/tniy: no such folder", "did you mean models/tiny?"),
    "models/tniy": ("base_model models/tniy: no such folder", "did you mean models/tiny?"),
    "modles/old/tiny": ("no such folder", "did you mean models/old/tiny?"),
    "/nowhere/at/all": ("no such folder", "folders in /: "),
    "data/text.jsonl": ("is a file, not a folder", "name the folder that contains config.json"),
    "m" * 300: ("File name too long", None),
}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path[:20])
def test_misspelled_path_is_not_treated_as_a_hub_id(path: str, project: Path) -> None:
    message, help = PATHS[path]
    judge(Case(f"base_model: {path}\n{BASE}{TEXT}", 4, message, help, "run.yaml:1:13"), project)


@pytest.mark.parametrize("keys", ["base_model: modles/tiny", "base_model: models/tniy\nrevision_of_model: main"])
def test_possible_hub_id_similar_to_a_folder_is_a_warning(keys: str, project: Path) -> None:
    (project / "run.yaml").write_text(f"{keys}\n{BASE}{TEXT}")
    result = tunesmith("check", "run.yaml")
    assert result.exit_code == 0
    assert "warning: run.yaml:1:13: base_model: " in result.stderr and "local folder models/tiny?" in result.stderr


def test_missing_network_is_reported_with_advice(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    text = f"base_model: nobody/nothing\n{BASE}{TEXT}"
    judge(Case(text, 4, "cached snapshot", "tunesmith doctor", "run.yaml:1:13", "train"), project)


def test_sequence_len_beyond_the_positions_of_the_model_is_a_warning(project: Path) -> None:
    (project / "run.yaml").write_text(f"base_model: ./models/tiny\n{BASE}{TEXT}".replace("64", "4096"))
    result = tunesmith("check", "run.yaml")
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: run.yaml:5:15: sequence_len: 4,096 is more than the model's 512 position")


@pytest.mark.parametrize("pad", [None, "<|im_end|>"])
def test_tokenizer_needs_no_pad_token(pad: str | None, bad: Path) -> None:
    change("tokenizer_config.json", pad_token=pad)(bad / "models/bad")
    (bad / "run.yaml").write_text(f"base_model: ./models/bad\n{BASE}{CHAT}")
    result = CliRunner().invoke(main, ["train", "run.yaml"])
    assert (result.exit_code, "2 of 2 steps done" in result.stdout) == (0, True), result.output


def test_unknown_metric_is_reported_before_anything_is_loaded(project: Path) -> None:
    text = f"base_model: ./models/tiny\n{BASE}val_set_size: 0.5\nmetric_for_best_model: @eval_lsos\n{TEXT}"
    message = "is not measured; measured: eval_loss, eval_nll, eval_perplexity"
    judge(Case(text, 2, message, "did you mean 'eval_loss'?"), project)


def test_interval_longer_than_training_is_in_the_summary(project: Path) -> None:
    text = f"base_model: ./models/tiny\n{BASE}save_steps: 1000\n{TEXT}".replace("max_steps: 2\n", "")
    (project / "run.yaml").write_text(text)
    result = CliRunner().invoke(main, ["train", "run.yaml"])
    assert result.exit_code == 0
    assert "run.yaml:5:13: save_steps: 1,000 is more than the" in result.stdout
