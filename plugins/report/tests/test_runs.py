"""Real runs write their page: when they are done, interrupted or fail."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests import tiny

PLUGIN = """
import os, signal
from tunesmith import Plugin, hookimpl
plugin = Plugin()
@hookimpl
def {hook}(run):
    if run.step == {step}:
        {act}
"""


def config(folder: Path, act: str = "", hook: str = "on_step", **keys: object) -> Path:
    """Write the YAML of a short run. A local plugin executes `act` in a hook, after step 2 or before step 1."""
    if act:
        (folder / "acts.py").write_text(PLUGIN.format(act=act, hook=hook, step=2 if hook == "on_step" else 0))
        keys["plugins"] = ["./acts.py"]
    return tiny.sft_config(folder, val_set_size=0.2, max_steps=4, eval_steps=2, generate_samples=True,
                           generation_max_new_tokens=3, **keys)  # fmt: skip


def page_text(folder: Path) -> str:
    """Return the text of a run's page, without markup."""
    page = (folder / "out" / "report.html").read_text("utf-8")
    return " ".join(re.sub(r"<(style|script)>.*?</\1>|<[^>]*>", " ", page, flags=re.S).split())


def test_a_run_that_is_done_has_a_page(tmp_path: Path) -> None:
    tiny.train(config(tmp_path))
    text, last = page_text(tmp_path), tiny.metrics(tmp_path / "out")[-1]
    for part in (
        "out done", "method sft", "of 4", f"{last['eval_loss']:.4g}", f"{last['loss']:.4g}", "after training",
        "datasets[0]", "chat tunesmith-chat", "max_steps 4 line", "In between: 2 rounds",
    ):  # fmt: skip
        assert part in text, part
    assert json.loads((tmp_path / "out/run.json").read_text())["status"] == "done"


def test_the_page_of_an_interrupted_run_is_replaced_when_the_run_resumes(tmp_path: Path) -> None:
    path = config(tmp_path, "os.kill(os.getpid(), signal.SIGTERM)")
    with pytest.raises(Exception, match="SIGTERM"):
        tiny.train(path)
    assert "out interrupted" in page_text(tmp_path) and "SIGTERM after step 2" in page_text(tmp_path)
    tiny.train(path, "resume_from_checkpoint=auto")
    assert "out done" in page_text(tmp_path) and "resumed from checkpoint-2" in page_text(tmp_path)


@pytest.mark.parametrize("hook", ["on_step", "on_start"])
def test_a_failed_run_raises_its_error_and_shows_it(tmp_path: Path, hook: str) -> None:
    with pytest.raises(Exception, match=rf"acts .* failed in {hook}: RuntimeError: on purpose"):
        tiny.train(config(tmp_path, "raise RuntimeError('on purpose')", hook))
    text = page_text(tmp_path)
    assert "out failed" in text and "on purpose" in text and "Last lines of crash.txt" in text


def test_an_error_in_the_page_does_not_change_the_outcome_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tunesmith_report.page.render", lambda *args: 1 / 0)
    assert tiny.train(config(tmp_path)).steps == 4
    assert (
        "plugin report (tunesmith-report 0.1.0) failed in close() of Writer: ZeroDivisionError"
        in capsys.readouterr().err
    )
    with pytest.raises(Exception, match="on purpose"):
        tiny.train(config(tmp_path, "raise RuntimeError('on purpose')", output_dir=str(tmp_path / "other")))


def test_no_page_is_written_if_report_is_false(tmp_path: Path) -> None:
    tiny.train(config(tmp_path, report=False))
    assert not (tmp_path / "out/report.html").exists()
