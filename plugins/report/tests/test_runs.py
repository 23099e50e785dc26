"""The page of real runs, however they end."""

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
    """A short run; `act` is done in a hook of a local plugin, after the second step or before the first."""
    if act:
        (folder / "acts.py").write_text(PLUGIN.format(act=act, hook=hook, step=2 if hook == "on_step" else 0))
        keys["plugins"] = ["./acts.py"]
    return tiny.sft_config(folder, val_set_size=0.2, max_steps=4, eval_steps=2, generate_samples=True,
                           generation_max_new_tokens=3, **keys)  # fmt: skip


def words(folder: Path) -> str:
    """What the page of a run says, without its markup."""
    page = (folder / "out" / "report.html").read_text("utf-8")
    return " ".join(re.sub(r"<(style|script)>.*?</\1>|<[^>]*>", " ", page, flags=re.S).split())


def test_a_run_that_is_done_has_its_page(tmp_path: Path) -> None:
    tiny.train(config(tmp_path))
    text, last = words(tmp_path), tiny.metrics(tmp_path / "out")[-1]
    for part in (
        "out done", "method sft", "of 4", f"{last['eval_loss']:.4g}", f"{last['loss']:.4g}", "after training",
        "datasets[0]", "chat tunesmith-chat", "max_steps 4 line", "In between: 2 rounds",
    ):  # fmt: skip
        assert part in text, part
    assert json.loads((tmp_path / "out/run.json").read_text())["status"] == "done"


def test_a_run_that_is_interrupted_says_so_and_how_to_go_on(tmp_path: Path) -> None:
    path = config(tmp_path, "os.kill(os.getpid(), signal.SIGTERM)")
    with pytest.raises(Exception, match="SIGTERM"):
        tiny.train(path)
    assert "out interrupted" in words(tmp_path) and "SIGTERM after step 2" in words(tmp_path)
    tiny.train(path, "resume_from_checkpoint=auto")
    assert "out done" in words(tmp_path) and "resumed from checkpoint-2" in words(tmp_path)


@pytest.mark.parametrize("hook", ["on_step", "on_start"])
def test_a_run_that_fails_keeps_its_error_and_shows_it(tmp_path: Path, hook: str) -> None:
    with pytest.raises(Exception, match=rf"acts .* failed in {hook}: RuntimeError: on purpose"):
        tiny.train(config(tmp_path, "raise RuntimeError('on purpose')", hook))
    text = words(tmp_path)
    assert "out failed" in text and "on purpose" in text and "Last lines of crash.txt" in text


def test_a_page_that_fails_leaves_the_run_s_own_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tunesmith_report.page.render", lambda *args: 1 / 0)
    assert tiny.train(config(tmp_path)).steps == 4
    assert (
        "plugin report (tunesmith-report 0.1.0) can't write report.html: ZeroDivisionError" in capsys.readouterr().err
    )
    with pytest.raises(Exception, match="on purpose"):
        tiny.train(config(tmp_path, "raise RuntimeError('on purpose')", output_dir=str(tmp_path / "other")))


def test_a_run_without_a_report_has_none(tmp_path: Path) -> None:
    tiny.train(config(tmp_path, report=False))
    assert not (tmp_path / "out/report.html").exists()
