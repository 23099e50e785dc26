"""Provide a byte-level tokenizer with a chatml template, and a run with what the hooks of this plugin read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from tunesmith_chat import ChatDataset, ChatSettings, build_dataset

from tunesmith import ConfigError, DatasetSpec, Example, Row
from tunesmith.config.settings import DatasetSettings

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tokenizer(template: str | None = CHATML, **special: str) -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["Ġt", "he", "Ġthe"]
    vocab = {token: i for i, token in enumerate(alphabet + words)}
    core = Tokenizer(models.BPE(vocab, [("h", "e"), ("Ġ", "t"), ("Ġt", "he")]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.post_processor = processors.ByteLevel(trim_offsets=True)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<|im_start|>", "<|im_end|>", "<|end|>"])
    names = {"eos_token": "<|im_end|>"} | special
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **names)
    tokenizer.chat_template = template
    return tokenizer


class Bench:
    """A run with one dataset entry, which builds examples and returns their trained text."""

    def __init__(
        self, tokenizer: Any, base: Path, top: ChatSettings | None = None, kind: str = "conversation",
        type: str = "chat_template", **options: Any,
    ):  # fmt: skip
        self.options = ChatDataset(**options)
        self.top = top or ChatSettings()
        self.notes: dict[str, Any] = {}
        entry = DatasetSettings(path="chats.jsonl", type=type)
        spec = DatasetSpec(entry, "jsonl", "file", "chat", type, kind, self.options, "run.yaml:4:5")
        self.run: Any = SimpleNamespace(
            tokenizer=tokenizer,
            settings=lambda model: self.top,
            core=SimpleNamespace(tokenizer_path=str(base)),
            config=SimpleNamespace(base=base, entries=[spec], error=config_error, replace_entries=self.replace),
            note=self.notes.__setitem__,
            warn=self.notes.__setitem__,
        )

    def replace(self, change: Callable[[DatasetSpec], DatasetSpec]) -> None:
        self.run.config.entries[:] = map(change, self.run.config.entries)

    def examples(self, *records: Any) -> list[Example]:
        rows = [Row(record if isinstance(record, dict) else {"messages": record}, f"chats.jsonl:{i}")
                for i, record in enumerate(records, 1)]  # fmt: skip
        return list(build_dataset(self.run, self.run.config.entries[0], rows))

    def trained(self, record: Any) -> list[str]:
        """Return the trained text of a row, one string for each contiguous span."""
        (example,) = self.examples(record)
        return self.spans(example.segments[1])

    def spans(self, completion: Any) -> list[str]:
        """Return the trained text of a segment, one string for each contiguous span."""
        spans: list[list[int]] = []
        previous = False
        for token, weight in zip(completion.tokens, completion.weights, strict=True):
            if weight and not previous:
                spans.append([])
            if weight:
                spans[-1].append(int(token))
            previous = bool(weight)
        return [self.run.tokenizer.decode(ids) for ids in spans]


def config_error(path: Any, message: str, help: str | None = None) -> ConfigError:
    return ConfigError(f"{path} {message}", where="run.yaml:4", help=help)


@pytest.fixture
def make_bench(tmp_path: Path) -> Any:
    def make(
        template: str | None = CHATML, top: ChatSettings | None = None, tokenizer: Any = None, **options: Any
    ) -> Bench:
        return Bench(tokenizer or make_tokenizer(template), tmp_path, top, **options)

    return make


@pytest.fixture
def real() -> Any:
    """Return the tokenizer of TUNESMITH_TEST_DATA and a function that reads its conversations."""
    folder = os.environ.get("TUNESMITH_TEST_DATA")
    if not folder:
        pytest.skip("TUNESMITH_TEST_DATA is not set: no real tokenizer")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(Path(folder) / "tokenizer-gpt2-chatml")

    def rows(name: str, count: int) -> list[Any]:
        with (Path(folder) / "gsm8k" / name).open(encoding="utf-8") as file:
            return [json.loads(line) for _, line in zip(range(count), file, strict=False)]

    return tokenizer, rows
