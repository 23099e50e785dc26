"""A browser draws the page of a sweep, sorts its table, and runs no other script."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tunesmith_sweep.page import render
from tunesmith_sweep.state import State
from tunesmith_sweep.trial import FAILED, FINISHED, Trial

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000", "--dump-dom")
MARKUP = "</script><script>document.title = 'ran'</script><img src=x onerror=\"document.title = 'ran'\">"
CLICK = "\ndocument.querySelectorAll('thead button')[3].click();\n"
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=f"install one of {', '.join(NAMES)}")


def test_charts_are_drawn_and_the_table_is_sorted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = [Trial(n, {"rate": rate, "name": MARKUP if n == 2 else "b"}) for n, rate in enumerate((0.3, 0.1, 0.2), 1)]
    for trial, value in zip(trials, (1.0, 2.0, None), strict=True):
        trial.state, trial.value = (FINISHED, value) if value else (FAILED, None)
        (tmp_path / trial.name).mkdir()
        (tmp_path / trial.name / "run.json").write_text('{"status": "done"}')
        (tmp_path / trial.name / "metrics.jsonl").write_text('{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.0}\n')
    state = State(tmp_path, "loss", False, "grid", 0, {}, "run.yaml", trials, 3)
    from tunesmith_sweep import page

    templates = tmp_path / "templates"
    shutil.copytree(page.TEMPLATES, templates)
    (templates / "sweep.js").write_text((templates / "sweep.js").read_text() + CLICK)  # the policy allows no other
    monkeypatch.setattr(page, "TEMPLATES", templates)
    (tmp_path / "sweep.html").write_text(render(state))
    command = [str(CHROMIUM), *OPTIONS, f"--user-data-dir={tmp_path / 'profile'}", f"file://{tmp_path / 'sweep.html'}"]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "<title>ran</title>" not in dom and dom.count("<svg") == 5  # over trials, parallel, two parameters, curves
    assert re.findall(r"<tr data-trial=\"(\d)\"", dom) == ["2", "3", "1"]  # by rate
    assert dom.count('class="hit"') == 2 + 3  # lines of trials with a value, curves of all
