"""A name in a YAML or on the command line never imports a module or runs code: it is refused or has no effect."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import tiny
from tests.e2e.hostile import Canary
from tunesmith.api import start
from tunesmith.config.keys import json_schema
from tunesmith.config.load import load_config
from tunesmith.errors import TunesmithError
from tunesmith.plugins.discovery import installed

SCHEMA = json_schema(installed())
MODULE = "canary_module"
SPELLINGS = (MODULE, f"{MODULE}:run", f"{MODULE}.sub.run", f"./{MODULE}/sub")


def accepts_text(schema: dict[str, Any]) -> bool:
    """Return True if a key takes a text, a list of texts, or a group with texts in it."""
    schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    options = schema.get("anyOf", [schema])
    nested = [option.get("items") or option.get("additionalProperties") or {} for option in options]
    return any(option.get("type") == "string" or "enum" in option for option in options) or any(
        accepts_text(option) for option in nested if isinstance(option, dict) and option
    )


def names() -> Iterator[tuple[str, ...]]:
    """Yield the path of every key that takes a name, at the top level, in an entry, and one level below."""
    entry = SCHEMA["$defs"]["DatasetSettings"]["properties"]
    for parent, properties in (((), SCHEMA["properties"]), (("datasets",), entry)):
        yield from ((*parent, key) for key, schema in properties.items() if accepts_text(schema))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Canary]:
    """Return a folder with data, and a package whose import and whose function leave a trace."""
    folder = tmp_path_factory.mktemp("project")
    canary = Canary(folder / "trace")
    body = "".join(f"    {line}\n" for line in canary.code.splitlines())
    code = f"{canary.code}def run(*args, **keywords):\n{body}"
    for name in ("__init__.py", "sub.py"):
        (folder / MODULE).mkdir(exist_ok=True)
        (folder / MODULE / name).write_text(code, encoding="utf-8")
    tiny.write_rows(folder / "data.jsonl", tiny.rows("text", 4))
    return folder, canary


@pytest.mark.parametrize("path", names(), ids=".".join)
def test_no_key_imports_the_module_it_names(
    path: tuple[str, ...], project: tuple[Path, Canary], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, canary = project
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    for spelling in SPELLINGS:
        for value in (spelling, [spelling]):
            entry: dict[str, Any] = {"path": "./data.jsonl", "type": "completion"}
            keys: dict[str, Any] = {"base_model": "nobody/nothing", "output_dir": "out", "datasets": [entry]}
            (entry if len(path) > 1 else keys)[path[-1]] = value
            Path("run.yaml").write_text(yaml.safe_dump(keys), encoding="utf-8")
            with contextlib.suppress(TunesmithError):  # most values are refused; the test is that nothing ran
                start(load_config("run.yaml"))
            assert not canary.dropped, f"{'.'.join(path)}: {value} ran code"
    assert not {name for name in sys.modules if name.startswith(MODULE)}


def test_names_lists_the_keys_that_take_names() -> None:
    expected = {
        ("plugins",),
        ("rl",),
        ("adapter",),
        ("optimizer",),
        ("lr_scheduler",),
        ("base_model",),
        ("chat_template",),
    }
    assert expected | {("datasets", "type"), ("datasets", "path"), ("datasets", "chat_template")} <= set(names())


METHODS: dict[str, dict[str, Any]] = {
    "pair": {"rl": "dpo"},
    "labelled": {"rl": "kto"},
    "stepwise": {"process_reward_model": True},
}
"""Kind of row -> the keys that select a method which trains on it, if it is not the default method."""


def owned_names() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield (plugin, key=value, config that selects the plugin) for each key that takes a name, also inside groups."""
    entry: dict[str, Any] = {"path": "./data.jsonl", "type": "completion"}
    base = {"base_model": "nobody/nothing", "output_dir": "out"}
    for name, candidate in installed().items():
        info, selector = candidate.info, dict[str, Any]()
        for key, values in info["answers"].items():
            selector[key] = values[0]
        selector |= {switch: True if "boolean" in str(info["schema"]["properties"][switch]) else 3
                     for switch in info["switches"][:1]}  # fmt: skip
        for key in texts_in(info["schema"], info["schema"]):
            yield name, key, {**base, "plugins": [name], "datasets": [entry], **selector}
        for kind, types in info["strategies"].items():
            selected = {**entry, "type": types[0]}
            for key in texts_in(info["dataset_schema"], info["dataset_schema"]):
                yield name, f"datasets.0.{key}", {**base, **METHODS.get(kind, {}), "datasets": [selected]}


def texts_in(root: dict[str, Any], schema: dict[str, Any]) -> Iterator[str]:
    """Yield `key=value` for the keys of a schema that take texts, with the name of a function as the value."""
    for key, sub in schema.get("properties", {}).items():
        for option in sub.get("anyOf", [sub]):
            if group := option.get("$ref", "").rpartition("/")[2]:
                yield from (f"{key}.{inner}" for inner in texts_in(root, root["$defs"][group]))
            elif option.get("type") == "string" and "enum" not in option:
                yield f"{key}={MODULE}.sub:run"
            elif option.get("type") == "array" and "string" in str(option):
                yield f"{key}=[{MODULE}.sub:run]"


def slow(plugins: list[str]) -> list[Any]:
    """Mark the plugins with so many keys that their test takes long."""
    marks = {name: [pytest.mark.slow] for name in ("adapters", "chat")}
    return [pytest.param(plugin, marks=marks.get(plugin, [])) for plugin in plugins]


@pytest.mark.parametrize("plugin", slow(sorted({plugin for plugin, _, _ in owned_names()})))
def test_no_override_of_an_active_plugin_imports_the_module_it_names(
    plugin: str, project: tuple[Path, Canary], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plugin is selected, so that its own checks see the value, which is on the command line."""
    folder, canary = project
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    for name, override, config in owned_names():
        if name == plugin:
            Path("owned.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
            with contextlib.suppress(TunesmithError):
                start(load_config("owned.yaml", [override]))
            assert not canary.dropped, f"{override} ran code"
    assert not {name for name in sys.modules if name.startswith(MODULE)}


def test_owned_names_lists_the_losses_templates_and_adapters() -> None:
    listed = {(plugin, override.partition("=")[0]) for plugin, override, _ in owned_names()}
    assert {
        ("dpo", "dpo_loss_type"), ("chat", "chat_template_jinja"), ("lora", "lora_model_dir"),
        ("chat", "datasets.0.chat_template"), ("dedup", "dataset_decontamination.files"),
        ("hf", "trust_remote_code.name"), ("functions", "datasets.0.function_sha256"),
    } <= listed  # fmt: skip


FILES = {  # a file with code where another kind of file belongs: in a key, or on the command line
    "base_model": "./canary_module", "tokenizer_config": "./canary_module", "resume_from_checkpoint": "./canary_module",
    "dataset_prepared_path": "./canary_module", "datasets.0.path": "./canary_module/sub.py",
    "test_datasets": "[{path: ./canary_module/sub.py, type: completion}]",
    "pretraining_dataset": "[{path: ./canary_module, type: pretrain}]", "datasets.0.data_files": "sub.py",
    "plugins": "[canary_module, canary_module.sub]", "datasets.0.type": "./canary_module:run",
    "special_tokens.pad_token": "!!python/name:canary_module.run", "optimizer": "!!python/object/apply:os.system [id]",
}  # fmt: skip


@pytest.mark.parametrize("key", FILES)
def test_a_file_or_folder_with_code_is_never_imported(
    key: str, project: tuple[Path, Canary], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, canary = project
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    values = {"base_model": "nobody/nothing", "output_dir": "out", "max_steps": 3}
    entry = {"path": "./data.jsonl", "type": "completion"}
    Path("files.yaml").write_text(yaml.safe_dump(values | {"datasets": [entry]}), encoding="utf-8")
    with contextlib.suppress(TunesmithError):
        start(load_config("files.yaml", [f"{key}={FILES[key]}"]))
    assert not canary.dropped and not {name for name in sys.modules if name.startswith(MODULE)}


REFUSED = {
    "subprocess:run": "write type: ./subprocess.py:run",
    "os.system": "write type: ./os.py:system",
    f"{MODULE}:run": f"write type: ./{MODULE}/__init__.py:run",
    f"{MODULE}.sub.run": f"write type: ./{MODULE}/sub.py:run",
    f"{subprocess.__file__}:run": "write the function in a file of your own",
    f"{Path(yaml.__file__)}:safe_load": "write the function in a file of your own",
}


@pytest.mark.parametrize("command", ["check", "lint", "plan", "preprocess", "train", "hooks", "verify", "doctor"])
def test_every_command_refuses_a_module_function_with_exit_code_9(command: str, project: tuple[Path, Canary]) -> None:
    folder, canary = project
    trace = folder / "PWNED"
    tiny.write_rows(folder / "rows.jsonl", [{"sh": 1, "-c": 2, f"touch {trace}": 3}])
    completed = run(folder, command, "subprocess:run")
    assert completed.returncode == 9, completed.stdout + completed.stderr
    assert not trace.exists() and not canary.dropped
    assert "module-name" in completed.stdout + completed.stderr


@pytest.mark.parametrize("name", REFUSED)
def test_refused_name_has_advice_with_the_path_to_write(name: str, project: tuple[Path, Canary]) -> None:
    folder, canary = project
    tiny.write_rows(folder / "rows.jsonl", [{"text": "a"}])
    completed = run(folder, "check", name)
    assert completed.returncode == 9 and REFUSED[name] in completed.stderr, completed.stderr
    assert not canary.dropped


def test_library_file_is_not_a_local_plugin(project: tuple[Path, Canary]) -> None:
    folder, _ = project
    completed = run(folder, "check", "completion", plugins=[str(Path(subprocess.__file__))])
    assert completed.returncode == 9 and "library-file" in completed.stderr, completed.stderr


def test_misspelled_type_with_a_dot_keeps_its_suggestion(project: tuple[Path, Canary]) -> None:
    folder, _ = project
    completed = run(folder, "check", "chatml.intle", rl="dpo")
    assert completed.returncode == 2 and "did you mean 'chatml.intel'?" in completed.stderr, completed.stderr


def run(folder: Path, command: str, type_name: str, **keys: Any) -> subprocess.CompletedProcess[str]:
    """Run a command of the command line on an entry of some type, in a process that could import the canary."""
    values = {"base_model": "nobody/nothing", "output_dir": "out", **keys}
    entry = {"path": "./rows.jsonl", "type": type_name}
    (folder / "named.yaml").write_text(yaml.safe_dump(values | {"datasets": [entry]}), encoding="utf-8")
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join([str(folder), os.environ["PYTHONPATH"]]),
    }
    arguments = [sys.executable, "-m", "tunesmith", command, "named.yaml"]
    return subprocess.run(
        arguments, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
