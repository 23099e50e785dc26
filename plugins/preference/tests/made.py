"""What the tests of formats share: a tokenizer whose decoded spans are the text that was tokenised, and a run of it."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from tunesmith_preference import PreferenceDataset, build_dataset

from tunesmith import Example, Row

CHATML = ("<|im_start|>", "<|im_end|>")
LLAMA3 = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


@functools.cache
def tokenizer(
    pattern: str = "<s> $A", eos: str | None = "</s>", marks: tuple[str, ...] = CHATML + LLAMA3
) -> PreTrainedTokenizerFast:
    """Bytes, and as special tokens the marks of every format. `pattern` is what it adds to a text itself."""
    core = Tokenizer(models.BPE({token: i for i, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<s>", "</s>", *marks])
    ends = [(text, core.token_to_id(text)) for text in ("<s>", "</s>")]
    core.post_processor = processors.TemplateProcessing(single=pattern, special_tokens=ends)
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token=eos)


def build(kind: str, type_name: str, rows: list[Any], *further: Any, **options: Any) -> list[Example]:
    """The examples of rows, which stand in the lines of a file f."""
    return list(examples(kind, type_name, [Row(row, f"f:{i}") for i, row in enumerate(rows, 1)], *further, **options))


def examples(
    kind: str, type_name: str, rows: Iterable[Row], made: Any = None, notes: Any = None, **options: Any
) -> Iterator[Example]:
    """The strategy on rows, as a run would call it; what the run says goes to `notes`."""
    given, said = PreferenceDataset(**options), {} if notes is None else notes
    run: Any = SimpleNamespace(tokenizer=made or tokenizer(), note=said.__setitem__, warn=said.__setitem__)
    spec: Any = SimpleNamespace(
        type=type_name, row_kind=kind, option=lambda model: given, group="datasets", index=0, where="run.yaml:3:5"
    )
    return build_dataset(run, spec, rows)
