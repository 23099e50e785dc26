"""Misspelled keys are reported at their place, with the right key, at every depth."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import yaml
from hypothesis import strategies as st

from tests.contract.fakes import BASE, error_of, load, problems_of, write
from tunesmith.config import foreign, keys, yamlfile
from tunesmith.config.load import load_config
from tunesmith.plugins import discovery

GOOD: dict[str, Any] = {
    "base_model": "nobody/nothing", "adapter": "lora", "lora_r": 8, "lora_alpha": 16, "lora_target_linear": True,
    "learning_rate": 1e-4, "weight_decay": 0.1, "warmup_steps": 3, "sequence_len": 512, "sample_packing": True,
    "micro_batch_size": 2, "gradient_accumulation_steps": 4, "num_epochs": 2, "max_grad_norm": 1.0, "val_set_size": 0.1,
    "gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False},
    "fsdp_config": {"offload_params": True, "reshard_after_forward": False, "auto_wrap_policy": "NO_WRAP"},
    "special_tokens": {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"},
    "generate_samples": True, "early_stopping_patience": 3,
    "output_dir": "out", "logging_steps": 5,
    "datasets": [
        {"path": "a.jsonl", "type": "chat_template", "split": "train", "field_messages": "m", "train_on_eos": "turn"},
        {"path": "b.jsonl", "type": "alpaca", "field_instruction": "task", "field_output": "answer"},
    ],
}  # fmt: skip
FOLLOWS = {"missing-key", "orphaned-key"}
"""Codes of problems that follow from a misspelling: the right key is missing, or it no longer selects a plugin."""


def paths(node: Any, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every key at every depth."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        if isinstance(key, str):
            yield (*prefix, key)
        yield from paths(value, (*prefix, key))


def misspelled(key: str, how: str, place: int) -> str:
    """Return a key with the letter at `place` deleted or doubled, or swapped with the next one."""
    place %= len(key) - (how == "swap")
    if how == "delete":
        return key[:place] + key[place + 1 :]
    if how == "double":
        return key[: place + 1] + key[place:]
    return key[:place] + key[place + 1] + key[place] + key[place + 2 :]


def renamed(node: Any, path: tuple[Any, ...], name: str) -> Any:
    """Return a copy of a tree in which the key at a path is renamed and keeps its position."""
    if isinstance(node, list):
        return [renamed(v, path[1:], name) if path and i == path[0] else v for i, v in enumerate(node)]
    if len(path) == 1:
        return {name if k == path[0] else k: v for k, v in node.items()}
    return {k: renamed(v, path[1:], name) if k == path[0] else v for k, v in node.items()}


def test_good_config_is_accepted(tmp_path: Path) -> None:
    config, _ = load(tmp_path, yaml.safe_dump(GOOD, sort_keys=False))
    assert [spec.strategy for spec in config.datasets] == ["chat", "alpaca"]


@pytest.mark.slow
def test_misspelled_key_is_reported_at_its_place_with_the_right_key(tmp_path: Path) -> None:
    outcomes: list[tuple[str, str, bool]] = []

    @hypothesis.settings(max_examples=150, deadline=None, database=None)
    @hypothesis.given(
        st.sampled_from(list(paths(GOOD))), st.sampled_from(["delete", "double", "swap"]), st.integers(0, 30)
    )
    def misspell(path: tuple[Any, ...], how: str, place: int) -> None:
        key = str(path[-1])
        wrong = misspelled(key, how, place)
        hypothesis.assume(wrong != key)
        file = write(tmp_path, yaml.safe_dump(renamed(GOOD, path, wrong), sort_keys=False))
        lines = file.read_text("utf-8").splitlines()
        line = next(n for n, text in enumerate(lines, 1) if re.match(rf"[ -]*{re.escape(wrong)}:", text))
        column = len(lines[line - 1]) - len(lines[line - 1].lstrip(" -")) + 1
        problems = problems_of(error_of(load_config, file), file)
        matches = [p for where, p in problems if where == f"{line}:{column}" and p.code == "unknown-key"]
        assert len(matches) == 1, (wrong, problems)
        assert {p.code for where, p in problems if where != f"{line}:{column}"} <= FOLLOWS
        outcomes.append((wrong, key, matches[0].help == f"did you mean {key!r}?"))

    misspell()
    assert len(outcomes) >= 100
    missed = [(wrong, key) for wrong, key, right in outcomes if not right]
    assert len(missed) <= 0.05 * len(outcomes), missed


def every_misspelling(key: str) -> set[str]:
    return {misspelled(key, how, place) for how in ("delete", "double", "swap") for place in range(len(key))}


def groups() -> Iterator[tuple[str, str, set[str]]]:
    """Yield (owner, key, keys inside it) for every key of the core and the plugins that is a group of keys."""
    plugins = {name: candidate.info["schema"] for name, candidate in discovery.installed().items()}
    for owner, schema in {"": keys.core_schema(), **plugins}.items():
        for key, sub in schema.get("properties", {}).items():
            if owner == "adapters" and key not in ("oft", "vera"):  # forty groups with the same kinds of keys
                continue
            for option in sub.get("anyOf", [sub]):
                if name := option.get("$ref", "").rpartition("/")[2]:
                    yield owner, key, set(schema["$defs"][name]["properties"])


@pytest.mark.slow
def test_misspellings_of_all_installed_keys_are_reported_and_95_percent_corrected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file has the misspellings of the core and all plugins: top level, groups and entries of `datasets:`."""
    monkeypatch.setattr(yamlfile, "MAX_NODES", 100_000)
    available = discovery.installed()
    top_keys = {*keys.core_schema()["properties"], *keys.owners(available, "schema")}
    entry_keys = {*keys.dataset_schema()["properties"], *keys.owners(available, "dataset_schema")}
    keys_of_group = {key: names for _, key, names in groups()}
    assert {"special_tokens", "fsdp_config", "gradient_checkpointing_kwargs"} <= set(keys_of_group)
    valid_somewhere = top_keys | entry_keys | set().union(*keys_of_group.values())
    valid_keys = {"": top_keys, "datasets.0.": entry_keys, **{f"{key}.": names for key, names in keys_of_group.items()}}
    wrong: dict[str, dict[str, set[str]]] = {group: {} for group in valid_keys}
    for group, names in valid_keys.items():
        for key in names:
            if len(key) < 3:  # a misspelling of `r` is any letter
                continue
            for word in every_misspelling(key) - valid_somewhere - foreign.all_names() - {"", "y", "n"}:
                wrong[group].setdefault(word, set()).add(key)
    owners = sorted({*{key: owner for owner, key, _ in groups()}.values()} - {""})  # one of those with one group
    text = f"{BASE}plugins: [{', '.join(owners)}]\n" + "".join(f"{word}: 1\n" for word in wrong[""])
    text += "datasets:\n  - path: x.jsonl\n    type: chat_template\n"
    text += "".join(f"    {word}: 1\n" for word in wrong["datasets.0."])
    for key in keys_of_group:
        text += f"{key}:\n" + "".join(f"  {word}: 1\n" for word in wrong[f"{key}."])
    helps = {p.message: str(p.help) for p in error_of(load, tmp_path, text).problems}
    missed, number = [], 0
    for group, words in wrong.items():
        for word, corrections in words.items():
            number += 1
            help = helps.get(f"unknown key: {group}{word}")
            assert help, f"{group}{word} was not reported"
            if not any(help == f"did you mean {right!r}?" for right in corrections):
                missed.append((group, word, corrections, help))
    assert number > 2_000
    assert len(missed) <= 0.05 * number, missed
