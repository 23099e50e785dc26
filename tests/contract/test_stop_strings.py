"""A stop string is detected with the token that completes it, whatever the tokens of the vocabulary are."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tunesmith_engine.model.stopping import StopMatcher

from tests import tiny

TEXTS = [
    "the red cat sees a dog.\nA: ßé€😀 old house\n\nUser: two",
    "😀" * 12 + "é\n" + "ab" * 30,
    "\n\n\n.",
    "a  b   c\t",
]


def metaspace() -> Any:
    """Return a tokenizer whose decoder drops the space of the first token, as those of SentencePiece do."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE(byte_fallback=True))
    bpe.pre_tokenizer = pre_tokenizers.Metaspace()
    bpe.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    special = [f"<0x{byte:02X}>" for byte in range(256)]
    texts = [tiny.sentence(random.Random(i)) for i in range(50)]
    bpe.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=500, special_tokens=special))
    return PreTrainedTokenizerFast(tokenizer_object=bpe)


@pytest.mark.parametrize("kind", ["bytes", "metaspace"])
def test_a_stop_string_is_detected_with_the_token_that_completes_it(kind: str) -> None:
    """Compare with a search in the text of all tokens so far, for parts of texts and tokens at random."""
    tokenizer = tiny.tokenizer() if kind == "bytes" else metaspace()
    draw = random.Random(0)
    sequences = [tokenizer(text, add_special_tokens=False).input_ids for text in TEXTS]
    sequences += [[draw.randrange(3, 320) for _ in range(80)] for _ in range(6)]  # most bytes are not valid UTF-8
    detected = 0

    def text_of(ids: list[int]) -> str:
        text = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(text).rstrip("\N{REPLACEMENT CHARACTER}")

    prompt = tokenizer("the cat", add_special_tokens=False).input_ids
    for ids in sequences:
        complete = text_of(prompt + ids)[len(text_of(prompt)) :]
        for _ in range(40):
            begin = draw.randrange(len(complete))
            stops = (complete[begin : begin + draw.randint(1, 6)], "never")
            if "\N{REPLACEMENT CHARACTER}" in stops[0]:
                continue
            texts = (text_of(prompt + ids[: end + 1])[len(text_of(prompt)) :] for end in range(len(ids)))
            expected = next((end for end, text in enumerate(texts) if stops[0] in text), None)
            matcher = StopMatcher(tokenizer, prompt, stops)
            assert next((end for end, token in enumerate(ids) if matcher.add(token)), None) == expected, stops
            detected += expected is not None
    assert detected > 150
