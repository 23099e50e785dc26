"""All wrong keys and values of a config are reported at once, at every depth, each with its place and advice."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.contract.fakes import BASE, error_of, load, problems_of, write
from tunesmith.config.load import load_config

# An `@` marks each mistake and is removed before the file is written.
MISTAKES = """\
# Each line has one mistake, or two.
@base_mdoel: nobody/nothing
plugins: [@earlystopp]
learning_rate: @"2e-4"
micro_batch_size: @1,000
num_epochs: @5%
sample_packing: @yes
device: @gpu
@lora_alfa: 3
@adapter: lroa
@optimizer: adamw_torhc
@field_messages: x
fsdp_config: {@offload_parms: true, state_dict_type: @SHARDED}
gradient_checkpointing_kwargs:
  @use_reentrnt: false
special_tokens: {eos_token: @3, @eos: x}
@layer_offloading: x
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
EXPECTED = [  # in the order of MISTAKES: code, part of the message, part of the advice
    ("unknown-key", "base_mdoel", "did you mean 'base_model'?"),
    ("plugin-unknown", "'earlystopp'", "did you mean 'earlystop'?"),
    ("wrong-type", "learning_rate must be a number", None),
    ("wrong-type", "micro_batch_size must be an integer", None),
    ("wrong-type", "num_epochs must be a number", None),
    ("wrong-type", "sample_packing must be a boolean", None),
    ("wrong-type", "device must be 'auto', 'cpu' or 'cuda'", None),
    ("unknown-key", "lora_alfa", "did you mean 'lora_alpha'?"),
    ("unknown-value", "adapter: lroa", "did you mean 'lora'?"),
    ("unknown-value", "optimizer: adamw_torhc", "did you mean 'adamw_torch'?"),
    ("unknown-key", "field_messages", "inside an entry of datasets:"),
    ("unknown-key", "fsdp_config.offload_parms", "did you mean 'offload_params'?"),
    ("wrong-type", "fsdp_config.state_dict_type must be 'FULL_STATE_DICT'", None),
    ("unknown-key", "gradient_checkpointing_kwargs.use_reentrnt", "did you mean 'use_reentrant'?"),
    ("wrong-type", "special_tokens.eos_token must be a string, got 3", None),
    ("unknown-key", "special_tokens.eos", "eos_token"),
    ("refused-key", "layer_offloading is not supported", "drop it"),
    ("wrong-type", "max_grad_norm must be greater than or equal to 0", None),
    ("unknown-key", "datasets.0.feild_messages", "did you mean 'field_messages'?"),
    ("orphaned-key", "datasets.0.field_instruction belongs to alpaca (tunesmith-alpaca ", "type: alpaca"),
    ("wrong-type", "datasets.0.roles_to_train must be a list", None),
    ("wrong-type", "datasets.0.message_property_mappings.role must be a string", None),
    ("wrong-type", "datasets.0.train_on_eos must be", "did you mean 'turn'?"),
    ("unknown-key", "datasets.0.seed", "at the top level"),
    ("unknown-value", "type: alpcaa", "did you mean 'alpaca'?"),
    ("missing-key", "datasets.2.path is missing", "write path: ..."),
    ("wrong-type", "datasets.3 must be", None),
]


def marked(text: str) -> tuple[str, list[str]]:
    """Return the text without its marks, and line:column of each mark."""
    places = []
    for number, line in enumerate(text.splitlines(), 1):
        places += [f"{number}:{m.start() + 1 - count}" for count, m in enumerate(re.finditer("@", line))]
    return text.replace("@", ""), places


def test_all_mistakes_are_reported_at_once_with_place_and_suggestion(tmp_path: Path) -> None:
    text, places = marked(MISTAKES)
    assert len(places) == len(EXPECTED) >= 12
    path = write(tmp_path, text)
    error = error_of(load_config, path)
    assert error.exit_code == 2
    problems = problems_of(error, path)
    for place, (code, words, help) in zip(places, EXPECTED, strict=True):
        matches = [p for where, p in problems if where == place and p.code == code]
        assert len(matches) == 1, (place, code, words, problems)
        assert words in matches[0].message
        assert help is None or help in str(matches[0].help)
    extra = [p.message for where, p in problems if where not in places]
    assert extra == ["base_model is missing"]  # follows from its misspelling


def test_mistakes_are_reported_in_file_order(tmp_path: Path) -> None:
    path = write(tmp_path, marked(MISTAKES)[0])
    lines = [tuple(map(int, where.split(":"))) for where, _ in problems_of(error_of(load_config, path), path)]
    assert lines == sorted(lines)


def test_each_mistake_is_one_line_with_optional_help(tmp_path: Path) -> None:
    path = write(tmp_path, marked(MISTAKES)[0])
    for line in str(error_of(load_config, path)).splitlines():
        assert re.match(rf"{re.escape(str(path))}:\d+:\d+: error\[[a-z-]+\]: .|  help: .", line), line


def test_check_of_mistakes_is_fast_and_imports_no_torch(tmp_path: Path) -> None:
    path = write(tmp_path, marked(MISTAKES)[0])
    code = (
        "import sys\nfrom tunesmith.cli import main\n"
        "try: main(['check', sys.argv[1]])\n"
        "finally: print([m for m in ('torch', 'transformers', 'datasets') if m in sys.modules])"
    )
    start = time.perf_counter()
    completed = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    assert (completed.returncode, completed.stdout.strip()) == (2, "[]")
    assert completed.stderr.count("error[") > len(EXPECTED)
    assert "Traceback" not in completed.stderr
    assert seconds < 5  # the promise is 2 s; test machines are shared


# types

TYPES = [
    *((key, bad) for key in ("micro_batch_size", "sequence_len", "max_steps") for bad in (0, -2, 1.5, "1,000", [])),
    *((key, bad) for key in ("learning_rate", "num_epochs") for bad in (0, -1e-4, "5%", math.nan, math.inf, "fast")),
    *((key, bad) for key in ("sample_packing", "gradient_checkpointing") for bad in ("yes", "on", 1, 0, "true")),
    ("seed", -1), ("seed", "x"), ("max_grad_norm", math.nan), ("val_set_size", -0.1), ("val_set_size", math.inf),
    ("base_model", 3), ("output_dir", ["x"]), ("bf16", "yes"), ("device", "gpu"), ("excess_length_strategy", "cut"),
    ("plugins", "lora"), ("plugins", 3), ("plugins", {"lora": 1}), ("plugins", [[1]]),
    ("rl", 3), ("adapter", ["lora"]), ("optimizer", 1), ("lr_scheduler", True),
    ("datasets", "x.jsonl"), ("datasets", {"path": "x"}), ("datasets", 3), ("datasets", ["x"]),
    ("pretraining_dataset", [1]),
    ("weight_decay", -1), ("weight_decay", math.inf), ("adam_beta1", 1), ("warmup_ratio", 2), ("warmup_steps", 1.5),
    ("fsdp_config", True), ("special_tokens", ["x"]), ("save_total_limit", 0),
]  # fmt: skip


@pytest.mark.parametrize(("key", "bad"), TYPES, ids=str)
def test_value_of_a_wrong_type_is_reported_with_its_place(key: str, bad: Any, tmp_path: Path) -> None:
    values = {"base_model": "nobody/nothing", key: bad}
    shown = json.dumps(bad).replace("NaN", ".nan").replace("Infinity", ".inf")
    text = "".join(f"{k}: {shown if k == key else v}\n" for k, v in values.items())
    path = write(tmp_path, text)
    error = error_of(load_config, path)
    assert error.exit_code == 2
    line = list(values).index(key) + 1
    column = len(key) + 3
    places = [f"{line}:{column + depth}" for depth in range(3)]  # of the value itself, or of an item of a list in it
    problems = [p for where, p in problems_of(error, path) if where in places]
    assert [p.code for p in problems if p.message.startswith(key)] == ["wrong-type"]


def test_two_missing_keys_of_an_entry_are_both_reported(tmp_path: Path) -> None:
    error = error_of(load, tmp_path, BASE + "datasets:\n  - split: train\n")
    assert [p.message for p in error.problems] == ["datasets.0.path is missing", "datasets.0.type is missing"]


def test_key_named_like_a_type_keeps_its_place(tmp_path: Path) -> None:
    """pydantic puts the branches of a union into the path of an error, and a key may have the name of a branch."""
    text = BASE + "datasets:\n  - path: x\n    type: chat_template\n    message_property_mappings: {str: 1, Role: 2}\n"
    path = write(tmp_path, text)
    assert [(w, p.message.split()[0]) for w, p in problems_of(error_of(load_config, path), path)] == [
        ("5:38", "datasets.0.message_property_mappings.str"),
        ("5:47", "datasets.0.message_property_mappings.Role"),
    ]
