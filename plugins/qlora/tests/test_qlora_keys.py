"""Keys that contradict each other, or that would have no effect, are refused with what to write instead."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from tunesmith_qlora.library import load_library

from tests import tiny
from tunesmith import ConfigError
from tunesmith.config.load import load_config

FOUR, EIGHT = {"adapter": "lora", "load_in_4bit": True}, {"adapter": "lora", "load_in_8bit": True}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no adapter": ({"load_in_8bit": True}, "load_in_8bit needs an adapter"),
    "4 and 8 bits": (FOUR | EIGHT, "load_in_8bit and load_in_4bit are both set"),
    "qlora on 8 bits": ({"adapter": "qlora", "load_in_8bit": True}, "write adapter: lora, which also trains"),
    "qlora without 4 bits": ({"adapter": "qlora", "load_in_4bit": False}, "load_in_4bit does not fit adapter: qlora"),
    "gptq and 4 bits": (FOUR | {"gptq": True}, "gptq and load_in_4bit are both set"),
    "type of 4 bits": (EIGHT | {"bnb_config_kwargs": {"bnb_4bit_quant_type": "nf4"}}, "no effect with load_in_8bit"),
    "threshold": (FOUR | {"bnb_config_kwargs": {"llm_int8_threshold": 5.0}}, "no effect on 4 bits"),
    "weights of 16 bits": (EIGHT | {"bnb_config_kwargs": {"llm_int8_has_fp16_weight": True}}, "in 16 bits"),
    "offload": (
        EIGHT | {"bnb_config_kwargs": {"llm_int8_enable_fp32_cpu_offload": True}},
        "does not work for",
    ),
    "unknown type": (FOUR | {"bnb_config_kwargs": {"bnb_4bit_quant_type": "nf8"}}, "bnb_4bit_quant_type"),
    "unknown key": (FOUR | {"bnb_config_kwargs": {"bnb_4bit_quant_typ": "nf4"}}, "did you mean 'bnb_4bit_quant_type'"),
    "experts of 8 bits": (EIGHT | {"quantize_moe_experts": True}, "quantize_moe_experts has no effect"),
    "dequantize alone": (FOUR | {"model_quantization_config_kwargs": {"dequantize": True}}, "has no effect without"),
    "shards of 8 bits": (EIGHT | {"fsdp_config": {}}, "load_in_8bit does not work with fsdp_config"),
    "arguments alone": ({"adapter": "lora", "bnb_config_kwargs": {}}, "which is not selected"),
}


@pytest.mark.parametrize(("keys", "message"), REFUSED.values(), ids=list(REFUSED))
def test_keys_without_effect_are_refused(keys: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny.start(tiny.sft_config(tmp_path, **keys))


def test_a_model_that_is_passed_is_not_quantized(tmp_path: Path) -> None:
    from tunesmith.api import start

    with pytest.raises(ConfigError, match=r"load_in_4bit has no effect on a model that was passed to start\(\)"):
        start(load_config(tiny.sft_config(tmp_path, **FOUR)), model=object())


def test_keys_that_are_off_select_nothing(tmp_path: Path) -> None:
    run = tiny.start(tiny.sft_config(tmp_path, adapter="lora", load_in_4bit=False, load_in_8bit=None, gptq=False))
    assert "qlora" not in run.hooks.by_name


def test_the_library_is_imported_without_code_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "bitsandbytes"]:
        monkeypatch.delitem(sys.modules, name)
    seen: list[Any] = []

    class Finder:
        def find_spec(self, name: str, *_: Any) -> None:
            if name == "bitsandbytes":
                seen.append(sys.modules.get("kernels", "importable"))
                raise ImportError("enough")

    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    from tunesmith import EnvironmentProblem

    with pytest.raises(EnvironmentProblem, match=r"bitsandbytes can't be imported.*enough"):
        load_library(tiny.start(tiny.sft_config(tmp_path)))
    assert seen == [None] and sys.modules.get("kernels", "importable") == "importable"
