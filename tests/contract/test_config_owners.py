"""Keys without an owner, without effect, or in conflict with other keys are reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.fakes import BASE, DATA, error_of, load, local_plugin, problems_of, write
from tunesmith.config.load import load_config
from tunesmith.plugins import discovery


def test_key_of_a_missing_plugin_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rest = {name: c for name, c in discovery.installed().items() if name not in ("lora", "alpaca")}
    monkeypatch.setattr(discovery, "installed", lambda: dict(rest))
    text = BASE + "lora_r: 8\nadapter: lora\ndatasets:\n  - path: x\n    type: alpaca\n    field_output: x\n"
    path = write(tmp_path, text)
    problems = problems_of(error_of(load_config, path), path)
    assert [(where, p.code, p.help) for where, p in problems] == [
        ("2:1", "ownerless-key", 'pip install "tunesmith[lora]"'),
        ("3:1", "plugin-missing", 'pip install "tunesmith[lora]"'),
        ("6:5", "plugin-missing", 'pip install "tunesmith[alpaca]"'),
        ("7:5", "ownerless-key", 'pip install "tunesmith[alpaca]"'),
    ]


SELECTS = {  # a key of a plugin that is not selected -> what selects it
    "lora_dropout: 0.1": "adapter: lora",
    "num_generation_samples: 3": "generate_samples: true",
    "early_stopping_threshold: 0.1": "early_stopping_patience: ...",
    "tensorboard_dir: x": "use_tensorboard: true",
    "train_on_inputs: true": "type: alpaca in datasets",
    "default_system_message: x": "type: chat_template in datasets",
}


@pytest.mark.parametrize("line", SELECTS)
def test_setting_without_effect_says_how_to_select_its_plugin(line: str, tmp_path: Path) -> None:
    path = write(tmp_path, f"{BASE}{line}\n")
    [(where, problem)] = problems_of(error_of(load_config, path), path)
    assert (where, problem.code) == ("2:1", "orphaned-key")
    assert SELECTS[line] in str(problem.help)


@pytest.mark.parametrize(
    "line",
    [
        "lora_r: null", "adapter: null", "generate_samples: false", "use_tensorboard: false",
        "early_stopping_patience: null",
        "datasets: null", "plugins: null", "learning_rate: null", "datasets: [{path: x, type: alpaca, split: null}]",
        "datasets: [{path: x, type: chat_template, roles: null}]",
    ],
)  # fmt: skip
def test_null_and_false_select_no_plugin(line: str, tmp_path: Path) -> None:
    config, _ = load(tmp_path, BASE + line)
    assert not {"lora", "samples", "tensorboard", "earlystop"} & set(config.plugins)
    assert config.core.learning_rate == 2e-5


def test_null_with_a_meaning_is_kept(tmp_path: Path) -> None:
    assert load(tmp_path, BASE + "save_total_limit: null")[0].core.save_total_limit is None
    assert load(tmp_path, BASE)[0].core.save_total_limit == 4


def test_zero_does_not_disable_a_plugin(tmp_path: Path) -> None:
    """0 is a wrong value of the key. The key must not be reported as an orphan."""
    [problem] = error_of(load, tmp_path, BASE + "early_stopping_patience: 0").problems
    assert (problem.code, problem.message.split()[0]) == ("wrong-type", "early_stopping_patience")


def test_streamed_entry_needs_no_type(tmp_path: Path) -> None:
    config, _ = load(tmp_path, BASE + "max_steps: 1\npretraining_dataset: [{path: x.jsonl, text_column: words}]")
    assert config.streamed[0].strategy == "completion"


def test_mistake_on_the_command_line_is_reported_there(tmp_path: Path) -> None:
    words = [
        "lerning_rate=1",
        "seed=x",
        "fsdp_confg.offload_params=true",
        "datasets.0.path=3",
        "special_tokens={eos: x}",
    ]
    error = error_of(load, tmp_path, BASE + "seed: 3\ndatasets: [{path: x, type: alpaca}]", *words)
    assert {p.where for p in error.problems} == {f"command line ({w.split('=')[0]})" for w in words}


def test_rows_of_a_kind_that_the_method_cannot_use_are_an_error(tmp_path: Path) -> None:
    source = "plugin = Plugin(method=Method(rows=('pair',)))\n@hookimpl\ndef compute_loss(): ...\n"
    (tmp_path / "pairs.py").write_text("from tunesmith import Method, Plugin, hookimpl\n" + source)
    path = write(tmp_path, BASE + "plugins: [./pairs.py]\ndatasets:\n  - path: x\n    type: alpaca\n")
    [(where, problem)] = problems_of(error_of(load_config, path), path)
    assert (where, problem.code) == ("5:11", "row-kind")
    assert "conversation" in problem.message and "pair" in problem.message


def test_unknown_key_may_belong_to_a_plugin_that_is_missing(tmp_path: Path) -> None:
    error = error_of(load, tmp_path, BASE + DATA + "plugins: [./missing.py]\nzzz_every: 3\n")
    assert [(p.code, p.help) for p in error.problems if p.code != "plugin-missing"] == [
        ("unknown-key", "if it is a key of a plugin that can't be used, fix the plugin first")
    ]


# conflicting keys

CONFLICTS = {
    "save_steps: 3\nsaves_per_epoch: 1": ["save_steps"],
    "eval_steps: 3\nevals_per_epoch: 1": ["eval_steps"],
    "load_best_model_at_end: true": ["load_best_model_at_end"],
    "val_set_size: 0.1\nmetric_for_best_model: loss": ["metric_for_best_model"],
    "pretraining_dataset: [{path: x}]\nval_set_size: 0.1": ["pretraining_dataset", "val_set_size"],
    "gradient_checkpointing_kwargs: {use_reentrant: true}": ["gradient_checkpointing_kwargs"],
    "warmup_ratio: 0.1\nwarmup_steps: 3\nsave_steps: 1\nsaves_per_epoch: 1": ["save_steps", "warmup_ratio"],
}  # fmt: skip


@pytest.mark.parametrize("lines", CONFLICTS)
def test_conflicting_keys_are_all_reported_with_their_places(lines: str, tmp_path: Path) -> None:
    from tunesmith.api import start

    path = write(tmp_path, BASE + ("" if "pretraining_dataset" in lines else DATA) + lines)
    error = error_of(start, load_config(path))
    assert error.exit_code == 2
    assert [p.message.split()[0] for p in error.problems] == CONFLICTS[lines]
    for problem in error.problems:
        number = [line.split(":")[0] for line in path.read_text().splitlines()].index(problem.message.split()[0]) + 1
        assert str(problem.where).startswith(f"{path}:{number}:")


OWNER = "class Mine(Settings):\n    every: {type}\nplugin = Plugin(settings=Mine, shared={shared})\n"


@pytest.mark.parametrize(
    ("one", "two", "words"),
    [
        (("int = 1", ()), ("int = 1", ()), "both declare Plugin(shared="),
        (("int = 1", ("every",)), ("int = 1", ()), "both declare Plugin(shared="),
        (("int = 1", ("every",)), ("str = 'x'", ("every",)), "different types or defaults"),
        (("int = 1", ("every",)), ("int = 2", ("every",)), "different types or defaults"),
    ],
)
def test_two_active_owners_of_a_key_are_both_named(one: tuple, two: tuple, words: str, tmp_path: Path) -> None:  # type: ignore[type-arg]
    for name, (kind, shared) in (("one", one), ("two", two)):
        local_plugin(tmp_path, name, OWNER.format(type=kind, shared=shared))
    path = write(tmp_path, BASE + "plugins: [./one.py, ./two.py]\nevery: 3\n")
    error = error_of(load_config, path)
    where, problem = problems_of(error, path)[0]
    assert (where, problem.code) == ("3:1", "plugin-shared-key")
    assert "every belongs to one (./one.py local) and two (./two.py local)" in problem.message and words in str(problem)


def test_a_shared_key_reaches_both_owners(tmp_path: Path) -> None:
    for name in ("one", "two"):
        local_plugin(tmp_path, name, OWNER.format(type="int = 1", shared=("every",)))
    config, _ = load(tmp_path, BASE + "plugins: [./one.py, ./two.py]\nevery: 3\n")
    assert [config.plugins[name].every for name in ("one", "two")] == [3, 3]  # type: ignore[union-attr]


def test_a_shared_key_that_the_settings_lack_is_an_error(tmp_path: Path) -> None:
    local_plugin(tmp_path, "one", OWNER.format(type="int = 1", shared=("evry",)))
    [problem] = error_of(load, tmp_path, BASE + "plugins: [./one.py]").problems
    assert problem.code == "plugin-shape" and "shared names evry" in problem.message
