"""Run a command on bad input and check the promises that every error report keeps."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from tunesmith.cli import main

MAY_BE_WRITTEN = {"crash.txt"}
"""Files that a run may write to output_dir if it fails before its first step."""
MAY_BE_WRITTEN_AFTER_A_STEP = {"crash.txt", "run.json", "origin.json", "metrics.jsonl", "report.html"}
"""Files that a run may write to output_dir if it fails later."""


@dataclass
class Case:
    """A config and the problem that must be reported.

    An `@` in the text marks the place of the problem and is removed before the file is written. `place` is for
    problems in another file. `message` and `help` are parts of the message and of its advice; `help` is None for a
    problem without advice.
    """

    text: str | bytes
    exit_code: int
    message: str
    help: str | None = None
    place: str = ""
    command: str = "check"
    arguments: Sequence[str] = ()
    began: bool = False
    """True if steps are done before the problem is detected."""
    others: int = 0
    """The number of further problems that follow from this one."""
    files: dict[str, str | bytes] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write the files of the case to a folder, and set `place` to that of the mark."""
        for name, content in {**self.files, "run.yaml": self.text}.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            raw = content.encode() if isinstance(content, str) else content
            if name == "run.yaml" and raw.count(b"@") == 1:
                before = raw[: raw.index(b"@")]
                line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
                self.place, raw = f"run.yaml:{line}:{column}", raw.replace(b"@", b"")
            path.write_bytes(raw)


def tunesmith(*words: str) -> Result:
    """Run a command in this process, and check that it prints no traceback."""
    result = CliRunner().invoke(main, list(words))
    assert "Traceback" not in result.output, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def report_of(result: Result) -> dict[str, Any]:
    """Return the object that `--format json` printed, possibly after lines about steps."""
    report: dict[str, Any] = json.loads(result.stdout[result.stdout.rindex('{\n "exit_code"') :])
    return report


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and not p.is_symlink()}


def judge(case: Case, folder: Path) -> None:
    """Run a case in its folder with text and with JSON output, and check both reports."""
    case.write(folder)
    before = snapshot(folder)
    words = [case.command, "run.yaml", *case.arguments]
    text_result = tunesmith(*words)
    check_written(case, folder, before)
    report = report_of(tunesmith("--format", "json", *words))
    check_written(case, folder, before)
    problems = report["problems"]
    assert (text_result.exit_code, report["exit_code"]) == (case.exit_code, case.exit_code), text_result.output
    matches = [p for p in problems if p["where"] == case.place and case.message in p["message"]]
    assert len(matches) == 1 and len(problems) == 1 + case.others, (case.place, problems)
    help = matches[0]["help"]
    assert help is None if case.help is None else case.help in str(help), help
    for problem in problems:
        assert problem["where"] and problem["message"] and re.fullmatch("[a-z-]+", problem["code"])
        line = f"{problem['where']}: error[{problem['code']}]: {problem['message']}"
        advice = f"\n  help: {problem['help']}" if problem["help"] else ""
        assert f"{line}{advice}\n" in text_result.stderr
    codes = dict.fromkeys(p["code"] for p in problems)
    assert report["docs"] == f"tunesmith explain {' '.join(codes)}"
    assert text_result.stderr.endswith(f"docs: {report['docs']}\n")


def check_written(case: Case, folder: Path, before: dict[str, bytes]) -> None:
    """Check that only allowed files were written and none was overwritten, and delete the new ones."""
    now = snapshot(folder)
    assert {name: now.get(name) for name in before} == before
    new = set(now) - set(before)
    assert new <= {f"out/{name}" for name in (MAY_BE_WRITTEN_AFTER_A_STEP if case.began else MAY_BE_WRITTEN)}, new
    for name in new:
        (folder / name).unlink()
