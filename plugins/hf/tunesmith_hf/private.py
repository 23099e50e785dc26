"""Copy the hashed code of a model to a private folder, so that nothing can replace it before it runs."""

from __future__ import annotations

import atexit
import contextlib
import functools
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from transformers import dynamic_module_utils as dynamic

_copies: dict[tuple[Path, tuple[bytes, ...]], Path] = {}


@functools.cache
def _home() -> Path:
    """Return a folder of this process that only its user can read. It is deleted when the process ends."""
    home = Path(tempfile.mkdtemp(prefix="tunesmith-code-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    return home


def copy_of(folder: Path, code: dict[str, bytes]) -> Path:
    """Return a copy of a model's folder: its files as links, and its code written from the bytes that were hashed."""
    key = (folder.resolve(), tuple(part for name, content in code.items() for part in (name.encode(), content)))
    if key not in _copies:
        copy = _home() / secrets.token_hex(8) / folder.resolve().name
        copy.mkdir(parents=True)
        for path in folder.iterdir():
            if path.is_file() and path.suffix != ".py":
                (copy / path.name).symlink_to(path.resolve())
        templates = folder / "additional_chat_templates"
        if templates.is_dir():
            (copy / templates.name).symlink_to(templates.resolve())
        for name, content in code.items():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes(content)
        _copies[key] = copy
    return _copies[key]


@functools.cache
def _package() -> str:
    return f"code_of_a_model_{secrets.token_hex(8)}"


@contextlib.contextmanager
def own_modules() -> Iterator[None]:
    """Make transformers import a model's code from a private folder and package within the block.

    Its default cache is shared by everything that the user has run, and its files are trusted by name and time.
    """
    before = dynamic.HF_MODULES_CACHE, dynamic.TRANSFORMERS_DYNAMIC_MODULE_NAME
    dynamic.HF_MODULES_CACHE = str(_home() / "modules")
    dynamic.TRANSFORMERS_DYNAMIC_MODULE_NAME = _package()
    try:
        yield
    finally:
        dynamic.HF_MODULES_CACHE, dynamic.TRANSFORMERS_DYNAMIC_MODULE_NAME = before
