"""The command line has fixed exit codes, prints one clear error without a traceback, and keeps its JSON format."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.contract.fakes import BASE, DATA, local_plugin, write
from tunesmith.cli import main
from tunesmith.config.settings import CoreSettings
from tunesmith.plugins import discovery
from tunesmith.plugins.hookspecs import HOOKS


def tunesmith(*words: str | Path) -> Result:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create a working folder with valid and invalid models, data and local plugins, and change to it."""
    monkeypatch.chdir(tmp_path)
    for name, files in {
        "model": {"config.json": '{"model_type": "llama"}', "model.safetensors": ""},
        "pickled": {"config.json": "{}", "pytorch_model.bin": ""},
        "remote": {"config.json": '{"auto_map": {"AutoModel": "code.Model"}}', "model.safetensors": ""},
        "bare": {"config.json": "{}"},
        "broken": {"config.json": '{\n "model_type": }', "model.safetensors": ""},
        "empty": {},
        "data": {
            "good.jsonl": '{"text": "a"}\n',
            "bad.jsonl": '{"text": "a"}\n\n{"text": "b"]}\n',
            "list.json": '[{"text": 1},\n 3]',
        },
    }.items():
        (tmp_path / "files" / name).mkdir(parents=True)
        for file, content in files.items():
            (tmp_path / "files" / name / file).write_text(content, encoding="utf-8")
    local_plugin(tmp_path, "fails", "plugin = Plugin()\n@hookimpl\ndef inspect(run):\n    1 / 0\n")
    local_plugin(tmp_path, "unfit", "plugin = Plugin()\n@hookimpl\ndef on_stpe(run): ...\n")
    local_plugin(
        tmp_path,
        "rival",
        "plugin = Plugin(models=('hub',))\n@hookimpl(specname='load_model')\ndef load_model(run): ...\n",
    )
    local_plugin(tmp_path, "rival2", "plugin = Plugin(models=('hub',))\n@hookimpl\ndef load_model(run): ...\n")
    reads = """
    plugin = Plugin(strategies={"text": ("reads",)})
    @hookimpl
    def load_tokenizer():
        return dict  # it can be called
    @hookimpl
    def build_dataset(rows):
        return list(rows)
    """
    local_plugin(tmp_path, "reads", reads)
    return tmp_path


def data(path: str) -> str:
    return f"{BASE}plugins: [./reads.py]\ndatasets:\n  - path: {path}\n    type: reads\n"


EXITS: dict[str, tuple[str, str, int, str]] = {  # command, YAML, exit code, regular expression for the output
    "good": ("check", BASE, 0, r"run.yaml: no problems found; active plugins: adamw, "),
    "good data": ("check", data("files/data"), 0, r"no problems found"),
    "unknown key": (
        "check", BASE + "sede: 1", 2, r"run.yaml:2:1: error\[unknown-key\]: unknown key: sede\n  help: .*'seed'"
    ),
    "wrong type": ("check", BASE + "seed: x", 2, r"run.yaml:2:7: error\[wrong-type\]"),
    "broken YAML": ("check", BASE + "seed: [1", 2, r"run.yaml:2:7: error\[yaml-syntax\]"),
    "nothing to train on": ("check", f"{BASE}datasets: []\n", 2, r"run.yaml:1:1: error\[no-data\]: .*nothing to train"),
    "data file missing": ("check", data("files/data/godo.jsonl"), 3, r"run.yaml:4:11: .*no-file.*\n.*good.jsonl"),
    "data file of a folder missing": ("check", data("files/empty"), 3, r"run.yaml:4:11: .*no-file.*files/empty "),
    "broken JSON": ("preprocess", data("files/data/bad.jsonl"), 3, r"files/data/bad.jsonl:3:13: error\[broken-json\]"),
    "not an object": (
        "preprocess", data("files/data/list.json"), 3, r"files/data/list.json#2: error\[broken-json\]"
    ),
    "model missing": ("check", "base_model: ./files/modle", 4, r"run.yaml:1:13: .*no such folder\n.*model"),
    "no config.json": ("check", "base_model: ./files/empty", 4, r"run.yaml:1:13: .*config.json is missing"),
    "no weights": ("check", "base_model: ./files/bare", 4, r"run.yaml:1:13: .*no .safetensors.*\n.*reinit_weights"),
    "broken config.json": ("check", "base_model: ./files/broken", 4, r"run.yaml:1:13: .*config.json:2:16"),
    "adapter missing": ("check", BASE + "adapter: lora\nlora_model_dir: none", 4, r"run.yaml:3:17: .*adapter_model"),
    "unknown plugin": ("check", BASE + "plugins: [lroa]", 6, r"run.yaml:2:11: error\[plugin-unknown\].*\n.*'lora'"),
    "plugin fails": ("check", BASE + "plugins: [./fails.py]", 6, r"fails.py:5: error\[hook-failed\]: .*ZeroDivision"),
    "misspelled hook": (
        "check", BASE + "plugins: [./unfit.py]", 6, r"unfit.py:3: error\[hook-unknown\].*\n.*'on_step'"
    ),
    "two implementations": (
        "check", BASE + "plugins: [./rival.py, ./rival2.py]", 6, r"load_model of 'hub' is answered by rival .* rival2 "
    ),
    "pickled weights": ("check", "base_model: ./files/pickled", 9, r"run.yaml:1:13: .*model.bin\n.*safetensors"),
    "code in the model": ("check", "base_model: ./files/remote", 9, r"run.yaml:1:13: .*auto_map"),
    "trust_remote_code": ("check", BASE + "trust_remote_code: true", 9, r"run.yaml:2:20: .*trust_remote_code"),
    "YAML tag": ("check", "base_model: !!python/name:os.system", 9, r"run.yaml:1:13: error\[yaml-tag\]"),
}  # fmt: skip


@pytest.mark.parametrize("case", EXITS)
def test_exit_code_and_error(case: str, tmp_path: Path) -> None:
    command, text, code, words = EXITS[case]
    write(tmp_path, text if "datasets:" in text else f"{text}\n{DATA}")
    result = tunesmith(command, "run.yaml")
    assert (result.exit_code, result.exit_code == 0 or result.stdout == "") == (code, True), result.output
    assert re.search(words, result.output), result.output


@pytest.mark.parametrize("command", ["train", "preprocess", "plan", "check", "verify", "hooks"])
def test_every_command_reports_a_bad_config_the_same_way(command: str, tmp_path: Path) -> None:
    write(tmp_path, BASE + "sede: 1\n")
    result = tunesmith(command, "run.yaml")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("run.yaml:2:1: error[unknown-key]: unknown key: sede\n  help: did you mean 'seed'?")


@pytest.mark.parametrize(
    "words", [["check"], ["chekc", "run.yaml"], ["check", "none.yaml"], ["--vresion"], ["check", "."]], ids=" ".join
)
def test_wrong_usage_has_exit_code_2(words: list[str]) -> None:
    assert tunesmith(*words).exit_code == 2


@pytest.mark.parametrize(
    ("words", "code", "start"),
    [
        (["--seed", "5"], 0, ""), (["seed=5", "--learning_rate", "2e-4"], 0, ""), (["--tf32"], 0, ""),
        (["--seed", "-1"], 2, "command line (seed): error[wrong-type]"),
        (["--seed=x"], 2, "command line (seed): error[wrong-type]"),
        (["--sede", "1"], 2, "command line (sede): error[unknown-key]"),
        (["--fsdp_config.offlaod_params"], 2, "command line (fsdp_config.offlaod_params): error[unknown-key]"),
        (["--datasets.0.type", "alpcaa"], 2, "command line (datasets.0.type): error[unknown-value]"),
        (["--datasets.3.type", "alpaca"], 2, "command line (datasets.3.type): error[override]"),
        (["seed"], 2, "command line: error"), (["seed=[1"], 2, "command line (seed)"),
        (["seed=!x 1"], 9, "command line (seed)"),
    ],
)  # fmt: skip
def test_overrides_reach_the_config_and_their_errors_name_the_command_line(
    words: list[str], code: int, start: str, tmp_path: Path
) -> None:
    write(tmp_path, data("files/data"))
    result = tunesmith("check", "run.yaml", *words)
    assert result.exit_code == code, result.output
    assert result.stderr.startswith(start)


def test_version_is_the_core_version() -> None:
    result = tunesmith("--version")
    assert (result.exit_code, result.output) == (0, f"tunesmith {discovery.core_version()}\n")


def test_plugins_are_listed_as_text_and_json() -> None:
    rows = json.loads(tunesmith("plugins", "--json").stdout)
    assert [row["name"] for row in rows] == sorted(discovery.installed())
    for row in rows:
        keys = {"name", "distribution", "version", "summary", "answers", "strategies", "hooks", "selected_by"}
        assert keys <= set(row), row
        assert any(line.startswith("tunesmith-core") for line in row["requires"])
        assert row["summary"] and row["version"]
        assert set(row["hooks"]) <= set(HOOKS) and set(row["hooks"].values()) <= {"impl", "wrapper"}
    assert {"name": "lora", "distribution": "tunesmith-lora", "selected_by": "write adapter: lora | qlora"}.items() <= {
        k: v for row in rows if row["name"] == "lora" for k, v in row.items() if isinstance(v, str)
    }.items()
    text = tunesmith("plugins").stdout
    assert all(f"{row['name']} " in text and row["distribution"] in text for row in rows)


def test_hooks_are_listed_in_call_order_as_text_and_json(tmp_path: Path) -> None:
    local_plugin(tmp_path, "late", "plugin = Plugin(after=['hf'])\n@hookimpl\ndef save_model(run): ...\n")
    local_plugin(
        tmp_path, "early", "plugin = Plugin()\n@hookimpl(wrapper=True)\ndef load_model(run):\n    return (yield)\n"
    )
    write(tmp_path, BASE + DATA + "plugins: [./late.py, ./early.py]\nadapter: lora")
    rows = json.loads(tunesmith("hooks", "run.yaml", "--json").stdout)
    assert [row["hook"] for row in rows] == list(HOOKS)
    for row in rows:
        assert row["arity"] in ("one", "keyed", "chain", "all")
        for call in row["calls"]:
            assert {"plugin", "distribution", "version", "location"} <= set(call)
            assert re.fullmatch(r".+\.py:\d+", call["location"])
    calls = {row["hook"]: [(c["plugin"], c["distribution"]) for c in row["calls"]] for row in rows}
    assert calls["save_model"] == [("hf", "tunesmith-hf"), ("late", "./late.py"), ("lora", "tunesmith-lora")]
    assert calls["load_model"] == [("early", "./early.py"), ("hf", "tunesmith-hf")]
    assert next(c for row in rows if row["hook"] == "save_model" for c in row["calls"][1:])["location"] == "late.py:3"
    text = tunesmith("hooks", "run.yaml").stdout
    assert all(name in text for name in HOOKS)


def schemas(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every object of a JSON tree."""
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from schemas(child)


def test_config_schema_is_a_json_schema_of_all_keys() -> None:
    schema = json.loads(tunesmith("config-schema").stdout)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert (schema["type"], schema["additionalProperties"], schema["required"]) == ("object", False, ["base_model"])
    assert set(CoreSettings.model_fields) <= set(schema["properties"])
    owned = {key for c in discovery.installed().values() for key in c.info["schema"].get("properties", {})}
    assert owned <= set(schema["properties"])
    types = {"string", "integer", "number", "boolean", "array", "object", "null"}
    for part in schemas(schema):
        if isinstance(part.get("$ref"), str):
            name = part["$ref"].removeprefix("#/$defs/")
            assert name in schema["$defs"]
        if isinstance(part.get("type"), str):
            assert part["type"] in types, part
        if isinstance(part.get("enum"), list):
            assert part["enum"]
    entry = schema["$defs"]["DatasetSettings"]
    assert {"path", "type", "field_messages", "field_instruction"} <= set(entry["properties"])
    assert {"chat_template", "alpaca"} <= set(entry["properties"]["type"]["anyOf"][0]["enum"])
    assert schema["properties"]["lora_r"]["x-plugin"] == "lora"
    assert "lora" in schema["properties"]["adapter"]["examples"]


def test_every_key_of_the_schema_has_a_description() -> None:
    schema = json.loads(tunesmith("config-schema").stdout)
    keys = {**schema["properties"], **schema["$defs"]["DatasetSettings"]["properties"]}
    assert [key for key, part in keys.items() if not part.get("description")] == []


@pytest.mark.parametrize("field", ["learning_rate", "lora_r", "datasets.path", "datasets.field_messages"])
def test_config_schema_of_one_field(field: str) -> None:
    result = tunesmith("config-schema", "--field", field)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["description"]


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("lerning_rate", "'learning_rate'"),
        ("datasets.field_mesages", "'field_messages'"),
        ("nowhere.seed", "'nowhere.seed'"),
    ],
)
def test_config_schema_suggests_the_nearest_field(field: str, words: str) -> None:
    result = tunesmith("config-schema", "--field", field)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
