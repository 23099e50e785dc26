"""Nothing that a file contains changes what a terminal shows: control characters are escaped in all that is printed."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

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
NAME = EVIL.replace("\r", "")
RAW = set(EVIL) - set("[31mred2J1Aesreverover")


COMMANDS: dict[str, dict[str, Any]] = {
    "check": {"metric_for_best_model": f"eval_{EVIL}", "val_set_size": 1},
    "check a file": {"datasets": [{"path": f"./{EVIL}.jsonl", "type": "chat_template"}]},
    "doctor": {"lr_scheduler": EVIL},
    "plan": {},
    "lint": {},
    "train": {"max_steps": 1, "datasets": [{"path": "BAD", "type": "chat_template"}]},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder whose data and model have such names."""
    folder = tmp_path_factory.mktemp("control")
    tiny.model_folder(folder / NAME)
    tiny.write_rows(folder / f"{NAME}.jsonl", tiny.rows("conversation", 4))
    (folder / f"bad{NAME}.jsonl").write_text(json.dumps({EVIL: 1}) + "\n")
    return folder


@pytest.mark.parametrize("case", COMMANDS)
def test_no_command_prints_a_control_character_of_a_file(case: str, folder: Path, tmp_path: Path) -> None:
    keys = json.loads(json.dumps(COMMANDS[case]).replace("BAD", json.dumps(str(folder / f"bad{NAME}.jsonl"))[1:-1]))
    data = [{"path": str(folder / f"{NAME}.jsonl"), "type": "chat_template"}]
    config = tiny.write_config(
        tmp_path, **{"base_model": str(folder / NAME), "datasets": data, "sequence_len": 64, **keys}
    )
    output = CliRunner().invoke(main, [case.partition(" ")[0], str(config)]).output
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
