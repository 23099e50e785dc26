"""Quantized bases: train an adapter on weights of 4 or 8 bits, with bitsandbytes.

`adapter: qlora` is LoRA on a base of 4 bits (arXiv 2305.14314). `load_in_4bit` and `load_in_8bit` quantize the base of
any adapter. Checkpoints that are already quantized are loaded as they are.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from tunesmith import Finding, Plugin, Settings, hookimpl
from tunesmith.optional import show

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from tunesmith import LanguageModel, ModelSpec, Run

INSTALL = 'pip install "tunesmith[qlora]"'


class BnbSettings(Settings):
    """How bitsandbytes quantizes the linear layers."""

    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    """Type of the numbers of 4 bits."""
    bnb_4bit_use_double_quant: bool = True
    """Quantize the scales too, which saves 0.37 bits of each weight (arXiv 2305.14314, section 3)."""
    bnb_4bit_compute_dtype: Literal["bfloat16", "float16", "float32"] | None = None
    """Data type of the products. Default: bfloat16 if the run computes in bfloat16, otherwise float32."""
    bnb_4bit_quant_storage: Literal["uint8", "float16", "bfloat16", "float32"] | None = None
    """Data type that the bits are stored as, which changes no value. Default: uint8; sharded, that of other weights."""
    llm_int8_threshold: float = Field(6.0, ge=0)
    """With load_in_8bit on a GPU: columns of activations with a larger value are computed in 16 bits."""
    llm_int8_skip_modules: list[str] | None = None
    """Modules that are not quantized: names (last parts), or beginnings of full names. The head is never quantized."""
    llm_int8_has_fp16_weight: bool = False
    """Only false is supported: true would keep the weights in 16 bits."""
    llm_int8_enable_fp32_cpu_offload: bool = False
    """Only false is supported: weights on another device can't be trained with."""


class CheckpointSettings(Settings):
    """How the weights of a quantized checkpoint are loaded."""

    dequantize: bool | None = None
    """Convert the weights to bfloat16 or float32 when they are loaded, which takes the memory of such weights."""


class QLoRASettings(Settings):
    """Keys of quantized bases."""

    load_in_4bit: bool = False
    """Quantize the linear layers of base_model to 4 bits when it is loaded. `adapter: qlora` includes it."""
    load_in_8bit: bool = False
    """Quantize the linear layers of base_model to 8 bits when it is loaded (arXiv 2208.07339)."""
    bnb_config_kwargs: BnbSettings = BnbSettings()
    """How to quantize. The names are those of BitsAndBytesConfig."""
    quantize_moe_experts: bool = False
    """Quantize the fused experts of a mixture of experts to 4 bits too. They are most of its weights."""
    model_quantization_config: Literal["Mxfp4Config", "FineGrainedFP8Config"] | None = None
    """base_model is a checkpoint that is quantized in this format of transformers."""
    model_quantization_config_kwargs: CheckpointSettings = CheckpointSettings()
    """How to load the weights of such a checkpoint."""
    gptq: bool = False
    """base_model is a checkpoint that is quantized with GPTQ."""


plugin = Plugin(
    settings=QLoRASettings,
    switches=("load_in_4bit", "load_in_8bit", "adapter: qlora", "gptq", "model_quantization_config"),
    offers={"saved_models": {"quantized base models": "tunesmith_qlora.opening:keys"}},
)


@hookimpl
def validate(run: Run) -> None:
    from tunesmith_qlora.settings import check

    check(run, run.settings(QLoRASettings))


@hookimpl
def diagnose() -> Iterator[Finding]:
    show("bitsandbytes")
    yield Finding.of_module("bitsandbytes", INSTALL)


@hookimpl
def configure(run: Run) -> None:
    from tunesmith_qlora.library import load_library

    load_library(run)


@hookimpl(wrapper=True)
def load_model(run: Run, spec: ModelSpec) -> Generator[None, LanguageModel, LanguageModel]:
    """Ask for a quantized base, and quantize what the plugin that loads it could not."""
    from tunesmith_qlora import base
    from tunesmith_qlora.heap import map_large_blocks

    if not run.abstract:
        map_large_blocks(run)
    settings, of_base = run.settings(QLoRASettings), spec.name in ("policy", "reference")
    wanted = base.ask(run, spec, settings) if of_base else {}
    language_model = yield
    if of_base:
        base.finish(run, spec, settings, wanted, language_model)
    return language_model


@hookimpl(trylast=True)
def patch_model(run: Run, name: str, model: nn.Module) -> nn.Module:
    """Prepare quantized layers for sharding, after adapters are in place."""
    from tunesmith_qlora.sharded import prepare

    if run.world.sharded and not run.abstract:
        prepare(model)
    return model
