"""Build the class of a model without weights, and put an adapter on it with peft."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from peft import PeftConfig, get_peft_model
from peft.utils.save_and_load import set_peft_model_state_dict
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)
from transformers.utils import logging

from tunesmith import ModelError
from tunesmith_merge.adapter import AdapterFiles

CLASSES = {
    "SEQ_CLS": AutoModelForSequenceClassification,
    "TOKEN_CLS": AutoModelForTokenClassification,
}
"""peft's task type -> the class of transformers with that head; others are language models."""
HEADS = ("score", "classifier")
FITS = "an adapter fits only the base model that it was trained on; name it with --base MODEL"


@contextmanager
def quiet() -> Iterator[None]:
    """Hide warnings of peft and transformers about models without weights within the block."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)


def read_config(folder: Path) -> Any:
    """Return the config of the model in a folder. Raises ModelError for a class that is not part of transformers."""
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the file is untrusted, and a config class may raise anything for it
        detail = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        message, help = f"the config of {folder} can't be read: {detail}", "merge models of the installed transformers"
        raise ModelError(message, code="merge", help=help) from error


def read_tokenizer(folder: Path) -> Any:
    """Return the tokenizer in a folder. Raises ModelError."""
    try:
        with quiet():
            return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the files are untrusted, and transformers may raise anything for them
        detail = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        raise ModelError(f"the tokenizer in {folder} can't be read: {detail}", code="merge") from error


def build(config: Any, task: str | None, rows: int | None = None) -> Any:
    """Return the model of a config on the meta device, in float32 and in evaluation mode.

    Args:
        config: the config of transformers; it is not changed.
        task: peft's task type, which selects the head.
        rows: the number of embedding rows, if they have grown.
    """
    config = copy.deepcopy(config)
    config.dtype = torch.float32
    if hasattr(config, "quantization_config"):
        message = f"the base model is quantized ({config.quantization_config.get('quant_method')})"
        raise ModelError(message, code="merge", help="name the model that was not quantized: --base MODEL")
    auto = CLASSES.get(task or "", AutoModelForCausalLM)
    with quiet(), init_empty_weights(include_buffers=False):
        try:
            model = auto.from_config(config, dtype=torch.float32, trust_remote_code=False)
        except ValueError as error:
            message = f"transformers has no {auto.__name__[9:]} for {config.model_type}"
            raise ModelError(message, code="merge") from error
        if rows is not None:
            model.resize_token_embeddings(rows, mean_resizing=False)
    model.tie_weights()
    return model.eval()


def with_adapter(model: Any, adapter: AdapterFiles) -> Any:
    """Return peft's wrapper of a model without weights, with the tensors of an adapter in float32.

    Raises ModelError if the adapter does not fit the model, or if a tensor of it would not be used.
    """
    config = PeftConfig.from_pretrained(str(adapter.folder))
    config.inference_mode, config.init_lora_weights = True, True  # nothing is initialized: weights come from the file
    originals = {id(module) for module in model.modules()}
    try:
        with quiet():
            wrapped = get_peft_model(model, config, low_cpu_mem_usage=True)
            result = assign(wrapped, adapter.tensors())
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # the files are untrusted, and peft may raise anything for them
        detail = " ".join(line.strip() for line in str(error).splitlines()[:2])
        message = f"the adapter in {adapter.folder} does not fit the base model: {type(error).__name__}: {detail[:300]}"
        raise ModelError(message, help=FITS, code="merge") from error
    missing = [name for name, module in wrapped.named_modules() if id(module) not in originals and lacks(module)]
    if unused := sorted(result.unexpected_keys):
        rest = f" and {len(unused) - 3} more" if len(unused) > 3 else ""
        message = f"the adapter has tensors that the base model has no place for: {', '.join(unused[:3])}{rest}"
        raise ModelError(message, help=FITS, code="merge")
    if missing:
        rest = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        message = f"the adapter has no tensors for parts of the base model: {missing[0]}{rest}"
        raise ModelError(message, help=FITS, code="merge")
    return wrapped.eval()


def lacks(module: nn.Module) -> bool:
    """Return True if a module of the adapter has parameters without a value."""
    return any(p is not None and p.is_meta for p in module._parameters.values())


def assign(wrapped: Any, tensors: dict[str, Tensor]) -> Any:
    """Set the parameters of an adapter, with peft's mapping of names, and return missing and unexpected keys.

    peft then moves an adapter to the device of its layer, which is the meta device here, so that step is undone: what
    it passes to load_state_dict is kept, and loaded again.
    """
    kept: dict[str, Tensor] = {}

    def keep(state: dict[str, Tensor], **options: Any) -> Any:
        kept.update(state)
        return nn.Module.load_state_dict(wrapped, {}, strict=False)

    wrapped.load_state_dict = keep
    try:
        set_peft_model_state_dict(wrapped, tensors, low_cpu_mem_usage=True)
    finally:
        del wrapped.load_state_dict
    return nn.Module.load_state_dict(wrapped, kept, strict=False, assign=True)


def embedding_rows(config: Any, model: Any, adapter: AdapterFiles) -> int | None:
    """Return the number of embedding rows that an adapter was trained with, if it is larger than the base model's.

    It is that of the tokenizer that is saved with the adapter, or of embeddings or a head that the adapter contains.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    sizes = [rows]
    if (adapter.folder / "tokenizer_config.json").is_file():
        sizes.append(len(read_tokenizer(adapter.folder)))
    names = {name for name, module in model.named_modules() if module is model.get_input_embeddings()}
    sizes += [shape[0] for name, shape in adapter.shapes.items() if _module_of(name) in names and _is_matrix(name)]
    return max(sizes) if max(sizes) > rows else None


def _module_of(name: str) -> str:
    return name.removeprefix("base_model.model.").rpartition(".")[0]


def _is_matrix(name: str) -> bool:
    return name.endswith(".weight")


def label_count(adapter: AdapterFiles) -> int | None:
    """Return the number of labels of the head in an adapter for a classifier; None for a language model."""
    shapes = (shape for name, shape in adapter.shapes.items() if _module_of(name) in HEADS and _is_matrix(name))
    return next(shapes, (0,))[0] or None


def parts_of(model: nn.Module, classes: Iterable[str]) -> list[str]:
    """Return the names of the modules that are computed one after the other and together have all parameters.

    These are the modules whose class is in `classes`, such as decoder layers, and around them the smallest modules that
    have parameters of their own.
    """
    names: list[str] = []

    def visit(name: str, module: nn.Module) -> None:
        inner = [pair for pair in module.named_children() if next(pair[1].parameters(), None) is not None]
        children = [(f"{name}.{child}".lstrip("."), below) for child, below in inner]
        own = any(p is not None for p in module._parameters.values())
        if type(module).__name__ in classes or own or (not children and next(module.parameters(), None) is not None):
            names.append(name)
            return
        for child, below in children:
            visit(child, below)

    visit("", model)
    return names
