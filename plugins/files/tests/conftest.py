"""Read dataset entries as a run does: through the config, the plugin selection and the hook."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunesmith.api import start
from tunesmith.config.load import load_config

Read = Callable[..., Any]


@pytest.fixture
def load(tmp_path: Path) -> Read:
    """Return a function that gives the rows of an entry before they are read. The model is never loaded."""

    def rows_of(path: Any, **entry: Any) -> Any:
        values = {"base_model": "nobody/nothing", "datasets": [{"path": str(path), "type": "completion", **entry}]}
        config = tmp_path / "run.yaml"
        config.write_text(yaml.safe_dump(values))
        run = start(load_config(config), check_rows=False)
        rows = run.hooks.load_rows(run, run.config.datasets[0])
        rows.notes = run.notes
        return rows

    return rows_of
