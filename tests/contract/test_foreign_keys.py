"""A key or value of another tool gets the help that is right for it, and never a spelling suggestion."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.fakes import BASE, DATA, error_of, load, problems_of, write
from tunesmith.config import foreign, keys
from tunesmith.config.load import load_config
from tunesmith.plugins import discovery

KEYS = foreign.foreign_keys()
GROUPS = {"datasets", "fsdp_config", "special_tokens"}
ENTRY = "datasets:\n  - path: nobody/rows\n    type: completion\n"


def config_of(value: str) -> str:
    """Return a config with every key of every other tool, each with the same value."""
    lines: dict[str, list[str]] = {"": [], **{group: [] for group in sorted(GROUPS)}}
    for name in KEYS:
        group, _, key = name.rpartition(".")
        lines[group].append(f"{'' if not group else '    ' if group == 'datasets' else '  '}{key}: {value}\n")
    groups = "".join(f"{group}:\n{''.join(lines[group])}" for group in ("fsdp_config", "special_tokens"))
    return BASE + "".join(lines[""]) + groups + ENTRY + "".join(lines["datasets"])


def owned(path: str) -> set[str]:
    """Return the keys that exist here at the level of a foreign key: at the top, in an entry, or in a group."""
    available = discovery.installed()
    if path.startswith("datasets."):
        return {*keys.dataset_schema()["properties"], *keys.owners(available, "dataset_schema")}
    if "." in path:
        name = {"fsdp_config": "FSDPConfig", "special_tokens": "SpecialTokens"}[path.partition(".")[0]]
        return set(keys.core_schema()["$defs"][name]["properties"])
    return {*keys.core_schema()["properties"], *keys.owners(available, "schema")}


def test_every_key_of_another_tool_has_its_own_help_and_no_spelling_suggestion(tmp_path: Path) -> None:
    path = write(tmp_path, config_of("zzz"))
    problems = problems_of(error_of(load_config, path), path)
    assert len(problems) == len(KEYS) > 450
    for where, problem in problems:
        name = problem.message.split(" ")[0].replace(".0.", ".")
        entry = KEYS[name]
        assert problem.code == ("foreign-key" if entry.alias else "refused-key")
        assert problem.help == (f"write {entry.alias}: zzz" if entry.alias else entry.write), name
        assert "did you mean" not in str(problem.help) and where.count(":") == 1


def test_a_key_of_another_tool_without_a_value_asks_for_nothing(tmp_path: Path) -> None:
    load(tmp_path, config_of(""))


def test_every_entry_has_an_alias_or_a_reason_with_advice() -> None:
    for name, key in KEYS.items():
        assert name.rpartition(".")[0] in GROUPS | {""}
        assert bool(key.alias) != bool(key.reason and key.write), name
        assert name.rpartition(".")[2] not in owned(name), f"{name} exists here"
        assert not key.alias or key.alias in owned(name), f"{name}: {key.alias} does not exist here"


@pytest.mark.parametrize("key", [name for name, key in KEYS.items() if key.default and "." not in name][::5])
def test_value_that_asks_for_what_happens_anyway_may_stay(key: str, tmp_path: Path) -> None:
    for value in KEYS[key].default:
        load(tmp_path, f"{BASE}{key}: {yaml.safe_dump(value).splitlines()[0]}\n")


HELPS = {
    "trl: {beta: 0.1}": ("refused-key", "train on given answers"),
    "rpo_alpha: 1": ("refused-key", "dpo_loss_type: [sigmoid, sft]"),
    "gc_steps: 3": ("refused-key", "drop it"),
    "load_in_8bit: true": ("refused-key", "adapter: lora on the bfloat16 model"),
    "message_field_role: from": ("refused-key", "message_property_mappings: {role: ...}"),
    "per_device_train_batch_size: 4": ("foreign-key", "write micro_batch_size: 4"),
    "num_train_epochs: 3": ("foreign-key", "write num_epochs: 3"),
    "model_name_or_path: ./m": ("foreign-key", "write base_model: ./m"),
    "finetuning_type: lora": ("refused-key", "write adapter: lora"),
    "finetuning_type: full": ("refused-key", "drop it: all weights are trained"),
    "cutoff_len: 512": ("foreign-key", "write sequence_len: 512"),
    "lora_rank: 8": ("foreign-key", "write lora_r: 8"),
    "lr: 1e-4": ("foreign-key", "write learning_rate: 0.0001"),
    "target_modules: [q_proj]": ("foreign-key", "write lora_target_modules: ..."),
    "attn_implementation: flash_attention_2": ("wrong-type", "write attn_implementation: auto"),
    "lr_scheduler: constant_with_warmup": ("unknown-value", "write lr_scheduler: constant"),
    "optimizer: adamw_bnb_8bit": ("unknown-value", "write optimizer: adamw_torch"),
    "evals_per_epoch: 0": ("wrong-type", "drop it"),
    "fsdp_config: {fsdp_offload_params: true}": ("foreign-key", "write offload_params: true"),
    "plugins: [axolotl.integrations.liger.LigerPlugin]": ("plugin-unknown", "drop it"),
    "rl: grpo": ("unknown-value", "rl: dpo"),
}


@pytest.mark.parametrize("line", HELPS)
def test_common_key_or_value_of_another_tool_has_the_line_to_write(line: str, tmp_path: Path) -> None:
    [problem] = error_of(load, tmp_path, f"{BASE}{line}\n").problems
    code, help = HELPS[line]
    assert problem.code == code and help in str(problem.help)


def test_key_of_another_tool_in_an_entry_is_not_a_misspelling(tmp_path: Path) -> None:
    [problem] = error_of(load, tmp_path, BASE + ENTRY + "    message_field_role: from\n").problems
    assert problem.help == "message_property_mappings: {role: ...} in the entry"


def test_key_that_exists_elsewhere_gets_no_suggestion(tmp_path: Path) -> None:
    """`field_chosen` belongs to other types, and `activation_checkpointing` to another group of another tool."""
    text = BASE + "gradient_checkpointing: true\ngradient_checkpointing_kwargs: {use_orig_params: true}\n"
    [problem] = error_of(load, tmp_path, text).problems
    assert "did you mean" not in str(problem.help)


def test_unknown_adapter_is_reported_alone(tmp_path: Path) -> None:
    """The keys of adapters have no owner only because no plugin answers the value."""
    lines = "adapter: qlora\nlora_r: 8\nlora_alpha: 16\nlora_dropout: 0.1\nlora_target_linear: true\n"
    [problem] = error_of(load, tmp_path, BASE + lines).problems
    assert problem.message == "no plugin answers adapter: qlora" and "write adapter: lora" in str(problem.help)


def test_type_of_another_tool_has_the_fields_to_write(tmp_path: Path) -> None:
    for name in ("sharegpt", "sharegpt.load_role"):
        [problem] = error_of(load, tmp_path, BASE + f"datasets: [{{path: x, type: {name}}}]").problems
        assert problem.code == "unknown-value" and "type: chat_template" in str(problem.help)
        assert "field_messages: conversations" in str(problem.help)


@pytest.mark.parametrize("name", ["zzz", "conversation_of_an_unknown_kind", "x" * 500])
def test_unknown_type_is_not_answered_with_a_wall_of_names(name: str, tmp_path: Path) -> None:
    [problem] = error_of(load, tmp_path, BASE + f"datasets: [{{path: x, type: {name}}}]").problems
    assert "chat_template" in str(problem.help) and len(str(problem.help)) < 250


def test_values_of_other_tools_belong_to_keys_that_exist() -> None:
    available = discovery.installed()
    for key, values in foreign.foreign_values().items():
        assert key.rpartition(".")[2] in owned(key)
        answers = {v for c in available.values() for v in c.info["answers"].get(key, [])}
        assert not answers & set(values), key


def test_axolotl_configs_contain_no_key_that_is_unknown_here() -> None:
    folder = os.environ.get("TUNESMITH_TEST_DATA")
    if not folder:
        pytest.skip("TUNESMITH_TEST_DATA is not set: no configs of Axolotl")
    known = owned("") | set(KEYS)
    unknown: dict[str, list[str]] = {}
    for path in sorted(Path(folder, "axolotl-yaml").glob("*.y*ml")):
        values: Any = yaml.safe_load(path.read_text("utf-8"))
        for key in set(values if isinstance(values, dict) else ()) - known:
            unknown.setdefault(key, []).append(path.name)
    assert set(unknown) <= {"test_value"}, unknown  # of no tool


def test_null_key_of_this_tool_is_still_checked_for_spelling(tmp_path: Path) -> None:
    [problem] = error_of(load, tmp_path, BASE + DATA + "lerning_rate:\n").problems
    assert problem.help == "did you mean 'learning_rate'?"
