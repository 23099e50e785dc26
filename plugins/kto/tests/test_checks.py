"""Keys and rows that KTO cannot use are refused, and likely mistakes are noted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tunesmith_kto import KTOSettings
from tunesmith_kto.checks import check_rows

from tests import rows, tiny
from tunesmith import ConfigError, DataError
from tunesmith.api import plan, prepare


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("rl_beta", 0.0, "rl_beta.*greater than 0"),
        ("kto_desirable_weight", 0.0, "kto_desirable_weight.*greater than 0"),
        ("kto_undesirable_weight", -1.0, "kto_undesirable_weight.*greater than 0"),
        ("kto_loss_type", "apo_zero", "kto_loss_type.*apo_zero_unpaired"),
        ("dpo_loss_type", ["sigmoid"], "dpo_loss_type"),
        ("orpo_alpha", 0.1, "orpo_alpha"),
    ],
)
def test_a_value_out_of_range_and_a_key_of_another_method_are_refused(
    key: str, value: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        tiny.start(rows.config(tmp_path, "kto", **{key: value}))
    assert len(caught.value.problems) == 1


def test_types_of_pairs_are_refused(tmp_path: Path) -> None:
    entry = {"path": str(tmp_path / "labelled.jsonl"), "type": "zephyr.nectar"}
    with pytest.raises(ConfigError, match="labelled"):
        tiny.start(rows.config(tmp_path, "kto", datasets=[entry]))


@pytest.mark.parametrize(("number", "message"), [(1, "there is only one row"), (5, "all 5 rows have the same prompt")])
@pytest.mark.parametrize("group", ["datasets", "test_datasets"])
def test_an_entry_with_one_prompt_is_refused_by_its_place(
    group: str, number: int, message: str, tmp_path: Path
) -> None:
    row = {"prompt": "the cat", "completion": "sees", "label": True}
    data = tiny.write_rows(tmp_path / "one.jsonl", [row, *[row | {"label": False}] * (number - 1)])
    path = rows.config(tmp_path, "kto", **{group: [{"path": str(data), "type": "passthrough"}]})
    with pytest.raises(DataError, match=message) as caught:
        plan(prepare(tiny.start(path)))
    (problem,) = caught.value.problems
    assert "at least two different prompts" in str(problem.help) and str(problem.where).startswith(str(path))
    if group == "test_datasets" or number > 1:  # a single row has a single label, too
        tiny.train(path, "kto_loss_type=apo_zero_unpaired", "max_steps=1")


def test_a_stream_with_one_prompt_is_refused_at_its_first_step(tmp_path: Path) -> None:
    row = {"prompt": "the cat", "completion": "sees", "label": True}
    data = tiny.write_rows(tmp_path / "one.jsonl", [row] * 3)
    stream = [{"path": str(data), "type": "passthrough"}]
    path = rows.config(tmp_path, "kto", datasets=None, num_epochs=None, pretraining_dataset=stream)
    with pytest.raises(DataError, match="same prompt"):
        tiny.train(path)


def notes_about(folder: Path, labels: list[bool], **keys: Any) -> dict[str, Any]:
    """Return the warnings about rows with these labels."""
    records = [row | {"label": label} for row, label in zip(rows.labelled(len(labels)), labels, strict=True)]
    run = prepare(tiny.start(rows.config(folder, "kto", records=records, **keys)))
    before = set(run.notes)
    check_rows(run, run.settings(KTOSettings))
    return {name.rpartition(": ")[2]: note for name, note in run.notes.items() if name not in before}


@pytest.mark.parametrize("loss", ["kto", "apo_zero_unpaired"])
@pytest.mark.parametrize(("label", "other"), [(True, "false"), (False, "true")])
def test_a_single_label_is_refused_before_weights_are_read(label: bool, other: str, loss: str, tmp_path: Path) -> None:
    records = [row | {"label": label} for row in rows.labelled(4)]
    path = rows.config(tmp_path, "kto", records=records, kto_loss_type=loss)
    (tmp_path / "model-llama" / "model.safetensors").unlink()
    run = prepare(tiny.start(path, "reinit_weights=true"))
    with pytest.raises(DataError, match=r"all 4 rows are labeled \w+: KTO needs answers of both labels") as caught:
        plan(run)
    (problem,) = caught.value.problems
    assert problem.code == "one-label" and f"labeled {other}" in str(problem.help)
    assert str(problem.where).startswith(str(path))


def test_entries_with_one_label_each_are_accepted_together(tmp_path: Path) -> None:
    for name, label in (("good", True), ("bad", False)):
        tiny.write_rows(tmp_path / f"{name}.jsonl", [row | {"label": label} for row in rows.labelled(8)])
    entries = [{"path": str(tmp_path / f"{name}.jsonl"), "type": "passthrough"} for name in ("good", "bad")]
    plan(prepare(tiny.start(rows.config(tmp_path, "kto", datasets=entries))))


def test_a_warning_about_unbalanced_labels_names_the_weight_that_fixes_them(tmp_path: Path) -> None:
    labels = [True] * 2 + [False] * 8
    (message,) = notes_about(tmp_path, labels).values()
    assert "2 rows are labeled true and 8 false" in message and "kto_desirable_weight of 4.00 to 5.33" in message
    for weight in (4.0, 5.33):
        assert not notes_about(tmp_path, labels, kto_desirable_weight=weight)
    assert not notes_about(tmp_path, labels, kto_undesirable_weight=0.25)
    assert not notes_about(tmp_path, [True, False] * 5)
