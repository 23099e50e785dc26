"""Check that transformers supports a model, and that it read every weight from the files."""

from __future__ import annotations

import contextlib
import difflib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoConfig, __version__
from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES
from transformers.quantizers import AutoQuantizationConfig
from transformers.utils import logging

from tunesmith import ModelError, ModelSpec, Run
from tunesmith.files.untrusted import leaves, read_json
from tunesmith_hf.source import is_base, where_key

NEW_HEADS = ("score.", "classifier.")
"""Prefixes of a score head's weights. A method that needs a score head trains it from random values."""
REPORT = {"output_loading_info": True, "ignore_mismatched_sizes": True}
"""Arguments that make from_pretrained return the missing weights. By default it invents them with only a warning."""


@contextlib.contextmanager
def quiet_report() -> Iterator[None]:
    """Silence transformers' own loading report, and its warning about two quantizations, within the block."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "You passed `quantization_config`")
            yield
    finally:
        logging.set_verbosity(before)  # type: ignore[no-untyped-call]


def check_kind(folder: str, name: str, where: str) -> None:
    """Raise ModelError if the model_type of config.json is missing, or is unknown to transformers."""
    kind = read_json(Path(folder) / "config.json", where).get("model_type")
    if kind in CONFIG_MAPPING:  # includes types that a plugin registered
        return
    close = difflib.get_close_matches(str(kind), list(CONFIG_MAPPING_NAMES), 1)
    message = f"{name}: transformers {__version__} does not support model_type {kind!r} of config.json"
    help = (f"did you mean {close[0]!r}? Otherwise: " if close else "") + "pip install -U transformers"
    if kind is None:
        message, help = f"{name}: config.json has no model_type", "copy the complete folder again"
    raise ModelError(message, where=where, help=help, code="model-config")


def read_config(folder: str, name: str, where: str, **options: Any) -> Any:
    """Return the config of transformers for a folder. Raise ModelError if transformers refuses a value of it."""
    try:
        return AutoConfig.from_pretrained(folder, **options)
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # config.json is untrusted, and transformers may raise anything for it
        reason = str(error).partition("ValueError: ")[2] or str(error)
        reason = " ".join(line.strip() for line in reason.splitlines())[:300]
        message = f"{name}: config.json does not fit its model_type: {reason}"
        help = "copy the original config.json of the model again"
        raise ModelError(message, where=where, help=help, code="model-config") from error


def quantization(run: Run, spec: ModelSpec, config: Any, name: str) -> Any:
    """Return the configuration with which transformers quantizes a model, or reads quantized weights; None for neither.

    That of a checkpoint that is already quantized has precedence, and becomes `spec.quantization`. Raise ModelError for
    a quantized base_model that no plugin asked for (`spec.quantization` is then not set), and for a float one if
    `pre_quantized` is set in it.
    """
    own = getattr(config, "quantization_config", None)
    if own and spec.quantization is None and is_base(spec):
        message = f"{name}: the weights are quantized ({own.get('quant_method')})"
        help = "write adapter: qlora, or use the bfloat16 model that they were quantized from"
        raise ModelError(message, where=run.config.place(spec.key), help=help, code="quantized")
    wanted = dict(spec.quantization or {})
    spec.quantization = dict(own) if own else spec.quantization
    if wanted.pop("pre_quantized", False) and not own:
        message, help = f"{name}: the weights are not quantized", "to quantize them, write load_in_4bit: true"
        raise ModelError(message, where=run.config.place(spec.key), help=help, code="quantized")
    if own and own.get("quant_method") == "compressed-tensors":
        # Its layers have no weight that an adapter could be next to, so they are dequantized when they are read.
        return AutoQuantizationConfig.from_dict({**own, "dequantize": True})
    same = own and own.get("quant_method") == wanted.get("quant_method") != "bitsandbytes"
    if len(wanted) < 2 or (own and not same):  # everything is in config.json
        return None
    return AutoQuantizationConfig.from_dict(wanted)


def unknown_value(folder: str, error: Exception) -> str | None:
    """Return the key and value of config.json that transformers did not find in one of its tables, if there is one."""
    if not isinstance(error, KeyError) or len(error.args) != 1:
        return None
    content = read_json(Path(folder) / "config.json")
    keys = [".".join(path) for path, value in leaves(content) if isinstance(value, str) and value == error.args[0]]
    if not keys:
        return None
    return f"{keys[0]} of config.json is {error.args[0]!r}, which transformers {__version__} does not know"


def check(run: Run, spec: ModelSpec, model: nn.Module, report: dict[str, Any], name: str) -> None:
    """Raise ModelError for weights that the files and the model do not both have. Note other unused weights."""
    new = NEW_HEADS if spec.exports and is_base(spec) else ()
    missing = sorted(key for key in report["missing_keys"] if not key.startswith(new))
    problems = [f"{len(missing)} weights are missing, the first is {missing[0]}"] if missing else []
    for key, in_files, in_model in sorted(report["mismatched_keys"], key=str)[:1]:
        problems.append(f"{key} has shape {list(in_files)} in the files and {list(in_model)} in the model")
    if beyond := next(filter(None, (layer_beyond(model, key) for key in sorted(report["unexpected_keys"]))), None):
        problems.append(f"the files have weights of {beyond}")
    if problems:
        where = run.config.place(spec.key)
        help = "copy the complete files of this config.json"
        help += ", or write reinit_weights: true to train from random weights" if is_base(spec) else ""
        raise ModelError(f"{where_key(spec)} {name}: {'; '.join(problems)}", where=where, help=help, code="weights")
    if unused := sorted(report["unexpected_keys"]):
        run.note("unused weights", f"{len(unused)} in the files of {name} are not in the model, first {unused[0]}")


def layer_beyond(model: nn.Module, key: str) -> str | None:
    """Return the name of the layer that a weight belongs to if the model has fewer such layers, or None."""
    parts = key.split(".")
    for at, part in enumerate(parts):
        if part.isdecimal():
            place = ".".join(parts[:at])
            try:
                layers = model.get_submodule(place)
            except AttributeError:
                return None
            if isinstance(layers, nn.ModuleList) and int(part) >= len(layers):
                return f"{place}.{part}, and config.json describes {len(layers)} of these layers"
    return None
