"""The plugin contract is sufficient for new methods: plugins of at most 40 lines, unknown to the core, train a step."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import yaml

from tests import tiny

PLUGINS = Path(__file__).parent / "plugins"
CASES = {  # plugin -> rl, dataset type, row kind, logged terms
    "pairs": ("pairs", "plain_pair", "pair", {"accuracy"}),
    "groups": ("groups", "prompt", "prompt", {"reward", "rollout/sequences"}),
    "scores": ("scores", "scored_pair", "pair", set()),
    "topk": (None, "chat_template", "conversation", {"nll", "topk"}),
    "whole": (None, "chat_template", "conversation", {"nll", "by_length"}),
    "value": (None, "chat_template", "conversation", {"nll", "value"}),
}

WITH = {"groups": ["odd_tokens"]}


def run_config(folder: Path, name: str, **keys: object) -> Path:
    rl, type_name, kind, _ = CASES[name]
    model = tiny.model_folder(folder / "model", "llama")
    data = tiny.write_rows(folder / "data.jsonl", tiny.rows(kind, 10))
    return tiny.write_config(
        folder,
        base_model=str(model),
        plugins=[str(PLUGINS / f"{one}.py") for one in (name, *WITH.get(name, ()))],
        rl=rl,
        datasets=[{"path": str(data), "type": type_name}],
        gradient_accumulation_steps=2,
        num_epochs=9,
        max_steps=2,
        **keys,
    )


@pytest.mark.parametrize("name", CASES)
def test_plugin_is_at_most_40_lines(name: str) -> None:
    assert len((PLUGINS / f"{name}.py").read_text().splitlines()) <= 40


@pytest.mark.parametrize("adapter", [None, "lora"])
@pytest.mark.parametrize("name", CASES)
def test_plugin_trains(name: str, adapter: str | None, tmp_path: Path) -> None:
    result = tiny.train(run_config(tmp_path, name, adapter=adapter, val_set_size=2 if name == "pairs" else None))
    lines = tiny.metrics(tmp_path / "out")
    assert result.steps == 2 and len(lines) == 2
    assert CASES[name][3] <= set(lines[0])
    assert all(math.isfinite(line["loss"]) and line["grad_norm"] > 0 for line in lines)


def test_reference_is_the_policy_before_the_first_step(tmp_path: Path) -> None:
    """At step 1 the log-ratios are zero and the loss is log 2. At step 2 the policy has changed."""
    tiny.train(run_config(tmp_path, "pairs"))
    first, second = tiny.metrics(tmp_path / "out")
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert abs(second["loss"] - math.log(2)) > 1e-5


@pytest.mark.slow
def test_two_sharded_processes_equal_one_process(tmp_path: Path) -> None:
    """FSDP2 with 2 processes and half the accumulation uses the same examples, so loss and norm are the same."""
    sharded = []
    for name in CASES:
        folder = tmp_path / name
        folder.mkdir()
        tiny.train(run_config(folder, name, gradient_checkpointing=True))
        path = folder / "run.yaml"
        keys = {"gradient_accumulation_steps": 1, "fsdp_config": {}, "output_dir": str(folder / "sharded")}
        (folder / "sharded.yaml").write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | keys))
        sharded.append(folder / "sharded.yaml")
    tiny.torchrun(2, *sharded)
    for name in CASES:
        lines = tiny.metrics(tmp_path / name / "sharded")
        assert "FSDP2" in json.loads((tmp_path / name / "sharded/run.json").read_text())["processes"]
        assert len(lines) == 2 and all(math.isfinite(line["loss"]) for line in lines)
        if name == "groups":  # which token is drawn may depend on the last bits of a logit
            continue
        for sharded_line, line in zip(lines, tiny.metrics(tmp_path / name / "out"), strict=True):
            assert sharded_line["loss"] == pytest.approx(line["loss"], abs=1e-5)
            assert sharded_line["grad_norm"] == pytest.approx(line["grad_norm"], rel=1e-4)
