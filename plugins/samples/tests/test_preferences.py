"""Methods on pairs and on labelled answers generate samples, and training is unchanged by it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import tiny

SHARED = {"when", "step", "prompt", "text", "completion"}
KEYS: dict[str, Any] = {"generate_samples": True, "generation_max_new_tokens": 4, "num_generation_samples": 2}
METHODS = ("dpo", "kto", "orpo", "simpo", "cpo")
TEST_PAIRS = [("Where?", "here", "there"), ("Where?", "near", "far"), ("Who?", "me", "you"), ("Why?", "so", "not")]


def config(folder: Path, rl: str, **keys: Any) -> Path:
    """Write the YAML of a run with four steps and evaluations at steps 2 and 4. Two of its pairs share a prompt."""
    model = folder / "model"
    if not model.exists():
        tiny.model_folder(model)
    test_rows = [{"prompt": prompt, "chosen": chosen, "rejected": rejected} for prompt, chosen, rejected in TEST_PAIRS]
    groups = {"datasets": tiny.rows("pair", 8), "test_datasets": test_rows}
    for name, rows in groups.items():
        tiny.write_rows(folder / f"{name}.jsonl", labelled(rows) if rl == "kto" else rows)
    entries = {name: [{"path": str(folder / f"{name}.jsonl"), "type": "passthrough"}] for name in groups}
    steps = {"max_steps": 4, "num_epochs": 9, "eval_steps": 2}
    return tiny.write_config(folder, base_model=str(model), rl=rl, **(entries | steps | KEYS | keys))


def labelled(pairs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    sides = [(pair["prompt"], pair[side], side == "chosen") for pair in pairs for side in ("rejected", "chosen")]
    return [dict(zip(("prompt", "completion", "label"), side, strict=True)) for side in sides]


def samples(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("rl", METHODS)
def test_each_evaluation_has_a_completion_for_each_prompt_and_the_answers_of_its_row(rl: str, tmp_path: Path) -> None:
    tiny.train(config(tmp_path, rl))
    lines = samples(tmp_path / "out")
    rounds = [("before", 0), ("step 2", 2), ("step 4", 4), ("after", 4)]
    assert [(line["when"], line["step"]) for line in lines] == [position for position in rounds for _ in range(2)]
    assert [line["prompt"] for line in lines] == ["Where?", "Who?"] * len(rounds)
    answers = [{k: v for k, v in line.items() if k not in SHARED} for line in lines]
    if rl == "kto":
        assert answers[:2] == [{"answer": "there", "label": False}, {"answer": "you", "label": False}]
    else:
        assert answers[:2] == [{"chosen": "here", "rejected": "there"}, {"chosen": "me", "rejected": "you"}]
    assert answers == answers[:2] * len(rounds)


@pytest.mark.parametrize("rl", ["dpo", "kto"])
def test_training_and_metrics_are_the_same_with_and_without_samples(rl: str, tmp_path: Path) -> None:
    path = config(tmp_path, rl, adapter="lora", lora_r=4, lora_dropout=0.2, generation_temperature=1.0)
    tiny.train(path)
    samples_off = [f"{key}=null" for key in (*KEYS, "generation_temperature")]
    tiny.train(path, *samples_off, f"output_dir={tmp_path / 'none'}")
    for sampled, plain in zip(tiny.metrics(tmp_path / "out"), tiny.metrics(tmp_path / "none"), strict=True):
        names = {name for name in sampled if "loss" in name or "rewards" in name or "logps" in name}
        assert names and {name: sampled[name] for name in names} == {name: plain[name] for name in names}


def test_samples_use_the_adapter_even_before_the_first_step(tmp_path: Path) -> None:
    """The reference of DPO is the model with the adapter switched off; sampling must switch it on again."""
    keys = {"adapter": "lora", "lora_r": 4, "lora_target_linear": True, "learning_rate": 0.1}
    tiny.train(config(tmp_path, "dpo", output_dir=str(tmp_path / "first"), **keys))
    first = samples(tmp_path / "first")
    assert first[0]["completion"] != first[-2]["completion"]  # otherwise the models could not be distinguished
    resumed = {"adapter": "lora", "lora_model_dir": str(tmp_path / "first"), "learning_rate": 1e-9}
    tiny.train(config(tmp_path, "dpo", **resumed))
    for line in samples(tmp_path / "out"):
        assert line["completion"] == next(s["completion"] for s in first[-2:] if s["prompt"] == line["prompt"])


def test_variables_reach_the_chat_template_of_the_tokenizer(tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}{{ manner }}{{ place }}"
        "{% endif %}{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{{ manner }}{{ place }}{% endif %}"
    )
    keys = {"sample_prompts": ["Hi"], "num_generation_samples": None, "eval_steps": None, "test_datasets": None}
    entry = {"path": str(tmp_path / "datasets.jsonl"), "type": "chat_template", "chat_template_kwargs": {"place": "B"}}
    template_keys = {"chat_template": "jinja", "chat_template_jinja": template, "chat_template_kwargs": {"manner": "A"}}
    tiny.train(config(tmp_path, "dpo", **(keys | template_keys | {"datasets": [entry]})))
    prompts = {line["prompt"] for line in samples(tmp_path / "out")}
    assert prompts == {"<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nAB"}


def test_the_key_of_another_tool_generates_samples(tmp_path: Path) -> None:
    keys = {"generate_samples": None, "dpo_generate_during_eval": True}
    assert tiny.start(config(tmp_path, "dpo", **keys)).config.document.values["generate_samples"] is True
