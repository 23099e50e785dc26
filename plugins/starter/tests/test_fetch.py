"""Examples and documentation come from the installed package, and nothing is replaced without consent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tunesmith_starter import fetch

from tunesmith.cli import main

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Any:
    return CliRunner().invoke(main, arguments)


def test_every_example_is_listed_with_a_sentence_and_printed_as_it_is() -> None:
    *listed, families, _ = run("examples").output.splitlines()
    names = {path.stem for path in (ROOT / "examples").glob("*.yaml")}
    assert {line.split()[0] for line in listed} == names and all(line.endswith(".") for line in listed)
    assert run("examples", "dpo").output == (ROOT / "examples" / "dpo.yaml").read_text("utf-8")
    folders = {path.parent.name for path in (ROOT / "examples").glob("*/*.yaml")}
    assert set(families.removeprefix("folders: ").partition(";")[0].split(", ")) == folders
    listed = run("examples", "qwen2.5").output.splitlines()[:-1]
    assert {line.split()[0] for line in listed} == {f"qwen2.5/{p.stem}" for p in (ROOT / "examples/qwen2.5").iterdir()}
    assert listed[0].startswith("qwen2.5/dpo          DPO on pairs of a better and a worse answer;")
    assert run("examples", "qwen2.5/dpo").output == (ROOT / "examples/qwen2.5/dpo.yaml").read_text("utf-8")


def test_an_example_is_copied_with_its_data(here: Path) -> None:
    assert run("examples", "quickstart", "--dest", ".").exit_code == 0
    copied = {path.relative_to(here).as_posix() for path in here.rglob("*") if path.is_file()}
    assert {"examples/quickstart.yaml", "examples/data/chat.jsonl", "examples/tiny/config.json"} <= copied
    assert "examples/data/pairs.jsonl" not in copied and "examples/dpo.yaml" not in copied
    assert run("check", "examples/quickstart.yaml").exit_code == 0


def test_an_unknown_example_is_an_error_with_the_closest_name() -> None:
    result = run("examples", "quikstart")
    assert result.exit_code == 2 and "did you mean 'quickstart'?" in result.output


@pytest.mark.parametrize("kind", ["examples", "docs"])
def test_all_files_are_copied(kind: str, here: Path) -> None:
    assert run("fetch", kind, "--dest", "copy").exit_code == 0
    for path in fetch.files_of(ROOT / kind):
        assert (here / "copy" / path.relative_to(ROOT / kind)).read_bytes() == path.read_bytes()
    assert run("fetch", kind, "--dest", "copy").exit_code == 0  # nothing changes


def test_a_changed_file_is_replaced_only_with_force(here: Path) -> None:
    run("fetch", "examples")
    changed = here / "examples" / "dpo.yaml"
    changed.write_text("mine", encoding="utf-8")
    (here / "examples" / "fsdp.yaml").unlink()
    result = run("fetch", "examples")
    assert result.exit_code == 2 and "dpo.yaml exists" in result.output and changed.read_text("utf-8") == "mine"
    assert not (here / "examples" / "fsdp.yaml").exists()  # nothing is copied if anything would be replaced
    assert run("fetch", "examples", "--force").exit_code == 0 and changed.read_text("utf-8") != "mine"


def test_configs_of_deepspeed_need_no_files(here: Path) -> None:
    result = run("fetch", "deepspeed_configs")
    assert result.exit_code == 2 and "write deepspeed: zero2" in result.output
    assert run("fetch", "other").exit_code == 2 and not list(here.iterdir())


def test_the_packaged_files_come_before_those_of_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = tmp_path / "tunesmith_starter" / "packaged" / "examples"
    packaged.mkdir(parents=True)
    monkeypatch.setattr(fetch, "__file__", str(tmp_path / "tunesmith_starter" / "fetch.py"))
    assert fetch.folder_of("examples") == packaged
    with pytest.raises(fetch.EnvironmentProblem, match="has no docs"):
        fetch.folder_of("docs")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_says_how_to_install_it(shell: str) -> None:
    result = run("completion", shell)
    first, *rest = result.output.splitlines()
    assert result.exit_code == 0 and first.startswith("# To complete") and f"completion {shell}" in first
    assert f"_TUNESMITH_COMPLETE={shell}_complete" in "\n".join(rest)


def test_commands_and_options_are_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    def complete(*words: str) -> set[str]:
        from click.shell_completion import get_completion_class

        source = get_completion_class("bash")
        assert source is not None
        complete = source(main, {}, "tunesmith", "_TUNESMITH_COMPLETE")
        return {item.value for item in complete.get_completions(list(words[:-1]), words[-1])}

    assert {"examples", "explain"} <= complete("ex")
    assert {"--model", "--method"} <= complete("init", "--m")
    assert complete("completion", "") == {"bash", "zsh", "fish"}
