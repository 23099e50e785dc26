"""Log-probabilities of the reference, computed once: training is what it is with a reference beside it."""

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
LABELLED = [
    {"prompt": pair["prompt"], "completion": pair[side], "label": side == "chosen"}
    for pair in PAIRS
    for side in ("chosen", "rejected")
]
ROWS = {"dpo": PAIRS, "simpo": PAIRS, "kto": LABELLED}
KEEP = {"precompute_ref_log_probs": True}


def config(folder: Path, name: str, rl: str = "dpo", **keys: Any) -> Path:
    """Four steps on a few rows, of which one is held out; twice through the data."""
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


def same(ours: Path, theirs: Path) -> None:
    """All figures of two runs agree, step by step."""
    lines, others = tiny.metrics(ours), tiny.metrics(theirs)
    assert len(lines) == 4 and abs(lines[-1]["rewards/chosen"]) > 1e-3
    for line, other in zip(lines, others, strict=True):
        for name in set(line) - {"tokens_per_second", "seconds", "time"}:
            assert line[name] == pytest.approx(other[name], rel=1e-4, abs=2e-5), f"{ours}: {name}"


def note(folder: Path) -> str:
    notes = json.loads((folder / "run.json").read_text("utf-8"))["notes"]
    return str(notes["reference log-probabilities"])


@pytest.mark.parametrize("adapter", [None, "lora"])
@pytest.mark.parametrize("rl", ["dpo", "kto"])
def test_a_run_is_the_same_with_its_reference_asked_once(rl: str, adapter: str | None, tmp_path: Path) -> None:
    tiny.train(config(tmp_path, "beside", rl, adapter=adapter))
    tiny.train(config(tmp_path, "once", rl, adapter=adapter, **KEEP))
    same(tmp_path / "once", tmp_path / "beside")


def test_an_adapter_that_training_goes_on_from_is_the_reference(tmp_path: Path) -> None:
    tiny.train(config(tmp_path, "first", adapter="lora"))
    on = {"adapter": "lora", "lora_model_dir": str(tmp_path / "first")}
    tiny.train(config(tmp_path, "beside", **on))
    tiny.train(config(tmp_path, "once", **on, **KEEP))
    same(tmp_path / "once", tmp_path / "beside")


def test_no_second_model_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_reference", lambda *_: pytest.fail("a copy was made"))
    result = tiny.train(config(tmp_path, "once", **KEEP))
    with result.policy.reference() as reference:
        assert reference.language_model is result.policy.language_model


def test_what_was_asked_is_kept_for_runs_with_the_same_model_and_rows(tmp_path: Path) -> None:
    tiny.train(config(tmp_path, "first", **KEEP))
    assert "computed in" in note(tmp_path / "first")
    tiny.train(config(tmp_path, "second", **KEEP))
    assert note(tmp_path / "second").startswith("from ")
    assert [x["loss"] for x in tiny.metrics(tmp_path / "first")] == [
        x["loss"] for x in tiny.metrics(tmp_path / "second")
    ]
    tiny.train(config(tmp_path, "adapter", adapter="lora", seed=7, val_set_size=0, eval_steps=None, **KEEP))
    tiny.train(config(tmp_path, "seed", adapter="lora", seed=8, val_set_size=0, eval_steps=None, **KEEP))
    assert note(tmp_path / "seed").startswith("from "), "the adapter's own first weights do not matter"
    tiny.model_folder(tmp_path / "other", "llama", num_hidden_layers=1)
    tiny.train(config(tmp_path, "model", base_model=str(tmp_path / "other"), **KEEP))
    assert "computed in" in note(tmp_path / "model")


def test_what_is_damaged_is_computed_again(tmp_path: Path) -> None:
    tiny.train(config(tmp_path, "first", **KEEP))
    (file,) = (tmp_path / "prepared").glob("reference-*/train.npy")
    file.write_bytes(file.read_bytes()[:-4])
    tiny.train(config(tmp_path, "second", **KEEP))
    assert "computed in" in note(tmp_path / "second")
    assert tiny.metrics(tmp_path / "first")[-1]["loss"] == tiny.metrics(tmp_path / "second")[-1]["loss"]


@pytest.mark.parametrize("kept", [True, False])
def test_a_resumed_run_has_the_reference_that_it_had(kept: bool, tmp_path: Path) -> None:
    keys: dict[str, Any] = KEEP | {"save_steps": 2} | ({} if kept else {"dataset_prepared_path": None})
    whole = tiny.train(config(tmp_path, "whole", **keys))
    tiny.train(config(tmp_path, "parts", **keys), "max_steps=2")
    resumed = tiny.train(config(tmp_path, "parts", **keys), "resume_from_checkpoint=auto")
    pairs = zip(whole.policy.model.parameters(), resumed.policy.model.parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)


def test_two_processes_ask_the_same(tmp_path: Path) -> None:
    tiny.train(config(tmp_path, "one", gradient_accumulation_steps=2, **KEEP))
    half: dict[str, Any] = KEEP | {"dataset_prepared_path": None}
    sharded = config(tmp_path, "sharded", fsdp_config={}, **half)
    tiny.torchrun(2, config(tmp_path, "two", **half), sharded, config(tmp_path, "kept", **KEEP))
    for name in ("two", "sharded", "kept"):
        same(tmp_path / name, tmp_path / "one")
    assert note(tmp_path / "kept").startswith("from ")


def test_the_plan_names_the_reference_and_what_it_takes(tmp_path: Path) -> None:
    def planned(name: str, **keys: Any) -> dict[str, Any]:
        return plan(prepare(tiny.start(config(tmp_path, name, **keys))))

    copied, once, off = planned("copied"), planned("once", **KEEP), planned("off", adapter="lora")
    assert copied["reference"].startswith("a frozen copy of the model: ") and copied["memory"]["reference"] > 0
    assert once["reference"].startswith("log-probabilities, computed once") and "reference" not in once["memory"]
    assert "switched off" in off["reference"] and "reference" not in off["memory"]
    assert copied["memory"]["total"] - once["memory"]["total"] >= copied["memory"]["reference"] * 0.99
    labelled = planned("labelled", rl="kto")  # its baseline is a number of the step
    assert labelled["memory"]["reference"] == copied["memory"]["reference"]
    assert "DataDependent" not in str(planned("weighted", dpo_use_weighting=True, dpo_loss_type=["sigmoid", "sft"]))
    sft = tiny.sft_config(tmp_path)
    assert plan(prepare(tiny.start(sft)))["reference"] == "none"


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"rl": "simpo"}, "precompute_ref_log_probs has no effect: no active plugin uses a reference model"),
        ({"sync_ref_model": True}, "sync_ref_model moves the reference"),
        ({"streaming": True, "val_set_size": 0, "eval_steps": None}, "precompute_ref_log_probs can't be"),
    ],
)
def test_where_it_can_not_be_is_told(keys: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=told):
        tiny.start(config(tmp_path, "refused", **(KEEP | keys)))
