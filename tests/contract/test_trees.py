"""Segment trees: what each token sees, what is scored, and that sharing a prompt computes what repeating it does."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tunesmith_engine.batch.examples import ExampleStore
from tunesmith_engine.model.policy import score_tokens
from tunesmith_hf.kernels import attend_flex, attend_slices

from tests import tiny
from tunesmith import Example, Needs, collate, segment


def tree(seed: int) -> Example:
    """A random tree: completions fork anywhere in the prompt or in one another, in the middle too."""
    r = random.Random(seed)
    segments = [segment([r.randrange(3, 300) for _ in range(r.randint(0, 6))])]
    for _ in range(r.randint(1, 4)):
        parent = r.randrange(len(segments))
        above = segments[parent]
        fork = r.randint(max(0, above.fork - 2), above.end)  # above the parent's first token, too
        length = r.randint(1, 6)
        weights = [float(r.random() < 0.7) for _ in range(length)]
        segments.append(segment([r.randrange(3, 300) for _ in range(length)], weights, parent, fork))
    return Example(segments)


trees = st.integers(0, 10_000).map(tree)


@settings(max_examples=60, deadline=None)
@given(st.lists(trees, min_size=1, max_size=4))
def test_each_token_sees_its_path_and_nothing_else(examples: list[Example]) -> None:
    """Against the definition: the tokens of its sequence from the root, up to itself."""
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
def test_every_trained_token_is_scored_once_from_the_token_before_it(examples: list[Example]) -> None:
    batch = collate(examples)
    row = batch.input_ids[0]
    expected = []
    for example in examples:
        for index in range(1, len(example.segments)):
            path, s = example.path_tokens(index), example.segments[index]
            first = len(path) - len(s.tokens)
            expected += [(path[first + k - 1], path[first + k]) for k in np.flatnonzero(s.weights) if first + k > 0]
    assert list(zip(row[batch.score_from].tolist(), batch.target_ids.tolist(), strict=True)) == expected
    assert batch.counts["tokens"] == len(expected)
    assert batch.sequences == sum(len(e.segments) - 1 for e in examples)


@settings(max_examples=40, deadline=None)
@given(st.lists(trees, min_size=1, max_size=4), st.sampled_from([None, 1, 3]))
def test_slices_compute_what_a_full_mask_does(examples: list[Example], window: int | None) -> None:
    tree_mask = collate(examples).tree_mask
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(1, 4, tree_mask.length, 8, generator=generator)
    k, v = (torch.randn(1, 2, tree_mask.length, 8, generator=generator) for _ in range(2))
    ours = attend_slices(q, k, v, tree_mask, window=window)
    mask = tree_mask.visible(window)
    theirs = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True)
    assert torch.allclose(ours, theirs, atol=1e-5)
    openly = attend_slices(q, k, v, tree_mask, window=window, sinks=torch.full((4,), -1e9))
    assert torch.allclose(openly, theirs, atol=1e-5)


@pytest.mark.parametrize("window", [None, 3])
def test_the_block_mask_of_the_gpu_backend_is_the_full_mask(
    window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """flex_attention's forward runs on a CPU too, uncompiled; tests/gpu has its backward."""
    from torch.nn.attention.flex_attention import flex_attention

    monkeypatch.setattr("tunesmith_hf.kernels._compiled_flex", lambda: flex_attention)
    tree_mask = collate([tree(seed) for seed in range(12)]).tree_mask
    q = torch.randn(1, 4, tree_mask.length, 16)
    k, v = (torch.randn(1, 2, tree_mask.length, 16) for _ in range(2))
    theirs = attend_slices(q, k, v, tree_mask, window=window)
    assert torch.allclose(attend_flex(q, k, v, tree_mask, window=window), theirs, atol=1e-5)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_shared_is_repeated_for_any_tree(architecture: str, tmp_path: Path) -> None:
    """Log-probabilities, entropy and gradients of random trees, the prompt once or for each sequence again."""
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


def test_chunks_give_what_one_piece_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and gradients, with chunks of 3 tokens of which the first stay in memory and the others do not."""
    head = torch.nn.Linear(8, 50, bias=False)
    hidden, target = torch.randn(20, 8, requires_grad=True), torch.randint(50, (20,))
    needs = Needs(logps=True, entropy=True, topk=4, logps_at=("ids",))
    ids = torch.randint(50, (20, 2))

    def everything() -> list[torch.Tensor]:
        out = score_tokens(head, hidden, target, needs, [ids])
        total = out["logps"].sum() + out["entropy"].sum() + out["topk_logps"].sum() + out["logps_at"]["ids"].sum()
        gradients = torch.autograd.grad(total, [hidden, head.weight])
        return [out["logps"], out["entropy"], out["topk_logps"], out["logps_at"]["ids"], *gradients]

    whole = everything()
    monkeypatch.setattr("tunesmith_engine.model.policy.CHUNK", 150)
    monkeypatch.setattr("tunesmith_engine.model.policy.KEPT", 300)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(everything(), whole, strict=True))
    exact = torch.log_softmax(head(hidden), -1)
    assert torch.allclose(whole[0], exact.gather(-1, target[:, None])[:, 0], atol=1e-5)
    assert torch.allclose(whole[1], -(exact.exp() * exact).sum(-1), atol=1e-5)
    assert torch.allclose(whole[3], exact.gather(-1, ids), atol=1e-5)


def test_columns_follow_their_level() -> None:
    """One number an example, a sequence or a scored token, in the order of the batch."""
    made = Example.branches([1, 2], [[3, 4], [5]], columns={"margin": 0.5})
    for s, reward in zip(made.segments[1:], (1.0, 2.0), strict=True):
        s.columns |= {"reward": reward, "old": np.arange(len(s.tokens)) + 10 * reward}
    batch = collate([made, made])
    assert batch.columns["margin"].tolist() == [0.5, 0.5]
    assert batch.columns["reward"].tolist() == [1.0, 2.0, 1.0, 2.0]
    assert batch.columns["old"].tolist() == [10.0, 11.0, 20.0] * 2
    assert batch.sum_by_sequence(torch.ones(6)).tolist() == [2.0, 1.0, 2.0, 1.0]
    assert [part.tolist() for part in batch.by_example(torch.tensor([1.0, 2.0, 3.0, 4.0]))] == [[1.0, 2.0], [3.0, 4.0]]


def test_a_store_gives_back_what_it_was_given(tmp_path: Path) -> None:
    """From memory and from its files: tokens, weights, forks, columns of every level, fields."""
    examples = [tree(seed) for seed in range(5)]
    for number, example in enumerate(examples):
        example.columns["margin"] = float(number)
        example.fields["answer"] = f"a{number}"
        for s in example.segments[1:]:
            s.columns |= {"reward": 1.5, "old": np.arange(len(s.tokens), dtype=np.float32)}
    store = ExampleStore.collect(examples)
    store.save(tmp_path)
    for back in (store, ExampleStore.load(tmp_path)):
        assert back.widths.tolist() == [e.width for e in examples]
        for ours, theirs in zip(back, examples, strict=True):
            assert ours.fields == theirs.fields and ours.columns == theirs.columns
            assert [s.tokens.tolist() for s in ours.segments] == [s.tokens.tolist() for s in theirs.segments]
            ours_batch, theirs_batch = collate([ours]), collate([theirs])
            for name in ("input_ids", "position_ids", "score_from", "target_ids", "target_at", "weight"):
                assert torch.equal(getattr(ours_batch, name), getattr(theirs_batch, name))
            assert torch.equal(ours_batch.columns["old"], theirs_batch.columns["old"].float())
