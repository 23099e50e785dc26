"""The process of a run that has a folder is known to other programs."""

from __future__ import annotations

import os
from pathlib import Path

from tunesmith.engine import engine


def test_the_holder_of_a_folder_is_its_process_while_it_has_the_lock(tmp_path: Path) -> None:
    lock = engine("runtime.lock")
    assert lock.holder(tmp_path) is None and lock.holder(tmp_path / "missing") is None
    with lock.locked(tmp_path):
        assert lock.holder(tmp_path).pid == os.getpid()
    assert lock.holder(tmp_path) is None


def test_a_process_that_has_ended_holds_nothing(tmp_path: Path) -> None:
    lock = engine("runtime.lock")
    with lock.locked(tmp_path):
        content = (tmp_path / lock.NAME).read_text()
    (tmp_path / lock.NAME).write_text(content.replace(f'"pid": {os.getpid()}', '"pid": 4194303'))
    assert lock.holder(tmp_path) is None
    (tmp_path / lock.NAME).write_text("")
    assert lock.holder(tmp_path) is None
