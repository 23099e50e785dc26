"""Tokens of a segment tree attend only to their path, are scored once, and a shared prompt equals a repeated one."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tunesmith_engine.batch.examples import ExampleStore
from tunesmith_engine.model.scoring import ChunkedScorer, OutputHead, ScoreRequest
from tunesmith_hf.kernels import attend_flex, attend_slices

from tests import tiny
from tunesmith import Example, Needs, collate, segment


def tree(seed: int) -> Example:
    """Return a random tree, whose completions fork at any token of the prompt or of another completion."""
    random_ = random.Random(seed)
    segments = [segment([random_.randrange(3, 300) for _ in range(random_.randint(0, 6))])]
    for _ in range(random_.randint(1, 4)):
        parent = random_.randrange(len(segments))
        parent_segment = segments[parent]
        fork = random_.randint(
            max(0, parent_segment.fork - 2), parent_segment.end
        )  # may be before the parent's first token
        length = random_.randint(1, 6)
        weights = [float(random_.random() < 0.7) for _ in range(length)]
        segments.append(segment([random_.randrange(3, 300) for _ in range(length)], weights, parent, fork))
    return Example(segments)


trees = st.integers(0, 10_000).map(tree)


@settings(max_examples=60, deadline=None)
@given(st.lists(trees, min_size=1, max_size=4))
def test_token_attends_only_to_its_path(examples: list[Example]) -> None:
    """By definition, the path of a token is its sequence from the root up to the token itself."""
    batch = collate(examples)
    tokens, positions = batch.input_ids[0].tolist(), batch.position_ids[0].tolist()
    mask = batch.tree_mask.visible()
    start = 0
    for example in examples:
        starts = np.cumsum([start, *(len(s.tokens) for s in example.segments)]).tolist()
        for index in range(len(example.segments)):
            path = [starts[i] + k for i, a, b in example.path(index) for k in range(a, b)]
            assert [tokens[p] for p in path] == example.path_tokens(index)
            assert [positions[p] for p in path] == list(range(len(path)))
            own = len(example.segments[index].tokens)
            for order, place in enumerate(path[len(path) - own :], len(path) - own):
                assert torch.nonzero(mask[place])[:, 0].tolist() == sorted(path[: order + 1])
        start = starts[-1]


@settings(max_examples=60, deadline=None)
@given(st.lists(trees, min_size=1, max_size=4))
def test_trained_token_is_scored_once_from_the_previous_token(examples: list[Example]) -> None:
    batch = collate(examples)
    packed_tokens = batch.input_ids[0]
    expected = []
    for example in examples:
        for index in range(1, len(example.segments)):
            path, s = example.path_tokens(index), example.segments[index]
            first = len(path) - len(s.tokens)
            expected += [(path[first + k - 1], path[first + k]) for k in np.flatnonzero(s.weights) if first + k > 0]
    assert list(zip(packed_tokens[batch.score_from].tolist(), batch.target_ids.tolist(), strict=True)) == expected
    assert batch.counts["tokens"] == len(expected)
    assert batch.sequences == sum(len(e.segments) - 1 for e in examples)


@settings(max_examples=40, deadline=None)
@given(st.lists(trees, min_size=1, max_size=4), st.sampled_from([None, 1, 3]))
def test_slices_equal_full_mask(examples: list[Example], window: int | None) -> None:
    tree_mask = collate(examples).tree_mask
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(1, 4, tree_mask.length, 8, generator=generator)
    k, v = (torch.randn(1, 2, tree_mask.length, 8, generator=generator) for _ in range(2))
    output = attend_slices(q, k, v, tree_mask, window=window)
    mask = tree_mask.visible(window)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True)
    assert torch.allclose(output, expected, atol=1e-5)
    with_sinks = attend_slices(q, k, v, tree_mask, window=window, sinks=torch.full((4,), -1e9))
    assert torch.allclose(with_sinks, expected, atol=1e-5)


@pytest.mark.parametrize("window", [None, 3])
def test_flex_block_mask_equals_full_mask(window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The forward pass of flex_attention runs uncompiled on a CPU. tests/gpu has the backward pass."""
    from torch.nn.attention.flex_attention import flex_attention

    monkeypatch.setattr("tunesmith_hf.kernels._compiled_flex", lambda: flex_attention)
    tree_mask = collate([tree(seed) for seed in range(12)]).tree_mask
    q = torch.randn(1, 4, tree_mask.length, 16)
    k, v = (torch.randn(1, 2, tree_mask.length, 16) for _ in range(2))
    expected = attend_slices(q, k, v, tree_mask, window=window)
    assert torch.allclose(attend_flex(q, k, v, tree_mask, window=window), expected, atol=1e-5)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_shared_prompt_equals_repeated_prompt(architecture: str, tmp_path: Path) -> None:
    """Log-probabilities, entropy and gradients of random trees are equal with one prompt and with one per sequence."""
    from tunesmith_engine.model.build import build_policy

    from tunesmith.api import prepare

    policy = build_policy(prepare(tiny.start(tiny.sft_config(tmp_path, architecture))))
    examples = [tree(seed) for seed in range(12)]
    needs = Needs(logps=True, entropy=True)
    outs, gradients = [], []
    for share in (True, False):
        batch = collate(examples, share=share)
        out = policy(batch, needs)
        out.logps.sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in policy.model.parameters() if p.grad is not None]))
        policy.model.zero_grad(set_to_none=True)
        outs.append(torch.cat([out.logps, out.entropy]).detach())
    assert collate(examples).tokens < collate(examples, share=False).tokens
    assert torch.allclose(*outs, atol=2e-5)
    assert (gradients[0] - gradients[1]).abs().max() < 1e-5 * gradients[1].abs().max()


def test_chunked_scores_equal_unchunked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and gradients are equal with chunks of 3 tokens, of which only the first are kept in memory."""
    head = torch.nn.Linear(8, 50, bias=False)
    hidden, target = torch.randn(20, 8, requires_grad=True), torch.randint(50, (20,))
    ids = torch.randint(50, (20, 2))
    request = ScoreRequest(entropy=True, topk=4, logps_at={"ids": ids})

    def outputs() -> list[torch.Tensor]:
        out = ChunkedScorer(OutputHead(head))(hidden, target, request)
        total = out["logps"].sum() + out["entropy"].sum() + out["topk_logps"].sum() + out["logps_at"]["ids"].sum()
        gradients = torch.autograd.grad(total, [hidden, head.weight])
        return [out["logps"], out["entropy"], out["topk_logps"], out["logps_at"]["ids"], *gradients]

    unchunked = outputs()
    monkeypatch.setattr("tunesmith_engine.model.scoring.CHUNK", 150)
    monkeypatch.setattr("tunesmith_engine.model.scoring.KEPT", 300)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(outputs(), unchunked, strict=True))
    exact = torch.log_softmax(head(hidden), -1)
    assert torch.allclose(unchunked[0], exact.gather(-1, target[:, None])[:, 0], atol=1e-5)
    assert torch.allclose(unchunked[1], -(exact.exp() * exact).sum(-1), atol=1e-5)
    assert torch.allclose(unchunked[3], exact.gather(-1, ids), atol=1e-5)


def test_columns_have_one_value_per_example_sequence_or_token() -> None:
    """The values are in batch order."""
    example = Example.branches([1, 2], [[3, 4], [5]], columns={"margin": 0.5})
    for s, reward in zip(example.segments[1:], (1.0, 2.0), strict=True):
        s.columns |= {"reward": reward, "old": np.arange(len(s.tokens)) + 10 * reward}
    batch = collate([example, example])
    assert batch.columns["margin"].tolist() == [0.5, 0.5]
    assert batch.columns["reward"].tolist() == [1.0, 2.0, 1.0, 2.0]
    assert batch.columns["old"].tolist() == [10.0, 11.0, 20.0] * 2
    assert batch.sum_by_sequence(torch.ones(6)).tolist() == [2.0, 1.0, 2.0, 1.0]
    assert [part.tolist() for part in batch.by_example(torch.tensor([1.0, 2.0, 3.0, 4.0]))] == [[1.0, 2.0], [3.0, 4.0]]


def test_store_returns_the_same_examples(tmp_path: Path) -> None:
    """Tokens, weights, forks, columns of every level and fields are equal from memory and from the files."""
    examples = [tree(seed) for seed in range(5)]
    for number, example in enumerate(examples):
        example.columns["margin"] = float(number)
        example.fields["answer"] = f"a{number}"
        for s in example.segments[1:]:
            s.columns |= {"reward": 1.5, "old": np.arange(len(s.tokens), dtype=np.float32)}
    store = ExampleStore.collect(examples)
    store.save(tmp_path)
    for copy in (store, ExampleStore.load(tmp_path)):
        assert copy.widths.tolist() == [e.width for e in examples]
        for stored, original in zip(copy, examples, strict=True):
            assert stored.fields == original.fields and stored.columns == original.columns
            assert [s.tokens.tolist() for s in stored.segments] == [s.tokens.tolist() for s in original.segments]
            stored_batch, original_batch = collate([stored]), collate([original])
            for name in ("input_ids", "position_ids", "score_from", "target_ids", "target_at", "weight"):
                assert torch.equal(getattr(stored_batch, name), getattr(original_batch, name))
            assert torch.equal(stored_batch.columns["old"], original_batch.columns["old"].float())
