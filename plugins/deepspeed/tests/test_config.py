"""A configuration of DeepSpeed is checked with the YAML file: what the run decides, what is idle, what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tunesmith_deepspeed.checks import check
from tunesmith_deepspeed.zero import Zero, ready, ready_name

from tests.contract.fakes import BASE, DATA
from tunesmith import ConfigError
from tunesmith.config.load import load_config
from tunesmith.run import Run


def run_of(folder: Path, *lines: str) -> Run:
    """Return a run of a YAML file with these lines, which line 3 begins."""
    path = folder / "run.yaml"
    path.write_text(BASE + DATA + "\n".join(lines) + "\n", encoding="utf-8")
    config = load_config(path)
    return Run(config, config.hooks())


def zero_of(folder: Path, value: Any, *lines: str) -> Zero:
    return check(run_of(folder, f"deepspeed: {json.dumps(value)}", *lines))


@pytest.mark.parametrize("name", ready())
def test_ready_configurations_leave_every_number_of_the_run_to_the_run(name: str, tmp_path: Path) -> None:
    zero = zero_of(tmp_path, name, "micro_batch_size: 3", "gradient_accumulation_steps: 5", "max_grad_norm: 0.5")
    assert not zero.notes and name.startswith(f"zero{zero.stage}")
    complete = zero.complete(run_of(tmp_path, "micro_batch_size: 3", "max_grad_norm: 0.5"), 4, True, "cuda", 64)
    assert "auto" not in json.dumps(complete) and complete["bf16"] == {"enabled": True}
    assert complete["train_batch_size"] == 12 and complete["gradient_clipping"] == 0.5
    section = complete["zero_optimization"]
    if zero.stage == 3:
        assert (section["reduce_bucket_size"], section["stage3_prefetch_bucket_size"]) == (4096, 3686)
        assert section["stage3_param_persistence_threshold"] == 640
    assert zero.offloads("optimizer") == name.endswith(("offload", "optimizer"))
    assert zero.offloads("param") == (zero.stage == 3 and name.endswith(("offload", "params")))


def test_names_of_axolotl_mean_ready_configurations() -> None:
    assert ready_name("deepspeed_configs/zero2.json") == "zero2"
    assert ready_name(r"configs\zero3_bf16_cpuoffload_all.json") == "zero3_offload"
    assert ready_name("zero1_torch_compile") == "zero1" and ready_name("my.json") is None


WRONG: dict[str, tuple[Any, str, str]] = {
    "no stage": ({"zero_optimization": {}}, "zero_optimization.stage is missing", '{"stage": 2}'),
    "no section": ({}, "zero_optimization is missing", '{"stage": 2}'),
    "stage 0": ({"stage": 0}, "zero_optimization.stage is 0, which divides nothing", "DDP"),
    "stage 4": ({"stage": 4}, "zero_optimization.stage is 4", "1, 2 or 3"),
    "stage true": ({"stage": True}, "zero_optimization.stage is True", "1, 2 or 3"),
    "misspelled": ({"stage": 2, "overlap_com": True}, "overlap_com is not a key", "overlap_comm"),
    "type": ({"stage": 2, "overlap_comm": "yes"}, "must be true or false, got 'yes'", ""),
    "bucket": ({"stage": 2, "reduce_bucket_size": 1.5}, "must be a whole number or auto, got 1.5", ""),
    "nvme": ({"stage": 3, "offload_param": {"device": "nvme"}}, "offload_param.device is nvme", '"cpu"'),
    "weights in stage 2": ({"stage": 2, "offload_param": {"device": "cpu"}}, "offload_param needs stage 3", "stage: 3"),
    "old offload": ({"stage": 2, "cpu_offload": True}, "cpu_offload is not supported", "offload_optimizer"),
    "ZeRO++": ({"stage": 3, "zero_quantized_weights": True}, "zero_quantized_weights is not supported", "ZeRO\\+\\+"),
    "fp16": ({"stage": 2, "fp16": {"enabled": True}}, "fp16.enabled is not supported", "bf16"),
    "bf16": ({"stage": 2, "bf16": {"enabled": True}}, "bf16.enabled is true, but bf16 is false", "auto"),
    "master": ({"stage": 2, "bf16": {"bf16_master_weights_and_grads": True}}, "stay in float32", "drop it"),
    "packs": ({"stage": 2, "train_micro_batch_size_per_gpu": 4}, "is 4, but micro_batch_size is 2", "batch_size: 4"),
    "clipping": ({"stage": 2, "gradient_clipping": 0.3}, "is 0.3, but max_grad_norm is 1.0 by default", "auto"),
    "accumulation": ({"stage": 2, "gradient_accumulation_steps": 8}, "is 8, but gradient_accumulation_steps is 1", ""),
    "step": ({"stage": 2, "train_batch_size": 3}, "is 3, which is not 2 .*per process", "auto"),
    "schedule": ({"stage": 2, "scheduler": {"type": "WarmupLR"}}, "scheduler is not supported", "lr_scheduler"),
    "optimizer": ({"stage": 2, "optimizer": {"type": "Lamb"}}, "optimizer is decided by the run", "learning_rate"),
    "activations": ({"stage": 2, "activation_checkpointing": {"cpu_checkpointing": True}},
                    "activation_checkpointing is not supported", "gradient_checkpointing: true"),
}  # fmt: skip
TOP = {
    "fp16", "bf16", "train_micro_batch_size_per_gpu", "gradient_clipping", "gradient_accumulation_steps", "scheduler",
    "train_batch_size", "optimizer", "activation_checkpointing", "zero_optimization",
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("as_file", [False, True])
def test_wrong_key_is_an_error_with_its_place(case: str, as_file: bool, tmp_path: Path) -> None:
    values, message, help = WRONG[case]
    if values and "zero_optimization" not in values:
        top = {name: value for name, value in values.items() if name in TOP}
        values = top | {"zero_optimization": {name: value for name, value in values.items() if name not in TOP}}
    value: Any = values
    if as_file:
        (tmp_path / "z.json").write_text(json.dumps(values), encoding="utf-8")
        value = str(tmp_path / "z.json")
    with pytest.raises(ConfigError) as error:
        zero_of(tmp_path, value, "micro_batch_size: 2", "bf16: false")
    assert error.match(rf"run.yaml:3:\d+.*{message}") and error.match(f"help: .*{help}" if help else "")
    assert ("z.json: " in str(error.value)) == as_file


@pytest.mark.parametrize(("lines", "message"), [
    (["fsdp_config: {}"], "fsdp_config does not go with deepspeed"),
    (["optimizer: muon"], "optimizer muon does not go with deepspeed"),
])  # fmt: skip
def test_impossible_pairs_are_errors(lines: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"run.yaml:4:\d+.*{message}"):
        zero_of(tmp_path, "zero2", *lines)


def test_keys_without_effect_are_named(tmp_path: Path) -> None:
    section = {"stage": 2, "stage3_max_live_parameters": 1e9, "stage3_gather_16bit_weights_on_model_save": True}
    zero = zero_of(tmp_path, {"zero_optimization": section, "steps_per_print": 10, "wall_clock_breakdown": False})
    assert sorted(note.partition(" has no effect")[0] for note in zero.notes) == [
        "steps_per_print", "zero_optimization.stage3_gather_16bit_weights_on_model_save",
        "zero_optimization.stage3_max_live_parameters",
    ]  # fmt: skip
    assert zero.values == {"zero_optimization": {"stage": 2}}


def test_file_as_users_of_transformers_write_it_is_accepted(tmp_path: Path) -> None:
    file = {
        "fp16": {"enabled": "auto", "loss_scale": 0, "initial_scale_power": 16}, "bf16": {"enabled": "auto"},
        "optimizer": {"type": "AdamW", "params": {"lr": "auto", "betas": "auto", "eps": "auto"}},
        "zero_optimization": {
            "stage": 3, "offload_optimizer": {"device": "cpu", "pin_memory": True, "fast_init": False},
            "offload_param": {"device": "none"}, "sub_group_size": 1e9, "reduce_bucket_size": "auto",
        },
        "gradient_accumulation_steps": "auto", "gradient_clipping": 1.0, "train_batch_size": "auto",
    }  # fmt: skip
    (tmp_path / "z.json").write_text(json.dumps(file), encoding="utf-8")
    zero = zero_of(tmp_path, str(tmp_path / "z.json"))
    assert zero.describe() == "ZeRO-3 with optimizer on the CPU" and zero.offloads("optimizer")
    assert zero.values["zero_optimization"]["sub_group_size"] == 10**9


@pytest.mark.parametrize(("value", "content", "message"), [
    ("configs/zero3_bf16.json", None, "no such file\n  help: write deepspeed: zero3, which comes with Tunesmith"),
    ("zero4", None, "no such file\n  help: did you mean 'zero"),
    ("other.json", None, "help: write one of: zero1, .*or the path of a file"),
    ("z.json", '{"zero_optimization": {', "z.json:1:24: "),
    ("z.json", "[1]", "must be a JSON object, got list"),
])  # fmt: skip
def test_file_that_is_missing_or_no_json_has_advice(
    value: str, content: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / value).write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=f"run.yaml:3:12: .*(?s:.*){message}"):
        zero_of(tmp_path, value)


def test_configs_of_axolotl_become_ready_configurations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "base_model: nobody/model\ndatasets:\n  - path: nobody/rows\n    type: alpaca\n"
    (tmp_path / "axolotl.yaml").write_text(f"{text}deepspeed: deepspeed_configs/zero3_bf16_cpuoffload_all.json\n")
    command = [sys.executable, "-m", "tunesmith", "migrate", "axolotl.yaml"]
    assert "\ndeepspeed: zero3_offload\n" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (tmp_path / "deepspeed_configs").mkdir()
    (tmp_path / "deepspeed_configs/zero2.json").write_text('{"zero_optimization": {"stage": 1}}')
    assert check(run_of(tmp_path, "deepspeed: deepspeed_configs/zero2.json")).stage == 1  # the user's file
    (tmp_path / "deepspeed_configs/zero2.json").unlink()
    assert check(run_of(tmp_path, "deepspeed: deepspeed_configs/zero2.json")).stage == 2


def test_check_imports_neither_torch_nor_deepspeed(tmp_path: Path) -> None:
    run_of(tmp_path, "deepspeed: zero3")
    program = (
        "import sys; from tunesmith.run import Run; from tunesmith.config.load import load_config\n"
        "from tunesmith_deepspeed.checks import check; config = load_config(sys.argv[1])\n"
        "print(check(Run(config, config.hooks())).stage, {'torch', 'deepspeed'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "run.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "3 set()"
