"""Fixtures: one small model per session, a folder with a copy of it, and a folder for installed distributions."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
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


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Create a folder for installed distributions, first on sys.path."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if name.startswith(("fake_", "other_")):
            del sys.modules[name]
