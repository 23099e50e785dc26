"""A migrated config means the same as the original, and says what changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from tunesmith_migrate.rewrite import rewrite

from tunesmith import TunesmithError
from tunesmith.cli.main import main
from tunesmith.config.keys import UNREAD
from tunesmith.config.load import load_config

AXOLOTL = """\
# The run of Tuesday.
base_model: nobody/model
adapter: lora       # small
lora_r: 8

strict: false
wandb_project:
liger_rope: true
attn_implementation: flash_attention_2
datasets:
  # the good rows
  - path: nobody/rows
    type: chat_template
    message_field_role: from
fsdp: [full_shard]
fsdp_config:
  fsdp_offload_params: true
  fsdp_activation_checkpointing: true
layer_offloading: true
unheard_of:
  of: 3
special_tokens:
  pad_token: "<|end|>"
"""
EXPECTED = """\
# The run of Tuesday.
base_model: nobody/model
adapter: lora       # small
lora_r: 8

# was liger_rope: true  (speed or memory only: torch computes it; the result is the same)
# was attn_implementation: flash_attention_2
#     (speed or memory only: attn_implementation: auto; a fast backend that keeps packed examples separate is chosen)
attn_implementation: auto
# was datasets.0.message_field_role: from  (message_property_mappings.role: from)
datasets:
- path: nobody/rows
  type: chat_template
  message_property_mappings:
    role: from
# was fsdp: [full_shard]  (FSDP2 shards the model over the processes)
# was fsdp_config.fsdp_offload_params: true  (offload_params: true)
# was fsdp_config.fsdp_activation_checkpointing: true
#     (gradient_checkpointing: true; gradient_checkpointing recomputes activations, with and without sharding)
fsdp_config:
  offload_params: true
gradient_checkpointing: true
# not used: layer_offloading is not supported: frozen layers are not moved to the CPU; drop it; load_in_4bit: true
# with adapter: qlora needs a quarter of the memory
# layer_offloading: true
# not used: unknown key: unheard_of; `tunesmith config-schema` lists all keys
# unheard_of:
#   of: 3
special_tokens:
  pad_token: "<|end|>"
"""


def test_migrated_file_keeps_what_is_the_same_and_comments_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "axolotl.yaml"
    path.write_text(AXOLOTL, encoding="utf-8")
    result = rewrite(path, "axolotl")
    first, _, text = result.text.partition("\n")
    assert first.startswith("# Rewritten by `tunesmith migrate` from axolotl.yaml")
    assert text == EXPECTED
    assert (result.translated, result.refused, result.empty, result.problems) == (6, 2, 1, None)


def test_files_with_anchors_are_migrated_without_their_comments(tmp_path: Path) -> None:
    path = tmp_path / "axolotl.yaml"
    path.write_text(
        "base_model: a/b  # mine\nx-rows: &rows {path: a/b, type: completion}\ndatasets: [*rows]\nlr: 1e-4\n"
    )
    values = yaml.safe_load(rewrite(path, "torchtune").text)
    assert values["datasets"] == [{"path": "a/b", "type": "completion"}] and values["learning_rate"] == 0.0001


@pytest.mark.parametrize(("tool", "text", "values"), [
    ("llamafactory", "model_name_or_path: a/b\nstage: dpo\nfinetuning_type: lora\nlora_rank: 8\nlora_target: all\n"
     "cutoff_len: 512\npref_beta: 0.2\nplot_loss: true\nnum_train_epochs: 2.0\n",
     {"base_model": "a/b", "rl": "dpo", "adapter": "lora", "lora_r": 8, "lora_target_linear": True,
      "sequence_len": 512, "rl_beta": 0.2, "num_epochs": 2.0}),
    ("trl", "model_name_or_path: a/b\nuse_peft: true\nlora_r: 4\nmax_length: 256\npacking: true\nbf16: true\n"
     "report_to: wandb\nlr_scheduler_type: linear\nlogging_strategy: steps\n",
     {"base_model": "a/b", "adapter": "lora", "lora_r": 4, "sequence_len": 256, "sample_packing": True, "bf16": True,
      "lr_scheduler": "linear"}),
])  # fmt: skip
def test_config_of_another_tool_gets_the_names_of_this_one(
    tool: str, text: str, values: object, tmp_path: Path
) -> None:
    path, output = tmp_path / "theirs.yaml", tmp_path / "run.yaml"
    path.write_text(text + "datasets: [{path: a/b, type: chat_template}]\n", encoding="utf-8")
    result = CliRunner().invoke(main, ["migrate", str(path), "--from", tool, "--output", str(output)])
    assert result.exit_code in (0, 2), result.output
    written = yaml.safe_load(output.read_text("utf-8"))
    del written["datasets"]
    assert written == values
    again = CliRunner().invoke(main, ["migrate", str(path), "--output", str(output)])
    assert again.exit_code == 2 and "run.yaml exists" in again.output


def test_a_config_whose_rows_have_only_a_name_elsewhere_has_nothing_to_train_on(tmp_path: Path) -> None:
    path = tmp_path / "theirs.yaml"
    path.write_text("model_name_or_path: nobody/model\ndataset: identity\nstage: sft\noutput_dir: out\n")
    result = CliRunner().invoke(main, ["migrate", str(path), "--from", "llamafactory"])
    assert result.exit_code == 2 and "nothing to train on" in result.stderr


def test_secrets_are_not_copied(tmp_path: Path) -> None:
    path = tmp_path / "axolotl.yaml"
    path.write_text("base_model: a/b\ncomet_api_key: abcdefgh12345\nswanlab_api_key: abcdefgh12345\n", encoding="utf-8")
    assert "abcdefgh12345" not in rewrite(path, "axolotl").text


@pytest.mark.slow
def test_axolotl_configs_keep_their_meaning(tmp_path: Path) -> None:
    folder = os.environ.get("TUNESMITH_TEST_DATA")
    if not folder:
        pytest.skip("TUNESMITH_TEST_DATA is not set: no configs of Axolotl")
    equal = 0
    for path in sorted(Path(folder, "axolotl-yaml").glob("*.y*ml")):
        result = rewrite(path, "axolotl")
        assert not [p for p in (result.problems.problems if result.problems else ()) if p.code in UNREAD], path.name
        file = tmp_path / path.name
        file.write_text(result.text, encoding="utf-8")
        try:
            original = load_config(path)
        except TunesmithError:
            continue
        assert load_config(file).resolved() == original.resolved(), path.name
        assert not load_config(file).translated
        equal += 1
    assert equal >= 3
