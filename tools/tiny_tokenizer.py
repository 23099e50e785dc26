"""Write tokenizer.json of examples/tiny: a byte-level BPE tokenizer with 1,024 entries, trained on the examples' data.

    python tools/tiny_tokenizer.py [folder]

The other files in examples/tiny (config.json, tokenizer_config.json, chat_template.jinja) are written by hand. It
has no weights; runs initialize them with `reinit_weights: true`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

EXAMPLES = Path(__file__).parents[1] / "examples"
ENTRIES = 1024  # must equal vocab_size in config.json
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# Words and digits, each with the space before it. Digits are single tokens, so that all numbers are written alike.
PIECES = Regex(r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+")


def texts() -> Iterator[str]:
    for path in sorted({*(EXAMPLES / "data").glob("*.jsonl")} - {EXAMPLES / "data/labels.jsonl"}):  # those of the pairs
        for line in path.read_text("utf-8").splitlines():
            row = json.loads(line)
            if "messages" in row:
                yield from (part for message in row["messages"] for part in (message["role"], message["content"]))
            else:
                yield from row.values()


def train() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(PIECES, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=ENTRIES,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    return tokenizer


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else EXAMPLES / "tiny"
    tokenizer = train()
    assert tokenizer.get_vocab_size() == ENTRIES, tokenizer.get_vocab_size()
    tokenizer.save(str(folder / "tokenizer.json"))
