"""What is wrong with the keys is said by `check`, each with its place; what is allowed and odd is a note."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tunesmith_dpo import installed, options
from tunesmith_dpo.losses import LOSSES

from plugins.dpo.tests import made
from tests import one_step, tiny
from tunesmith import ConfigError, DataError, Example, PluginError, collate

BAD: list[tuple[dict[str, Any], str]] = [
    ({"dpo_loss_type": ["sigmoid", "hing"]}, "hing is no loss.*did you mean 'hinge'"),
    ({"dpo_loss_type": "entropy"}, "entropy is no loss.*known: aot"),
    ({"dpo_loss_type": []}, "names no loss"),
    ({"dpo_loss_type": ["sft", "sft"]}, "sft is named twice"),
    ({"dpo_loss_type": ["sigmoid", "sft"], "dpo_loss_weights": [1.0]}, "has 1 of them for 2 in dpo_loss_type"),
    ({"dpo_loss_weights": [0.0]}, "dpo_loss_weights.0"),
    ({"dpo_label_smoothing": 0.1}, "dpo_label_smoothing has no effect on sigmoid.*robust"),
    ({"dpo_loss_type": "robust", "dpo_label_smoothing": 0.5}, "dpo_label_smoothing .*0.5"),
    ({"dpo_loss_type": "aot", "dpo_label_smoothing": -0.1}, "dpo_label_smoothing .*0"),
    ({"dpo_loss_type": "exo_pair"}, "exo_pair needs label smoothing above 0"),
    ({"dpo_loss_type": "exo_pair", "dpo_label_smoothing": 0.0}, "exo_pair needs label smoothing above 0"),
    ({"dpo_discopop_tau": 0.1}, "dpo_discopop_tau has no effect on sigmoid"),
    ({"dpo_loss_type": "aot", "dpo_use_weighting": True}, "dpo_use_weighting can't go with aot"),
    ({"dpo_loss_type": "sft", "dpo_use_weighting": True}, "dpo_use_weighting has no effect on sft"),
    ({"dpo_loss_type": "sft", "ld_alpha": 0.5}, "ld_alpha has no effect on sft"),
    ({"ld_alpha": 1.5}, "ld_alpha .*1"),
    ({"dpo_loss_type": "apo_zero", "f_divergence_type": "js_divergence"}, "js_divergence can't go with apo_zero"),
    ({"dpo_loss_type": "sft", "f_divergence_type": "js_divergence"}, "f_divergence_type has no effect on sft"),
    ({"f_alpha_divergence_coef": 0.3}, "f_alpha_divergence_coef has no effect on reverse_kl"),
    ({"ref_model_sync_steps": 8}, "ref_model_sync_steps has no effect without sync_ref_model"),
    ({"sync_ref_model": True, "adapter": "lora"}, "sync_ref_model needs a reference with weights of its own"),
    ({"rl_beta": 0.0}, "rl_beta .*0"),
    ({"rl": "ipo", "dpo_loss_type": ["sigmoid"]}, "dpo_loss_type and rl: ipo say two things"),
]


@pytest.mark.parametrize(("keys", "message"), BAD)
def test_a_mistake_is_one_error_with_its_place(keys: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = made.config(tmp_path, **keys)
    with pytest.raises(ConfigError) as caught:
        tiny.start(path)
    assert len(caught.value.problems) == 1
    problem = caught.value.problems[0]
    assert re.search(message, f"{problem.message} {problem.help}"), str(caught.value)
    assert problem.where and problem.where.startswith(str(path))


def test_two_mistakes_are_said_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        tiny.start(made.config(tmp_path, dpo_label_smoothing=0.1, ref_model_mixup_alpha=0.5))
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
def test_what_has_an_effect_on_one_of_the_losses_is_taken(keys: dict[str, Any], tmp_path: Path) -> None:
    tiny.start(made.config(tmp_path, **keys))


def test_rl_ipo_is_the_loss_ipo_and_says_what_to_write(tmp_path: Path) -> None:
    run = tiny.start(made.config(tmp_path, rl="ipo"))
    assert options.losses_of(run) == {"ipo": 1.0}
    assert any("write rl: dpo and dpo_loss_type: [ipo]" in str(note) for note in run.notes.values())
    assert not tiny.start(made.config(tmp_path)).notes


def test_every_name_has_a_loss_and_every_loss_a_name() -> None:
    assert set(LOSSES) == options.OF_PAIRS and set(LOSSES) | {"sft"} == options.BUILT_IN


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([("hinge", "one:f")], "two have a loss 'hinge' for dpo_loss_type: plugin dpo and one:f"),
        ([("mine", "one:f"), ("mine", "two:f")], "two have a loss 'mine' for dpo_loss_type: one:f and two:f"),
    ],
)
def test_a_name_of_two_owners_is_refused(
    entries: list[tuple[str, str]], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [metadata.EntryPoint(name, value, installed.GROUP) for name, value in entries]
    monkeypatch.setattr(installed, "metadata", SimpleNamespace(entry_points=lambda group: found))
    with pytest.raises(PluginError, match=message):
        tiny.start(made.config(tmp_path))


def test_a_loss_that_can_not_be_imported_names_where_it_is_from(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = metadata.EntryPoint("gone", "no_such_module:f", installed.GROUP)
    monkeypatch.setattr(installed, "installed", lambda: {"gone": entry})
    with pytest.raises(PluginError, match="the loss 'gone' of no_such_module:f can't be imported: ModuleNotFoundError"):
        installed.load("gone")


def test_an_example_of_three_answers_is_no_pair() -> None:
    from tunesmith_dpo.margins import check_pairs

    check_pairs(collate([Example.branches([1], [[2], [3]])]))
    with pytest.raises(DataError, match="gives 3 answers"):
        check_pairs(collate([Example.branches([1], [[2], [3], [4]]), Example.branches([1], [[2]])]))


def test_a_margin_that_no_loss_reads_is_said(tmp_path: Path) -> None:
    rows = [row | {"margin": 1.0} for row in made.rows()]
    path = made.config(
        tmp_path, datasets=[{"path": str(tiny.write_rows(tmp_path / "m.jsonl", rows)), "type": "passthrough"}]
    )
    run, policy = one_step.started(path)
    one_step.loss_of(run, policy, [list(run.data.train)])
    assert "margins of the rows" in run.notes
