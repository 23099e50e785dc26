"""A plugin asks for a checkpoint in on_step, and the run saves one after this step."""

from __future__ import annotations

from pathlib import Path

from tests import tiny

ASKS = """
from tunesmith import Plugin, hookimpl
plugin = Plugin()

@hookimpl
def on_step(run, record):
    if record.step == 2:
        run.request_checkpoint()
"""


def test_a_plugin_requests_one_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "asks.py").write_text(ASKS, encoding="utf-8")
    tiny.train(tiny.sft_config(tmp_path, plugins=[str(tmp_path / "asks.py")]))
    saved = sorted(path.name for path in (tmp_path / "out").glob("checkpoint-*"))
    assert saved == ["checkpoint-2", "checkpoint-4"]
    assert (tmp_path / "out" / "checkpoint-2" / "optimizer.json").is_file()
