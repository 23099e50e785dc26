"""An adapter is trained on checkpoints that are already quantized, which `adapter: qlora` accepts as they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import tiny
from tunesmith import ConfigError, EnvironmentProblem, ModelError, build_policy
from tunesmith.api import plan, prepare

SIZES = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32}
FP8 = {"model_quantization_config": "FineGrainedFP8Config", "model_quantization_config_kwargs": {"dequantize": True}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a float model, and from it one with 4 bits and one with 8 bits of bitsandbytes, and one with FP8."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    folder = tmp_path_factory.mktemp("checkpoints")
    base = tiny.model_folder(folder / "model-llama", **SIZES)
    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    for name, config in {"nf4": nf4, "int8": BitsAndBytesConfig(load_in_8bit=True)}.items():
        AutoModelForCausalLM.from_pretrained(base, quantization_config=config).save_pretrained(folder / name)
        tiny.tokenizer().save_pretrained(folder / name)
    tensors: dict[str, torch.Tensor] = {}
    for name, value in load_file(base / "model.safetensors").items():
        if "proj" not in name:
            tensors[name] = value
            continue
        blocks = torch.nn.functional.pad(value, (0, -value.shape[1] % 128, 0, -value.shape[0] % 128))
        scales = blocks.unflatten(0, (-1, 128)).unflatten(2, (-1, 128)).abs().amax((1, 3)) / 448
        repeated = scales.repeat_interleave(128, 0).repeat_interleave(128, 1)
        tensors[name] = (value / repeated[: value.shape[0], : value.shape[1]]).to(torch.float8_e4m3fn)
        tensors[f"{name}_scale_inv"] = scales
    quantized(folder, "fp8", {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]})
    save_file(tensors, folder / "fp8/model.safetensors", metadata={"format": "pt"})
    return folder


def quantized(folder: Path, name: str, config: dict[str, Any]) -> Path:
    """Copy the float model, and let its config.json claim a quantization."""
    shutil.copytree(folder / "model-llama", folder / name)
    path = folder / name / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": config}))
    return folder / name


def losses(folder: Path, name: str, **keys: Any) -> list[float]:
    """Train on a checkpoint, and return the losses."""
    out = folder / f"out-{name}-{len(list(folder.iterdir()))}"
    tiny.train(tiny.sft_config(folder, base_model=str(folder / name), output_dir=str(out), **keys))
    return [row["loss"] for row in tiny.metrics(out) if "loss" in row]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nf4", "int8"])
def test_a_checkpoint_of_bitsandbytes_trains_like_its_model_quantized_at_load(name: str, folder: Path) -> None:
    keys = {"adapter": "qlora"} if name == "nf4" else {"adapter": "lora", "load_in_8bit": True}
    expected = losses(folder, "model-llama", **keys)
    assert losses(folder, name, adapter="qlora") == expected == losses(folder, name, **keys)


@pytest.mark.parametrize("name", ["nf4", "int8"])
def test_plan_knows_the_bytes_of_a_quantized_checkpoint(name: str, folder: Path) -> None:
    run = prepare(tiny.start(tiny.sft_config(folder, base_model=str(folder / name), adapter="qlora")))
    predicted = plan(run)["memory"]["weights"]
    model = build_policy(run).model
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
                for t in (*model.parameters(), *model.buffers())}  # fmt: skip
    assert predicted == pytest.approx(sum(storages.values()), rel=0.001)


@pytest.mark.slow
def test_an_fp8_checkpoint_is_dequantized(folder: Path) -> None:
    values = losses(folder, "fp8", adapter="lora", **FP8)
    assert values == pytest.approx(losses(folder, "model-llama", adapter="lora"), rel=0.01)


@pytest.mark.slow
def test_a_checkpoint_of_compressed_tensors_is_dequantized(folder: Path) -> None:
    pytest.importorskip("compressed_tensors", reason="the library is an extra")
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import (
        QuantizationArgs,
        QuantizationConfig,
        QuantizationScheme,
        apply_quantization_config,
    )
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "model-llama")
    scheme = QuantizationScheme(
        targets=["Linear"],
        weights=QuantizationArgs(num_bits=8, type="int", strategy="group", group_size=32, symmetric=True),
    )
    config = QuantizationConfig(
        config_groups={"all": scheme}, ignore=["lm_head"], quantization_status="frozen", format="pack-quantized"
    )
    apply_quantization_config(model, config)
    for module in model.modules():
        if hasattr(module, "weight_scale"):
            weight = module.weight.data.unflatten(1, (-1, 32))  # type: ignore[operator,union-attr]
            module.weight_scale.data = weight.abs().amax(-1) / 127.5
    compressor = ModelCompressor(quantization_config=config)
    compressor.compress_model(model)
    model.save_pretrained(folder / "packed")
    compressor.update_config(folder / "packed")
    tiny.tokenizer().save_pretrained(folder / "packed")
    path = tiny.sft_config(folder, base_model=str(folder / "packed"), adapter="qlora")
    loaded = dict(build_policy(prepare(tiny.start(path))).model.named_parameters())
    for name, weight in load_file(folder / "model-llama/model.safetensors").items():
        ours = loaded.get(name, loaded.get(name.replace(".weight", ".base_layer.weight")))
        assert ours is not None and torch.allclose(ours, weight, atol=weight.abs().max() / 250), name
    values = losses(folder, "packed", adapter="qlora")
    assert values[-1] < values[0]


METHODS = {
    "gptq": ({"bits": 4, "group_size": 128}, "optimum"),
    "awq": ({"bits": 4, "group_size": 128, "version": "gemm", "zero_point": True}, "gptqmodel"),
}


@pytest.mark.parametrize("method", METHODS)
def test_a_missing_library_is_named(method: str, folder: Path) -> None:
    config, library = METHODS[method]
    quantized(folder, method, {"quant_method": method, **config})
    with pytest.raises(EnvironmentProblem, match=library):
        losses(folder, method, adapter="qlora")


@pytest.mark.slow
def test_other_keys_than_the_checkpoint_needs_are_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"the weights are quantized.*(.|\n)*write adapter: qlora"):
        losses(folder, "nf4", adapter="lora")
    with pytest.raises(ConfigError, match=r"load_in_8bit has no effect: the weights of .* are already quantized"):
        losses(folder, "nf4", adapter="lora", load_in_8bit=True)
    with pytest.raises(ConfigError, match="bnb_config_kwargs has no effect"):
        losses(folder, "nf4", adapter="qlora", bnb_config_kwargs={"bnb_4bit_quant_type": "fp4"})
    with pytest.raises(ConfigError, match=r"gptq has no effect.*quantized with bitsandbytes"):
        losses(folder, "nf4", adapter="lora", gptq=True)
    with pytest.raises(ModelError, match="the weights are not quantized"):
        losses(folder, "model-llama", adapter="lora", gptq=True)
