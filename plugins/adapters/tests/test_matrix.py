"""Every type of peft trains on packs, starts and ends as it promises, and is saved for plain peft."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, PeftType
from transformers import AutoModelForCausalLM
from tunesmith_adapters.build import SIZES
from tunesmith_adapters.settings import REFUSED, TYPES

from tests import tiny
from tunesmith import build_policy
from tunesmith.api import plan, prepare

QUICK = ("adalora", "oft", "vera")
"""Types that are tested in each run of the tests; the others are slow only by their number."""
NAMES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in TYPES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("matrix")


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(1, 33)[None]).logits  # type: ignore[no-any-return]


def of_policy(policy: Any) -> torch.Tensor:
    with policy.language_model.attending("sdpa"):
        return logits(policy.model)


def base_of(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder / "model-llama")


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max())


def config(folder: Path, name: str, shapes: dict[str, Any], **keys: Any) -> Path:
    options = {name: shapes[name]} if name in shapes else {}
    values = {"output_dir": str(folder / name), "max_steps": 3, "save_steps": 1, "sample_packing": True}
    return tiny.sft_config(folder, adapter=name, **{**options, **values, **keys})


def test_each_type_of_peft_is_provided_or_refused_with_a_reason() -> None:
    assert {*TYPES, *REFUSED, "lora"} == {one.value.lower() for one in PeftType}


@pytest.mark.parametrize("name", NAMES)
def test_type_trains_saves_merges_and_resumes(name: str, folder: Path, shapes: dict[str, Any]) -> None:
    facts = TYPES[name]
    if facts.get("needs") and importlib.util.find_spec(facts["needs"]) is None:
        pytest.skip(f"{name} needs {facts['needs']}")
    path = config(folder, name, shapes)
    base = logits(base_of(folder)) if (folder / "model-llama").exists() else None
    policy = build_policy(prepare(tiny.start(path)))
    base = logits(base_of(folder)) if base is None else base
    assert (distance(of_policy(policy), base) < 1e-5) is facts["starts_as_base"]
    count = sum(p.numel() for p in policy.model.parameters() if p.requires_grad)
    counted = plan(prepare(tiny.start(path)))["trained_parameters"]
    assert counted == pytest.approx(count, rel=0.02 if name in SIZES else 0)

    policy = tiny.train(path).policy
    trained = of_policy(policy)
    assert distance(trained, base) > 1e-4
    with policy.run.adapter.disabled():
        assert distance(of_policy(policy), base) < 1e-5
    loaded = PeftModel.from_pretrained(base_of(folder), folder / name)
    assert distance(logits(loaded), trained) < 1e-5
    if facts["merges"]:
        assert distance(logits(loaded.merge_and_unload()), trained) < 1e-5
    resumed = tiny.train(path, f"resume_from_checkpoint={folder / name / 'checkpoint-1'}").policy
    assert torch.equal(of_policy(resumed), trained)
    if name != "adalora":  # the ranks that are gone are not in the file, and training would allocate again
        keys = {name: None, "adapter_model_dir": str(folder / name), "output_dir": str(folder / f"{name}-next")}
        again = build_policy(prepare(tiny.start(config(folder, name, shapes, **keys))))
        assert distance(of_policy(again), trained) < 1e-5
