"""Tokens are drawn with their probabilities, and stop strings are detected with the token that completes them."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from tunesmith_engine.model.sampling import Sampler, uniforms
from tunesmith_engine.model.stopping import StopMatcher

from tests import tiny
from tunesmith import Sampling

SAMPLINGS = [
    Sampling(), Sampling(0.7), Sampling(1.5), Sampling(top_k=5), Sampling(top_p=0.9), Sampling(0.8, 0.95, 20),
    Sampling(2.0, top_p=0.97), Sampling(top_k=1000),
]  # fmt: skip


def kept(logits: Tensor, sampling: Sampling) -> Tensor:
    """Return the log-probabilities [n, V] of a sampling by sorting the vocabulary, -inf for tokens that it drops."""
    values, ids = (logits.double() / sampling.temperature).sort(dim=-1, descending=True, stable=True)
    if sampling.top_k:
        values[:, sampling.top_k :] = float("-inf")
    probabilities = values.softmax(-1)
    values = values.masked_fill(probabilities.cumsum(-1) - probabilities >= sampling.top_p, float("-inf"))
    return torch.empty_like(values).scatter_(-1, ids, values).log_softmax(-1)


def chi_square(counts: NDArray[Any], probabilities: NDArray[Any]) -> float:
    """Return the statistic per degree of freedom: around 1 for samples of the distribution."""
    expected = counts.sum() * probabilities
    return float(((counts - expected) ** 2 / expected).sum() / (len(counts) - 1))


@pytest.mark.parametrize("sampling", SAMPLINGS[:6], ids=str)
def test_tokens_are_drawn_with_their_probabilities(sampling: Sampling) -> None:
    logits = torch.randn(12, generator=torch.Generator().manual_seed(0)) * 2
    draws = 4000
    uniform = torch.from_numpy(np.concatenate([uniforms((1, 2), number, 1) for number in range(draws)]))
    drawn, _ = Sampler([sampling] * draws, logits.device).draw(logits.expand(draws, -1), uniform)
    probabilities = kept(logits[None], sampling)[0].exp().numpy()
    counts = np.bincount(drawn.numpy(), minlength=12)
    assert counts[probabilities == 0].sum() == 0
    # 0.999 quantiles of chi-square over its degrees of freedom are below 3 for 5 to 11 of them.
    positive = probabilities > 0
    assert positive.sum() == 1 or chi_square(counts[positive], probabilities[positive]) < 3


@pytest.mark.parametrize("spread", [0.05, 1.0, 4.0])
@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(top_p=0.9), Sampling(0.8, 0.999), Sampling(top_k=400)], ids=str
)
def test_a_nucleus_is_exact_in_a_large_vocabulary_however_flat_it_is(sampling: Sampling, spread: float) -> None:
    """For flat logits, a nucleus has almost all of 3,000 tokens, and for others a few."""
    logits = torch.randn(100, 3000, generator=torch.Generator().manual_seed(0)) * spread
    uniform = torch.from_numpy(uniforms((1,), 0, 100))
    drawn, logps = Sampler([sampling] * 100, logits.device).draw(logits, uniform)
    expected = kept(logits, sampling).gather(-1, drawn[:, None])[:, 0]
    assert torch.allclose(logps.double(), expected, atol=1e-5)


def test_uniforms_differ_for_every_seed_and_number() -> None:
    keys = [((1,), 0), ((0, 1), 0), ((1, 0), 0), ((1,), 1), ((1, 0, 0), 0), ((-1,), 0), ((11,), 0), ((2**64 + 1,), 0)]
    values = [uniforms(seed, number, 3).tolist() for seed, number in keys]
    assert len({tuple(row) for row in values}) == len(keys)
    assert values[0] == uniforms((np.int64(1),), 0, 9)[:3].tolist()  # type: ignore[arg-type]


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
