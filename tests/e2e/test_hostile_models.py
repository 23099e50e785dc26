"""Hostile models, tokenizers and adapters are refused with the right exit code and file name, or harmless."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.e2e.hostile import (
    DEEP,
    DIGITS,
    Canary,
    edit,
    judge,
    link,
    project,
    tensors,
    tunesmith,
    weights_file,
)

Plant = Callable[[Path, Canary], Any]
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="session")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a project with a model, data, and an adapter to continue training."""
    folder = tmp_path_factory.mktemp("victim")
    path = tiny.sft_config(folder, adapter="lora", output_dir=str(folder / "adapter"), max_steps=1, number=6)
    tiny.train(path)
    path.unlink()
    return folder


@pytest.fixture
def canary(tmp_path: Path) -> Canary:
    return Canary(tmp_path / "canary")


def pickles_only(name: str) -> Plant:
    def plant(model: Path, canary: Canary) -> None:
        (model / WEIGHTS).unlink()
        (model / name).write_bytes(canary.pickle)

    return plant


def pickles_beside(*names: str) -> Plant:
    return lambda model, canary: [(model / name).write_bytes(canary.pickle) for name in names]


def config(file: str = "config.json", **changes: Any) -> Plant:
    return lambda model, canary: edit(model / file, **changes)


def content(name: str, text: str | bytes) -> Plant:
    return lambda model, canary: (model / name).write_bytes(text if isinstance(text, bytes) else text.encode())


def sharded(shard: str) -> Plant:
    def plant(model: Path, canary: Canary) -> None:
        (model / WEIGHTS).rename(model / "other.safetensors")
        (model.parent / "outside.safetensors").write_bytes((model / "other.safetensors").read_bytes())
        names = dict.fromkeys(tiny_names(model), "other.safetensors") | {"lm_head.weight": shard.format(model.parent)}
        (model / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": names}))
        (model / "pytorch_model.bin").write_bytes(canary.pickle)

    return plant


def tiny_names(model: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(model / "other.safetensors", "pt") as file:
        return list(file.keys())


def scripts(*names: str) -> Plant:
    def plant(model: Path, canary: Canary) -> None:
        for name in names:
            (model / name).parent.mkdir(exist_ok=True)
            (model / name).write_text(canary.code)

    return plant


def out(name: str) -> Plant:
    """Plant a link to a private file outside the model folder."""

    def plant(model: Path, canary: Canary) -> None:
        (model.parent / "private.txt").write_text("private-words")
        link(model / name, model.parent / "private.txt")

    return plant


def reads_elsewhere(model: Path, canary: Canary) -> None:
    (model.parent / "private.txt").write_text("private-words")
    files = dict.fromkeys(("tokenizer_file", "vocab_file", "merges_file"), str(model.parent / "private.txt"))
    edit(model / "tokenizer_config.json", **files)


def embedded_adapter(model: Path, canary: Canary) -> None:
    edit(model / "adapter_config.json", peft_type="LORA", base_model_name_or_path=str(model))
    (model / "adapter_model.bin").write_bytes(canary.pickle)


def pipe(name: str) -> Plant:
    def plant(model: Path, canary: Canary) -> None:
        (model / name).unlink(missing_ok=True)
        os.mkfifo(model / name)

    return plant


AUTO = {"AutoModelForCausalLM": "evil.Model", "AutoConfig": "evil.Config", "AutoTokenizer": ["evil.T", None]}
FAR = "other/repo--evil.Model"
MODELS: dict[str, tuple[Plant, int, str]] = {  # what is planted, exit code, file that the error names
    "pytorch_model.bin alone": (pickles_only("pytorch_model.bin"), 9, "pytorch_model.bin"),
    "model.pt alone": (pickles_only("model.pt"), 9, "model.pt"),
    "model.pkl alone": (pickles_only("model.pkl"), 9, "model.pkl"),
    "model.ckpt alone": (pickles_only("model.ckpt"), 9, "model.ckpt"),
    "pickles beside safetensors": (pickles_beside("pytorch_model.bin", "model.pt", "model.pkl"), 0, ""),
    "state of a trainer": (pickles_beside("optimizer.pt", "rng_state.pth", "training_args.bin", "scheduler.pt"), 0, ""),
    "pickle called safetensors": (lambda m, c: (m / WEIGHTS).write_bytes(c.pickle), 4, WEIGHTS),
    "index to a pickle": (sharded("pytorch_model.bin"), 9, INDEX),
    "index to ..": (sharded("../outside.safetensors"), 9, INDEX),
    "index to an absolute path": (sharded("{}/outside.safetensors"), 9, INDEX),
    "index to nothing": (sharded("nothing.safetensors"), 4, "nothing.safetensors"),
    "index of no names": (content(INDEX, '{"weight_map": ["x.safetensors", {}]}'), 4, INDEX),
    "weights named as a pickle": (config(transformers_weights="adapter_model.bin"), 9, "config.json"),
    "weights named elsewhere": (config(transformers_weights="../x.safetensors"), 9, "config.json"),
    "auto_map": (config(auto_map=AUTO), 9, "config.json"),
    "auto_map of the tokenizer": (config("tokenizer_config.json", auto_map=AUTO), 9, "tokenizer_config.json"),
    "auto_map of a processor": (config("processor_config.json", auto_map=AUTO), 9, "processor_config.json"),
    "auto_map of generation": (config("generation_config.json", auto_map=AUTO), 9, "generation_config.json"),
    "nested auto_map": (config(text_config={"a": [{"auto_map": AUTO}]}), 9, "config.json"),
    "auto_map of another repository": (config(auto_map={"AutoConfig": FAR}), 9, "config.json"),
    "class of another repository": (config(language_model={"class": FAR}), 9, "config.json"),
    "kernel": (config(_attn_implementation="org/kernel"), 9, "config.json"),
    "kernel by its public key": (config(attn_implementation="org/kernel"), 9, "config.json"),
    "kernel by layer": (config(attn_implementation={"": "org/kernel:attend"}), 9, "config.json"),
    "kernel of experts": (config(experts_implementation="org/kernel"), 9, "config.json"),
    "nested kernel": (config(text_config={"_attn_implementation_internal": "org/k"}), 9, "config.json"),
    "attention that falls back to a kernel": (config(attn_implementation="flash_attention_2"), 0, ""),
    "quantizer on the hub": (config(quantization_config={"quant_method": "org/kernel"}), 9, "config.json"),
    "unknown quantizer": (config(quantization_config={"quant_method": "os"}), 4, "model-llama"),
    "generation by code": (config("generation_config.json", custom_generate="org/code"), 9, "generation_config.json"),
    "folder of generation code": (scripts("custom_generate/generate.py"), 0, ""),
    "scripts with names of libraries": (scripts("json.py", "torch.py", "sitecustomize.py", "evil.py"), 0, ""),
    "callable in the config": (config(hidden_act={"_target_": "os.system", "_args_": ["true"]}), 9, "config.json"),
    "header longer than the file": (content(WEIGHTS, weights_file(b"{}", length=2**40)), 4, WEIGHTS),
    "header of no length": (content(WEIGHTS, weights_file(b"", length=0)), 4, WEIGHTS),
    "header that is not JSON": (content(WEIGHTS, weights_file(b"<html>")), 4, WEIGHTS),
    "header nested deeply": (content(WEIGHTS, weights_file(DEEP.encode())), 4, WEIGHTS),
    "header with a list": (content(WEIGHTS, weights_file(b"[1, 2]")), 4, WEIGHTS),
    "overlapping tensors": (content(WEIGHTS, weights_file(tensors(a=(0, 8), b=(4, 12)), b"x" * 12)), 4, WEIGHTS),
    "tensors beyond the end": (content(WEIGHTS, weights_file(tensors(a=(0, 400)), b"x" * 8)), 4, WEIGHTS),
    "tensors before the start": (content(WEIGHTS, weights_file(tensors(a=(-8, 0), b=(0, 8)), b"x" * 8)), 4, WEIGHTS),
    "bytes outside of all tensors": (content(WEIGHTS, weights_file(tensors(a=(0, 8)), b"x" * 80)), 4, WEIGHTS),
    "empty weights": (content(WEIGHTS, b""), 4, WEIGHTS),
    "config nested deeply": (content("config.json", f'{{"a": {DEEP}}}'), 4, "config.json"),
    "config with an endless number": (content("config.json", f'{{"hidden_size": {DIGITS}}}'), 4, "config.json"),
    "config that is a list": (content("config.json", "[]"), 4, "config.json"),
    "config that is not text": (content("config.json", b"\xff\xfe\x00"), 4, "config.json"),
    "config that is a pipe": (pipe("config.json"), 4, "config.json"),
    "config of absurd sizes": (config(hidden_size=-32, num_attention_heads=0), 4, "model-llama"),
    "config of wrong types": (config(hidden_size="large", rope_parameters=[1]), 4, "model-llama"),
    "unknown architecture": (config(model_type="../../evil", architectures=["os.system"]), 4, "model-llama"),
    "tokenizer nested deeply": (content("tokenizer.json", f'{{"a": {DEEP}}}'), 4, "tokenizer"),
    "tokenizer that is a pickle": (lambda m, c: (m / "tokenizer.json").write_bytes(c.pickle), 4, "tokenizer"),
    "tokenizer config nested deeply": (content("tokenizer_config.json", f'{{"a": {DEEP}}}'), 4, "tokenizer_config"),
    "tokenizer of a foreign class": (config("tokenizer_config.json", tokenizer_class="os.system"), 0, ""),
    "tokenizer that reads elsewhere": (reads_elsewhere, 0, ""),
    "link to a private file": (out("chat_template.jinja"), 9, "chat_template.jinja"),
    "link in place of config.json": (out("config.json"), 9, "config.json"),
    "link in place of the tokenizer": (out("tokenizer.json"), 9, "tokenizer.json"),
    "link to a device": (lambda m, c: link(m / "config.json", Path("/dev/zero")), 9, "config.json"),
    "link to nothing": (lambda m, c: link(m / "added_tokens.json", Path("/nowhere/x")), 9, "added_tokens.json"),
    "weights that are a link to text": (out(WEIGHTS), 9, WEIGHTS),
    "adapter in the model": (embedded_adapter, 4, "contains an adapter"),
}  # fmt: skip


@pytest.mark.parametrize("case", MODELS)
def test_hostile_model_is_refused_or_harmless(case: str, victim: Path, tmp_path: Path, canary: Canary) -> None:
    plant, code, name = MODELS[case]
    path = project(victim, tmp_path / "p")
    plant(tmp_path / "p/model-llama", canary)
    judge(tunesmith("train", path), canary, code, name)
    written = [p.read_bytes() for p in (tmp_path / "p/out").rglob("*") if p.is_file()]
    assert not any(b"private-words" in content for content in written)


ADAPTER = "adapter_model.safetensors"
SAVED = "adapter_config.json"
CACHED = {"cache_file": "{}/x.pt", "covariance_file": "{}/x.pt"}


def adapter_pickle_only(adapter: Path, canary: Canary) -> None:
    (adapter / ADAPTER).unlink()
    (adapter / "adapter_model.bin").write_bytes(canary.pickle)


def cached_in_a_pickle(adapter: Path, canary: Canary) -> None:
    (adapter / "x.pt").write_bytes(canary.pickle)
    files = {key: str(adapter / "x.pt") for key in ("cache_file", "covariance_file")}
    edit(adapter / SAVED, init_lora_weights="corda", corda_config=files)


MEGATRON = {"megatron_config": {"a": 1}, "megatron_core": "megatron.evil"}
IMPORTS = {"auto_mapping": {"parent_library": "evil", "base_model_class": "Model"}}
ADAPTERS: dict[str, tuple[Plant, int, str]] = {
    "pickle alone": (adapter_pickle_only, 9, "adapter_model.bin"),
    "pickles beside the adapter": (pickles_beside("adapter_model.bin", "optimizer.pt", "rng_state.pth"), 0, ""),
    "pickle called safetensors": (lambda a, c: (a / ADAPTER).write_bytes(c.pickle), 4, ADAPTER),
    "module to import": (config(SAVED, **MEGATRON), 9, SAVED),
    "library to import": (config(SAVED, **IMPORTS), 0, ""),
    "pickle with initial weights": (cached_in_a_pickle, 4, "the adapter in"),
    "another adapter type": (config(SAVED, peft_type="PROMPT_TUNING"), 4, SAVED),
    "config nested deeply": (content(SAVED, f'{{"a": {DEEP}}}'), 4, SAVED),
    "config of wrong types": (config(SAVED, r="x", target_modules=7), 4, "the adapter in"),
    "overlapping tensors": (content(ADAPTER, weights_file(tensors(a=(0, 8), b=(4, 12)), b"x" * 12)), 4, ADAPTER),
    "link to a private file": (out(SAVED), 9, SAVED),
    "scripts": (scripts("evil.py", "peft.py"), 0, ""),
}


@pytest.mark.parametrize("case", ADAPTERS)
def test_hostile_adapter_is_refused_or_harmless(case: str, victim: Path, tmp_path: Path, canary: Canary) -> None:
    plant, code, name = ADAPTERS[case]
    path = project(victim, tmp_path / "p", adapter="lora", lora_model_dir=str(tmp_path / "p/adapter"))
    plant(tmp_path / "p/adapter", canary)
    judge(tunesmith("train", path), canary, code, name)


def test_links_of_the_hub_cache_and_to_weights_are_followed(victim: Path, tmp_path: Path, canary: Canary) -> None:
    blobs, snapshot = tmp_path / "hub/models--a--b/blobs", tmp_path / "hub/models--a--b/snapshots" / ("c" * 40)
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, file in enumerate((victim / "model-llama").iterdir()):
        (blobs / str(number)).write_bytes(file.read_bytes())
        link(snapshot / file.name, Path("../../blobs") / str(number))
    path = project(victim, tmp_path / "p")
    judge(tunesmith("train", path, f"base_model={snapshot}"), canary, 0, "")
    (tmp_path / "p/model-llama" / WEIGHTS).rename(tmp_path / WEIGHTS)
    link(tmp_path / "p/model-llama" / WEIGHTS, tmp_path / WEIGHTS)
    judge(tunesmith("train", path, f"output_dir={tmp_path / 'again'}"), canary, 0, "")


def test_project_without_planted_files_trains(victim: Path, tmp_path: Path, canary: Canary) -> None:
    judge(tunesmith("train", project(victim, tmp_path / "p")), canary, 0, "")
