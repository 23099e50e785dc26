"""Code blocks of the pages work: Python runs, YAML is a valid config, and commands have the options that they name."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from tests import tiny
from tests.repo.source import files, short
from tunesmith import errors, load_config
from tunesmith.cli import main

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
PAGES = [path for path in files() if path.suffix == ".md"]
COMMAND = re.compile(
    r"^(?:\$ )?(?:[A-Z_]+=\S* )*(?:(?:torchrun|accelerate launch|srun|python|\.venv/bin/python)\b.* -m )?"
    r"(?:\.venv/bin/)?tunesmith (?!: )(.*)$"
)
LANGUAGES = {"", "bash", "console", "dockerfile", "json", "jsonl", "markdown", "python", "text", "toml", "yaml"}
NOT_RUN = {
    ("docs/api.md", ""): "signatures, which tools/api_page.py takes from the source",
    ("docs/hooks.md", "@hookimpl"): "test_docs compiles the examples, and compares their parameters with the hook",
    ("docs/hooks.md", "@hookimpl(wrapper=True)"): "the same",
    ("docs/python.md", ""): "tests/e2e/test_python.py runs them, and compares what they print",
    ("plugins/export/README.md", "from tunesmith_export.exporting"): "writes GGUF of a trained model: its tests do",
    ("plugins/merge/README.md", "from tunesmith_merge"): "needs an adapter that was trained: its tests have one",
    (
        "plugins/prm/README.md",
        "model = AutoModelForTokenClassification",
    ): "needs a trained model: its tests load it",
    ("plugins/reward/README.md", "model = AutoModelForSequenceClassification"): "the same",
    ("plugins/qlora/README.md", "from peft import PeftModel"): "needs a model in 4 bits, and its adapter",
}
"""(page, beginning of the block) -> why a block of Python is not run here."""
NOT_CONFIGS = {
    "# wrong.yaml": "shows mistakes; the output of check is compared with the real one",
    "# axolotl.yaml": "a config of another tool; tools/migrate_page.py rewrites it",
    "# lists.yaml": "the lists of a sweep, which the tests of the plugin read",
    "# sweep.yaml": "a sweep, which the tests of the plugin read",
    "# tasks/capitals.yaml": "a task file of lm-eval, which the tests of the plugin use",
}
"""The first line of a block of YAML -> why it is not checked as a config."""
SURROUNDINGS: tuple[dict[str, Any], ...] = (
    {},
    {"adapter": "lora"},
    {
        "rl": "grpo",
        "rewards": ["length"],
        "datasets": [{"path": "rows.jsonl", "type": "prompt"}],
        "micro_batch_size": 8,
    },
    {"rl": "dpo"},
    {"process_reward_model": True},
)
"""What a part of a config may be a part of; a block has to be valid in one of them."""
NAMES = "import pytest\nfrom pathlib import Path\nfrom tunesmith import Plugin, Settings, hookimpl\n"
"""What short blocks use without importing it."""


def blocks(language: str) -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        yield from ((page, body) for kind, body in FENCE.findall(page.read_text("utf-8")) if kind == language)


def reason(page: Path, block: str) -> str | None:
    """Return why a block of Python is not run, if there is a reason."""
    fitting = (why for (name, begin), why in NOT_RUN.items() if short(page) == name and block.startswith(begin))
    return next(fitting, None)


def name_of(value: Any) -> str:
    return short(value) if isinstance(value, Path) else ""


def test_every_language_is_known() -> None:
    used = {kind for page in PAGES for kind, _ in FENCE.findall(page.read_text("utf-8"))}
    assert used <= LANGUAGES, "blocks of these languages are not tested"


def test_every_exception_is_needed() -> None:
    for name, begin in NOT_RUN:
        assert any(short(page) == name and block.startswith(begin) for page, block in blocks("python")), (name, begin)
    for begin in NOT_CONFIGS:
        assert any(block.startswith(begin) for _, block in blocks("yaml")), begin


# Python

RUN = {
    page: [block for where, block in blocks("python") if where == page and not reason(page, block)] for page in PAGES
}


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a working folder with the files that blocks name: a model, rows, a config and the result of a run."""
    folder = tmp_path_factory.mktemp("blocks")
    for name in ("model", "outputs/first"):
        tiny.model_folder(folder / name)
    rows = tiny.rows("conversation", 16)
    tiny.write_rows(folder / "data.jsonl", rows)
    keys = {"sequence_len": 128, "max_steps": 2, "device": "cpu", "output_dir": "outputs/run"}
    entry = {"path": "data.jsonl", "type": "chat_template"}
    (folder / "run.yaml").write_text(yaml.safe_dump({"base_model": "./model", "datasets": [entry], **keys}))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_python_runs(page: Path, stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the blocks of a page in order, as a reader would, with a tiny model in place of the one that they name."""
    monkeypatch.chdir(stand_in)
    namespace: dict[str, Any] = {"rows": tiny.rows("conversation", 16)}
    exec(NAMES, namespace)
    for block in RUN[page]:
        exec(compile(block, short(page), "exec"), namespace)


def test_python_of_every_page_compiles() -> None:
    for page, block in blocks("python"):
        compile(block, short(page), "exec")


# YAML

CONFIGS = [(page, block) for page, block in blocks("yaml") if not any(block.startswith(begin) for begin in NOT_CONFIGS)]


@pytest.fixture(scope="module")
def local_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the local plugins and functions that pages show."""
    folder = tmp_path_factory.mktemp("configs")
    for _, code in blocks("python"):
        if name := re.match(r"# ([\w/]+\.py)\n", code):
            path = folder / name[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(code, encoding="utf-8")
    return folder


def config_error(block: str, folder: Path) -> str:
    """Return why a block is not a config, or a part of one, in any of the surroundings; empty if it is."""
    keys = yaml.safe_load(block)
    assert isinstance(keys, dict), "a config is a mapping"
    reasons = []
    for around in SURROUNDINGS:
        default = {"base_model": "./model", "datasets": [{"path": "rows.jsonl", "type": "chat_template"}]}
        missing = {key: value for key, value in {**default, **around}.items() if key not in keys}
        if "pretraining_dataset" in keys:
            missing.pop("datasets", None)
        (folder / "run.yaml").write_text(f"{block}\n{yaml.safe_dump(missing) if missing else ''}", encoding="utf-8")
        try:
            load_config(folder / "run.yaml")
            return ""
        except errors.TunesmithError as error:
            reasons.append(str(error))
    return reasons[0]


@pytest.mark.parametrize(("page", "block"), CONFIGS, ids=name_of)
def test_yaml_is_a_config_or_a_part_of_one(page: Path, block: str, local_files: Path) -> None:
    assert not (message := config_error(block, local_files)), f"{short(page)}:\n{block}\n{message}"


def test_mistake_in_a_part_of_a_config_is_noticed(local_files: Path) -> None:
    assert "lora_rr" in config_error("adapter: lora\nlora_rr: 8\n", local_files)
    assert "lr_scheduler" in config_error("lr_scheduler: cosinus\n", local_files)


# Commands


def commands() -> Iterator[tuple[Path, str]]:
    for language in ("", "bash", "console", "text"):
        for page, block in blocks(language):
            for line in block.replace("\\\n", " ").splitlines():
                if match := COMMAND.match(line):
                    yield page, match[1]


def parse(arguments: list[str]) -> None:
    """Parse a command line as `tunesmith` does, and run nothing. Raises UsageError."""
    context: click.Context = main.make_context("tunesmith", list(arguments))
    command: click.Command = main
    while isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, rest)  # type: ignore[assignment]
        context = command.make_context(name, rest, parent=context)


def test_commands_on_pages_have_these_options() -> None:
    lines = list(commands())
    assert len(lines) >= 100
    for page, line in lines:
        try:
            parse(shlex.split(line, comments=True))
        except click.exceptions.Exit:
            pass  # --version, --help
        except (click.ClickException, ValueError) as error:
            pytest.fail(f"{short(page)}: tunesmith {line}: {error}")


def test_wrong_option_is_noticed() -> None:
    for line in (["chat", "outputs/first", "--no-such-option"], ["no-such-command"]):
        with pytest.raises((click.ClickException, errors.TunesmithError)):
            parse(line)


# JSON


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def test_json_is_valid() -> None:
    """A block is a document, the inside of an object, or rows with one document each."""
    examples = [*blocks("json"), *blocks("jsonl")]
    assert examples
    for page, block in examples:
        rows = all(is_json(line) for line in block.splitlines() if line)
        assert is_json(block) or is_json(f"{{{block}}}") or rows, f"{short(page)}:\n{block}"
