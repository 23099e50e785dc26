"""Each example of a family of models is valid, and trains two steps on a small random model of its architecture.

With `pytest -s`, the test prints the table of the losses: families by methods.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import tiny
from tunesmith import ModelError
from tunesmith.api import prepare, start, train, verify
from tunesmith.config.load import load_config

ROOT = Path(__file__).resolve().parents[2]
FAMILIES: dict[str, dict[str, Any]] = tomllib.loads((ROOT / "tools/example_families.toml").read_text("utf-8"))
METHODS = ("sft-full", "sft-lora", "sft-qlora", "dpo", "orpo", "kto", "reward", "grpo", "pretraining")
SIZES: dict[str, Any] = {
    "vocab_size": 320, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
SMALL: dict[str, Any] = {
    "sequence_len": 256, "micro_batch_size": 2, "gradient_accumulation_steps": 1, "num_epochs": 1, "max_steps": 2,
    "device": "cpu", "logging_steps": 1, "plugins": ["-console", "-report"],
}  # fmt: skip
TEMPLATE = {"chat_template": None, "chat_template_kwargs": None}
"""The small model has a tokenizer without the tokens of the family's template; see the tests of the plugin chat."""
EXAMPLES = [
    (name, method) for name, family in FAMILIES.items() for method in METHODS if method not in family.get("without", {})
]
LOSSES: dict[tuple[str, str], float] = {}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


@pytest.fixture(scope="module", autouse=True)
def losses() -> Iterator[None]:
    """Print the table of the losses after the last step."""
    yield
    for name in dict.fromkeys(name for name, _ in LOSSES):
        cells = [f"{LOSSES[name, method]:.3f}" if (name, method) in LOSSES else "-" for method in METHODS]
        print(f"{name:10}", *(f"{cell:>7}" for cell in cells))


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Change to the root of the repository, because paths in the examples are relative to it."""
    monkeypatch.chdir(ROOT)


def model(folder: Path, name: str) -> Path:
    """Write a small random model of a family, unless it is there already."""
    import torch
    import transformers
    from transformers.utils import logging

    path = folder / name
    if not path.exists():
        logging.disable_progress_bar()
        class_name, changes = FAMILIES[name]["config"]
        config = getattr(transformers, class_name)(**(SIZES | changes))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(path)
        tiny.tokenizer().save_pretrained(path)
    return path


def shrunk(name: str, method: str, base: Path, folder: Path) -> dict[str, Any]:
    """Return the keys that an example needs for a small model and the first rows of its data."""
    path = ROOT / "examples" / name / f"{method}.yaml"
    values = yaml.safe_load(path.read_text("utf-8"))
    entry = values["datasets"][0]
    few = folder / "few.jsonl"
    few.write_text("".join(Path(entry["path"]).read_text("utf-8").splitlines(keepends=True)[:16]), encoding="utf-8")
    keys = SMALL | {"datasets": [entry | {"path": str(few)}], "base_model": str(base)}
    keys |= {"output_dir": str(folder / "out"), **{key: None for key in TEMPLATE if key in values}}
    if "val_set_size" in values:
        keys["val_set_size"] = 4
    if method == "grpo":
        keys |= {"micro_batch_size": 8, "trl": values["trl"] | {"max_completion_length": 8}}
    return keys


@pytest.mark.parametrize(("name", "method"), EXAMPLES)
def test_example_has_no_problems(name: str, method: str) -> None:
    run = start(load_config(ROOT / "examples" / name / f"{method}.yaml"))
    assert run.core.output_dir == f"outputs/{name}-{method}"
    assert not run.config.translated


def trains(name: str, method: str, models: Path, folder: Path) -> None:
    keys = shrunk(name, method, model(models, name), folder)
    result = train(load_config(ROOT / "examples" / name / f"{method}.yaml", **keys))
    lines = [json.loads(line) for line in (folder / "out/metrics.jsonl").read_text("utf-8").splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2] and result.steps == 2
    loss = LOSSES[name, method] = lines[1]["loss"]
    assert abs(loss) < 0.5 if method == "grpo" else 0 < loss < 12
    weights = "adapter_model" if result.policy.run.adapter else "model"
    assert (folder / "out" / f"{weights}.safetensors").is_file()


@pytest.mark.parametrize("method", METHODS)
def test_example_of_one_family_trains(method: str, models: Path, tmp_path: Path) -> None:
    trains("qwen3", method, models, tmp_path)


@pytest.mark.parametrize(
    ("name", "reason"), [(n, why) for n, f in FAMILIES.items() for why in f.get("without", {}).values()]
)
def test_what_a_family_lacks_is_an_error_in_words(name: str, reason: str, models: Path, tmp_path: Path) -> None:
    keys = shrunk("qwen3", "reward", model(models, name), tmp_path)
    with pytest.raises(ModelError, match=reason):
        train(load_config(ROOT / "examples/qwen3/reward.yaml", **keys))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "method"), [one for one in EXAMPLES if one[0] != "qwen3"])
def test_example_trains(name: str, method: str, models: Path, tmp_path: Path) -> None:
    trains(name, method, models, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_packing_does_not_change_the_family(name: str, models: Path, tmp_path: Path) -> None:
    keys = shrunk(name, "dpo", model(models, name), tmp_path)
    rows = verify(prepare(start(load_config(ROOT / "examples" / name / "dpo.yaml", **keys))))
    assert rows and all(row["ok"] for row in rows)
