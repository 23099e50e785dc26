"""Read what is in the folder of a model, and check the folder to write."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tunesmith import ConfigError, ModelError
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
        help = "write --output with another folder"
        raise ConfigError(message, where="command line (--output)", code="usage", help=help)


class ParityError(ModelError):
    """The exported model computes other logits than the trained one."""
