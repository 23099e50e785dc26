"""A plugin that only a `type:` or a `path:` selected takes part in the data alone; `hooks` shows what selected it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.contract.fakes import BASE, distribution, error_of, load, write
from tunesmith.cli import main
from tunesmith.run import Run

BOTH = """
class Keys(Settings):
    both_beta: float = 0.1
plugin = Plugin(settings=Keys, answers={"rl": ("both",)}, strategies={"text": ("words",)},
    method=Method(rows=("text",)), needs=Needs(entropy=True))
@hookimpl
def build_dataset(rows):
    return []
@hookimpl
def compute_loss(out):
    return {}
@hookimpl(wrapper=True)
def load_model():
    return (yield)
@hookimpl(wrapper=True)
def load_tokenizer():
    return (yield)
@hookimpl
def on_end(): ...
"""
"""A strategy that ships with a method."""
WORDS = BASE + "datasets: [{path: nobody/rows, type: words}]\n"


@pytest.fixture(autouse=True)
def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    distribution(tmp_path / "site", "both", BOTH)


def test_a_strategy_that_ships_with_a_method_does_not_activate_the_method(tmp_path: Path) -> None:
    config, hooks = load(tmp_path, WORDS)
    assert [c.plugin for c in hooks.calls("compute_loss")] == ["sft"]
    assert [c.plugin for c in hooks.calls("load_model")] == ["hf"] and hooks.calls("on_end")[0].plugin != "both"
    assert [c.plugin for c in hooks.calls("build_dataset")] == ["both"]
    assert [c.plugin for c in hooks.calls("load_tokenizer")] == ["both", "hf"]
    assert [c.plugin for c in hooks.idle("compute_loss")] == ["both"] and not Run(config, hooks).needs.entropy


@pytest.mark.parametrize("line", ["rl: both", "plugins: [both]"])
def test_a_selector_activates_all_of_it(line: str, tmp_path: Path) -> None:
    config, hooks = load(tmp_path, WORDS + line)
    assert [c.plugin for c in hooks.calls("compute_loss")] == ["both"]
    assert "both" in [c.plugin for c in hooks.calls("on_end")] and Run(config, hooks).needs.entropy


def test_hooks_show_what_selected_each_plugin_and_what_is_not_called(tmp_path: Path) -> None:
    path = write(tmp_path, WORDS + "adapter: lora\ngenerate_samples: true\n")
    rows = {row["hook"]: row for row in json.loads(CliRunner().invoke(main, ["hooks", str(path), "--json"]).stdout)}
    selected = {call["plugin"]: call["selected_by"] for row in rows.values() for call in row["calls"]}
    assert selected["both"] == ["type: words"] and selected["lora"] == ["adapter: lora"]
    assert selected["samples"] == ["generate_samples"] and selected["hf"] == ["path: hub", "default"]
    assert [call["plugin"] for call in rows["compute_loss"]["idle"]] == ["both"]
    text = CliRunner().invoke(main, ["hooks", str(path)]).stdout
    assert "compute_loss of both is not called: only type: words selected the plugin; write plugins: [both]" in text


def test_an_arity_error_says_what_selected_each_plugin(tmp_path: Path) -> None:
    message = str(error_of(load, tmp_path, WORDS + "rl: dpo\nplugins: [both]"))
    assert "; selected by plugins:, type: words)" in message and "; selected by rl: dpo)" in message


def test_a_key_of_a_plugin_that_acts_on_the_data_alone_is_a_warning(tmp_path: Path) -> None:
    path = write(tmp_path, WORDS + "both_beta: 0.2\n")
    output = CliRunner().invoke(main, ["check", str(path)]).output
    assert f"{path}:3:12: both_beta: acts on the data alone, since only type: words selected both" in output
    assert "write plugins: [both] for load_model, compute_loss, on_end" in output
