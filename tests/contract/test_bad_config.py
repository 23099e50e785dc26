"""Every kind of bad config is reported once, with its place, what to write instead and the right exit code.

There are no cases for features that do not exist: deprecated keys, includes, `${NAME}` as a reference to the
environment (it is a warning), a global batch size, generation batches, masks that a template has to mark, quantized
loading, and the disk space of checkpoints. `max_steps` and `num_epochs` may be combined: `max_steps` is a limit.
Problems that need two devices are not tested here. test_yaml.py has the errors of YAML syntax, and
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

from tests.contract.bad import Case, judge, snapshot, report_of, tunesmith
from tests.contract.fakes import BASE, DATA, local_plugin
from tunesmith import checks

GOOD = BASE + DATA
PAIRS = """\
from tunesmith import Method, Plugin, hookimpl
plugin = Plugin(method=Method(rows=("pair",)))
@hookimpl
def compute_loss(): ...
"""
LAUGHS = "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcde", "bcdef", strict=True))
DONE = {"out/run.json": '{"status": "done"}'}


def plus(text: str, message: str, help: str | None = None, exit_code: int = 2, **fields: Any) -> Case:
    """Return the case of a valid config with bad lines appended."""
    return Case(GOOD + text, exit_code, message, help, **fields)


def override(*arguments: str, message: str, help: str | None, place: str, exit_code: int = 2) -> Case:
    """Return the case of a valid config with bad arguments on the command line."""
    return Case(GOOD, exit_code, message, help, place, arguments=arguments)


TEXT = {
    "empty": Case("@", 2, "is empty", "docs/start.md"),
    "only comments": Case("@# a run to come\n", 2, "is empty", "docs/start.md"),
    "UTF-16": Case(GOOD.encode("utf-16"), 2, "is not UTF-8: byte 0", "save the file as UTF-8", "run.yaml:1:1"),
    "Latin-1 further down": Case(b"seed: 3\noutput_dir: gr\xfcn\n", 2, "byte 22", "as UTF-8", "run.yaml:2:15"),
    "control character": Case("seed: 3\nrl: @\x07\n", 2, "U+0007 is not allowed", "as UTF-8"),
    "unclosed bracket": more("plugins: @[earlystop\nseed: 1\n", "by line 4"),
    "unclosed quote": more("seed: 1\noutput_dir: @'x\n", "unexpected end of stream"),
    "list at the top": Case("@- a\n", 2, "the top level has to be keys and values"),
    "duplicate key": more("seed: 1\n@seed: 2\n", "'seed' stands twice; first at run.yaml:3:1", "keep one"),
    "tag": Case("base_model: @!!python/object/apply:os.system [echo]\n", 9, "python/object/apply"),
    "alias bomb": Case(f"a: &a [x, x, x, x, x, x, x, x, x, x]\n{LAUGHS}", 9, "10,000 values", None, "run.yaml:1:35"),
    "deep nesting": Case(f"rl: {'[' * 70}{']' * 70}\n", 9, "64 levels", None, "run.yaml:1:69"),
    "50 megabytes": Case(b"#" * 50_000_000, 9, "50,000,000 bytes are too many", None, "run.yaml"),
}
KEYS = {
    "unknown": more("@lerning_rate: 1\n", "lerning_rate is no key", "'learning_rate'"),
    "unknown in a group": more("fsdp_config: {@offload_parms: true}\n", "offload_parms is no key", "'offload_params'"),
    "unknown in an entry": Case(
        BASE + "datasets:\n  - path: a/b\n    type: chat_template\n    @feild_messages: x\n", 2,
        "datasets.0.feild_messages is no key", "'field_messages'",
    ),
    "too deep": more("fsdp_config: {@learning_rate: 1}\n", "fsdp_config.learning_rate", "at the top level"),
    "too deep in an entry": Case(
        BASE + "datasets: [{path: a/b, type: alpaca, @seed: 3}]\n", 2, "datasets.0.seed", "it belongs at the top level"
    ),
    "too shallow": more("@offload_params: true\n", "offload_params is no key here", "it belongs inside fsdp_config:"),
    "too shallow for an entry": more("@field_output: x\n", "field_output is no key here", "an entry of datasets:"),
    "of another tool": more("@fp16: true\n", "fp16 is not taken", "bf16: auto"),
    "quantised base": more("@load_in_4bit: true\n", "load_in_4bit is not taken", "adapter: lora on the bfloat16 model"),
    "no effect": more("@lora_r: 8\n", "belongs to the plugin lora", "write adapter: lora"),
    "a secret": more("@hf_token: hf_abcdefghijklmnopqrst\n", "hf_token is no key", "environment variable"),
    "plugin misspelt": more("plugins: [@earlystopp]\n", "no plugin 'earlystopp'", "'earlystop'", exit_code=6),
    "selector misspelt": more("@adapter: lroa\n", "no plugin answers adapter: lroa", "'lora'"),
}  # fmt: skip
VALUES = {
    "separator": more("max_steps: @1,000\n", "has to be an integer, not \"1,000\"", "write 1000"),
    "percentage": more("val_set_size: @5%\n", "has to be a number", "write 0.05"),
    "quoted number": more('learning_rate: @"2e-4"\n', "has to be a number", "write 2e-4, without quotes"),
    "yes": more("sample_packing: @yes\n", "has to be a boolean, not \"yes\"", "write true"),
    "quoted boolean": more('sample_packing: @"False"\n', "has to be a boolean", "write false"),
    "one of several kinds": more("bf16: @maybe\n", "has to be 'auto' or a boolean, not \"maybe\"", "true or false"),
    "one of several words": more("device: @cpuu\n", "has to be 'auto', 'cpu' or 'cuda'", "'cpu'"),
    "number for a text": more("output_dir: @3\n", "has to be a string, not 3", 'write "3", in quotes'),
    "text for a list": more("adapter: lora\nlora_modules_to_save: @head\n", "has to be a list", "write [head]"),
    "text for a group": more("fsdp_config: @full\n", "has to be a group of keys"),
    **{
        f"{key} of {bad}": more(f"{key}: @{bad}\n", f"{key} has to be")
        for key in ("learning_rate", "micro_batch_size", "max_steps", "num_epochs", "gradient_accumulation_steps")
        for bad in (0, -1)
    },
    "rank of 0": more("adapter: lora\nlora_r: @0\n", "lora_r has to be greater than 0"),
    "not a number": more("learning_rate: @.nan\n", "has to be a finite number"),
    "missing": Case(BASE + "datasets:\n  - @path: a/b\n", 2, "datasets.0.type is missing", "write type: ..."),
    "no regular expression": more("adapter: lora\nlora_target_modules: @'('\n", "is no regular expression", "a list"),
}  # fmt: skip
COMBINATIONS = {
    "nothing to train on": Case(f"@{BASE}", 2, "nothing to train on", "write datasets: ..."),
    "bf16 and fp16": more("bf16: true\n@fp16: true\n", "fp16 is not taken", "bf16: auto"),
    "the same twice": more("save_steps: @3\nsaves_per_epoch: 1\n", "saves_per_epoch set the same thing", "keep one of them"),
    "warm-up too long": more("max_steps: 10\nwarmup_steps: @11\n", "longer than training", "write 10 at most"),
    "evaluation of nothing": more("eval_steps: @3\n", "needs held-out data", "val_set_size"),
    "the best of nothing": more("load_best_model_at_end: @true\n", "needs held-out data", "val_set_size"),
    "metric of training": more(
        "val_set_size: 0.1\nmetric_for_best_model: @loss\n", "begin with eval_", "write eval_loss"
    ),
    "rows of another method": Case(
        BASE + "plugins: [./pairs.py]\ndatasets: [{path: a/b, type: @alpaca}]\n", 2,
        "makes conversation rows, and the method trains on pair rows", files={"pairs.py": PAIRS},
    ),
    "stream without an end": Case(
        BASE + "pretraining_dataset: @[{path: a/b}]\n", 2, "pretraining_dataset has no end", "write max_steps"
    ),
    "two kinds of data": more("max_steps: 1\npretraining_dataset: @[{path: a/b}]\n", "datasets", "keep one of them"),
    "options of nothing": more("gradient_checkpointing_kwargs: @{}\n", "no effect", "gradient_checkpointing: true"),
}  # fmt: skip
FOLDERS = {
    "output_dir holds a run": more(
        "output_dir: @out\n", "out holds a run already", "resume_from_checkpoint: auto", command="train", files=DONE
    ),
    "output_dir is a file": more("output_dir: @file\n", "file is a file", "another folder", 5, files={"file": ""}),
    "output_dir below a file": more("output_dir: @file/out\n", "file is a file", "another", 5, files={"file": ""}),
    "prepared data below a file": more(
        "dataset_prepared_path: @file/x\n", "file is a file", "another", 5, files={"file": ""}, command="preprocess"
    ),
    "checkpoint missing": more(
        "resume_from_checkpoint: @out/checkpoint-3\n", "no such folder", "out/checkpoint-30", 4, files={
            "out/checkpoint-30/manifest.json": "{}"},
    ),
}  # fmt: skip
OVERRIDES = {
    "flag without a value": word(
        "--learning_rate", said="has to be a number, not true", help="--learning_rate VALUE",
        place="command line (learning_rate)",
    ),
    "flag before a flag": word(
        "--output_dir", "--tf32", said="has to be a string, not true", help="--output_dir VALUE",
        place="command line (output_dir)",
    ),
    "word alone": word("seed", said="'seed' is no key=value", help="learning_rate=1e-4", place="command line"),
    "beyond the list": word(
        "datasets.3.type=x", said="there is no 3 to reach into", help=None, place="command line (datasets.3.type)"
    ),
    "misspelt": word("--sede", "3", said="sede is no key", help="'seed'", place="command line (sede)"),
    "tag": word("seed=!x 1", said="the tag", help=None, place="command line (seed):1:1", exit_code=9),
}  # fmt: skip
CASES = {
    f"{group}: {name}": case
    for group, cases in {
        "text": TEXT, "key": KEYS, "value": VALUES, "combination": COMBINATIONS, "folder": FOLDERS, "command line": OVERRIDES
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
    judge(more("output_dir: @closed/out\n", "no permission to write to closed", "another folder", 5), tmp_path)


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
    "max_steps: 10\nsave_steps: @20\n": ("save_steps: 20 is more than the 10 steps of training", None),
    "max_steps: 10\nval_set_size: 0.1\neval_steps: @20\n": ("only the last step is evaluated", None),
    "output_dir: @${HOME}/out\n": ("environment variables and ~ are not expanded", None),
    "output_dir: @~/out\n": ("environment variables and ~ are not expanded", None),
    "output_dir: @./hf_abcdefghijklmnopqrst\n": ("looks like a secret", "hf_abcdefghijklmnopqrst"),
    "generate_samples: true\nsample_prompts: [Hello, @sk-abcdefghijklmnopqrst]\n": ("sample_prompts.1: ", "sk-abcdef"),
    f"plugins: [./login.py]\nwandb_login: @{HEX}\n": ("as an environment variable", HEX),
}


@pytest.mark.parametrize("text", WARNINGS)
def test_likely_mistake_is_a_warning_with_its_place(text: str, tmp_path: Path) -> None:
    warning, secret = WARNINGS[text]
    case = Case(GOOD + text, 0, warning, files={"login.py": LOGIN})
    case.write(tmp_path)
    before = snapshot(tmp_path)
    text_result, json_result = tunesmith("check", "run.yaml"), tunesmith("--format", "json", "check", "run.yaml")
    [line] = text_result.stderr.splitlines()
    assert line.startswith(f"warning: {case.place}: ") and warning in line
    assert text_result.exit_code == 0 and "no problems found" in text_result.stdout
    assert report_of(json_result)["warnings"] == [line.removeprefix("warning: ")] and not report_of(json_result)["problems"]
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
    assert result.exit_code == 2 and "wandb_login has to be an integer\n" in result.stderr


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
