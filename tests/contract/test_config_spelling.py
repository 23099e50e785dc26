"""Misspelt keys: every one is named at its place, with the right key, at every depth."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import yaml
from hypothesis import strategies as st

from tests.contract.fakes import BASE, found, load, refusal, write
from tunesmith.config import keys
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
    @hypothesis.given(
        st.sampled_from(list(paths(GOOD))), st.sampled_from(["delete", "double", "swap"]), st.integers(0, 30)
    )
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


def groups() -> Iterator[tuple[str, str, set[str]]]:
    """(owner, key, keys below it) of every key of the core and the plugins that holds keys of its own."""
    plugins = {name: candidate.info["schema"] for name, candidate in discovery.installed().items()}
    for owner, schema in {"": keys.core_schema(), **plugins}.items():
        for key, sub in schema.get("properties", {}).items():
            for option in sub.get("anyOf", [sub]):
                if name := option.get("$ref", "").rpartition("/")[2]:
                    yield owner, key, set(schema["$defs"][name]["properties"])


def test_every_misspelling_of_every_installed_key_is_named_and_19_of_20_suggested(tmp_path: Path) -> None:
    """Of the core and all plugins, at the top, in groups and in entries of `datasets:`: one file with all of them."""
    available = discovery.installed()
    tops = {*keys.core_schema()["properties"], *keys.owners(available, "schema")}
    lower = {*keys.dataset_schema()["properties"], *keys.owners(available, "dataset_schema")}
    below = {key: known for _, key, known in groups()}
    assert {"special_tokens", "fsdp_config", "gradient_checkpointing_kwargs"} <= set(below)
    everywhere = tops | lower | set().union(*below.values())
    known = {"": tops, "datasets.0.": lower, **{f"{key}.": names for key, names in below.items()}}
    wrong: dict[str, dict[str, set[str]]] = {group: {} for group in known}
    for group, names in known.items():
        for key in names:
            for word in every_misspelling(key) - everywhere - set(keys.refused()) - {"", "y", "n"}:
                wrong[group].setdefault(word, set()).add(key)
    owners = sorted({owner for owner, _, _ in groups()} - {""})
    text = f"{BASE}plugins: [{', '.join(owners)}]\n" + "".join(f"{word}: 1\n" for word in wrong[""])
    text += "datasets:\n  - path: x.jsonl\n    type: chat_template\n"
    text += "".join(f"    {word}: 1\n" for word in wrong["datasets.0."])
    for key in below:
        text += f"{key}:\n" + "".join(f"  {word}: 1\n" for word in wrong[f"{key}."])
    helps = {p.message: str(p.help) for p in refusal(load, tmp_path, text).problems}
    missed, number = [], 0
    for group, words in wrong.items():
        for word, rights in words.items():
            number += 1
            help = helps.get(f"{group}{word} is no key")
            assert help, f"{group}{word} was not named"
            if not any(help == f"did you mean {right!r}?" for right in rights):
                missed.append((group, word, rights, help))
    assert number > 2_000
    assert len(missed) <= 0.05 * number, missed
