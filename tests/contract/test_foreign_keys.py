"""Keys and values of other tools are accepted with their meaning, or refused with their own help."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from tests.contract.fakes import BASE, DATA, error_of, load, problems_of, write
from tunesmith import api
from tunesmith.cli.main import main
from tunesmith.config import foreign, keys
from tunesmith.config.config import Config
from tunesmith.config.load import load_config
from tunesmith.plugins import discovery

KEYS = foreign.foreign_keys()
GROUPS = {"datasets", "fsdp_config", "special_tokens", "trl"}
ENTRY = "datasets:\n  - path: nobody/rows\n    type: completion\n"


def config_of(value: str, names: Iterable[str]) -> str:
    """Return a config with keys of other tools, each with the same value."""
    lines: dict[str, list[str]] = {"": [], **{group: [] for group in sorted(GROUPS)}}
    for name in names:
        group, _, key = name.rpartition(".")
        lines[group].append(f"{'' if not group else '    ' if group == 'datasets' else '  '}{key}: {value}\n")
    groups = "".join(
        f"{group}:\n{''.join(lines[group])}" for group in ("fsdp_config", "special_tokens", "trl") if lines[group]
    )
    online = "rl: grpo\n" if lines["trl"] else ""  # the group belongs to a method
    entry = ENTRY.replace("completion", "prompt") if online else ENTRY
    return BASE + online + "".join(lines[""]) + groups + entry + "".join(lines["datasets"])


def loaded(folder: Path, text: str) -> Config:
    return load(folder, text)[0]


def owned(path: str) -> set[str]:
    """Return the keys that exist here at the level of a foreign key: at the top, in an entry, or in a group."""
    available = discovery.installed()
    if path.startswith("datasets."):
        return {*keys.dataset_schema()["properties"], *keys.owners(available, "dataset_schema")}
    if "." in path:
        if path.startswith("trl."):
            return set(available["grpo"].info["schema"]["$defs"]["TRL"]["properties"])
        name = {"fsdp_config": "FSDPConfig", "special_tokens": "SpecialTokens"}[path.partition(".")[0]]
        return set(keys.core_schema()["$defs"][name]["properties"])
    return {*keys.core_schema()["properties"], *keys.owners(available, "schema")}


def refused(name: str, value: Any) -> bool:
    return KEYS[name].action(value) is None and not KEYS[name].alias


def test_every_refused_key_of_another_tool_has_its_own_help_and_no_spelling_suggestion(tmp_path: Path) -> None:
    path = write(tmp_path, config_of("zzz", [name for name in KEYS if refused(name, "zzz")]))
    problems = problems_of(error_of(load_config, path), path)
    assert len(problems) == sum(refused(name, "zzz") for name in KEYS) > 150
    for where, problem in problems:
        name = problem.message.split(" ")[0].replace(".0.", ".")
        assert problem.code == "refused-key" and problem.help == KEYS[name].write, name
        assert "did you mean" not in str(problem.help) and where.count(":") == 1


def test_every_accepted_key_of_another_tool_gets_a_note(tmp_path: Path) -> None:
    names = [name for name, key in KEYS.items() if key.action("zzz") and not key.set]
    assert len(names) > 150
    config = loaded(tmp_path, config_of("zzz", names))
    notes = {one.key.replace(".0.", "."): one for one in config.translated}
    for name in names:
        assert notes[name].note and notes[name].tool == KEYS[name].tool
        assert notes[name].where.count(":") == 2
        assert name.rpartition(".")[2] not in config.document.values


def test_a_key_of_another_tool_without_a_value_asks_for_nothing(tmp_path: Path) -> None:
    assert not loaded(tmp_path, config_of("", KEYS)).translated


@pytest.mark.slow
def test_every_entry_is_one_kind_of_key() -> None:
    for name, key in KEYS.items():
        assert name.rpartition(".")[0] in GROUPS | {""}
        assert [bool(key.alias), bool(key.note), bool(key.speed), bool(key.reason)].count(True) == 1, name
        assert bool(key.reason) == bool(key.write), name
        assert name.rpartition(".")[2] not in owned(name), f"{name} exists here"
        group = f"{name.rpartition('.')[0]}." if "." in name else ""
        alias = key.alias if key.alias.startswith("trl.") else key.alias.split(".")[0]
        assert not alias or alias.rpartition(".")[2] in owned(group + alias), f"{name}: {key.alias}"


def test_every_key_that_an_action_sets_exists_here() -> None:
    entries = [(name, key.set) for name, key in KEYS.items()]
    entries += [(name, a["set"]) for name, key in KEYS.items() for a in key.values.values()
                if not isinstance(a, str) and "set" in a]  # fmt: skip
    entries += [(key, a["set"]) for key, values in foreign.foreign_values().items() for a in values.values()
                if not isinstance(a, str) and "set" in a]  # fmt: skip
    for name, keys_to_set in entries:
        for key in keys_to_set:
            group = "" if key.startswith("/") or "." not in name else f"{name.rpartition('.')[0]}."
            assert key.lstrip("/") in owned(group + key.lstrip("/")), f"{name} sets {key}"


@pytest.mark.parametrize("key", [name for name, key in KEYS.items() if key.default and "." not in name][::5])
def test_value_that_asks_for_what_happens_anyway_may_stay(key: str, tmp_path: Path) -> None:
    for value in KEYS[key].default:
        assert not loaded(tmp_path, f"{BASE}{key}: {yaml.safe_dump(value).splitlines()[0]}\n").translated


HELPS = {
    "trl: {beta: 0.1}": ("orphaned-key", "rl: grpo"),
    "rpo_alpha: 1": ("refused-key", "dpo_loss_type: [sigmoid, sft]"),
    "message_field_role: from": ("refused-key", "message_property_mappings: {role: ...}"),
    "layer_offloading: true": ("refused-key", "adapter: qlora"),
    "attn_implementation: s2": ("wrong-type", "write attn_implementation: auto"),
    "plugins: [axolotl.integrations.kd.KDPlugin]": ("plugin-unknown", "drop it"),
    "rl: ebft": ("unknown-value", "rl: grpo"),
}


@pytest.mark.parametrize("line", HELPS)
def test_common_key_or_value_of_another_tool_has_the_line_to_write(line: str, tmp_path: Path) -> None:
    [problem] = error_of(load, tmp_path, f"{BASE}{line}\n").problems
    code, help = HELPS[line]
    assert problem.code == code and help in str(problem.help)


def test_key_of_another_tool_in_an_entry_is_translated_in_place(tmp_path: Path) -> None:
    entry = "datasets:\n  - path: nobody/rows\n    type: chat_template\n    message_field_role: from\n"
    config = loaded(tmp_path, BASE + entry)
    assert config.document.values["datasets"][0]["message_property_mappings"] == {"role": "from"}


def test_key_of_another_tool_that_exists_elsewhere_gets_no_suggestion(tmp_path: Path) -> None:
    """`field_chosen` belongs to other types, and `activation_checkpointing` to another group of another tool."""
    text = BASE + "gradient_checkpointing: true\ngradient_checkpointing_kwargs: {use_orig_params: true}\n"
    [problem] = error_of(load, tmp_path, text).problems
    assert "did you mean" not in str(problem.help)


def test_unknown_method_is_reported_alone(tmp_path: Path) -> None:
    """The group of the method has no owner only because no plugin answers the value."""
    lines = "rl: ebft\ntrl: {beta: 0.1}\nebft: {stride: 8}\n"
    [problem] = error_of(load, tmp_path, BASE + lines).problems
    assert problem.message == "no plugin answers rl: ebft"


def test_unknown_adapter_is_reported_alone(tmp_path: Path) -> None:
    """The keys of adapters have no owner only because no plugin answers the value."""
    lines = "adapter: llama-adapter\nlora_r: 8\nlora_alpha: 16\nlora_dropout: 0.1\nlora_target_linear: true\n"
    [problem] = error_of(load, tmp_path, BASE + lines).problems
    assert problem.message == "no plugin answers adapter: llama-adapter" and "write adapter: lora" in str(problem.help)


ACCEPTED: dict[str, dict[str, Any]] = {  # line of another tool -> the values of the config
    "per_device_train_batch_size: 4": {"micro_batch_size": 4},
    "num_train_epochs: 3": {"num_epochs": 3},
    "cutoff_len: 512": {"sequence_len": 512},
    "adapter: lora\nlora_rank: 8": {"lora_r": 8},
    "lr: 1e-4": {"learning_rate": 0.0001},
    "lr_scheduler_type: linear": {"lr_scheduler": "linear"},
    "fsdp_config: {fsdp_offload_params: true}": {"fsdp_config": {"offload_params": True}},
    "fsdp_config: {activation_checkpointing: true}": {"fsdp_config": {}, "gradient_checkpointing": True},
    "fsdp_config: {sharding_strategy: SHARD_GRAD_OP}": {"fsdp_config": {"reshard_after_forward": False}},
    "fsdp_config: {state_dict_type: LOCAL_STATE_DICT}": {"fsdp_config": {"state_dict_type": "SHARDED_STATE_DICT"}},
    "fsdp: [full_shard, auto_wrap]": {"fsdp_config": {}},
    "attn_implementation: flash_attention_2": {"attn_implementation": "auto"},
    "attn_implementation: kernels-community/flash-attn3": {"attn_implementation": "auto"},
    "gradient_checkpointing: unsloth": {"gradient_checkpointing": True},
    "bf16: full": {"bf16": True},
    "float32: true": {"bf16": False},
    "evals_per_epoch: 0": {"evals_per_epoch": None},
    "save_strategy: best\nval_set_size: 4": {"load_best_model_at_end": True},
    "auto_resume_from_checkpoints: true": {"resume_from_checkpoint": "auto"},
    "plugins: [axolotl.integrations.liger.LigerPlugin]": {"plugins": []},
    "fp16: true": {"bf16": "auto"},
    "batch_size: 32\nmicro_batch_size: 4": {"gradient_accumulation_steps": 8},
    "eta_min: 2e-5\nlearning_rate: 2e-4": {"cosine_min_lr_ratio": pytest.approx(0.1)},
    "sequence_len: 1_024": {"sequence_len": 1024},
}


@pytest.mark.parametrize("lines", ACCEPTED)
def test_key_or_value_of_another_tool_is_accepted_with_its_meaning(lines: str, tmp_path: Path) -> None:
    config = loaded(tmp_path, f"{BASE}{lines}\n")
    for key, value in ACCEPTED[lines].items():
        assert config.document.values.get(key) == value, config.translated
    assert config.translated or "_024" in lines


def test_sharegpt_becomes_a_chat_template_with_its_fields(tmp_path: Path) -> None:
    [entry] = loaded(tmp_path, BASE + "datasets: [{path: nobody/x, type: sharegpt}]").document.values["datasets"]
    mappings = {"role": "from", "content": "value"}
    assert entry["type"] == "chat_template"
    assert entry["field_messages"] == "conversations" and entry["message_property_mappings"] == mappings


def test_a_key_that_the_config_sets_itself_is_kept(tmp_path: Path) -> None:
    config = loaded(
        tmp_path, BASE + "fsdp: [full_shard]\nfsdp_config: {offload_params: true}\nfloat32: true\nbf16: true\n"
    )
    assert config.core.fsdp_config and config.core.fsdp_config.offload_params and config.core.bf16 is True


def test_two_names_of_one_setting_need_the_same_value(tmp_path: Path) -> None:
    assert loaded(tmp_path, BASE + "num_epochs: 3\nnum_train_epochs: 3\n").core.num_epochs == 3
    [problem] = error_of(load, tmp_path, BASE + "num_epochs: 3\nnum_train_epochs: 2\n").problems
    assert problem.code == "foreign-key" and problem.help == "keep num_epochs"


def test_an_error_in_a_translated_value_has_the_place_in_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, BASE + "num_train_epochs: many\n")
    [(where, problem)] = problems_of(error_of(load_config, path), path)
    assert problem.message.startswith("num_epochs must be") and where == f"{BASE.count(chr(10)) + 1}:19"


def test_keys_of_plugins_that_nothing_reads_are_accepted_where_axolotl_accepts_them(tmp_path: Path) -> None:
    config = loaded(tmp_path, BASE + ENTRY + "chat_template: chatml\ntrain_on_inputs: false\n")
    assert {one.key for one in config.translated} == {"chat_template", "train_on_inputs"}
    assert loaded(tmp_path, BASE + ENTRY + "train_on_inputs: true\n").translated  # of texts, all is trained
    chats = ENTRY.replace("completion", "chat_template")
    [problem] = error_of(load, tmp_path, BASE + chats + "train_on_inputs: true\n").problems
    assert problem.code == "orphaned-key"


def test_keys_that_nothing_reads_do_not_hide_other_problems(tmp_path: Path) -> None:
    path = write(tmp_path, BASE + DATA + "unheard_of: 1\ndp_shard_size: 2\n")
    error = error_of(api.load, path)
    assert {problem.code for problem in error.problems} == {"unknown-key", "config"}


def test_check_prints_one_block_of_notes(tmp_path: Path) -> None:
    path = write(tmp_path, BASE + DATA + "liger_rope: true\nliger_rms_norm: true\nstrict: true\n")
    result = CliRunner().invoke(main, ["check", str(path)])
    assert result.exit_code == 0, result.output
    block = [line for line in result.output.splitlines() if line.startswith("  ")]
    first = (BASE + DATA).count("\n") + 1
    assert block[0].startswith(f"  liger_rope ({first}), liger_rms_norm ({first + 1}): speed or memory only: ")
    assert "3 keys or values of other tools are accepted" in result.output and "warning" not in result.output


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
