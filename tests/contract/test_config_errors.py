"""Every wrong key and value of a config, at every depth: all at once, each with its place and what to write instead."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import yaml
from hypothesis import strategies as st
from tests.contract.fakes import BASE, load, refusal, write

from tunesmith import discovery, keys
from tunesmith.config import load_config
from tunesmith.errors import Problem, TunesmithError

# `@` stands before each mistake and is taken out before the file is written.
MISTAKES = """\
# Each line has one mistake, or two.
@base_mdoel: nobody/nothing
plugins: [@earlystopp]
learning_rate: @"2e-4"
micro_batch_size: @1,000
num_epochs: @5%
sample_packing: @yes
device: @gpu
@lora_r: 8
@lora_alfa: 3
@adapter: lroa
@optimizer: adamw_torhc
@field_messages: x
fsdp_config: {@offload_parms: true, state_dict_type: @SHARDED}
gradient_checkpointing_kwargs:
  @use_reentrnt: false
special_tokens: {eos_token: @3, @eos: x}
@wandb_project: x
max_grad_norm: @-1
datasets:
  - path: a.jsonl
    type: chat_template
    @feild_messages: x
    @field_instruction: y
    roles_to_train: @assistant
    message_property_mappings: {role: @3}
    train_on_eos: @trun
    @seed: 3
  - path: b.jsonl
    @type: alpcaa
  - @type: completion
    field: text
  - @words
"""
EXPECTED = [  # in the order of MISTAKES: code, key or word, what to write instead
    ("unknown-key", "base_mdoel", "did you mean 'base_model'?"),
    ("plugin-unknown", "'earlystopp'", "did you mean 'earlystop'?"),
    ("wrong-type", "learning_rate has to be a number", None),
    ("wrong-type", "micro_batch_size has to be an integer", None),
    ("wrong-type", "num_epochs has to be a number", None),
    ("wrong-type", "sample_packing has to be a boolean", None),
    ("wrong-type", "device has to be 'auto', 'cpu' or 'cuda'", None),
    ("orphaned-key", "lora_r belongs to the plugin lora (tunesmith-lora ", "write adapter: lora"),
    ("unknown-key", "lora_alfa", "did you mean 'lora_alpha'?"),
    ("unknown-value", "adapter: lroa", "did you mean 'lora'?"),
    ("unknown-value", "optimizer: adamw_torhc", "did you mean 'adamw_torch'?"),
    ("unknown-key", "field_messages", "inside an entry of datasets:"),
    ("unknown-key", "fsdp_config.offload_parms", "did you mean 'offload_params'?"),
    ("wrong-type", "fsdp_config.state_dict_type has to be 'FULL_STATE_DICT'", None),
    ("unknown-key", "gradient_checkpointing_kwargs.use_reentrnt", "did you mean 'use_reentrant'?"),
    ("wrong-type", "special_tokens.eos_token has to be a string, not 3", None),
    ("unknown-key", "special_tokens.eos", "eos_token"),
    ("refused-key", "wandb_project is not taken", "drop it"),
    ("wrong-type", "max_grad_norm has to be greater than or equal to 0", None),
    ("unknown-key", "datasets.0.feild_messages", "did you mean 'field_messages'?"),
    ("orphaned-key", "datasets.0.field_instruction belongs to the plugin alpaca (tunesmith-alpaca ", "type: alpaca"),
    ("wrong-type", "datasets.0.roles_to_train has to be a list", None),
    ("wrong-type", "datasets.0.message_property_mappings.role has to be a string", None),
    ("wrong-type", "datasets.0.train_on_eos has to be", "did you mean 'turn'?"),
    ("unknown-key", "datasets.0.seed", "at the top level"),
    ("unknown-value", "type: alpcaa", "did you mean 'alpaca'?"),
    ("missing-key", "datasets.2.path is missing", "write path: ..."),
    ("wrong-type", "datasets.3 has to be", None),
]


def marked(text: str) -> tuple[str, list[str]]:
    """The text without its marks, and line:column of each."""
    places = []
    for number, line in enumerate(text.splitlines(), 1):
        places += [f"{number}:{m.start() + 1 - count}" for count, m in enumerate(re.finditer("@", line))]
    return text.replace("@", ""), places


def found(error: TunesmithError, path: Path) -> list[tuple[str, Problem]]:
    return [(str(p.where).removeprefix(f"{path}:"), p) for p in error.problems]


def test_all_mistakes_are_told_at_once_with_place_and_suggestion(tmp_path: Path) -> None:
    text, places = marked(MISTAKES)
    assert len(places) == len(EXPECTED) >= 12
    path = write(tmp_path, text)
    error = refusal(load_config, path)
    assert error.exit_code == 2
    problems = found(error, path)
    for place, (code, words, help) in zip(places, EXPECTED, strict=True):
        fitting = [p for where, p in problems if where == place and p.code == code]
        assert len(fitting) == 1, (place, code, words, problems)
        assert words in fitting[0].message
        assert help is None or help in str(fitting[0].help)
    extra = [p.message for where, p in problems if where not in places]
    assert extra == ["base_model is missing"]  # follows from its misspelling


def test_mistakes_are_told_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, marked(MISTAKES)[0])
    lines = [tuple(map(int, where.split(":"))) for where, _ in found(refusal(load_config, path), path)]
    assert lines == sorted(lines)


def test_each_mistake_is_one_line_and_its_help(tmp_path: Path) -> None:
    path = write(tmp_path, marked(MISTAKES)[0])
    for line in str(refusal(load_config, path)).splitlines():
        assert re.match(rf"{re.escape(str(path))}:\d+:\d+: error\[[a-z-]+\]: .|  help: .", line), line


def test_check_of_mistakes_is_fast_and_imports_no_torch(tmp_path: Path) -> None:
    path = write(tmp_path, marked(MISTAKES)[0])
    code = (
        "import sys\nfrom tunesmith.cli import main\n"
        "try: main(['check', sys.argv[1]])\n"
        "finally: print([m for m in ('torch', 'transformers', 'datasets') if m in sys.modules])"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    assert (done.returncode, done.stdout.strip()) == (2, "[]")
    assert done.stderr.count("error[") > len(EXPECTED)
    assert "Traceback" not in done.stderr
    assert seconds < 5  # promised: 2; the machines of tests are shared


# misspellings

GOOD: dict[str, Any] = {
    "base_model": "nobody/nothing", "adapter": "lora", "lora_r": 8, "lora_alpha": 16, "lora_target_linear": True,
    "learning_rate": 1e-4, "weight_decay": 0.1, "warmup_steps": 3, "sequence_len": 512, "sample_packing": True,
    "micro_batch_size": 2, "gradient_accumulation_steps": 4, "num_epochs": 2, "max_grad_norm": 1.0, "val_set_size": 0.1,
    "gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False},
    "fsdp_config": {"offload_params": True, "activation_checkpointing": False},
    "special_tokens": {"pad_token": "<pad>", "eos_token": "<eos>"}, "generate_samples": True, "early_stopping_patience": 3,
    "output_dir": "out", "logging_steps": 5,
    "datasets": [
        {"path": "a.jsonl", "type": "chat_template", "split": "train", "field_messages": "m", "train_on_eos": "turn"},
        {"path": "b.jsonl", "type": "alpaca", "field_instruction": "task", "field_output": "answer"},
    ],
}  # fmt: skip
FOLLOWS = {"missing-key", "orphaned-key"}
"""What a misspelling may bring with it: the right key is missing, or what it selected is no longer selected."""


def paths(node: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every key at every depth."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        if isinstance(key, str):
            yield (*above, key)
        yield from paths(value, (*above, key))


def misspelt(key: str, how: str, place: int) -> str:
    """A key with one letter deleted or doubled, or two neighbours swapped."""
    place %= len(key) - (how == "swap")
    if how == "delete":
        return key[:place] + key[place + 1 :]
    if how == "double":
        return key[: place + 1] + key[place:]
    return key[:place] + key[place + 1] + key[place] + key[place + 2 :]


def renamed(node: Any, path: tuple[Any, ...], name: str) -> Any:
    """A copy with the key at a path renamed, in its place."""
    if isinstance(node, list):
        return [renamed(v, path[1:], name) if path and i == path[0] else v for i, v in enumerate(node)]
    if len(path) == 1:
        return {name if k == path[0] else k: v for k, v in node.items()}
    return {k: renamed(v, path[1:], name) if k == path[0] else v for k, v in node.items()}


def test_good_config_is_accepted(tmp_path: Path) -> None:
    config, _ = load(tmp_path, yaml.safe_dump(GOOD, sort_keys=False))
    assert [spec.strategy for spec in config.datasets] == ["chat", "alpaca"]


def test_every_misspelling_is_named_at_its_place_and_the_right_key_suggested(tmp_path: Path) -> None:
    outcomes: list[tuple[str, str, bool]] = []

    @hypothesis.settings(max_examples=150, deadline=None, derandomize=True, database=None)
    @hypothesis.given(st.sampled_from(list(paths(GOOD))), st.sampled_from(["delete", "double", "swap"]), st.integers(0, 30))
    def misspell(path: tuple[Any, ...], how: str, place: int) -> None:
        key = str(path[-1])
        wrong = misspelt(key, how, place)
        hypothesis.assume(wrong != key)
        file = write(tmp_path, yaml.safe_dump(renamed(GOOD, path, wrong), sort_keys=False))
        lines = file.read_text("utf-8").splitlines()
        line = next(n for n, text in enumerate(lines, 1) if re.match(rf"[ -]*{re.escape(wrong)}:", text))
        column = len(lines[line - 1]) - len(lines[line - 1].lstrip(" -")) + 1
        problems = found(refusal(load_config, file), file)
        mine = [p for where, p in problems if where == f"{line}:{column}" and p.code == "unknown-key"]
        assert len(mine) == 1, (wrong, problems)
        assert {p.code for where, p in problems if where != f"{line}:{column}"} <= FOLLOWS
        outcomes.append((wrong, key, mine[0].help == f"did you mean {key!r}?"))

    misspell()
    assert len(outcomes) >= 100
    missed = [(wrong, key) for wrong, key, right in outcomes if not right]
    assert len(missed) <= 0.05 * len(outcomes), missed


def every_misspelling(key: str) -> set[str]:
    return {misspelt(key, how, place) for how in ("delete", "double", "swap") for place in range(len(key))}


def test_every_misspelling_of_every_installed_key_is_named_and_19_of_20_suggested(tmp_path: Path) -> None:
    """Of the core and all plugins, at the top and in entries of `datasets:`: one file with all of them."""
    available = discovery.installed()
    tops = {*keys.core_schema()["properties"], *keys.owners(available, "schema")}
    lower = {*keys.dataset_schema()["properties"], *keys.owners(available, "dataset_schema")}
    groups: dict[str, tuple[set[str], set[str]]] = {  # where -> keys, names that are keys of some sort
        "top": (tops, tops | lower | set(keys.refused())),
        "entry": (lower, lower | tops),
    }
    wrong: dict[tuple[str, str], set[str]] = {}
    for group, (known, taken) in groups.items():
        for key in known:
            for word in every_misspelling(key) - taken - {"", "y", "n"}:
                wrong.setdefault((group, word), set()).add(key)
    text = BASE + "".join(f"{word}: 1\n" for group, word in wrong if group == "top")
    text += "datasets:\n  - {path: x.jsonl, type: chat_template}\n"
    text += "".join(f"    {word}: 1\n" for group, word in wrong if group == "entry").replace("}\n", "", 1)
    text = text.replace("  - {path: x.jsonl, type: chat_template}\n", "  - path: x.jsonl\n    type: chat_template\n")
    helps = {p.message: str(p.help) for p in refusal(load, tmp_path, text).problems}
    missed = []
    for (group, word), rights in wrong.items():
        name = word if group == "top" else f"datasets.0.{word}"
        help = helps.get(f"{name} is no key")
        assert help, f"{name} was not named"
        if not any(help == f"did you mean {right!r}?" for right in rights):
            missed.append((word, rights, help))
    assert len(wrong) > 2_000
    assert len(missed) <= 0.05 * len(wrong), missed


# types

TYPES = [
    *((key, bad) for key in ("micro_batch_size", "sequence_len", "max_steps") for bad in (0, -1, 1.5, "1,000", True, [1])),
    *((key, bad) for key in ("learning_rate", "num_epochs") for bad in (0, -1e-4, "5%", float("nan"), float("inf"), "fast")),
    *((key, bad) for key in ("sample_packing", "gradient_checkpointing") for bad in ("yes", "on", 1, 0, "true")),
    ("seed", -1), ("seed", "x"), ("max_grad_norm", float("nan")), ("val_set_size", -0.1), ("val_set_size", float("inf")),
    ("base_model", 3), ("output_dir", ["x"]), ("bf16", "yes"), ("device", "gpu"), ("excess_length_strategy", "cut"),
    ("plugins", "lora"), ("plugins", 3), ("plugins", {"lora": 1}), ("plugins", [[1]]),
    ("rl", 3), ("adapter", ["lora"]), ("optimizer", 1), ("lr_scheduler", True),
    ("datasets", "x.jsonl"), ("datasets", {"path": "x"}), ("datasets", 3), ("datasets", ["x"]), ("pretraining_dataset", [1]),
    ("weight_decay", -1), ("weight_decay", float("inf")), ("adam_beta1", 1), ("warmup_ratio", 2), ("warmup_steps", 1.5),
    ("fsdp_config", True), ("special_tokens", ["x"]), ("save_total_limit", 0),
]  # fmt: skip


@pytest.mark.parametrize(("key", "bad"), TYPES, ids=lambda x: str(x))
def test_value_of_a_wrong_type_is_named_with_its_place(key: str, bad: Any, tmp_path: Path) -> None:
    values = {"base_model": "nobody/nothing", key: bad}
    shown = json.dumps(bad).replace("NaN", ".nan").replace("Infinity", ".inf")
    text = "".join(f"{k}: {shown if k == key else v}\n" for k, v in values.items())
    path = write(tmp_path, text)
    error = refusal(load_config, path)
    assert error.exit_code == 2
    line = list(values).index(key) + 1
    column = len(key) + 3
    places = [f"{line}:{column + depth}" for depth in range(3)]  # of the value, or of an item of a list in it
    mine = [p for where, p in found(error, path) if where in places]
    assert [p.code for p in mine if p.message.startswith(key)] == ["wrong-type"]


def test_two_missing_keys_of_one_entry_are_both_told(tmp_path: Path) -> None:
    error = refusal(load, tmp_path, BASE + "datasets:\n  - split: train\n")
    assert [p.message for p in error.problems] == ["datasets.0.path is missing", "datasets.0.type is missing"]


def test_key_whose_name_is_that_of_a_type_keeps_its_place(tmp_path: Path) -> None:
    """pydantic names the branches of a union in an error's path; a key may have the same name."""
    text = BASE + "datasets:\n  - path: x\n    type: chat_template\n    message_property_mappings: {str: 1, Role: 2}\n"
    path = write(tmp_path, text)
    assert [(w, p.message.split()[0]) for w, p in found(refusal(load_config, path), path)] == [
        ("5:38", "datasets.0.message_property_mappings.str"),
        ("5:47", "datasets.0.message_property_mappings.Role"),
    ]


# owners


def test_key_of_a_plugin_that_is_not_installed_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rest = {name: c for name, c in discovery.installed().items() if name not in ("lora", "alpaca")}
    monkeypatch.setattr(discovery, "installed", lambda: dict(rest))
    text = BASE + "lora_r: 8\nadapter: lora\ndatasets:\n  - path: x\n    type: alpaca\n    field_output: x\n"
    path = write(tmp_path, text)
    problems = found(refusal(load_config, path), path)
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
    "chat_template: jinja": "type: chat_template in datasets",
}


@pytest.mark.parametrize("line", SELECTS)
def test_setting_without_effect_says_what_would_select_its_plugin(line: str, tmp_path: Path) -> None:
    path = write(tmp_path, f"{BASE}{line}\n")
    [(where, problem)] = found(refusal(load_config, path), path)
    assert (where, problem.code) == ("2:1", "orphaned-key")
    assert SELECTS[line] in str(problem.help)


@pytest.mark.parametrize("key", keys.refused())
def test_key_that_is_not_taken_says_why_and_what_to_write(key: str, tmp_path: Path) -> None:
    [problem] = refusal(load, tmp_path, f"{BASE}{key}: 1\n").problems
    entry = keys.refused()[key]
    assert (problem.code, problem.help) == ("refused-key", entry["write"])
    assert entry["reason"] in problem.message


@pytest.mark.parametrize(
    "line",
    [
        "lora_r: null", "adapter: null", "generate_samples: false", "use_tensorboard: false", "early_stopping_patience: null",
        "datasets: null", "plugins: null", "learning_rate: null", "datasets: [{path: x, type: alpaca, split: null}]",
        "datasets: [{path: x, type: chat_template, roles: null}]",
    ],
)  # fmt: skip
def test_null_means_absent_and_a_switch_that_is_off_selects_nothing(line: str, tmp_path: Path) -> None:
    config, _ = load(tmp_path, BASE + line)
    assert not {"lora", "samples", "tensorboard", "earlystop"} & set(config.plugins)
    assert config.core.learning_rate == 2e-5


def test_null_that_says_something_is_kept(tmp_path: Path) -> None:
    assert load(tmp_path, BASE + "save_total_limit: null")[0].core.save_total_limit is None
    assert load(tmp_path, BASE)[0].core.save_total_limit == 4


def test_zero_does_not_switch_a_plugin_off(tmp_path: Path) -> None:
    """It would make the key an orphan; it is a wrong value."""
    [problem] = refusal(load, tmp_path, BASE + "early_stopping_patience: 0").problems
    assert (problem.code, problem.message.split()[0]) == ("wrong-type", "early_stopping_patience")


def test_streamed_entry_needs_no_type(tmp_path: Path) -> None:
    config, _ = load(tmp_path, BASE + "max_steps: 1\npretraining_dataset: [{path: x.jsonl, text_column: words}]")
    assert config.pretraining[0].strategy == "completion"


def test_mistake_on_the_command_line_is_placed_there(tmp_path: Path) -> None:
    words = ["lerning_rate=1", "seed=x", "fsdp_confg.offload_params=true", "datasets.0.path=3", "special_tokens={eos: x}"]
    error = refusal(load, tmp_path, BASE + "seed: 3\ndatasets: [{path: x, type: alpaca}]", *words)
    assert {p.where for p in error.problems} == {f"command line ({w.split('=')[0]})" for w in words}


def test_rows_of_a_kind_that_the_method_does_not_train_on_are_refused(tmp_path: Path) -> None:
    source = "plugin = Plugin(method=Method(rows=('pair',)))\n@hookimpl\ndef compute_loss(): ...\n"
    (tmp_path / "pairs.py").write_text("from tunesmith import Method, Plugin, hookimpl\n" + source)
    path = write(tmp_path, BASE + "plugins: [./pairs.py]\ndatasets:\n  - path: x\n    type: alpaca\n")
    [(where, problem)] = found(refusal(load_config, path), path)
    assert (where, problem.code) == ("5:11", "row-kind")
    assert "conversation" in problem.message and "pair" in problem.message


# keys that do not go together

TOGETHER = {
    "save_steps: 3\nsaves_per_epoch: 1": ["save_steps"],
    "eval_steps: 3\nevals_per_epoch: 1": ["eval_steps", "eval_steps", "evals_per_epoch"],
    "load_best_model_at_end: true": ["load_best_model_at_end"],
    "pretraining_dataset: [{path: x}]\nval_set_size: 0.1": ["pretraining_dataset", "val_set_size"],
    "gradient_checkpointing_kwargs: {use_reentrant: true}": ["gradient_checkpointing_kwargs"],
    "warmup_ratio: 0.1\nwarmup_steps: 3\ngenerate_samples: true\ngeneration_top_p: 0.5\nsave_steps: 1\nsaves_per_epoch: 1": [
        "save_steps", "generation_top_p", "warmup_ratio",
    ],
}  # fmt: skip


@pytest.mark.parametrize("lines", TOGETHER)
def test_keys_that_do_not_go_together_are_all_told_with_their_places(lines: str, tmp_path: Path) -> None:
    from tunesmith.api import start

    path = write(tmp_path, BASE + lines)
    error = refusal(start, load_config(path))
    assert error.exit_code == 2
    assert [p.message.split()[0] for p in error.problems] == TOGETHER[lines]
    for problem in error.problems:
        number = [line.split(":")[0] for line in path.read_text().splitlines()].index(problem.message.split()[0]) + 1
        assert str(problem.where).startswith(f"{path}:{number}:")
