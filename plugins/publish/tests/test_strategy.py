"""A strategy that can't upload every checkpoint is a warning."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from tests import tiny
from tunesmith.cli import main


@pytest.mark.parametrize(("strategy", "warns"), [("every_save", True), ("all_checkpoints", True), ("end", False)])
def test_uploads_of_checkpoints_without_a_model_are_a_warning(strategy: str, warns: bool, tmp_path: Path) -> None:
    path = tiny.sft_config(tmp_path, async_save=True, hub_strategy=strategy, hub_model_id="me/model")
    result = CliRunner().invoke(main, ["check", str(path)])
    assert result.exit_code == 0, result.output
    assert ("only the last checkpoint has a model to upload" in " ".join(result.output.split())) == warns
