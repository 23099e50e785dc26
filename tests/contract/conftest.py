"""Fixtures for the tables of bad input: one small model per session, and a folder with a copy of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a tiny model once per session and return its folder."""
    from tests import tiny

    return tiny.model_folder(tmp_path_factory.mktemp("small") / "model")


@pytest.fixture
def project(tmp_path: Path, small_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create a working folder with a model and valid data, and change to it."""
    from tests import tiny

    shutil.copytree(small_model, tmp_path / "models/tiny")
    (tmp_path / "data").mkdir()
    tiny.write_rows(tmp_path / "data/chat.jsonl", tiny.rows("conversation", 6))
    tiny.write_rows(tmp_path / "data/text.jsonl", tiny.rows("text", 6))
    monkeypatch.chdir(tmp_path)
    return tmp_path
