"""Whether a library knows the model of a folder, and found every weight of it in the files."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import __version__
from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES
from transformers.utils import logging

from tunesmith import ModelError, Run
from tunesmith.files.untrusted import read_json

NEW_HEADS = ("score.", "classifier.")
"""What a score head's weights begin with: a method that asks for one trains it from random values."""
REPORT = {"output_loading_info": True, "ignore_mismatched_sizes": True}
"""Has from_pretrained say what was missing instead of making it up with a warning alone."""


@contextlib.contextmanager
def unreported() -> Iterator[None]:
    """Within the block, transformers does not print its own report."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(before)  # type: ignore[no-untyped-call]


def check_kind(folder: str, name: str, where: str) -> None:
    """Raise ModelError for a config.json whose model_type is missing, or none that the library has."""
    kind = read_json(Path(folder) / "config.json", where).get("model_type")
    if kind in CONFIG_MAPPING:  # those that a plugin registered are in it, too
        return
    close = difflib.get_close_matches(str(kind), list(CONFIG_MAPPING_NAMES), 1)
    message = f"base_model {name}: config.json says model_type {kind!r}, which transformers {__version__} does not know"
    help = (f"did you mean {close[0]!r}? Or: " if close else "") + "pip install -U transformers"
    if kind is None:
        message, help = f"base_model {name}: config.json has no model_type", "copy the folder again, whole"
    raise ModelError(message, where=where, help=help, code="model-config")


def check(run: Run, found: dict[str, Any], name: str) -> None:
    """Raise ModelError for weights that are not in the files and would be random; note those that are left out."""
    new = NEW_HEADS if run.method.head == "score" else ()
    missing = sorted(key for key in found["missing_keys"] if not key.startswith(new))
    said = [f"{len(missing)} weights are missing, first {missing[0]}"] if missing else []
    for key, given, wanted in sorted(found["mismatched_keys"], key=str)[:1]:
        said.append(f"{key} is {list(given)}, and the model has {list(wanted)}")
    if said:
        where = run.config.document.where(("base_model",), value=True)
        help = "the files are not those of this config.json, or not all; reinit_weights: true trains from random ones"
        raise ModelError(f"base_model {name}: {'; '.join(said)}", where=where, help=help, code="weights")
    if unused := sorted(found["unexpected_keys"]):
        run.note("weights left out", f"{len(unused)} in the files of {name} that the model has not, first {unused[0]}")
