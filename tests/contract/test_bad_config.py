"""Every kind of bad config is reported once, with its place, what to write instead and the right exit code.

There are no cases for features that do not exist: deprecated keys, includes, `${NAME}` as a reference to the
environment, a global batch size, generation batches, masks that a template has to mark, quantized loading, and the
disk space of checkpoints. `max_steps` and `num_epochs` may be combined: `max_steps` is a limit. Problems that need two
devices are not tested here. test_bad_yaml.py and test_yaml.py have the errors of YAML syntax, and
test_config_errors.py has a file with many mistakes at once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.contract.bad import Case, judge, report_of, snapshot, tunesmith
from tests.contract.fakes import BASE, DATA, local_plugin
from tunesmith import checks

GOOD = BASE + DATA
PAIRS = """\
from tunesmith import Method, Plugin, hookimpl
plugin = Plugin(method=Method(rows=("pair",)))
@hookimpl
def compute_loss(): ...
"""
DONE = {"out/run.json": '{"status": "done"}'}


def plus(text: str, message: str, help: str | None = None, exit_code: int = 2, **fields: Any) -> Case:
    """Return the case of a valid config with bad lines appended."""
    return Case(GOOD + text, exit_code, message, help, **fields)


def override(*arguments: str, message: str, help: str | None, place: str, exit_code: int = 2) -> Case:
    """Return the case of a valid config with bad arguments on the command line."""
    return Case(GOOD, exit_code, message, help, place, arguments=arguments)


KEYS = {
    "unknown": plus("@lerning_rate: 1\n", "unknown key: lerning_rate", "'learning_rate'"),
    "unknown key in a group": plus(
        "fsdp_config: {@offload_parms: true}\n", "unknown key: fsdp_config.offload_parms", "'offload_params'"
    ),
    "unknown key in an entry": Case(
        BASE + "datasets:\n  - path: a/b\n    type: chat_template\n    @feild_messages: x\n", 2,
        "unknown key: datasets.0.feild_messages", "'field_messages'",
    ),
    "too deeply nested": plus("fsdp_config: {@learning_rate: 1}\n", "fsdp_config.learning_rate", "at the top level"),
    "top-level key in an entry": Case(
        BASE + "datasets: [{path: a/b, type: alpaca, @seed: 3}]\n", 2, "datasets.0.seed", "it belongs at the top level"
    ),
    "group key at the top level": plus(
        "@offload_params: true\n", "misplaced key: offload_params", "it belongs inside fsdp_config:"
    ),
    "entry key at the top level": plus("@field_output: x\n", "misplaced key: field_output", "an entry of datasets:"),
    "key of another tool": plus("@layer_offloading: true\n", "layer_offloading is not supported", "adapter: qlora"),
    "quantized base without an adapter": plus("load_in_4bit: @true\n", "needs an adapter", "write adapter: lora"),
    "holder of an anchor": plus(
        "@defaults: &d {type: completion}\n", "unknown key: defaults", "write x-defaults or _defaults"
    ),
    "no effect": plus("@lora_r: 8\n", "belongs to lora (tunesmith-lora ", "write adapter: lora"),
    "a secret": plus("@hf_token: hf_abcdefghijklmnopqrst\n", "unknown key: hf_token", "environment variable"),
    "plugin misspelled": plus("plugins: [@earlystopp]\n", "unknown plugin 'earlystopp'", "'earlystop'", exit_code=6),
    "selector misspelled": plus("@adapter: lroa\n", "no plugin answers adapter: lroa", "'lora'"),
}  # fmt: skip
VALUES = {
    "separator": plus("max_steps: @1,000\n", "must be an integer, got \"1,000\"", "write 1000"),
    "percentage": plus("val_set_size: @5%\n", "must be a number", "write 0.05"),
    "quoted number": plus('learning_rate: @"2e-4"\n', "must be a number", "write 2e-4, without quotes"),
    "yes": plus("sample_packing: @yes\n", "must be a boolean, got \"yes\"", "write true"),
    "quoted boolean": plus('sample_packing: @"False"\n', "must be a boolean", "write false"),
    "neither boolean nor choice": plus(
        "bf16: @maybe\n", "must be 'auto' or a boolean, got \"maybe\"", "true or false"
    ),
    "misspelled choice": plus("device: @cpuu\n", "must be 'auto', 'cpu' or 'cuda'", "'cpu'"),
    "number for a string": plus("output_dir: @3\n", "must be a string, got 3", 'write "3", in quotes'),
    "string for a list": plus("adapter: lora\nlora_modules_to_save: @head\n", "must be a list", "write [head]"),
    "path for the datasets": Case(
        BASE + "datasets: @./data.jsonl\n", 2, "datasets must be a list", "[{path: ./data.jsonl, type: chat_template}]"
    ),
    "path for an entry": Case(
        BASE + "datasets: [@./data.jsonl]\n", 2, "must be a group of keys", "{path: ./data.jsonl, type: chat_template}"
    ),
    "mapping for the datasets": Case(
        BASE + "datasets:\n  @path: a/b\n  type: completion\n", 2, "datasets must be a list", 'the entry with "- "'
    ),
    "string for a group": plus("fsdp_config: @full\n", "must be a group of keys", "keys of the group: reshard"),
    **{
        f"{key} of {bad}": plus(f"{key}: @{bad}\n", f"{key} must be")
        for key in ("learning_rate", "micro_batch_size", "max_steps", "num_epochs", "gradient_accumulation_steps")
        for bad in (0, -2)
    },
    "rank of 0": plus("adapter: lora\nlora_r: @0\n", "lora_r must be greater than 0"),
    "not a number": plus("learning_rate: @.nan\n", "must be a finite number"),
    "missing": Case(BASE + "datasets:\n  - @path: a/b\n", 2, "datasets.0.type is missing", "write type: ..."),
    "invalid regular expression": plus(
        "adapter: lora\nlora_target_modules: @'('\n", "is not a regular expression", "a list"
    ),
}  # fmt: skip
COMBINATIONS = {
    "nothing to train on": Case(f"@{BASE}", 2, "nothing to train on", "write datasets: ..."),
    "two keys for one setting": plus(
        "save_steps: @3\nsaves_per_epoch: 1\n", "saves_per_epoch set the same thing", "keep one of them"
    ),
    "warm-up too long": plus("max_steps: 10\nwarmup_steps: @11\n", "longer than training", "write at most 10"),
    "best model without data": plus("load_best_model_at_end: @true\n", "needs held-out data", "val_set_size"),
    "training metric as best": plus(
        "val_set_size: 0.1\nmetric_for_best_model: @loss\n", "begin with eval_", "write eval_loss"
    ),
    "rows for another method": Case(
        BASE + "plugins: [./pairs.py]\ndatasets: [{path: a/b, type: @alpaca}]\n", 2,
        "makes conversation rows, but the method trains on pair rows", files={"pairs.py": PAIRS},
    ),
    "stream without max_steps": Case(
        BASE + "pretraining_dataset: @[{path: a/b}]\n", 2, "pretraining_dataset has no end", "write max_steps"
    ),
    "two kinds of data": plus("max_steps: 1\npretraining_dataset: @[{path: a/b}]\n", "datasets", "keep one of them"),
    "options without their switch": plus(
        "gradient_checkpointing_kwargs: @{}\n", "no effect", "gradient_checkpointing: true"
    ),
}  # fmt: skip
FOLDERS = {
    "output_dir with a run": plus(
        "output_dir: @out\n", "out already contains a run", "resume_from_checkpoint: auto", command="train", files=DONE
    ),
    "output_dir is a file": plus("output_dir: @file\n", "file is a file", "another folder", 5, files={"file": ""}),
    "output_dir below a file": plus("output_dir: @file/out\n", "file is a file", "another", 5, files={"file": ""}),
    "prepared data below a file": plus(
        "dataset_prepared_path: @file/x\n", "file is a file", "another", 5, files={"file": ""}, command="preprocess"
    ),
    "checkpoint missing": plus(
        "resume_from_checkpoint: @out/checkpoint-3\n", "no such folder", "out/checkpoint-30", 4, files={
            "out/checkpoint-30/manifest.json": "{}"},
    ),
}  # fmt: skip
OVERRIDES = {
    "flag without a value": override(
        "--learning_rate", message="must be a number, got true", help="--learning_rate VALUE",
        place="command line (learning_rate)",
    ),
    "flag before a flag": override(
        "--output_dir", "--tf32", message="must be a string, got true", help="--output_dir VALUE",
        place="command line (output_dir)",
    ),
    "argument without a value": override(
        "seed", message="'seed' is not of the form key=value", help="learning_rate=1e-4", place="command line"
    ),
    "index beyond the list": override(
        "datasets.3.type=x", message="datasets has no element 3", help=None, place="command line (datasets.3.type)"
    ),
    "brackets": override(
        "datasets[0].path=x", message="unknown key: datasets[0].path", help="write datasets.0.path=x",
        place="command line (datasets[0].path)",
    ),
    "misspelled": override("--sede", "3", message="unknown key: sede", help="'seed'", place="command line (sede)"),
    "tag": override("seed=!x 1", message="the tag", help=None, place="command line (seed):1:1", exit_code=9),
}  # fmt: skip
CASES = {
    f"{group}: {name}": case
    for group, cases in {
        "key": KEYS, "value": VALUES, "combination": COMBINATIONS, "folder": FOLDERS,
        "command line": OVERRIDES,
    }.items()
    for name, case in cases.items()
}  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", CASES)
def test_bad_config_is_reported_with_its_place_and_advice(name: str, tmp_path: Path) -> None:
    judge(CASES[name], tmp_path)


def test_check_reports_an_unwritable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test patches os.access, because the user who runs it may be root."""
    monkeypatch.setattr(checks.os, "access", lambda path, mode: Path(path) != Path("closed"))
    (tmp_path / "closed").mkdir()
    judge(plus("output_dir: @closed/out\n", "no permission to write to closed", "another folder", 5), tmp_path)


def test_wrong_usage_is_reported_as_json_too() -> None:
    result = tunesmith("--format", "json", "check")
    [problem] = report_of(result)["problems"]
    assert (result.exit_code, problem["code"], problem["where"]) == (2, "usage", "command line")
    assert "Usage: " in tunesmith("check").stderr


# warnings: valid values that are most likely a mistake

LOGIN = """\
from tunesmith import Plugin, Settings
class LoginSettings(Settings):
    wandb_login: str = ""
plugin = Plugin(settings=LoginSettings)
"""
HEX = "0123456789abcdef0123456789abcdef01234567"
WARNINGS = {  # text -> part of the warning, and a secret that may not be printed
    "learning_rate: @100\n": ("learning_rate: 100 is far above", None),
    "output_dir: @./old\n": ("already contains a run: write resume_from_checkpoint: auto", None),
    "max_steps: 10\nsave_steps: @20\n": ("save_steps: 20 is more than the 10 steps of training", None),
    "eval_batch_size: @3\neval_steps: 3\n": (
        "no effect without held-out data; neither does eval_steps: write val_set",
        None,
    ),
    "max_steps: 10\nval_set_size: 0.1\neval_steps: @20\n": ("only the last step is evaluated", None),
    "generate_samples: true\nsample_prompts: [@'${HOME}/out']\n": ("environment variables and ~ are not", None),
    "generate_samples: true\nsample_prompts: [@'~/out']\n": ("environment variables and ~ are not", None),
    "output_dir: @./hf_abcdefghijklmnopqrst\n": ("looks like a secret", "hf_abcdefghijklmnopqrst"),
    "generate_samples: true\nsample_prompts: [Hello, @sk-abcdefghijklmnopqrst]\n": ("sample_prompts.1: ", "sk-abcdef"),
    f"plugins: [./login.py]\nwandb_login: @{HEX}\n": ("as an environment variable", HEX),
}


@pytest.mark.parametrize("text", WARNINGS)
def test_likely_mistake_is_a_warning_with_its_place(text: str, tmp_path: Path) -> None:
    warning, secret = WARNINGS[text]
    case = Case(GOOD + text, 0, warning, files={"login.py": LOGIN, "old/run.json": '{"status": "done"}'})
    case.write(tmp_path)
    before = snapshot(tmp_path)
    text_result, json_result = tunesmith("check", "run.yaml"), tunesmith("--format", "json", "check", "run.yaml")
    [line] = text_result.stderr.splitlines()
    assert line.startswith(f"warning: {case.place}: ") and warning in line
    assert text_result.exit_code == 0 and "no problems found" in text_result.stdout
    assert (
        report_of(json_result)["warnings"] == [line.removeprefix("warning: ")]
        and not report_of(json_result)["problems"]
    )
    assert secret is None or secret not in text_result.output + json_result.output
    assert snapshot(tmp_path) == before


def test_valid_config_has_no_warning_and_1e_minus_4_is_a_number(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(GOOD + "learning_rate: 1e-4\n")
    result = tunesmith("check", "run.yaml")
    assert (result.exit_code, result.stderr) == (0, "")


def test_secret_of_a_wrong_type_is_not_printed(tmp_path: Path) -> None:
    local_plugin(tmp_path, "login", LOGIN.partition("\n")[2].replace('str = ""', "int = 0"))
    (tmp_path / "run.yaml").write_text(GOOD + f"plugins: [./login.py]\nwandb_login: {HEX[:-1]}a\n")
    result = tunesmith("check", "run.yaml")
    assert result.exit_code == 2 and "wandb_login must be an integer\n" in result.stderr


# time and imports of check

TIMED = """
import json, os, sys
from tunesmith.cli import main
try:
    main(["check", sys.argv[1]])
except SystemExit as end:
    used = os.times()
    seconds = used.user + used.system + used.children_user + used.children_system
    print(json.dumps([end.code, seconds, [m for m in ("torch", "transformers", "datasets") if m in sys.modules]]))
"""


@pytest.mark.parametrize(
    ("text", "code"),
    [(GOOD, 0), (GOOD + "lerning_rate: 1\nsave_steps: x\nadapter: lroa\n", 2), ("base_model: ./none\n" + DATA, 4)],
)
def test_check_takes_under_two_seconds_without_torch(text: str, code: int, tmp_path: Path) -> None:
    """The limit is CPU time of the process and its children, so that other work on the machine does not count."""
    (tmp_path / "run.yaml").write_text(text)
    completed = subprocess.run(
        [sys.executable, "-c", TIMED, "run.yaml"], capture_output=True, text=True, env=dict(os.environ), check=True
    )
    assert "Traceback" not in completed.stderr
    status, seconds, heavy = json.loads(completed.stdout.splitlines()[-1])
    assert (status, heavy) == (code, []) and seconds < 2, completed.stdout + completed.stderr
