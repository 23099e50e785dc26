"""Mistakes in the keys are errors with their place; what is allowed but unusual is a note."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tunesmith_dpo import options
from tunesmith_dpo.losses import LOSSES

from tests import one_step, rows, tiny
from tunesmith import ConfigError, DataError, Example, PluginError, collate

BAD: list[tuple[dict[str, Any], str]] = [
    ({"dpo_loss_type": ["sigmoid", "hing"]}, "has an unknown name: hing .*did you mean 'hinge'"),
    ({"dpo_loss_type": "entropy"}, "has an unknown name: entropy .*write one of aot"),
    ({"dpo_loss_type": []}, "dpo_loss_type is empty.*write dpo_loss_type"),
    ({"dpo_loss_type": ["sft", "sft"]}, "is a duplicate of the loss sft"),
    (
        {"dpo_loss_type": ["sigmoid", "sft"], "dpo_loss_weights": [1.0]},
        "one number for each loss of dpo_loss_type: expected 2, got 1",
    ),
    ({"dpo_loss_weights": [0.0]}, "dpo_loss_weights.0"),
    ({"dpo_label_smoothing": 0.1}, "dpo_label_smoothing has no effect on sigmoid.*robust"),
    ({"dpo_loss_type": "robust", "dpo_label_smoothing": 0.5}, "dpo_label_smoothing .*0.5"),
    ({"dpo_loss_type": "aot", "dpo_label_smoothing": -0.1}, "dpo_label_smoothing .*0"),
    ({"dpo_loss_type": "exo_pair"}, "dpo_loss_type has exo_pair, which needs label smoothing above 0"),
    ({"dpo_loss_type": "exo_pair", "dpo_label_smoothing": 0.0}, "dpo_label_smoothing must be above 0 with exo_pair"),
    ({"dpo_discopop_tau": 0.1}, "dpo_discopop_tau has no effect on sigmoid"),
    ({"dpo_loss_type": "aot", "dpo_use_weighting": True}, "dpo_use_weighting cannot be used with aot"),
    ({"dpo_loss_type": "sft", "dpo_use_weighting": True}, "dpo_use_weighting has no effect on sft"),
    ({"dpo_loss_type": "sft", "ld_alpha": 0.5}, "ld_alpha has no effect on sft"),
    ({"ld_alpha": 1.5}, "ld_alpha .*1"),
    ({"dpo_loss_type": "apo_zero", "f_divergence_type": "js_divergence"}, "js_divergence cannot be used with apo_zero"),
    ({"dpo_loss_type": "sft", "f_divergence_type": "js_divergence"}, "f_divergence_type has no effect on sft"),
    ({"f_alpha_divergence_coef": 0.3}, "f_alpha_divergence_coef has no effect on reverse_kl"),
    ({"ref_model_sync_steps": 8}, "ref_model_sync_steps has no effect without sync_ref_model"),
    ({"sync_ref_model": True, "adapter": "lora"}, "sync_ref_model needs a reference with its own weights"),
    ({"rl_beta": 0.0}, "rl_beta .*0"),
    ({"rl": "ipo", "dpo_loss_type": ["sigmoid"]}, "dpo_loss_type conflicts with rl: ipo"),
]


@pytest.mark.parametrize(("keys", "message"), BAD)
def test_a_mistake_is_one_error_with_its_place(keys: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = rows.config(tmp_path, "dpo", **keys)
    with pytest.raises(ConfigError) as caught:
        tiny.start(path)
    assert len(caught.value.problems) == 1
    problem = caught.value.problems[0]
    assert re.search(message, f"{problem.message} {problem.help}"), str(caught.value)
    assert problem.where and problem.where.startswith(str(path))


def test_two_mistakes_are_reported_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        tiny.start(rows.config(tmp_path, "dpo", dpo_label_smoothing=0.1, ref_model_mixup_alpha=0.5))
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    "keys",
    [
        {"dpo_loss_type": ["sigmoid", "robust"], "dpo_label_smoothing": 0.2},
        {"dpo_loss_type": ["ipo", "sft"], "f_divergence_type": "forward_kl", "dpo_use_weighting": True},
        {"rl": "ipo", "rl_beta": 0.2},
        {"rl": "ipo", "dpo_loss_type": "ipo"},
    ],
)
def test_a_key_that_affects_one_of_the_losses_is_accepted(keys: dict[str, Any], tmp_path: Path) -> None:
    tiny.start(rows.config(tmp_path, "dpo", **keys))


def test_rl_ipo_is_the_loss_ipo_and_names_its_replacement(tmp_path: Path) -> None:
    run = tiny.start(rows.config(tmp_path, "dpo", rl="ipo"))
    assert options.losses_of(run) == {"ipo": 1.0}
    assert any("write rl: dpo and dpo_loss_type: [ipo]" in str(note) for note in run.notes.values())
    assert not tiny.start(rows.config(tmp_path, "dpo")).notes


def test_names_and_losses_match() -> None:
    assert set(LOSSES) == options.OF_PAIRS and set(LOSSES) | {"sft"} == options.BUILT_IN


OFFER = "from tunesmith import Plugin\nplugin = Plugin(offers={'dpo_losses': {'NAME': ':loss'}})\n"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hinge", "duplicate name 'hinge' of dpo_losses: from plugin dpo and one .* and two "),
        ("new", "duplicate name 'new' of dpo_losses: from one .* and two "),
    ],
)
def test_a_duplicate_loss_is_refused(name: str, message: str, tmp_path: Path) -> None:
    path = rows.config(tmp_path, "dpo", dpo_loss_type=name, plugins=["./one.py", "./two.py"])
    for stem in ("one", "two"):
        (path.parent / f"{stem}.py").write_text(OFFER.replace("NAME", name))
    with pytest.raises(PluginError, match=message):
        tiny.start(path)


def test_an_import_error_of_a_loss_names_its_origin(tmp_path: Path) -> None:
    path = rows.config(tmp_path, "dpo", dpo_loss_type="new", plugins=["./one.py"])
    (path.parent / "one.py").write_text(OFFER.replace("NAME", "new"))
    run = tiny.start(path)
    with pytest.raises(PluginError, match=r"'new' of dpo_losses, which plugin one \(./one.py local\) offers, can't be"):
        run.offered("dpo_losses", "new", "dpo_loss_type")


def test_an_example_with_three_answers_is_not_a_pair() -> None:
    from tunesmith_dpo.margins import check_pairs

    check_pairs(collate([Example.branches([1], [[2], [3]])]))
    with pytest.raises(DataError, match="row 3 of entry 0: expected a chosen and a rejected answer, got 3"):
        check_pairs(collate([Example.branches([1], [[2], [3], [4]], origin=(0, 2)), Example.branches([1], [[2]])]))


def test_unused_margins_are_noted(tmp_path: Path) -> None:
    records = [row | {"margin": 1.0} for row in rows.close_pairs()]
    path = rows.config(tmp_path, "dpo", records=records)
    run, policy = one_step.started(path)
    one_step.loss_of(run, policy, [list(run.data.train)])
    assert "margins of the rows" in run.notes
