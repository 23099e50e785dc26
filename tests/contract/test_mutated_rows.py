"""Rows with anything in them end with examples or with an error of the data: never with an unexpected exception.

Each shape of rows is mutated: another type, another nesting, nulls, huge and strange texts, wrong roles, missing and
repeated keys. A row is read from a file, checked as the first row of a dataset, and built between two good rows.
"""

from __future__ import annotations

import copy
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tunesmith_engine.data.build import examples_of
from tunesmith_engine.data.cache import Counts

from tests import tiny
from tunesmith.api import start
from tunesmith.config.load import load_config
from tunesmith.errors import TunesmithError
from tunesmith.run import Run

pytestmark = pytest.mark.slow
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
CHAT = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "1 + 1?"},
    {"role": "assistant", "content": "2", "reasoning_content": "easy", "weight": 1},
]
SHAPES: dict[str, tuple[str, dict[str, Any], Any, int]] = {  # type, keys, row, number of mutations
    "conversation": ("chat_template", {}, {"messages": CHAT}, 25),
    "calls": ("chat_template", {}, {"tools": [TOOL], "messages": [
        *CHAT[1:2], {"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "tool", "content": "2"},
        *CHAT[2:]]}, 12),
    "pair": ("chat_template", {"rl": "dpo"}, {"prompt": CHAT[:2], "chosen": CHAT[2:], "rejected": [
        {"role": "assistant", "content": "3"}], "margin": 1.0}, 10),
    "labelled": ("chat_template", {"rl": "kto"}, {"prompt": "1 + 1?", "completion": "2", "label": True}, 5),
    "dialogue": ("chat_template.dialogue", {}, {"text": "Human: 1 + 1?\n\nAssistant: 2"}, 5),
    "turns": ("llama2_chat", {}, {"conversations": [
        {"from": "human", "value": "1 + 1?"}, {"from": "gpt", "value": "2"}]}, 20),
    "texts of pairs": ("passthrough", {"rl": "dpo"}, {"prompt": "1 + 1?", "chosen": "2", "rejected": "3"}, 25),
    "ranked answers": ("zephyr.nectar", {"rl": "dpo"}, {"prompt": "1 + 1?", "answers": [
        {"rank": 1, "answer": "2"}, {"rank": 2, "answer": "3"}]}, 20),
    "text": ("completion", {}, {"text": "1 + 1 = 2"}, 15),
    "instruction": ("alpaca", {}, {"instruction": "add", "input": "1 + 1", "output": "2"}, 15),
    "evaluation": ("context_qa", {}, {"article": "1 + 1 = 2", "question": "1 + 1?", "answer": "2"}, 15),
    "segments": ("input_output", {}, {"segments": [
        {"label": False, "text": "1 + 1"}, {"label": True, "text": "2"}]}, 20),
    "tokens": ("tokenized", {}, {"input_ids": [5, 6, 7], "labels": [-100, 6, 7], "attention_mask": [1, 1, 1]}, 25),
    "steps": ("stepwise_supervised", {"process_reward_model": True}, {
        "prompt": "1 + 1?", "completions": ["1", "2"], "labels": [False, True]}, 20),
}  # fmt: skip
STRANGE = ("", " ", "\x1b[2J", "\x00", "\u202e", "\ud83d", "a" * 200_000, "<|im_end|>", "{{ x }}", "{0}", "assistant",
           "tool", "owner", "null", "[]", '{"a": ', "\n\nHuman: x", "é" * 50, "1e999", "-1")  # fmt: skip
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.just(10**400),
    st.floats(),
    st.sampled_from(STRANGE),
    st.text(max_size=9),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "a", ""]), inner),
    max_leaves=6,
)
ACTIONS = st.sampled_from(["replace", "replace", "remove", "wrap", "repeat", "rename", "deep"])


def paths(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all values inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for key, item in items for path in ((*above, key), *paths(item, (*above, key)))]


def mutated(row: Any, draw: Callable[[Any], Any]) -> Any:
    """Return a copy of a row in which one or two places are changed."""
    row = copy.deepcopy(row)
    for _ in range(draw(st.integers(1, 2))):
        places = paths(row)
        if not places:
            break
        *above, key = draw(st.sampled_from(places))
        parent = row
        for part in above:
            parent = parent[part]
        action = draw(ACTIONS)
        if action == "remove":
            del parent[key]
        elif action == "wrap":
            parent[key] = draw(st.sampled_from([[parent[key]], {"content": parent[key]}, json.dumps(parent[key])]))
        elif action == "deep":
            for _ in range(draw(st.sampled_from([2, 150]))):
                parent[key] = [parent[key]]
        elif action == "rename" and isinstance(parent, dict):
            parent[draw(st.sampled_from(["from", "value", "role", "\x1b[31m", ""]))] = parent.pop(key)
        elif action == "repeat" and isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[key]))
        else:
            parent[key] = draw(VALUES)
    return row


def run_of(folder: Path, type: str, good: Any, keys: dict[str, Any]) -> Run:
    """Return a run of a dataset with one good row."""
    (folder / "rows.jsonl").write_text(json.dumps(good) + "\n")
    entry = {"path": str(folder / "rows.jsonl"), "type": type}
    config = tiny.write_config(folder, base_model="nobody/nothing", datasets=[entry], **keys)
    return start(load_config(config), tokenizer=tiny.tokenizer())


def outcome(run: Run, good: Any, row: Any) -> TunesmithError | None:
    """Build a row between two good ones, as `preprocess` does, and check it alone, as `check` does.

    Return the error of the first, if there is one. Any other exception is raised.
    """
    (spec,) = run.config.datasets
    lines = [json.dumps(value) for value in (good, row, good)]
    Path(spec.settings.path).write_text("\n".join(lines), encoding="utf-8")
    try:
        rows = list(run.hooks.load_rows(run, spec))
        list(examples_of(run, spec, rows, Counts()))
    except TunesmithError as error:
        return error
    run.hooks.check_row(run, spec, rows[1])  # accepts what is accepted
    return None


def judge(run: Run, good: Any, row: Any) -> None:
    error = outcome(run, good, row)
    if error is not None:
        assert error.exit_code == 3, error
        text = str(error)
        assert not [c for c in text if c != "\n" and unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"}], ascii(text)
        assert len(text) < 5000, "an error repeats the row"


@pytest.mark.parametrize("shape", SHAPES)
def test_a_mutated_row_is_trained_or_refused_with_an_error_of_the_data(shape: str, tmp_path: Path) -> None:
    type, keys, good, number = SHAPES[shape]
    run = run_of(tmp_path, type, good, keys)

    @settings(max_examples=number, deadline=None, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(st.data())
    def each(data: Any) -> None:
        judge(run, good, mutated(good, data.draw))

    each()


@pytest.mark.parametrize("shape", SHAPES)
def test_hundreds_of_mutated_rows(shape: str, tmp_path: Path) -> None:
    type, keys, good, _ = SHAPES[shape]
    run = run_of(tmp_path, type, good, keys)

    @settings(max_examples=300, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def each(data: Any) -> None:
        judge(run, good, mutated(good, data.draw))

    each()
