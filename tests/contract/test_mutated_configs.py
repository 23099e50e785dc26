"""200 mutated configs of different methods are each accepted, or refused with a place and readable text."""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import yaml
from hypothesis import strategies as st

from tests import tiny
from tests.contract.fakes import write
from tunesmith.api import start
from tunesmith.config.foreign import foreign_keys, foreign_values
from tunesmith.config.load import load_config
from tunesmith.errors import LONGEST, TunesmithError, visible

pytestmark = pytest.mark.slow
CANARY = "canary_of_configs"
MODEL = {"base_model": "nobody/nothing", "output_dir": "out", "learning_rate": 1e-4, "sequence_len": 512}
CONFIGS: dict[str, dict[str, Any]] = {
    "sft": {
        **MODEL, "datasets": [{"path": "data.jsonl", "type": "chat_template", "field_messages": "messages"}],
        "val_set_size": 0.1, "eval_steps": 5, "gradient_checkpointing": True, "lr_scheduler": "cosine",
        "gradient_checkpointing_kwargs": {"use_reentrant": False}, "generate_samples": True,
    },
    "lora": {
        **MODEL, "adapter": "lora", "lora_r": 8, "lora_target_modules": ["q_proj"], "optimizer": "adamw_torch",
        "datasets": [
            {"path": "data.jsonl", "type": {"field_instruction": "a", "field_output": "b", "format": "{instruction}"}},
        ],
        "special_tokens": {"pad_token": "<pad>"}, "plugins": ["earlystop", "-report"], "early_stopping_patience": 3,
        "test_datasets": [{"path": "data.jsonl", "type": "alpaca", "split": "train[:10%]"}],
    },
    "dpo": {
        **MODEL, "rl": "dpo", "rl_beta": 0.1, "dpo_loss_type": ["sigmoid", "sft"], "dpo_loss_weights": [1.0, 0.1],
        "datasets": [{"path": "data.jsonl", "type": "chatml.intel", "weight": 0.5}],
        "fsdp_config": {"offload_params": True},
    },
    "kto": {
        **MODEL, "rl": "kto", "kto_desirable_weight": 1.0,
        "datasets": [{"path": "data.jsonl", "type": "chatml.argilla"}],
    },
    "reward": {
        **MODEL, "reward_model": True, "datasets": [{"path": "data.jsonl", "type": "bradley_terry.chat_template"}],
        "dataset_near_deduplication": {"threshold": 0.9},
    },
    "pretraining": {**MODEL, "max_steps": 10, "pretraining_dataset": [{"path": "data.jsonl", "text_column": "text"}]},
    "streaming": {
        **MODEL, "max_steps": 10, "streaming": True, "datasets": [{"path": "data.jsonl", "type": "completion"}],
    },
}  # fmt: skip
HUGE = [10**40, -(10**40), 1e300, -1e30, float("inf"), float("nan"), 2**63, -1, 0, 0.0, 5e-324]
TEXTS = [
    "",
    " ",
    "\x1b[31mred\x07",
    "a\0b",
    "line\nbreak\r",
    "\u202eevil",
    "\x85\x9b",
    "日本語",
    "é" * 5000,
    "-",
    "*",
    "?",
    "$HOME/x",
    "~",
    "../../../etc/passwd",
    "a" * 70_000,
    "{",
    "%s%d{0}",
    "'\"`",
    "null",
    "yes",
    "1,000",
    "5%",
    "http://",
    "s3://x/y",
    "://",
    "C:\\x",
    "\ud7ff\ue000",
    "nobody/" + "n" * 300,
]
NAMES = [
    f"{CANARY}:run",
    f"{CANARY}.run",
    CANARY,
    "subprocess:run",
    "os.system",
    f"{CANARY}.py",
    "subprocess",
    "-lora",
    "-hf",
]
OTHERS: list[Any] = [
    None,
    True,
    False,
    [],
    {},
    [[[]]],
    [None],
    {"a": {"b": [1]}},
    [1, "a", {}],
    {"": ""},
    [{}],
    {"path": "data.jsonl"},
]
VALUES = st.sampled_from([*HUGE, *TEXTS, *NAMES, *OTHERS]) | st.text(max_size=20) | st.integers() | st.floats()
FOREIGN = [*foreign_keys(), *foreign_values()]
KEY_TEXTS = ["", "\x1b[2J", "a\0b", "\u202ekey", "1", "~", "a.b", "日本", "k" * 3000, "<<", "=", "x-", "_"]


def paths(node: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every key and of every element of a list."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield (*above, key)
        yield from paths(value, (*above, key))


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """Return a valid config with one to three changes: another value, another name of a key, a new or a missing key."""
    config = copy.deepcopy(CONFIGS[draw(st.sampled_from(sorted(CONFIGS)))])
    for _ in range(draw(st.integers(1, 3))):
        places = list(paths(config))
        *above, last = draw(st.sampled_from(places))
        group: Any = config
        for part in above:
            group = group[part]
        how = draw(st.sampled_from(["value", "value", "value", "rename", "add", "nest", "delete"]))
        if how == "value":
            group[last] = copy.deepcopy(draw(VALUES))
        elif how == "nest":
            group[last] = draw(st.sampled_from([[group[last]], {"inner": group[last]}]))
        elif isinstance(group, list) or (how == "delete" and len(group) > 1):
            del group[last]
        else:
            letters = draw(st.integers(0, max(len(str(last)) - 1, 0)))
            wrong = str(last)[:letters] + str(last)[letters + 1 :]
            name = draw(st.sampled_from([wrong, *KEY_TEXTS]) | st.sampled_from(FOREIGN))
            group[name] = copy.deepcopy(draw(VALUES)) if how == "add" else group.pop(last)
    return config


def test_visible_escapes_what_a_terminal_would_obey() -> None:
    assert visible("a\x1b[2J\u202e\x85\0b\n\ud800") == "a\\x1b[2J\\u202e\\x85\\x00b\n\\ud800"
    assert visible("日本語 é\u3000ß") == "日本語 é\u3000ß"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with rows, and a module that no config declares and that therefore is never imported."""
    path = tmp_path_factory.mktemp("mutated")
    tiny.write_rows(path / "data.jsonl", tiny.rows("text", 4))
    (path / f"{CANARY}.py").write_text("raise SystemExit('imported')\n", encoding="utf-8")
    return path


def test_200_mutated_configs_are_accepted_or_refused_with_a_place(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    outcomes: list[int] = []

    @hypothesis.settings(max_examples=200, deadline=None, database=None)
    @hypothesis.given(mutated())
    def judge(config: dict[str, Any]) -> None:
        file = write(folder, "")
        file.write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
        outcomes.append(outcome_of(file))
        assert CANARY not in sys.modules

    judge()
    assert len(outcomes) >= 200 and {0, 2} <= set(outcomes), outcomes
    assert {path.name for path in folder.iterdir()} == {"data.jsonl", "run.yaml", f"{CANARY}.py"}


def outcome_of(file: Path) -> int:
    """Check a config and return the exit code of `check`; fail for an unexpected error or an unreadable report."""
    try:
        start(load_config(str(file)))
    except TunesmithError as error:
        assert error.exit_code != 1, error
        assert any(re.search(r":\d+(:\d+)?$", str(p.where)) for p in error.problems), error
        for problem in error.problems:
            for text in map(str, (problem.where, problem.message, problem.help)):
                assert visible(text) == text and "a bug of Tunesmith" not in text, repr(problem)
            assert max(map(len, (problem.message, str(problem.help)))) <= LONGEST, problem
        return error.exit_code
    return 0
