"""Merge an adapter into its base model, shard by shard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tunesmith import ConfigError
from tunesmith.engine import engine
from tunesmith_merge import folder as files
from tunesmith_merge.compare import Difference, check, compare, parts
from tunesmith_merge.layers import changes
from tunesmith_merge.model import build, embedding_rows, label_count, read_config, with_adapter
from tunesmith_merge.shards import TORCH, stored_tensors
from tunesmith_merge.source import Source, base_folder, find
from tunesmith_merge.weights import Weights
from tunesmith_merge.writing import Layout, Writer, plan

DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
"""Types that a merged model can have, by torch's names, and their names in files."""


@dataclass(frozen=True)
class Merged:
    """The result of a merge.

    folder: where the merged model is. tensors: how many parameters of the base model were changed. bytes: the size of
    its weights. tied: False if head and embeddings shared a weight in the base model and do not any more. differences:
    the relative difference of each part of the model, in the order of the computation; empty if they were not compared.
    largest: the largest of them. dropped: tensors of the base model that the merged one does not have. parts: all parts
    of the model.
    """

    folder: Path
    tensors: int
    bytes: int
    tied: bool
    dropped: list[str]
    parts: list[str]
    differences: list[Difference]
    largest: Difference | None

    @property
    def uncompared(self) -> list[str]:
        """The parts that a text does not use, such as those for images, if the model was compared."""
        compared = {difference.part for difference in self.differences}
        return [part for part in self.parts if part not in compared] if compared else []


def merge(
    source: str | Path,
    out: str | Path | None = None,
    *,
    base: str | None = None,
    dtype: str | None = None,
    verify: bool = True,
    report: Callable[[str], Any] = lambda phase: None,
) -> Merged:
    """Merge the adapter of a run into its base model, and write a model in the layout of transformers.

    Args:
        source: the YAML file of a run, the output folder of a run, or the folder of an adapter in peft's format.
        out: the folder to write, which must not exist; default: `merged` in the folder of the adapter.
        base: folder or hub id of the base model, instead of the one that the run or the adapter names.
        dtype: type of the weights: bfloat16, float16 or float32. Default: that of each tensor of the base model.
        verify: compare the merged model with base model and adapter, layer by layer.
        report: is called with what is being done.

    Raises ConfigError for a wrong argument, ModelError for an adapter that can't be merged or does not fit, and
    EnvironmentProblem if the disk refuses the files. Then no folder is left.
    """
    if dtype is not None and dtype not in DTYPES:
        message = f"--dtype is {dtype}, which is not a type of a merged model"
        raise ConfigError(message, where="command line (--dtype)", code="usage", help=f"one of: {', '.join(DTYPES)}")
    named = find(Path(source), base)
    origin = base_folder(named)
    target = Path(out) if out is not None else named.adapter.folder / "merged"
    files.check_output(target, origin, named.adapter.folder)
    report("reading the adapter")
    weights, same_class = open_base(origin, named)
    names = {id(module): name for name, module in weights.model.named_modules()}
    wrapped = with_adapter(weights.model, named.adapter)
    changed = changes(wrapped, names)
    layout = plan(weights, changed, same_class)
    writer = Writer(weights, changed, layout, DTYPES[dtype] if dtype else None)
    with engine("runtime.new_folder").new_folder(target) as partial:
        report("merging")
        size = writer.write(partial)
        report("writing the tokenizer and the config")
        twin = merged_model(weights, named, layout)
        files.copy_tokenizer(partial, named.adapter.folder, origin)
        usual = str(TORCH[writer.usual]).removeprefix("torch.")
        files.write_configs(partial, origin, twin, usual, named.special_tokens)
        files.card(partial, named, twin)
        differences: list[Difference] = []
        if verify:
            report("comparing the merged model with the unmerged one")
            layers = [layer for change in changed.values() for layer in change.layers]
            trained = [token for layer in layers for token in trained_tokens(layer)]
            differences = compare(wrapped, names, weights, Weights(partial, twin), trained)
        largest = check(differences, coarsest(partial)) if differences else None
    tensors = sum(len(change.names) for change in changed.values())
    return Merged(target, tensors, size, layout.tied, layout.dropped, parts(twin), differences, largest)


def open_base(folder: Path, source: Source) -> tuple[Weights, bool]:
    """Return the weights of the base model with a model of the adapter's class, and True if that is its own class."""
    config, adapter = read_config(folder), source.adapter
    architectures = list(config.architectures or ())
    if labels := label_count(adapter):
        config.num_labels = labels
    model = build(config, adapter.task)
    if rows := embedding_rows(config, model, adapter):
        model = build(config, adapter.task, rows)
    return Weights(folder, model), not architectures or type(model).__name__ in architectures


def merged_model(weights: Weights, source: Source, layout: Layout) -> Any:
    """Return the class of the merged model without weights, with its own config."""
    config = weights.model.config
    if not layout.tied:
        for part in {id(c): c for c in (config, config.get_text_config())}.values():
            part.tie_word_embeddings = False
    return build(config, source.adapter.task)


def trained_tokens(layer: Any) -> list[int]:
    """Return the tokens whose rows a layer of the adapter trains."""
    return [int(token) for tokens in getattr(layer, "token_indices", {}).values() for token in tokens]


def coarsest(folder: Path) -> torch.dtype:
    """Return the type of the merged weights with the largest rounding error."""
    order = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
    kinds = {TORCH.get(stored.dtype) for stored in stored_tensors(folder).values()}
    return next((dtype for dtype in order if dtype in kinds), torch.bfloat16)
