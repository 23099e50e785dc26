"""Plugins of a third party, each installed as a distribution of its own, train alone, together, with LoRA and on two
processes. Nothing in the core or the engine knows them.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tunesmith.testing import worker

pytestmark = pytest.mark.slow
PLUGINS = Path(__file__).parent / "plugins"
WRONG = {"means", "unsaved"}
"""Plugins that do what a plugin must not; test_verify.py and test_exports.py show their errors."""
NAMES = sorted({path.stem for path in PLUGINS.glob("*.py")} - WRONG)
PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "other-{0}"
version = "1.0"
dependencies = ["tunesmith-core>=0.1,<0.2", "tunesmith-engine>=0.1,<0.2"]
[project.entry-points.tunesmith]
{0} = "other_{0}"
[tool.hatch.build.targets.wheel]
include = ["other_{0}.py"]
[tool.hatch.build.targets.wheel.extra-metadata]
"tunesmith.json" = "tunesmith.json"
"""
DESCRIBE = """
import sys
from pathlib import Path
from tunesmith.cli.plugins import write
for folder in sys.argv[1:]:
    write(Path(folder))
"""
EXTRA = ("topk", "whole", "value", "teacher", "zloss", "shaky", "exact", "words", "tools_env", "shout_tool")
"""Plugins that go with any method, and so with each other: together, every pair of them is in one run."""
SHOWN = {"topk": "topk", "whole": "by_length", "value": "value", "teacher": "distillation", "zloss": "z"}
"""Plugin -> the term that it adds."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install all plugins into a folder: describe, build and install each, as its author and its user would."""
    folder = tmp_path_factory.mktemp("installed")
    sources = []
    for name in NAMES:
        source = folder / name
        source.mkdir()
        (source / "pyproject.toml").write_text(PYPROJECT.format(name), encoding="utf-8")
        (source / f"other_{name}.py").write_text((PLUGINS / f"{name}.py").read_text("utf-8"), encoding="utf-8")
        sources.append(str(source))
    subprocess.run([sys.executable, "-c", DESCRIBE, *sources], check=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--disable-pip-version-check", "--target", str(folder / "site"), *sources], check=True)
    return folder / "site"


def write(folder: Path, name: str, plugins: tuple[str, ...], **keys: Any) -> Path:
    """Write the config of a run in `folder`, named `name`."""
    prompts = ("prompt", "prompt")
    kinds = {"groups": prompts, "scored": prompts, "pairs": ("plain_pair", "pair"), "scores": ("scored_pair", "pair")}
    method = next((plugin for plugin in plugins if plugin in kinds), None)
    type_name, kind = kinds.get(method or "", ("chat_template", "conversation"))
    if not (folder / "model").exists():
        tiny.model_folder(folder / "model", "llama")
        tiny.model_folder(folder / "wider", "qwen3", hidden_size=64)
        (folder / "words.txt").write_text("the cat")
    data = folder / f"{kind}.jsonl"
    if not data.exists():
        tiny.write_rows(data, tiny.rows(kind, 10))
    options: dict[str, Any] = {
        "teacher": {"teacher_model": str(folder / "wider")},
        "words": {"words_folder": str(folder)},
        "echo": {"groups_generator": "echo"},
        "stale": {"groups_generator": "stale"},
        "scored": {"scored_rewards": [{"name": "even_tokens"}]},
        "recurrent": {"base_model": "recurrent://new", "tokenizer_config": str(folder / "model")},
        "exact": {"metric_for_best_model": "eval_exact_match", "greater_is_better": True, "eval_steps": 2},
        "tools_env": {"first_text": "good morning"},
    }
    own = {key: value for plugin in plugins for key, value in options.get(plugin, {}).items()}
    values = {"base_model": str(folder / "model"), "rl": method, "plugins": [*plugins, "-report"], "max_steps": 2}
    entries = [{"path": str(data), "type": type_name}]
    steps = {"num_epochs": 9, "gradient_accumulation_steps": 2, "output_dir": str(folder / name)}
    return tiny.write_config(folder, f"{name}.yaml", **(values | {"datasets": entries} | steps | own | keys))


def launch(site: Path, processes: int, *paths: Path) -> None:
    """Train configs one after the other, in one launch that finds the installed plugins."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(site)}
    command = worker.command(processes, paths)
    if processes == 1:
        command = [sys.executable, "-m", worker.__name__, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=600)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-4000:]


def check(folder: Path, plugins: tuple[str, ...]) -> list[dict[str, Any]]:
    """Check the record and the log of a run; return the lines of the log."""
    record = json.loads((folder / "run.json").read_text("utf-8"))
    installed = {p["name"]: (p["distribution"], p["version"]) for p in record["plugins"]}
    assert record["status"] == "done" and all(installed[name] == (f"other-{name}", "1.0") for name in plugins)
    lines = tiny.metrics(folder)
    steps = [line for line in lines if "loss" in line]
    assert len(steps) == 2 and all(math.isfinite(line["loss"]) and line["grad_norm"] > 0 for line in steps)
    assert {SHOWN[name] for name in plugins if name in SHOWN} <= steps[0].keys()
    return steps


ALONE: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "pairs": (("pairs",), {}),
    "groups": (("groups", "odd_tokens"), {}),
    "echo": (("groups", "odd_tokens", "echo"), {}),
    "stale": (("groups", "odd_tokens", "stale"), {}),
    "replies": (("groups", "odd_tokens", "replies"), {}),
    "scored": (("scored", "replies"), {}),
    "scores": (("scores",), {}),
    "recurrent": (("recurrent",), {}),
    "tools_env": (("tools_env", "shout_tool"), {}),
    **{name: ((name,), {}) for name in EXTRA if name not in ("tools_env", "shout_tool")},
}


def test_each_trains_alone(site: Path, tmp_path: Path) -> None:
    paths = [write(tmp_path, name, plugins, **keys) for name, (plugins, keys) in ALONE.items()]
    with sqlite3.connect(tmp_path / "rows.db") as base:
        base.execute("create table rows (text)")
        base.executemany("insert into rows values (?)", [(row["text"],) for row in tiny.rows("text", 10)])
    entry = {"path": str(tmp_path / "rows.db"), "type": "completion"}
    paths.append(write(tmp_path, "sqlite_rows", ("sqlite_rows",), datasets=[entry]))
    launch(site, 1, *paths)
    for name, (plugins, _) in {**ALONE, "sqlite_rows": (("sqlite_rows",), {})}.items():
        check(tmp_path / name, plugins)
    assert (tmp_path / "value/value_head.safetensors").is_file() and (tmp_path / "words/words.json").is_file()
    assert json.loads((tmp_path / "tools_env/run.json").read_text())["notes"]["tool"] == "GOOD "
    assert (tmp_path / "shaky/shaky.txt").read_text().endswith("closed\n")
    assert set(ALONE) | {"sqlite_rows", "zero1", "odd_tokens", "shout_tool"} == set(NAMES), "every plugin is in a run"


def test_every_pair_trains_together_with_lora_and_on_two_processes(site: Path, tmp_path: Path) -> None:
    """Three methods, each with all plugins that go with any method; ZeRO-1 only where there are processes to share."""
    runs = {
        "on-sft": EXTRA,
        "on-pairs": ("pairs", *EXTRA),
        "on-groups": ("groups", "odd_tokens", "echo", *EXTRA),
    }
    one, lora, two, zero = ([] for _ in range(4))  # type: ignore[var-annotated]
    for name, plugins in runs.items():
        half = {"gradient_accumulation_steps": 1}
        one.append(write(tmp_path, name, plugins))
        lora.append(write(tmp_path, f"{name}-lora", plugins, adapter="lora", lora_r=4, lora_alpha=8))
        two.append(write(tmp_path, f"{name}-two", plugins, **half))
        zero.append(write(tmp_path, f"{name}-zero", (*plugins, "zero1"), **half))
    launch(site, 1, *one, *lora)
    launch(site, 2, *two, *zero)
    for name, plugins in runs.items():
        alone = check(tmp_path / name, plugins)
        check(tmp_path / f"{name}-lora", plugins)
        for other in ("two", "zero"):
            for line, expected in zip(check(tmp_path / f"{name}-{other}", plugins), alone, strict=True):
                assert line["loss"] == pytest.approx(expected["loss"], abs=1e-5), (name, other)
                assert line["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-4), (name, other)
