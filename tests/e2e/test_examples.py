"""Every YAML in examples/ is valid and trains for two steps, with the tiny model in place of its own."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunesmith import api
from tunesmith.config.load import load_config

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
TASKS = {
    "dpo",
    "grpo-arithmetic",
    "quickstart",
    "sft-full",
    "sft-lora",
    "alpaca-lora",
    "pretrain-stream",
    "completion",
    "fsdp",
}
LONGEST = 40  # lines, so that an example fits on a screen
TINY = ["base_model=examples/tiny", "reinit_weights=true", "max_steps=2", "sequence_len=256", "device=cpu"]
# One micro-batch per step is enough for this test, and bfloat16 is slow on a CPU.
SMALL = ["micro_batch_size=1", "gradient_accumulation_steps=1", "logging_steps=1", "bf16=false"]

each = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Change to the root of the repository, because paths in the examples are relative to it."""
    monkeypatch.chdir(ROOT)


def train(path: Path, folder: Path) -> api.Result:
    """Train an example for two steps on the first 40 rows of its data."""
    overrides = [*TINY, *SMALL, f"output_dir={folder}"]
    settings = yaml.safe_load(path.read_text("utf-8"))
    group = "pretraining_dataset" if "pretraining_dataset" in settings else "datasets"
    entry = settings[group][0]
    rows = Path(entry["path"]).read_text("utf-8").splitlines(keepends=True)[:40]
    few = folder.with_name(f"{path.stem}-data") / "few.jsonl"
    few.parent.mkdir()
    few.write_text("".join(rows), encoding="utf-8")
    overrides.append(f"{group}={json.dumps([{**entry, 'path': str(few)}])}")
    if "trl" in settings:  # a step of one group
        overrides.append(f"micro_batch_size={settings['trl']['num_generations']}")
    if "test_datasets" in settings:
        overrides += ["test_datasets=null", "eval_on_start=null", "eval_steps=null", "warmup_steps=1"]
    if "val_set_size" in settings:
        overrides.append("val_set_size=4")
    if "dataset_prepared_path" in settings:
        overrides.append(f"dataset_prepared_path={folder.with_name(f'{path.stem}-prepared')}")
    return api.train(api.start(load_config(path, overrides)))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_every_task_has_an_example() -> None:
    assert {path.stem for path in EXAMPLES} >= TASKS


@each
def test_example_has_no_problems(path: Path) -> None:
    base = str(yaml.safe_load(path.read_text("utf-8"))["base_model"])
    run = api.start(load_config(path, TINY[:2] if base.startswith("outputs/") else []))  # the result of another example
    assert run.core.output_dir == f"outputs/{path.stem}"


@each
def test_example_fits_on_a_screen_and_has_comments(path: Path) -> None:
    text = path.read_text("utf-8").splitlines()
    assert len(text) <= LONGEST
    assert text[0].startswith("# ")
    assert sum("#" in line for line in text) >= len(text) // 4


@each
def test_example_trains_two_steps(path: Path, tmp_path: Path) -> None:
    result = train(path, tmp_path / "run")
    folder = result.output_dir
    metrics = lines(folder / "metrics.jsonl")
    assert result.steps == 2
    assert [row["step"] for row in metrics] == [1, 2]
    settings = yaml.safe_load(path.read_text("utf-8"))
    online = "trl" in settings  # the loss of an online method is near 0, on either side
    assert all(-1 < row["loss"] < 1 if online else 0 < row["loss"] < 10 for row in metrics)
    weights = "adapter_model.safetensors" if settings.get("adapter") else "model.safetensors"
    for name in (weights, "tokenizer.json", "run.json", "checkpoint-2"):
        assert (folder / name).exists(), name
    assert (weights == "adapter_model.safetensors") != (folder / "model.safetensors").exists()
    assert json.loads((folder / "run.json").read_text("utf-8"))["status"] == "done"
    assert ("eval_loss" in metrics[-1]) == ("val_set_size" in settings)
    if settings.get("generate_samples"):
        asked = len(settings.get("sample_prompts", [1, 2, 3]))
        when = [sample["when"] for sample in lines(folder / "samples.jsonl")]
        assert when.count("before") == when.count("after") == asked


def questions() -> list[str]:
    """Return the user messages of the chat data."""
    rows = lines(ROOT / "examples/data/chat.jsonl")
    return [message["content"] for row in rows for message in row["messages"] if message["role"] == "user"]


def test_quickstart_prompts_are_not_in_its_data() -> None:
    prompts = yaml.safe_load((ROOT / "examples/quickstart.yaml").read_text("utf-8"))["sample_prompts"]
    asked = questions()
    assert prompts
    assert not set(prompts) & set(asked)
    numbers = {number for question in asked for number in re.findall(r"\d+", question)}
    assert not {number for prompt in prompts for number in re.findall(r"\d+", prompt)} & numbers


SCRIPTS = {
    "data": ("chat.jsonl", "alpaca.jsonl", "pairs.jsonl", "text.jsonl"),
    "arithmetic": ("worked.jsonl", "questions.jsonl", "held-out.jsonl"),
}


@pytest.mark.parametrize("folder", SCRIPTS)
def test_data_equals_the_output_of_its_script(folder: str, tmp_path: Path) -> None:
    script = ROOT / f"examples/{folder}/make.py"
    spec = importlib.util.spec_from_file_location("make_data", script)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(tmp_path)
    for name in SCRIPTS[folder]:
        assert (tmp_path / name).read_bytes() == (script.parent / name).read_bytes(), (
            f"run python {script} to write {name}"
        )


def test_tiny_tokenizer_fits_its_model_and_is_lossless() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(ROOT / "examples/tiny")
    config = json.loads((ROOT / "examples/tiny/config.json").read_text("utf-8"))
    assert len(tokenizer) == config["vocab_size"]
    assert tokenizer.eos_token_id == config["eos_token_id"]
    assert tokenizer.pad_token_id == config["pad_token_id"]
    for text in ("What number comes after 47?", "naïve 雪 🙂\n\tx"):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
