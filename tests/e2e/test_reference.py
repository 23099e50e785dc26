"""Training with precomputed reference log-probabilities equals training with a reference model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tunesmith_engine.model import build

from tests import tiny
from tunesmith import ConfigError
from tunesmith.api import plan, prepare

PAIRS = [
    {"prompt": "good morning", "chosen": "how are you today", "rejected": "no"},
    {"prompt": "what is this", "chosen": "a tree", "rejected": "a house with a door and a tree"},
    {"prompt": "and that", "chosen": "the sun in the morning", "rejected": "the door"},
    {"prompt": "say it again", "chosen": "again and again", "rejected": "this is not what it is"},
    {"prompt": "where are you", "chosen": "in the house", "rejected": "where"},
]
LABELED = [
    {"prompt": pair["prompt"], "completion": pair[side], "label": side == "chosen"}
    for pair in PAIRS
    for side in ("chosen", "rejected")
]
ROWS = {"dpo": PAIRS, "simpo": PAIRS, "kto": LABELED}
KEEP = {"precompute_ref_log_probs": True}


def config(folder: Path, name: str, rl: str = "dpo", **keys: Any) -> Path:
    """Write the config of four steps on a few rows with one held-out row, which are two epochs."""
    if not (model := folder / "model").exists():
        tiny.model_folder(model, "llama")
    data = tiny.write_rows(folder / f"{rl}.jsonl", ROWS[rl])
    defaults: dict[str, Any] = {
        "base_model": str(model), "rl": rl, "datasets": [{"path": str(data), "type": "passthrough"}],
        "val_set_size": 1, "sequence_len": 40, "max_steps": 4, "num_epochs": 9, "learning_rate": 1e-2,
        "eval_steps": 2, "adam_epsilon": 1e-3, "lr_scheduler": "constant",
        "dataset_prepared_path": str(folder / "prepared"), "output_dir": str(folder / name),
    }  # fmt: skip
    return tiny.write_config(folder, f"{name}.yaml", **(defaults | keys))


def assert_same_metrics(folder: Path, reference: Path) -> None:
    """Check that two runs have the same metrics in every step, and that the policy has changed."""
    lines, expected_lines = tiny.metrics(folder), tiny.metrics(reference)
    assert len(lines) == 4 and abs(lines[-1]["rewards/chosen"]) > 1e-3
    for line, expected in zip(lines, expected_lines, strict=True):
        for name in {name for name in line if not name.startswith(("tokens_per_second", "speed/"))}:
            assert line[name] == pytest.approx(expected[name], rel=1e-4, abs=2e-5), f"{folder}: {name}"


def note(folder: Path) -> str:
    """Return the note of a run on its reference log-probabilities."""
    notes = json.loads((folder / "run.json").read_text("utf-8"))["notes"]
    return str(notes["reference log-probabilities"])


@pytest.mark.parametrize("adapter", [None, "lora"])
@pytest.mark.parametrize("rl", ["dpo", "kto"])
def test_precomputed_reference_equals_reference_model(rl: str, adapter: str | None, tmp_path: Path) -> None:
    tiny.train(config(tmp_path, "beside", rl, adapter=adapter))
    tiny.train(config(tmp_path, "once", rl, adapter=adapter, **KEEP))
    assert_same_metrics(tmp_path / "once", tmp_path / "beside")


def test_continued_adapter_is_the_reference(tmp_path: Path) -> None:
    tiny.train(config(tmp_path, "first", adapter="lora"))
    keys = {"adapter": "lora", "lora_model_dir": str(tmp_path / "first")}
    tiny.train(config(tmp_path, "beside", **keys))
    tiny.train(config(tmp_path, "once", **keys, **KEEP))
    assert_same_metrics(tmp_path / "once", tmp_path / "beside")


def test_no_second_model_is_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "load_again", lambda *_: pytest.fail("the model was copied"))
    result = tiny.train(config(tmp_path, "once", **KEEP))
    with result.policy.reference() as reference:
        assert reference.language_model is result.policy.language_model


def test_log_probabilities_are_reused_for_the_same_model_and_rows(tmp_path: Path) -> None:
    tiny.train(config(tmp_path, "first", **KEEP))
    assert "computed in" in note(tmp_path / "first")
    tiny.train(config(tmp_path, "second", **KEEP))
    assert note(tmp_path / "second").startswith("from ")
    assert [x["loss"] for x in tiny.metrics(tmp_path / "first")] == [
        x["loss"] for x in tiny.metrics(tmp_path / "second")
    ]
    tiny.train(config(tmp_path, "adapter", adapter="lora", seed=7, val_set_size=0, eval_steps=None, **KEEP))
    tiny.train(config(tmp_path, "seed", adapter="lora", seed=8, val_set_size=0, eval_steps=None, **KEEP))
    assert note(tmp_path / "seed").startswith("from "), "the initial weights of the adapter have no effect"
    tiny.model_folder(tmp_path / "other", "llama", num_hidden_layers=1)
    tiny.train(config(tmp_path, "another", base_model=str(tmp_path / "other"), **KEEP))
    assert "computed in" in note(tmp_path / "another")


def test_damaged_log_probabilities_are_recomputed(tmp_path: Path) -> None:
    tiny.train(config(tmp_path, "first", **KEEP))
    (file,) = (tmp_path / "prepared").glob("reference-*/train.npy")
    file.write_bytes(file.read_bytes()[:-4])
    tiny.train(config(tmp_path, "second", **KEEP))
    assert "computed in" in note(tmp_path / "second")
    assert tiny.metrics(tmp_path / "first")[-1]["loss"] == tiny.metrics(tmp_path / "second")[-1]["loss"]


@pytest.mark.parametrize("kept", [True, False])
def test_resumed_run_has_the_same_reference(kept: bool, tmp_path: Path) -> None:
    keys: dict[str, Any] = KEEP | {"save_steps": 2} | ({} if kept else {"dataset_prepared_path": None})
    uninterrupted = tiny.train(config(tmp_path, "uninterrupted", **keys))
    tiny.train(config(tmp_path, "parts", **keys), "max_steps=2")
    resumed = tiny.train(config(tmp_path, "parts", **keys), "resume_from_checkpoint=auto")
    pairs = zip(uninterrupted.policy.model.parameters(), resumed.policy.model.parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)


@pytest.mark.slow
def test_two_processes_compute_the_same_log_probabilities(tmp_path: Path) -> None:
    tiny.train(config(tmp_path, "one", gradient_accumulation_steps=2, **KEEP))
    half: dict[str, Any] = KEEP | {"dataset_prepared_path": None}
    sharded = config(tmp_path, "sharded", fsdp_config={}, **half)
    tiny.torchrun(2, config(tmp_path, "two", **half), sharded, config(tmp_path, "kept", **KEEP))
    for name in ("two", "sharded", "kept"):
        assert_same_metrics(tmp_path / name, tmp_path / "one")
    assert note(tmp_path / "kept").startswith("from ")


def test_plan_shows_the_reference_and_its_memory(tmp_path: Path) -> None:
    def planned(name: str, **keys: Any) -> dict[str, Any]:
        return plan(prepare(tiny.start(config(tmp_path, name, **keys))))

    copied, once, off = planned("copied"), planned("once", **KEEP), planned("off", adapter="lora")
    assert copied["reference"].startswith("a frozen copy of the model: ") and copied["memory"]["reference"] > 0
    assert once["reference"].startswith("log-probabilities, computed once") and "reference" not in once["memory"]
    assert "switched off" in off["reference"] and "reference" not in off["memory"]
    assert copied["memory"]["total"] - once["memory"]["total"] >= copied["memory"]["reference"] * 0.99
    labeled = planned("labelled", rl="kto")  # KTO also has a baseline, which each step computes
    assert labeled["memory"]["reference"] == copied["memory"]["reference"]
    assert "DataDependent" not in str(planned("weighted", dpo_use_weighting=True, dpo_loss_type=["sigmoid", "sft"]))
    sft = tiny.sft_config(tmp_path)
    assert plan(prepare(tiny.start(sft)))["reference"] == "none"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"rl": "simpo"}, "precompute_ref_log_probs has no effect: no active plugin uses a reference model"),
        ({"sync_ref_model": True}, "sync_ref_model cannot be used with precompute_ref_log_probs"),
        (
            {"streaming": True, "val_set_size": 0, "eval_steps": None},
            "precompute_ref_log_probs is not possible: examples are streamed",
        ),
    ],
)
def test_unsupported_settings_are_an_error(keys: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny.start(config(tmp_path, "refused", **(KEEP | keys)))
