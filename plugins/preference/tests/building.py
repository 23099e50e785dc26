"""Build examples from rows with a tokenizer of bytes, whose decoded tokens are the text that was tokenized."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

from transformers import PreTrainedTokenizerFast
from tunesmith_preference import PreferenceDataset, build_dataset

from tests import rows
from tunesmith import Example, Row

CHATML = ("<|im_start|>", "<|im_end|>")
LLAMA3 = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


def tokenizer(
    pattern: str = "<s> $A", eos: str | None = "</s>", marks: tuple[str, ...] = CHATML + LLAMA3
) -> PreTrainedTokenizerFast:
    """Return a tokenizer of bytes, with the marks of the formats as special tokens."""
    return rows.byte_tokenizer(pattern, eos, marks)


def build(kind: str, type_name: str, records: list[Any], *further: Any, **options: Any) -> list[Example]:
    """Return the examples of rows, which are the lines of a file "f"."""
    lines = [Row(record, f"f:{i}") for i, record in enumerate(records, 1)]
    return list(examples(kind, type_name, lines, *further, **options))


def examples(
    kind: str,
    type_name: str,
    raw_rows: Iterable[Row],
    tokens: Any = None,
    notes: dict[Any, str] | None = None,
    **options: Any,
) -> Iterator[Example]:
    """Return the examples that a run would build. `notes` gets the notes and warnings of the run."""
    dataset, note = PreferenceDataset(**options), ({} if notes is None else notes).__setitem__
    run: Any = SimpleNamespace(tokenizer=tokens or tokenizer(), note=note, warn=note)
    spec: Any = SimpleNamespace(
        type=type_name, row_kind=kind, option=lambda model: dataset, group="datasets", index=0, where="run.yaml:3:5"
    )
    return build_dataset(run, spec, raw_rows)
