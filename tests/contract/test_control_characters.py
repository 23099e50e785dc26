"""Nothing that a file contains changes what a terminal shows: control characters are escaped in all that is printed."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests import tiny
from tunesmith.cli import main
from tunesmith.errors import DataError, Problem
from tunesmith.finding import Finding
from tunesmith.printable import printable
from tunesmith.streams import Redacted

EVIL = "\x1b[31mred\x1b[2J\x9b1A\u202eesrever\x07\rover"
"""Colors, a cleared screen, a cursor that moves up, a reversed direction, a bell, and the start of the line."""
RAW = set(EVIL) - set("[31mred2J1Aesreverover")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder whose data and model have such names."""
    folder = tmp_path_factory.mktemp("control")
    name = EVIL.replace("\r", "")
    tiny.model_folder(folder / name)
    tiny.write_rows(folder / f"{name}.jsonl", tiny.rows("conversation", 4))
    (folder / f"bad{name}.jsonl").write_text(json.dumps({EVIL: 1}) + "\n")
    data = [{"path": str(folder / f"{name}.jsonl"), "type": "chat_template"}]
    tiny.write_config(folder, base_model=str(folder / name), datasets=data, max_steps=1, sequence_len=48)
    return folder


COMMANDS = {
    "check": [f"metric_for_best_model={EVIL}"],
    "check an unknown key": [f"{EVIL}=1"],
    "check a missing file": [f"datasets.0.path=./{EVIL}.jsonl"],
    "doctor": [],
    "plan": [],
    "preprocess": [],
    "lint": [],
    "train": [],
    "train bad rows": ["datasets.0.path=BAD"],
}


@pytest.mark.parametrize("case", COMMANDS)
def test_no_command_prints_a_control_character_of_a_file(case: str, folder: Path, tmp_path: Path) -> None:
    bad = str(next(folder.glob("bad*")))
    overrides = [word.replace("BAD", bad) for word in COMMANDS[case]]
    words = [case.partition(" ")[0], str(folder / "run.yaml"), *overrides, f"output_dir={tmp_path / 'out'}"]
    output = CliRunner().invoke(main, words).output
    assert not RAW & set(output), [line for line in output.splitlines() if RAW & set(line)]
    assert "\\x1b" in output


def test_every_part_of_a_message_is_escaped() -> None:
    problem = Problem(f"a{EVIL}", f"b{EVIL}", "code", f"c{EVIL}")
    finding = Finding(f"a{EVIL}", "ok", f"b{EVIL}", f"c{EVIL}")
    for text in (str(problem), str(DataError([problem])), repr((finding.what, finding.detail, finding.help))):
        assert not RAW & set(text)
    assert printable("a tab\tand a line\nstay") == "a tab\tand a line\nstay"


def test_output_of_a_library_can_set_neither_title_nor_clipboard() -> None:
    """Colors and bars stay as they are."""
    plain = io.StringIO()
    print("\x1b[32mok\x1b[0m\r\x1b[2K\x1b]52;c;ZXZpbA==\x07\x1bP+q\x1b\\\x9b31m", file=Redacted(plain))
    assert plain.getvalue() == "\x1b[32mok\x1b[0m\r\x1b[2K\\x1b]52;c;ZXZpbA==\x07\\x1bP+q\\x1b\\\\x9b31m\n"
