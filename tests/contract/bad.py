"""Bad inputs in a folder of their own, and what every answer to one has to keep, whatever the input."""

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
"""In output_dir, by a run that fails before its first step."""
AFTER_A_STEP = {"crash.txt", "run.json", "metrics.jsonl", "report.html"}


@dataclass
class Case:
    """A config, and what is to be said of it.

    An `@` in the text marks the place of the problem and is taken out; `place` says it where no mark can. `said` are
    words of the message, `help` of its advice: None for a problem that needs none.
    """

    text: str | bytes
    exit_code: int
    said: str
    help: str | None = None
    place: str = ""
    command: str = "check"
    words: Sequence[str] = ()
    began: bool = False
    """Whether steps were done before it was noticed."""
    others: int = 0
    """Further problems that follow from it."""
    files: dict[str, str | bytes] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
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
    """Run a command in this process; whatever it says, it never shows a traceback."""
    result = CliRunner().invoke(main, list(words))
    assert "Traceback" not in result.output, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def told(result: Result) -> dict[str, Any]:
    """What `--format json` printed; steps may stand before it."""
    found: dict[str, Any] = json.loads(result.stdout[result.stdout.rindex('{\n "exit_code"') :])
    return found


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and not p.is_symlink()}


def judge(case: Case, folder: Path) -> None:
    """Run the case as people and as programs do, in its folder, and hold the answer to its promises."""
    case.write(folder)
    before = snapshot(folder)
    words = [case.command, "run.yaml", *case.words]
    people = tunesmith(*words)
    check_written(case, folder, before)
    programs = told(tunesmith("--format", "json", *words))
    check_written(case, folder, before)
    problems = programs["problems"]
    assert (people.exit_code, programs["exit_code"]) == (case.exit_code, case.exit_code), people.output
    fitting = [p for p in problems if p["where"] == case.place and case.said in p["message"]]
    assert len(fitting) == 1 and len(problems) == 1 + case.others, (case.place, problems)
    help = fitting[0]["help"]
    assert help is None if case.help is None else case.help in str(help), help
    for problem in problems:
        assert problem["where"] and problem["message"] and re.fullmatch("[a-z-]+", problem["code"])
        line = f"{problem['where']}: error[{problem['code']}]: {problem['message']}"
        advice = f"\n  help: {problem['help']}" if problem["help"] else ""
        assert f"{line}{advice}\n" in people.stderr
    codes = dict.fromkeys(p["code"] for p in problems)
    assert programs["docs"] == f"tunesmith explain {' '.join(codes)}"
    assert people.stderr.endswith(f"docs: {programs['docs']}\n")


def check_written(case: Case, folder: Path, before: dict[str, bytes]) -> None:
    """Nothing but the crash file was written, and nothing overwritten; afterwards it is gone."""
    now = snapshot(folder)
    assert {name: now.get(name) for name in before} == before
    new = set(now) - set(before)
    assert new <= {f"out/{name}" for name in (AFTER_A_STEP if case.began else MAY_BE_WRITTEN)}, new
    for name in new:
        (folder / name).unlink()
