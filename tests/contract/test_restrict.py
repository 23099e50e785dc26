"""A restricted batch has the tokens, scored tokens and columns of its sequences, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract.test_trees import trees
from tunesmith import Batch, Example, PluginError, collate, segment


def groups() -> list[Example]:
    """Return two examples, of two sequences and of one, with columns of every level."""
    examples = [
        Example.branches([1, 2], [[3, 4], [5, 6, 7]], columns={"margin": 0.5}, origin=(0, 0), fields={"answer": "a"}),
        Example.branches([8], [[9, 10]], columns={"margin": 1.5}, origin=(0, 1), fields={"answer": "b"}),
    ]
    for number, s in enumerate(s for example in examples for s in example.segments[1:]):
        s.columns |= {"reward": float(number), "old": np.arange(len(s.tokens)) + 10.0 * number}
    return examples


@settings(max_examples=80, deadline=None)
@given(st.lists(trees, min_size=1, max_size=4), st.randoms(use_true_random=False), st.booleans())
def test_the_pack_has_the_paths_of_the_sequences(examples: list[Example], random, share: bool) -> None:
    batch = collate(examples, share=share)
    chosen = [number for number in range(batch.sequences) if random.random() < 0.5] or [0]
    small = batch.restrict(chosen)
    places = sorted({p for n in chosen for a, b in [*batch.paths[n].before, batch.paths[n][1:]] for p in range(a, b)})
    assert torch.equal(small.input_ids, batch.input_ids[:, places])
    assert torch.equal(small.position_ids, batch.position_ids[:, places])
    assert torch.equal(small.tree_mask.positions(), small.position_ids[0])
    assert torch.equal(small.tree_mask.visible(), batch.tree_mask.visible()[places][:, places])
    segments = [(example, number) for example in examples for number in range(1, len(example.segments))]
    for new, old in enumerate(chosen):
        before, start, end = small.paths[new]
        path = [p for a, b in [*before, (start, end)] for p in range(a, b)]
        assert small.input_ids[0, path].tolist() == segments[old][0].path_tokens(segments[old][1])
        ours, theirs = small.sequence == new, batch.sequence == old
        for name in ("target_ids", "weight"):
            assert torch.equal(getattr(small, name)[ours], getattr(batch, name)[theirs]), name
        for name in ("score_from", "target_at"):
            assert [places[p] for p in getattr(small, name)[ours].tolist()] == getattr(batch, name)[theirs].tolist()
        last, last_before = int(small.last_at[new]), int(batch.last_at[old])
        assert (places[last] if last >= 0 else -1) == last_before
        points = small.point_at[small.point_sequence == new].tolist()
        assert [places[p] for p in points] == batch.point_at[batch.point_sequence == old].tolist()
    assert small.counts["tokens"] == len(small.sequence) and small.counts["sequences"] == len(chosen)
    assert small.counts["input_tokens"] == len(places) and small.counts["examples"] == small.examples


@pytest.mark.parametrize("sequences", [[2, 1], torch.tensor([False, True, True])])
def test_columns_fields_and_numbers_follow_their_sequences(sequences) -> None:
    batch = collate(groups())
    batch.columns |= {"advantage": torch.tensor([0.0, 1.0, 2.0]), "ref_logps": torch.arange(7.0)}
    small = batch.restrict(sequences)
    assert small.sequence_example.tolist() == [0, 1] and small.sequence.tolist() == [0, 0, 0, 1, 1]
    assert small.columns["margin"].tolist() == [0.5, 1.5] and small.columns["reward"].tolist() == [1.0, 2.0]
    assert small.columns["old"].tolist() == [10.0, 11.0, 12.0, 20.0, 21.0]
    assert small.columns["advantage"].tolist() == [1.0, 2.0]
    assert small.columns["ref_logps"].tolist() == [2.0, 3.0, 4.0, 5.0, 6.0]
    last = small.restrict([1])
    assert last.columns["margin"].tolist() == [1.5] and last.fields == [{"answer": "b"}] and last.origins == [(0, 1)]
    assert last.input_ids.tolist() == [[8, 9, 10]] and (last.examples, last.sequences) == (1, 1)
    assert batch.sequences == 3 and batch.tokens == 10  # unchanged


def test_the_level_of_a_column_is_never_guessed() -> None:
    """Two examples, one of them with two sequences, of three scored tokens in all: a length of 3 fits two levels."""
    batch = collate([Example.branches([1, 2], [[3], []]), Example.branches([4, 5], [[6, 7]])])
    batch.columns["values"] = torch.tensor([1.0, 2.0, 3.0])
    assert (batch.sequences, len(batch.target_ids)) == (3, 3)
    for action in (lambda: batch.restrict([0, 1]), lambda: batch.score_all([0])):
        with pytest.raises(PluginError, match="column 'values' may have a value per sequence or per token") as error:
            action()
        assert 'batch.levels["values"] = "token"' in error.value.problems[0].help
    batch.levels["values"] = "token"
    assert batch.restrict([0, 1]).columns["values"].tolist() == [1.0]
    batch.columns["values"] = torch.tensor([1.0] * 4)
    with pytest.raises(PluginError, match="column 'values' has 4 values, expected 2 of examples, 3 of sequences, 3 of"):
        batch.restrict([0, 1])


def test_a_pack_that_can_not_be_cut_stays() -> None:
    """Every process has to run the model, and additional inputs belong to the tokens of all examples."""
    batch = collate(groups())
    empty = batch.restrict([])
    assert (empty.sequences, empty.examples, empty.counts["tokens"]) == (0, 0, 0)
    assert torch.equal(empty.input_ids, batch.input_ids) and empty.tree_mask is batch.tree_mask
    batch.inputs["pixels"] = torch.zeros(2, 4)
    small = batch.restrict([2])
    assert torch.equal(small.input_ids, batch.input_ids) and small.inputs is batch.inputs
    assert small.input_ids[0, small.target_at].tolist() == [9, 10]


def test_a_dummy_stays_a_dummy_and_counts_of_a_plugin_stay() -> None:
    batch = collate(groups())
    batch.counts["chosen"] = 2
    batch.restrict_([2])
    assert batch.counts == {"tokens": 2, "input_tokens": 3, "sequences": 1, "examples": 1, "chosen": 2}
    dummy = collate(groups())
    dummy.dummy, dummy.counts = True, dict.fromkeys(dummy.counts, 0.0)
    assert set(dummy.restrict([2]).counts.values()) == set(dummy.score_all([2]).counts.values()) == {0.0}


@pytest.mark.parametrize("share", [True, False])
def test_tokens_without_weight_are_scored_after_the_others(share: bool) -> None:
    unweighted = segment([5, 6, 7], [0.0, 1.0, 0.0], fork=2, old=np.array([1.0, 2.0, 3.0]))
    trained = segment([3, 4], 1.0, fork=2, old=np.array([4.0, 5.0]))
    batch = collate([Example([segment([1, 2]), trained, unweighted], columns={"margin": 0.5})], share=share)
    scored = batch.score_all([1])
    assert scored.target_ids.tolist() == [3, 4, 6, 5, 7] and scored.weight.tolist() == [1.0, 1.0, 1.0, 0.0, 0.0]
    assert scored.input_ids[0, scored.score_from].tolist() == [2, 3, 5, 2, 6]
    assert scored.sequence.tolist() == [0, 0, 1, 1, 1] and scored.columns["old"].tolist() == [4.0, 5.0, 2.0, 0.0, 0.0]
    assert scored.columns["margin"].tolist() == [0.5] and batch.target_ids.tolist() == [3, 4, 6]
    text = collate([Example.text([1, 2, 3], [0.0, 0.0, 1.0])]).score_all([0])
    assert text.target_ids.tolist() == [3, 2]  # nothing predicts the first token


@pytest.mark.parametrize(("sequences", "message"), [([3], "sequence 3 of a batch of 3"), ([-1], "sequence -1 of a")])
def test_a_sequence_that_the_batch_does_not_have_is_refused(sequences: list[int], message: str) -> None:
    batch: Batch = collate(groups())
    with pytest.raises(PluginError, match=message):
        batch.restrict(sequences)
    with pytest.raises(PluginError, match=r"a mask of shape \[2\] for a batch of 3 sequences"):
        batch.restrict(torch.tensor([True, False]))
