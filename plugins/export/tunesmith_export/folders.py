"""Read what is in the folder of a model, and write a new folder that is complete or absent."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith import ConfigError, EnvironmentProblem, ModelError
from tunesmith.engine import engine
from tunesmith.files.untrusted import leads_out

BESIDE = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "chat_template.jinja",
    "preprocessor_config.json", "processor_config.json", "README.md",
)  # fmt: skip
"""Files of a model beside its weights."""


def read_config(folder: Path) -> Any:
    """Return the config of the model in a folder. Raises ModelError for an unknown class."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the file is untrusted, and a config class may raise anything for it
        detail = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        raise ModelError(f"the config of {folder} can't be read: {detail}", code="export") from error


def read_tokenizer(folder: Path) -> Any:
    """Return the tokenizer in a folder. Raises ModelError."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the files are untrusted, and transformers may raise anything for them
        detail = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        raise ModelError(f"the tokenizer in {folder} can't be read: {detail}", code="export") from error


def copy_beside(origin: Path, folder: Path) -> None:
    """Copy the files of a model except its weights. A link that leads out of its folder is not followed."""
    for name in BESIDE:
        if (origin / name).is_file() and not leads_out(origin, origin / name):
            shutil.copyfile(origin / name, folder / name)


def check_new(out: Path, source: Path) -> None:
    """Raise ConfigError for an output folder that would overwrite something."""
    message = None
    if out.resolve() == source.resolve():
        message = f"{out} is the folder of the model, which would be overwritten"
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        message = f"{out} already exists"
    if message:
        raise ConfigError(message, where="command line (--out)", code="usage", help="write --out with another folder")


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield OUT.partial, which becomes `out` if the block succeeds.

    If the model in it differs from the trained one, it stays for inspection; after any other error it is deleted. The
    next export replaces it. Raises EnvironmentProblem if the disk refuses the files.
    """
    partial, flush = out.with_name(f"{out.name}.partial"), engine("runtime.atomic").flush
    try:
        partial.mkdir(parents=True, exist_ok=True)
        with _claimed(partial, out):
            try:
                yield partial
            except BaseException as error:
                if not isinstance(error, ParityError):
                    shutil.rmtree(partial, ignore_errors=True)
                raise
            for path in partial.iterdir():
                flush(path)
            flush(partial)
            if out.is_dir():
                out.rmdir()  # empty: see check_new
            partial.rename(out)
            flush(out.parent)
    except OSError as error:
        message = f"{out} could not be written: {error.strerror or error}"
        raise EnvironmentProblem(message, code="disk", help="make room, or write --out with another place") from error


@contextlib.contextmanager
def _claimed(partial: Path, out: Path) -> Iterator[None]:
    """Empty a folder that no other process has locked; the system releases the lock of a process that is killed."""
    handle = os.open(partial, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"{out} is being written by another process"
            raise EnvironmentProblem(message, code="in-use", help="wait for it, or write another --out") from None
        for path in partial.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        yield
    finally:
        os.close(handle)


class ParityError(ModelError):
    """The exported model computes other logits than the trained one."""
