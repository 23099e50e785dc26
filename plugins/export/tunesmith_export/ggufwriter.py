"""Write a model in the layout of transformers as a GGUF file, tensor by tensor."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith import ModelError
from tunesmith_export.families import Family, family_of, head_dim, rope_factors, write_metadata
from tunesmith_export.vocabulary import read_vocabulary
from tunesmith_export.weights import Weights, reading

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGMLQuantizationType, TensorNameMap
    from torch import Tensor

FILE_TYPES = {
    "F32": "ALL_F32", "F16": "MOSTLY_F16", "BF16": "MOSTLY_BF16", "Q8_0": "MOSTLY_Q8_0", "Q5_1": "MOSTLY_Q5_1",
    "Q5_0": "MOSTLY_Q5_0", "Q4_1": "MOSTLY_Q4_1", "Q4_0": "MOSTLY_Q4_0",
}  # fmt: skip
"""Types that the gguf package can write -> their name in the metadata. It has no K-quants."""
FINE = ("token_embd.weight", "output.weight")
"""Tensors that keep 8 bits when others get fewer: errors in them reach every token."""
LARGEST_F16 = 65504.0
PHI3 = {"</s>", "<unk>", "<s>", "<|endoftext|>", "<|end|>"}
"""Tokens of Phi-3's tokenizer."""


@dataclass
class GGUFFile:
    """A written file. notes: what the user should know about it."""

    path: Path
    tensors: int = 0
    notes: list[str] = field(default_factory=list)


def write_gguf(folder: Path, path: Path, kind: str, name: str, pre: str | None = None) -> GGUFFile:
    """Write the model in a folder as a GGUF file.

    Args:
        folder: a full model in the layout of transformers, with its tokenizer.
        path: the file to write.
        kind: the type of matrices, one of FILE_TYPES. Vectors are float32.
        name: the name of the model in the metadata.
        pre: the name of the pre-tokenizer, if it is not recognized.

    Raises ModelError for a model or a tokenizer that llama.cpp would compute differently.
    """
    import gguf
    import numpy

    from tunesmith_export.folders import read_config

    config = read_config(folder)
    family = family_of(config)
    file = GGUFFile(path)
    with reading(folder) as weights:
        rows = embedding_rows(weights, folder)
        vocabulary = read_vocabulary(folder, rows, pre)
        writer = gguf.GGUFWriter(path, family.architecture)
        writer.add_type("model")
        # llama.cpp strips spaces after the special tokens of Phi-3, which it knows by the name of the model.
        writer.add_name(f"Phi-3 {name}" if set(vocabulary.tokens) >= PHI3 else name)
        writer.add_file_type(gguf.LlamaFileType[FILE_TYPES[kind]])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        file.notes = [*write_metadata(writer, config, family, rows), *vocabulary.notes]
        vocabulary.write(writer)
        names = gguf.get_tensor_name_map(architecture_of(family), config.num_hidden_layers)
        tensors = Tensors(weights, config, family, names, kind)
        for target, shape, dtype in tensors.plan():
            size, raw = byte_size(shape, dtype)
            writer.add_tensor_info(target, size, numpy.dtype(numpy.uint8), raw, dtype)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for data in tensors.data():
            writer.write_tensor_data(data)
            file.tensors += 1
        writer.close()
    if tensors.coarse:
        file.notes.append(
            f"F16 instead of {kind}: {', '.join(tensors.coarse[:3])}, whose rows are not a multiple of 32"
        )
    return file


def architecture_of(family: Family) -> Any:
    """Return gguf's member for an architecture."""
    import gguf

    return next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == family.architecture)


def embedding_rows(weights: Weights, folder: Path) -> int:
    """Return the number of rows of the embeddings."""
    for name, shape in weights.shapes.items():
        if name.endswith("embed_tokens.weight"):
            return shape[0]
    raise ModelError(f"{folder} has no embed_tokens.weight", code="export")


def byte_size(shape: tuple[int, ...], dtype: GGMLQuantizationType) -> tuple[tuple[int, ...], int]:
    """Return the shape of a tensor in bytes, and its size."""
    import math

    import gguf

    block, size = gguf.GGML_QUANT_SIZES[dtype]
    shape = (*shape[:-1], shape[-1] // block * size)
    return shape, math.prod(shape)


class Tensors:
    """The tensors of a GGUF file. coarse: those whose shape does not allow the wanted type."""

    def __init__(self, weights: Weights, config: Any, family: Family, names: TensorNameMap, kind: str):
        self.weights, self.config, self.family, self.names, self.kind = weights, config, family, names, kind
        self.coarse: list[str] = []
        self.planned: list[tuple[str | None, str, Any]] = []

    def plan(self) -> Iterator[tuple[str, tuple[int, ...], Any]]:
        """Yield name, shape and type of each tensor, in the order of `data`. Raises ModelError for unknown ones."""
        import gguf

        factors = rope_factors(self.config)
        if factors:
            self.planned.append((None, "rope_freqs.weight", gguf.GGMLQuantizationType.F32))
            yield "rope_freqs.weight", (len(factors),), gguf.GGMLQuantizationType.F32
        tied = self.family.tied or self.config.tie_word_embeddings
        for name, shape in self.weights.shapes.items():
            if name.endswith("rotary_emb.inv_freq") or (tied and name == "lm_head.weight"):
                continue
            target = self.names.get_name(name, try_suffixes=(".weight", ".bias"))
            if target is None:
                message = f"{name} has no name in the GGUF architecture {self.family.architecture}"
                raise ModelError(message, code="export", help="export it with --to merged")
            dtype = self.type_of(target, shape)
            self.planned.append((name, target, dtype))
            yield target, shape, dtype

    def type_of(self, target: str, shape: tuple[int, ...]) -> Any:
        """Return the type in which a tensor is written."""
        import gguf

        types = gguf.GGMLQuantizationType
        if len(shape) < 2 or "_norm" in target:
            return types.F32
        kind = "Q8_0" if target in FINE and self.kind.startswith(("Q4", "Q5")) else self.kind
        if shape[-1] % gguf.GGML_QUANT_SIZES[types[kind]][0]:
            self.coarse.append(target)
            return types.F16
        return types[kind]

    def data(self) -> Iterator[np.ndarray[Any, Any]]:
        """Yield the content of each tensor as bytes. Raises ModelError for numbers that a type can't express."""
        import gguf
        import numpy

        for name, _, dtype in self.planned:
            if name is None:
                yield numpy.array(rope_factors(self.config), dtype=numpy.float32).view(numpy.uint8)
                continue
            tensor = self.converted(name, self.weights.read(name).float())
            if not tensor.isfinite().all():
                help = "export an earlier checkpoint"
                raise ModelError(f"{name} has numbers that are not finite (NaN or infinite)", code="export", help=help)
            if dtype == gguf.GGMLQuantizationType.F16 and tensor.abs().max() > LARGEST_F16:
                message = f"{name} has numbers above {LARGEST_F16:.0f}, the largest in F16"
                raise ModelError(message, code="export", help="write --quantize BF16")
            array = numpy.ascontiguousarray(tensor.numpy())
            yield numpy.ascontiguousarray(gguf.quants.quantize(array, dtype)).view(numpy.uint8)

    def converted(self, name: str, tensor: Tensor) -> Tensor:
        """Return a tensor as llama.cpp expects it."""
        if self.family.norm_offset and name.endswith("norm.weight"):
            return tensor + self.family.norm_offset
        if self.family.permuted and (match := re.search(r"self_attn\.([qk])_proj\.(weight|bias)$", name)):
            heads = self.config.num_attention_heads if match[1] == "q" else self.config.num_key_value_heads
            half = head_dim(self.config) // 2
            return tensor.reshape(heads, 2, half, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)
        return tensor
