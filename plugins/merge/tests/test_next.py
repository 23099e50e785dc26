"""The lines that a finished run and a finished merge name next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.tiny import sft_config, train
from tunesmith import next_command
from tunesmith.cli import main
from tunesmith.next_command import load_command, plugin_commands
from tunesmith.plugins.discovery import installed


def merge_command(folder: Path) -> str | None:
    return plugin_commands(folder).get("Merge the adapter into its base")


def write_adapter_config(folder: Path, **keys: Any) -> Path:
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **keys}), encoding="utf-8")
    return folder


def test_a_run_with_an_adapter_names_the_merge_and_the_merge_names_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(sft_config(tmp_path, adapter="lora", lora_r=4, max_steps=1))
    out = tmp_path / "out"
    command = f"tunesmith merge-lora {out}"
    assert f"next: {command}" in capsys.readouterr().out.splitlines()
    assert command in (out / "report.html").read_text("utf-8")
    result = CliRunner().invoke(main, command.split()[1:])
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == f"next: {load_command(out / 'merged')}"


def test_only_what_the_command_merges_is_suggested_and_only_if_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert merge_command(write_adapter_config(tmp_path)) == f"tunesmith merge-lora {tmp_path}"
    assert merge_command(tmp_path / "no-such-folder") is None
    assert merge_command(write_adapter_config(tmp_path, peft_type="PROMPT_TUNING")) is None
    assert merge_command(write_adapter_config(tmp_path, layer_replication=[[0, 2]])) is None
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text('{"quantization_config": {"quant_method": "bitsandbytes"}}')
    assert merge_command(write_adapter_config(tmp_path, base_model_name_or_path=str(base))) is None
    write_adapter_config(tmp_path)
    others = {name: plugin for name, plugin in installed().items() if name != "merge"}
    monkeypatch.setattr(next_command, "installed", lambda: others)
    assert merge_command(tmp_path) is None
