"""`plugins: [-name]` switches off a default plugin, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests import tiny
from tests.contract.fakes import BASE, DATA, error_of, load, local_plugin, write
from tunesmith.cli import main
from tunesmith.cli.explain import explain

TEXT = BASE + "datasets: [{path: ./rows.jsonl, type: completion}]\n"


def names(folder: Path, text: str, *overrides: str) -> set[str]:
    (folder / "rows.jsonl").write_text('{"text": "a"}\n')
    return set(load(folder, text, *overrides)[1].by_name)


def test_a_default_plugin_is_switched_off_in_the_file_and_on_the_command_line(tmp_path: Path) -> None:
    everything = names(tmp_path, TEXT)
    assert everything >= {"console", "jsonl", "report"}
    assert names(tmp_path, TEXT + "plugins: [-console]") == everything - {"console"}
    assert names(tmp_path, TEXT + "plugins:\n  - -console\n  - -report\n") == everything - {"console", "report"}
    assert names(tmp_path, TEXT + "plugins: [-console]", "plugins=[-jsonl]") == everything - {"jsonl"}


def test_keys_of_a_plugin_that_is_switched_off_may_stay(tmp_path: Path) -> None:
    assert "report" not in names(tmp_path, TEXT + "report: true", "plugins=[-report]")


def test_a_default_that_another_plugin_replaces_everywhere_can_be_switched_off(tmp_path: Path) -> None:
    """adamw stays active next to another optimizer plugin, for its keys; with the minus, it is not loaded at all."""
    local_plugin(tmp_path, "mine", "plugin = Plugin()\n@hookimpl\ndef build_optimizer(model): ...\n")
    assert "adamw" in names(tmp_path, TEXT + "plugins: [./mine.py]")
    assert "adamw" not in names(tmp_path, TEXT + "plugins: [./mine.py, -adamw]")


@pytest.mark.parametrize(
    ("plugins", "more", "message", "help"),
    [
        ("[-consol]", "", "can't switch off 'consol': it is not a default plugin", "did you mean '-console'?"),
        ("[-lora]", "adapter: lora", "can't switch off 'lora': it is not a default plugin", "defaults: hf, sft, adamw"),
        ("[-./mine.py]", "", "can't switch off './mine.py': it is not a default plugin", "defaults: hf"),
        ("[console, -console]", "", "'console' is both switched on and off", "drop 'console' or '-console'"),
        ("[-sft]", "rl: orpo", "'-sft' has no effect: another plugin takes the place of 'sft'", "drop '-sft'"),
        ("[-sft]", "", "'sft': it is the only plugin that answers compute_loss", "select another with rl:, or another"),
        ("[-adamw]", "", "'adamw': it is the only plugin that answers build_optimizer", "with optimizer:"),
    ],
)
def test_a_minus_that_is_not_possible_is_an_error_with_its_place(
    plugins: str, more: str, message: str, help: str, tmp_path: Path
) -> None:
    text = TEXT.replace("completion", "passthrough") if "orpo" in more else TEXT
    path = write(tmp_path, f"{text}plugins: {plugins}\n{more}")
    [problem] = error_of(load, tmp_path, path.read_text()).problems
    assert message in problem.message and help in str(problem.help)
    assert str(problem.where).startswith(f"{path}:3:") and problem.code == "plugin-off"


def test_a_plugin_that_a_dataset_needs_is_not_switched_off(tmp_path: Path) -> None:
    local_plugin(
        tmp_path,
        "mine",
        "plugin = Plugin()\n@hookimpl\ndef load_model(): ...\n@hookimpl\ndef load_tokenizer(): ...\n",
    )
    text = BASE + DATA + "plugins: [./mine.py, -hf]"  # the rows are on the hub
    assert "can't switch off 'hf': a dataset needs it" in str(error_of(load, tmp_path, text))


def test_hooks_shows_what_is_switched_off(tmp_path: Path) -> None:
    path = str(write(tmp_path, BASE + DATA + "plugins: [-console]\n"))
    shown = CliRunner().invoke(main, ["hooks", path]).output
    assert shown.count("console (switched off)") == 5
    rows = {row["hook"]: row for row in json.loads(CliRunner().invoke(main, ["hooks", path, "--json"]).output)}
    assert rows["write_log"]["off"] == ["console"] and rows["compute_loss"]["off"] == []
    assert "console" not in [call["plugin"] for call in rows["write_log"]["calls"]]


def test_a_resumed_run_may_switch_loggers_off_and_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tiny.sft_config(tmp_path, max_steps=2, num_epochs=9, plugins=["-report"])
    tiny.train(path)
    assert not (tmp_path / "out/report.html").exists()
    capsys.readouterr()
    tiny.train(path, "max_steps=3", "resume_from_checkpoint=auto", "plugins=[-console]")
    assert "step 3/3" not in capsys.readouterr().out
    assert (tmp_path / "out/report.html").exists()
    assert [line["step"] for line in tiny.metrics(tmp_path / "out")] == [1, 2, 3]


def test_explain_and_the_schema_mention_it() -> None:
    from tunesmith.config.keys import core_schema

    assert "[-adamw]" in explain(["plugin-off"])
    assert "`-console`" in core_schema()["properties"]["plugins"]["description"]
