"""Third-party plugin packages act at the right place of a run if the YAML names them, and not otherwise."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests import tiny
from tests.repo.source import ROOT
from tunesmith import ConfigError, PluginError, train
from tunesmith.cli.show import hook_rows

COEFFICIENT = 0.25


def config(folder: Path, **keys: Any) -> Path:
    """Write the config of a run on dialogues. The lines of the speakers differ, so that a wrong mask is detected."""
    lines = [{"text": f"A: {row['text']}\nB: the cat sees {n}"} for n, row in enumerate(tiny.rows("text", 12))]
    data = tiny.write_rows(folder / "dialogues.jsonl", lines)
    datasets = [{"path": str(data), "type": "dialogue"}]
    return tiny.sft_config(folder, datasets=datasets, max_steps=2, **keys)


def with_bonus(folder: Path, **keys: Any) -> Path:
    return config(folder, plugins=["entropybonus"], entropy_bonus=COEFFICIENT, **keys)


def calls(rows: list[dict[str, Any]], hook: str) -> list[dict[str, Any]]:
    return next(row["calls"] for row in rows if row["hook"] == hook)


def test_hooks_are_listed_in_order_with_file_and_line(tmp_path: Path) -> None:
    rows = hook_rows(tiny.start(with_bonus(tmp_path)))
    loss = calls(rows, "compute_loss")
    assert [(call["plugin"], call["wrapper"]) for call in loss] == [("entropybonus", True), ("sft", False)]
    strategies = calls(rows, "build_dataset")
    assert [call["plugin"] for call in strategies] == ["dialogue"]
    for call in (loss[0], strategies[0]):
        file, line = call["location"].rsplit(":", 1)
        source = (Path.cwd() / file).resolve()
        assert source == ROOT / "contrib" / call["plugin"] / f"tunesmith_{call['plugin']}" / "__init__.py"
        nearby = source.read_text("utf-8").splitlines()[int(line) - 1 : int(line) + 1]
        assert any("@hookimpl" in text for text in nearby)
        assert call["distribution"] == f"tunesmith-{call['plugin']}"


def test_installed_plugin_without_selection_changes_nothing(tmp_path: Path) -> None:
    run = tiny.start(tiny.sft_config(tmp_path))
    assert not {"entropybonus", "dialogue"} & set(run.hooks.by_name)
    assert not run.needs.entropy


def test_loss_is_exactly_the_sum_of_both_terms(tmp_path: Path) -> None:
    result = tiny.train(with_bonus(tmp_path))
    lines = tiny.metrics(result.output_dir)
    assert len(lines) == result.steps == 2
    for line in lines:
        assert line["nll"] > 0 > line["entropy_bonus"]
        # with one micro-batch, the sum is a single float32 addition
        assert line["loss"] == single(line["nll"] + line["entropy_bonus"])
    assert lines[1]["loss"] < lines[0]["loss"]


def single(value: float) -> float:
    """Round a number to float32."""
    import torch

    return float(torch.tensor(value, dtype=torch.float32))


def test_term_is_the_mean_entropy_of_the_trained_tokens(tmp_path: Path) -> None:
    line = tiny.metrics(tiny.train(with_bonus(tmp_path)).output_dir)[0]
    entropy = -line["entropy_bonus"] / COEFFICIENT
    assert 0 < entropy < math.log(320)  # the maximum in nats for the vocabulary of tiny


def test_method_is_unchanged_by_the_bonus(tmp_path: Path) -> None:
    """The first loss, before any update, equals that of a run without the bonus."""
    plain = tiny.metrics(tiny.train(config(tmp_path, output_dir=str(tmp_path / "plain"))).output_dir)[0]
    with_entropy = tiny.metrics(tiny.train(with_bonus(tmp_path)).output_dir)[0]
    assert with_entropy["nll"] == pytest.approx(plain["loss"], rel=1e-6)
    assert "nll" not in plain  # the only term is the loss itself


def test_accumulation_changes_no_term(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"sample_packing": False, "learning_rate": 1e-3}
    single_batch = with_bonus(tmp_path, micro_batch_size=4, output_dir=str(tmp_path / "single"), **keys)
    lines = tiny.metrics(tiny.train(single_batch).output_dir)
    accumulated = with_bonus(tmp_path, micro_batch_size=1, gradient_accumulation_steps=4, **keys)
    for one, four in zip(lines, tiny.metrics(tiny.train(accumulated).output_dir), strict=True):
        assert all(four[name] == pytest.approx(one[name], rel=1e-5) for name in ("nll", "entropy_bonus", "grad_norm"))


def test_only_lines_of_the_speaker_are_trained(tmp_path: Path) -> None:
    from tunesmith.api import prepare

    run = prepare(tiny.start(config(tmp_path)))
    for example in run.data.train:
        segment = example.segments[1]
        trained = run.tokenizer.decode(segment.tokens[segment.weights > 0])
        assert trained.startswith(" the cat sees ") and trained.endswith(run.tokenizer.eos_token)


def test_exception_in_a_wrapper_names_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tunesmith_entropybonus

    monkeypatch.setattr(tunesmith_entropybonus, "EntropySettings", int)  # run.settings raises LookupError
    with pytest.raises(
        PluginError, match=r"plugin entropybonus \(tunesmith-entropybonus [\d.]+\) failed in compute_loss"
    ):
        tiny.train(with_bonus(tmp_path))


# the plugins that docs/write-a-plugin.md builds


def page_plugin(name: str, folder: Path) -> str:
    """Write a python block of the page, found by its first line, to a local plugin's file."""
    page = (ROOT / "docs" / "write-a-plugin.md").read_text("utf-8")
    block = re.search(rf"^```python\n# {re.escape(name)}\n(.*?)^```$", page, re.M | re.S)
    assert block, f"the page has no block that begins with # {name}"
    local = Path(name).name.replace("__init__", "page_bonus")
    (folder / local).write_text(block[1], encoding="utf-8")
    return f"./{local}"


def test_plugin_on_the_page_equals_the_package(tmp_path: Path) -> None:
    plugin = page_plugin("tunesmith_entropybonus/__init__.py", tmp_path)
    keys: dict[str, Any] = {"entropy_bonus": COEFFICIENT, "output_dir": str(tmp_path / "page")}
    of_page = tiny.metrics(tiny.train(config(tmp_path, plugins=[plugin], **keys)).output_dir)
    of_package = tiny.metrics(tiny.train(with_bonus(tmp_path)).output_dir)
    assert [line["loss"] for line in of_page] == [line["loss"] for line in of_package]


def test_local_plugin_on_the_page_stops_a_run_and_resumes_its_average(tmp_path: Path) -> None:
    plugin = page_plugin("stop_at.py", tmp_path)
    keys: dict[str, Any] = {"plugins": [plugin], "micro_batch_size": 1, "num_epochs": 50, "max_steps": None}
    uninterrupted = tiny.train(tiny.sft_config(tmp_path, stop_below=5.0, output_dir=str(tmp_path / "full"), **keys))
    assert uninterrupted.steps > 4 and "the average loss is 4.9" in str(uninterrupted.stopped)
    path = tiny.sft_config(tmp_path, stop_below=5.0, **keys)
    assert tiny.train(path, "max_steps=4").steps == 4
    resumed = tiny.start(path, "resume_from_checkpoint=auto", "max_steps=5")
    assert train(resumed).steps == 5
    losses = [line["loss"] for line in tiny.metrics(tmp_path / "out")]
    average = losses[0]
    for loss in losses[1:]:
        average = 0.9 * average + 0.1 * loss
    assert len(losses) == 5 and resumed.states["stop_at"].state_dict()["value"] == pytest.approx(average, rel=1e-9)


def test_method_on_the_page_trains_pairs(tmp_path: Path) -> None:
    plugin = page_plugin("pairs.py", tmp_path)
    data = tiny.write_rows(tmp_path / "pairs.jsonl", tiny.rows("pair", 8))
    datasets = [{"path": str(data), "type": "plain_pair"}]
    keys: dict[str, Any] = {"plugins": [plugin], "rl": "pairs", "datasets": datasets}
    lines = tiny.metrics(tiny.train(tiny.sft_config(tmp_path, num_epochs=3, max_steps=3, **keys)).output_dir)
    assert lines[0]["loss"] == pytest.approx(math.log(2), rel=1e-6)  # the policy still equals the reference
    assert lines[-1]["loss"] < lines[0]["loss"] and "accuracy" in lines[0]


def test_online_method_on_the_page_trains_on_a_reward_of_the_page(tmp_path: Path) -> None:
    plugins = [page_plugin(name, tmp_path) for name in ("rloo.py", "short_answers.py")]
    data = tiny.write_rows(tmp_path / "prompts.jsonl", tiny.rows("prompt", 8))
    keys: dict[str, Any] = {"rl": "rloo", "rloo_rewards": ["short_answers"], "plugins": plugins, "max_steps": 2}
    path = tiny.sft_config(tmp_path, datasets=[{"path": str(data), "type": "prompt"}], micro_batch_size=8, **keys)
    lines = tiny.metrics(tiny.train(path).output_dir)
    assert all(0 <= line["reward"] < 1 and math.isfinite(line["loss"]) for line in lines)
    assert lines[-1]["rollout/sequences"] == 4 * lines[-1]["rollout/prompts"] == 16
    with pytest.raises(ConfigError, match="did you mean 'short_answers'"):
        tiny.train(path, "rloo_rewards=[short_answer]", f"output_dir={tmp_path}/misspelled")


def test_adapter_on_the_page_is_trained_and_saved_and_switched_off(tmp_path: Path) -> None:
    plugins = [page_plugin("scales.py", tmp_path), page_plugin("pairs.py", tmp_path)]
    data = tiny.write_rows(tmp_path / "pairs.jsonl", tiny.rows("pair", 8))
    keys: dict[str, Any] = {"plugins": plugins, "rl": "pairs", "adapter": "scales", "num_epochs": 3, "max_steps": 3}
    path = tiny.sft_config(tmp_path, datasets=[{"path": str(data), "type": "plain_pair"}], **keys)
    result = tiny.train(path)
    lines, saved = tiny.metrics(result.output_dir), load_file(result.output_dir / "scales.safetensors")
    assert lines[0]["loss"] == pytest.approx(math.log(2), rel=1e-6) != lines[-1]["loss"]
    assert len(saved) == 2 and not any(bool((scale == 1).all()) for scale in saved.values())


@pytest.mark.parametrize("name", ["value", "teacher", "recurrent"])
def test_models_and_heads_on_the_page_train(name: str, tmp_path: Path) -> None:
    model = str(tiny.model_folder(tmp_path / "model-llama"))
    keys: dict[str, dict[str, Any]] = {
        "value": {}, "teacher": {"teacher_model": model},
        "recurrent": {"base_model": "recurrent://new", "tokenizer_config": model, "recurrent_size": 64},
    }  # fmt: skip
    plugins = [page_plugin(f"{name}.py", tmp_path)]
    result = tiny.train(tiny.sft_config(tmp_path, number=8, plugins=plugins, max_steps=2, **keys[name]))
    lines, files = tiny.metrics(result.output_dir), {path.name for path in result.output_dir.iterdir()}
    term = {"value": "value", "teacher": "distillation", "recurrent": "loss"}[name]
    assert all(math.isfinite(line[term]) for line in lines)
    assert {"model.safetensors", "tokenizer.json"} <= files and ("value_head.safetensors" in files) == (name == "value")


def test_hook_on_the_page_is_answered_by_another_plugin(tmp_path: Path) -> None:
    plugins = [page_plugin(name, tmp_path) for name in ("greeter.py", "formal.py")]
    result = tiny.train(tiny.sft_config(tmp_path, plugins=plugins, max_steps=1))
    notes = json.loads((result.output_dir / "run.json").read_text("utf-8"))["notes"]
    assert notes["greeting"] == "Good morning, world."


def test_patch_on_the_page_is_applied_and_undone(tmp_path: Path) -> None:
    plugin = page_plugin("half_mlp.py", tmp_path)
    result = tiny.train(tiny.sft_config(tmp_path, plugins=[plugin], max_steps=1))
    record = json.loads((result.output_dir / "run.json").read_text("utf-8"))
    assert record["patches"] == [{"target": "forward of every MLP of policy", "owner": "half_mlp", "applied": 2}]
    layers = [module for module in result.policy.model.modules() if type(module).__name__.endswith("MLP")]
    assert layers and not any("forward" in vars(layer) for layer in layers)
