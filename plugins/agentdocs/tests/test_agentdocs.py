"""Every page agrees with what is installed, its configs pass `check`, and its commands exist."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from tunesmith_agentdocs import TOPICS, facts, topics

from tests import tiny
from tunesmith import load_config
from tunesmith.cli import explain, main
from tunesmith.plugins import discovery
from tunesmith.plugins.discovery import Candidate, installed

read = cache(topics.page)
FENCE = re.compile(r"^```(\w+) ?(\S*)\n(.*?)^```$", re.M | re.S)
LONGEST = 310
OWN = {
    "preference_tuning": ("pair", "labelled"),
    "grpo": ("prompt",),
    "sft": ("conversation", "text"),
    "pretraining": ("text",),
}


def blocks(topic: str) -> list[tuple[str, str, str]]:
    """Return (language, name of the file, content) of each code block of a page."""
    return FENCE.findall(read(topic))


def commands(topic: str) -> Iterator[str]:
    """Yield each command that a page shows, in blocks and in text."""
    for language, _, text in blocks(topic):
        if language in ("bash", "text"):
            yield from re.findall(r"^(?:next: )?(tunesmith .+)$", text, re.M)
    for line in FENCE.sub("", read(topic)).splitlines():
        if not line.startswith("- `tunesmith "):  # the list of commands, which is generated
            yield from re.findall(r"`(tunesmith [^`]+)`", line)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.model_folder(tmp_path_factory.mktemp("agentdocs") / "models" / "my-model")


@pytest.mark.parametrize("topic", TOPICS)
def test_every_config_of_a_page_passes_check(
    topic: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").symlink_to(model.parent)
    (tmp_path / "outputs").mkdir()
    names = []
    for _, name, text in blocks(topic):
        if name:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text, encoding="utf-8")
        names += [name] if name.endswith(".yaml") else []
    assert names or topic == "ebft"
    for name in names:
        if name == "with_reward_model.yaml":  # its reward is the result of the first config of the page
            reward = shutil.copytree(model, tmp_path / "outputs" / "reward")
            config = json.loads((reward / "config.json").read_text("utf-8"))
            config |= {"architectures": ["LlamaForSequenceClassification"], "num_labels": 1}
            (reward / "config.json").write_text(json.dumps(config), encoding="utf-8")
        result = CliRunner().invoke(main, ["check", name])
        assert result.exit_code == 0, f"{topic}, {name}: {result.stderr}"
        shown = re.search(rf"^{name}: no problems found.*$", read(topic), re.M)
        assert shown is None or shown[0] in result.stdout


@pytest.mark.parametrize("topic", TOPICS)
def test_every_code_block_has_a_language_and_every_config_a_name(topic: str) -> None:
    text = read(topic)
    assert text.count("```") == 2 * len(blocks(topic))
    assert all(name for language, name, _ in blocks(topic) if language in ("yaml", "jsonl", "python"))


@pytest.mark.parametrize("topic", TOPICS)
def test_every_command_of_a_page_exists_with_its_options(topic: str) -> None:
    lines = list(commands(topic))
    assert lines or topic == "ebft"
    for line in lines:
        parse(shlex.split(line)[1:])


def parse(words: list[str]) -> None:
    """Parse a command by the commands of click, without running it. Raises click.UsageError."""
    if words[0] == "COMMAND" or words in (["--traceback", "COMMAND"], ["--traceback"]):
        return
    context = main.make_context("tunesmith", list(words))
    while isinstance(context.command, click.Group):
        name, command, rest = context.command.resolve_command(context, [*context._protected_args, *context.args])
        assert command is not None
        if not rest and len(words) <= 2:
            return  # only named in a sentence
        context = command.make_context(name, rest, parent=context)


def test_a_command_that_does_not_exist_would_be_found() -> None:
    for words in (["chek", "run.yaml"], ["explain", "--jsn"], ["agent-docs", "--lst"], ["rewards", "lst"]):
        with pytest.raises(click.UsageError):
            parse(words)


@pytest.mark.parametrize("topic", TOPICS)
def test_a_page_is_short_and_plain(topic: str) -> None:
    text = read(topic)
    assert text.startswith("# ") and len(text.splitlines()) <= LONGEST and "{{" not in text
    assert not re.search(r"\bdefault None\b|<\w+ object|\bNone, None\b", text)


def test_the_overview_names_every_method_command_topic_and_plugin() -> None:
    text = read("overview")
    for candidate in installed().values():
        assert f"- {candidate.name} {candidate.version}: " in text
        if candidate.info["method"]:
            assert str(candidate) in text
        for value in candidate.info["answers"].get("rl", ()):
            assert f"`rl: {value}`" in text
    for name in main.list_commands(click.Context(main)):
        assert f"- `tunesmith {name}`" in text
    assert all(f"- `{topic}`: " in text for topic in TOPICS if topic != "overview")


def declared(schema: dict[str, Any]) -> Iterator[str]:
    """Yield the names of the keys of a schema, with those of its groups."""
    for group in (schema, *schema.get("$defs", {}).values()):
        yield from group.get("properties", {})


@pytest.mark.parametrize("topic", [*OWN, "reward_modelling"])
def test_a_topic_has_every_key_type_and_metric_of_its_methods(topic: str) -> None:
    text = read(topic)
    candidates = facts.of_rows(*OWN[topic]) if topic in OWN else facts.classifiers()
    assert candidates
    for candidate in candidates:
        assert str(candidate) in text
        values = candidate.info["answers"].get("rl", ())
        assert all(f"rl: {value}" in text for value in values)
        for key in declared(candidate.info["schema"]):
            assert re.search(rf"^- `([\w.]+\.)?{key}` \(", text, re.M), f"{candidate}: {key}"
        assert all(f"`{name}`" in text for name in candidate.info["metrics"] or ())
    kinds = OWN.get(topic, ("pair", "stepwise"))
    types = {t for c in installed().values() for kind in kinds for t in c.info["strategies"].get(kind, ())}
    assert all(f"`{name}`" in text for name in types - set(facts.IMPLICIT))


def test_the_page_on_errors_has_every_code_and_every_exit() -> None:
    text = read("debugging")
    for code, entry in explain.catalogue()["codes"].items():
        assert f"- `{code}` (exit {entry['exit']}): {entry['means']}" in text
    assert all(f"- {number}: " in text for number in explain.catalogue()["exits"])


@pytest.mark.parametrize("topic", TOPICS)
def test_prose_names_only_keys_codes_and_plugins_that_exist(topic: str) -> None:
    lines = topics.FACT.findall(topics.prose(topic))
    codes = [code for name, rest in lines if name == "errors" for code in rest.split()]
    assert set(codes) <= set(explain.catalogue()["codes"])
    assert {one for name, rest in lines if name == "plugin" for one in rest.split()} <= set(installed())
    for key in re.findall(r"`trl\.(\w+)`", topics.prose(topic)):
        assert key in set(declared(installed()["grpo"].info["schema"])), key


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, Candidate]:
    """Return the installed plugins, to be changed by a test, as every part of the program finds them."""
    available = installed()
    for module in (discovery, topics, facts, explain):
        if hasattr(module, "installed"):
            monkeypatch.setattr(module, "installed", lambda: available)
    return available


def test_a_plugin_of_others_is_on_the_pages_when_it_is_installed(registry: dict[str, Candidate]) -> None:
    assert "No installed plugin answers `rl: ebft`" in topics.page("ebft") and "dark" not in topics.page("grpo")
    static = {**registry["kto"].info, "name": "dark", "summary": "A method of others."}
    static |= {"answers": {"rl": ["ebft", "dark"]}, "method": {"rows": ["prompt"], "exports": None}}
    registry["dark"] = dataclasses.replace(registry["kto"], name="dark", distribution="x-dark", static=static)
    assert "`rl: ebft` is answered by the plugin dark (x-dark" in topics.page("ebft")
    assert "`rl: ebft`, `rl: dark`" in topics.page("grpo") and "### dark" in topics.page("grpo")
    assert "- dark " in topics.page("overview")


def test_without_a_plugin_its_method_is_to_be_installed(registry: dict[str, Candidate]) -> None:
    del registry["grpo"], registry["lora"]
    assert '`rl: grpo`: pip install "tunesmith[grpo]"' in topics.page("grpo")
    assert 'pip install "tunesmith[lora]"' in topics.page("sft") and "grpo (tunesmith" not in topics.page("grpo")


def test_others_add_a_topic(registry: dict[str, Candidate]) -> None:
    static = {**registry["kto"].info, "name": "dark", "summary": "A method of others.", "commands": {}}
    static |= {"offers": {"agent_docs": {"dark_method": ":page"}}}
    module = type(sys)("dark_plugin")
    module.plugin, module.page = None, lambda: "# Dark\n\nA page."  # type: ignore[attr-defined]
    candidate = dataclasses.replace(registry["kto"], name="dark", target="dark_plugin", static=static)
    candidate.__dict__["_loaded"] = None
    registry["dark"] = candidate
    sys.modules["dark_plugin"] = module
    try:
        assert topics.topics()["dark_method"] == "A method of others."
        assert topics.page("dark_method") == "# Dark\n\nA page.\n"
    finally:
        del sys.modules["dark_plugin"]


def run(*words: str) -> Any:
    return CliRunner().invoke(main, list(words))


def test_without_a_topic_the_overview_is_printed() -> None:
    assert run("agent-docs").stdout == run("agent-docs", "overview").stdout == topics.page("overview")
    assert run("agent-docs", "preference-tuning").stdout == topics.page("preference_tuning")


def test_an_unknown_topic_is_a_usage_error_with_the_nearest_one() -> None:
    result = run("agent-docs", "reward_modeling")
    assert result.exit_code == 2 and "error[usage]: unknown topic 'reward_modeling'" in result.stderr
    assert "did you mean 'reward_modelling'?" in result.stderr
    assert f"topics: {', '.join(topics.topics())}" in run("agent-docs", "xyz").stderr


def test_the_list_has_every_topic_and_json_has_the_same() -> None:
    lines = run("agent-docs", "--list").stdout.splitlines()
    assert [line.split()[0] for line in lines][: len(TOPICS)] == list(TOPICS)
    listed = json.loads(run("--format", "json", "agent-docs", "--list").stdout)
    assert list(listed)[: len(TOPICS)] == list(TOPICS) and all(listed.values())
    assert json.loads(run("--format", "json", "agent-docs", "ebft").stdout)["text"] == topics.page("ebft")


def test_the_documentation_shows_the_list_as_it_is_printed() -> None:
    text = Path(__file__).parents[3].joinpath("docs/agents.md").read_text("utf-8")
    [shown] = re.findall(r"^```text\n\$ tunesmith agent-docs --list\n(.*?)^```", text, re.M | re.S)
    assert shown == run("agent-docs", "--list").stdout


def test_the_recurrent_model_is_that_of_the_documentation() -> None:
    text = Path(__file__).parents[3].joinpath("docs/write-a-plugin.md").read_text("utf-8")
    [code] = [body for _, name, body in blocks("new_model_support") if name == "recurrent.py"]
    assert code in text


def test_no_page_imports_torch(tmp_path: Path) -> None:
    import subprocess

    code = (
        "import sys; from tunesmith_agentdocs import topics; [topics.page(t) for t in topics.topics()]\n"
        "assert not {'torch', 'transformers', 'mcp'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, check=True)


def test_load_config_is_what_check_calls(tmp_path: Path, model: Path) -> None:
    """A wrong key in a config of a page would be found."""
    text = next(body for language, _, body in blocks("sft") if language == "yaml") + "no_such_key: 1\n"
    (tmp_path / "run.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(Exception, match="no_such_key"):
        load_config(tmp_path / "run.yaml")
