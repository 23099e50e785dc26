"""Compare the logits of an exported model with those of the trained one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tunesmith import ModelError, SavedModel, open_model
from tunesmith_export.families import FAMILIES, family_of
from tunesmith_export.folders import ParityError, read_config

if TYPE_CHECKING:
    from torch import Tensor

ALLOWED = {"F32": 1e-4, "F16": 1e-2, "BF16": 5e-2, "Q8_0": 5e-2, "Q5_1": 0.25, "Q5_0": 0.25, "Q4_1": 0.5, "Q4_0": 0.5}
"""Largest relative difference to the trained model by type. On random two-layer models, rounding gives 0 for F32, 4e-4
for F16, 3e-3 for BF16, 0.01 for Q8_0, 0.06 for Q5 and 0.12 for Q4."""
EXACT = 1e-4
"""Largest relative difference to the model with the rounded weights. It is 0 for a right file; a wrong order of rows
gives 0.09 on such a model, which rounding to 4 bits could explain as well."""
TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "def add(a: int, b: int) -> int:\n    return a + b  # 3 + 4 == 7\n",
    "In 1969, 12,345 people didn't know that it's 3.14159.",
    "Zürich, café, naïve; 你好，世界; здравствуй мир; こんにちは 🙂",
)
"""Texts that are compared, beside prompts of the run."""
LONGEST = 96
"""Tokens of a text that are compared: with a vocabulary of 150,000, the logits of a text take 58 MB."""


@dataclass(frozen=True)
class Parity:
    """The difference between two models.

    texts, tokens: what was compared. absolute: the largest difference of two logits. relative: the largest
    |exported - trained| / |trained| of a text, in the Euclidean norm. same: the share of tokens after which both
    models prefer the same one. allowed: the largest relative difference that rounding explains.
    """

    texts: int
    tokens: int
    absolute: float
    relative: float
    same: float
    allowed: float

    def __str__(self) -> str:
        return (
            f"{self.texts} texts, {self.tokens} tokens; logits differ by at most {self.absolute:.1e} "
            f"(relative {self.relative:.1e}, allowed {self.allowed:.0e}); same next token {self.same:.1%}"
        )


def sequences(tokenizer: Any, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return the token ids of prompts and of the fixed texts."""
    texts = [tokenizer(text)["input_ids"] for text in TEXTS]
    return [list(ids[:LONGEST]) for ids in [*prompts, *texts] if len(ids) > 1]


def compare(trained: Sequence[Tensor], exported: Sequence[Tensor], allowed: float) -> Parity:
    """Return the difference between the logits [T, vocabulary] of texts. Raises ParityError if it is too large."""
    pairs = [
        (a[:, : b.shape[-1]].double(), b[:, : a.shape[-1]].double()) for a, b in zip(trained, exported, strict=True)
    ]
    absolute = max(float((b - a).abs().max()) for a, b in pairs)
    relative = max(float((b - a).norm() / a.norm().clamp_min(1e-30)) for a, b in pairs)
    same = [(a.argmax(-1) == b.argmax(-1)).double() for a, b in pairs]
    tokens = sum(len(one) for one in same)
    parity = Parity(len(pairs), tokens, absolute, relative, float(torch.cat(same).mean()), allowed)
    if not relative <= parity.allowed:  # also for NaN
        message = f"the exported model computes other logits than the trained one: {parity}"
        help = "the files stay in the .partial folder for inspection; report the model's architecture"
        raise ParityError(message, code="export-parity", help=help)
    return parity


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide progress bars and warnings of transformers within the block."""
    import io
    import warnings

    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):  # of tqdm
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def trained_logits(saved: SavedModel, texts: Sequence[Sequence[int]]) -> list[Tensor]:
    """Return the logits [T, vocabulary] of a saved model in float32; for an adapter, of its base with the adapter.

    A base that was quantized for training is loaded in full precision, because the export contains that one.
    """
    if not saved.peft_config:
        return folder_logits(saved.folder, texts)
    keys: dict[str, Any] = {"bf16": False, "fp16": None, "device": "cpu", "load_in_4bit": None, "load_in_8bit": None}
    given = saved.keys()
    keys = {key: value for key, value in keys.items() if value is not None or key in given}
    if given.get("adapter") == "qlora":
        keys |= {"adapter": "lora"} | {key: None for key in given if key.startswith(("bnb_", "llm_int8"))}
    with quiet(), open_model(saved, **keys) as model, torch.no_grad():
        return [logits(model.model, ids) for ids in texts]


def folder_logits(folder: Path, texts: Sequence[Sequence[int]]) -> list[Tensor]:
    """Return the logits of the model in a folder, in the layout of transformers."""
    import transformers

    name = str((read_config(folder).architectures or [""])[0])
    cls = getattr(transformers, name, None)
    if not isinstance(cls, type):
        raise ModelError(f"transformers has no class {name}", code="export", help="write --no-verify")
    with quiet(), torch.no_grad():
        model = cls.from_pretrained(folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False)
        return [logits(model.eval(), ids) for ids in texts]


def rounded_logits(folder: Path, kind: str, texts: Sequence[Sequence[int]]) -> list[Tensor]:
    """Return the logits of the model in a folder with its weights rounded as in a GGUF file of a type.

    Rows are rounded one by one, so their order in the file does not matter.
    """
    import gguf
    from transformers import AutoModelForCausalLM

    from tunesmith_export.ggufwriter import Tensors, architecture_of
    from tunesmith_export.weights import reading

    config = read_config(folder)
    family = family_of(config)
    names = gguf.get_tensor_name_map(architecture_of(family), config.num_hidden_layers)
    with quiet(), torch.no_grad(), reading(folder) as weights:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        state = model.state_dict()
        tensors = Tensors(weights, config, family, names, kind)
        list(tensors.plan())
        for name, _, dtype in tensors.planned:
            if name is not None:
                data = gguf.quants.quantize(state[name].numpy(), dtype)
                state[name].copy_(torch.from_numpy(gguf.quants.dequantize(data, dtype).reshape(state[name].shape)))
        return [logits(model.eval(), ids) for ids in texts]


def gguf_logits(path: Path, folder: Path, texts: Sequence[Sequence[int]]) -> list[Tensor]:
    """Return the logits of a GGUF file, as transformers loads it.

    Args:
        path: the file.
        folder: the model that it was made from, for the fields that transformers does not read from GGUF.
        texts: token ids.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    origin = read_config(folder)
    with quiet(), torch.no_grad():
        config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
        for name in FAMILIES[origin.architectures[0]].unread:
            setattr(config, name, getattr(origin, name))
        model = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, config=config, dtype=torch.float32, local_files_only=True
        )
        return [logits(model.eval(), ids) for ids in texts]


def logits(model: Any, ids: Sequence[int]) -> Tensor:
    """Return the logits [T, vocabulary] of one text; [1, labels] of a sequence classifier."""
    tokens = torch.tensor([ids], device=next(model.parameters()).device)
    result: Tensor = model(input_ids=tokens, use_cache=False).logits[0].float().cpu()
    return result.reshape(-1, result.shape[-1])


def run_prompts(saved: SavedModel, number: int = 4) -> list[list[int]]:
    """Return the token ids of the first examples of a run, if the user named its YAML and its data is there."""
    from tunesmith_export.prompts import first_examples

    return first_examples(saved.config, number) if saved.config is not None else []
