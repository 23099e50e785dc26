"""A row's second answer is never one to the same prompt, and does not depend on how the rows are prepared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tunesmith_kto.mismatched import ROWS_PER_BLOCK, with_mismatched

from tests import rows, tiny
from tunesmith import Example, PluginError, segment
from tunesmith.api import prepare


def answered(*prompts: int) -> Iterator[Example]:
    """Yield examples with these prompts. The answer of each is its own number, twice."""
    for number, prompt in enumerate(prompts):
        yield Example.branches([1000 + prompt] * 3, [[number, number]], columns={"label": 1.0})


def partners(examples: Any, limit: int = 100, streamed: bool = False) -> list[int | None]:
    """Return the number of the row that the second branch of each example comes from."""
    matched = list(with_mismatched(examples, limit, streamed=streamed))
    return [int(e.segments[2].tokens[0]) if len(e.segments) > 2 else None for e in matched]


def test_the_answer_is_one_of_the_next_rows_with_another_prompt() -> None:
    assert partners(answered(1, 2, 3)) == [1, 2, 1]


def test_rows_with_the_same_prompt_get_different_answers() -> None:
    assert partners(answered(1, 1, 2, 2, 3)) == [3, 2, 4, 4, 3]  # no row follows the last one
    assert partners(answered(1, 1, 1, 2, 2)) == [3, 4, 3, 2, 2]


def test_the_answer_is_never_to_the_same_prompt() -> None:
    prompts = np.random.default_rng(0).integers(0, 3, 3000).tolist()
    for streamed in (False, True):
        numbers = partners(answered(*prompts), streamed=streamed)
        assert all(other is not None and prompts[other] != own for own, other in zip(prompts, numbers, strict=True))


def test_rows_with_a_single_prompt_get_no_answer() -> None:
    assert partners(answered(1, 1, 1)) == [None] * 3 and partners(answered(1)) == [None] and partners(answered()) == []


def test_a_stream_that_is_read_from_the_middle_gets_the_same_answers() -> None:
    prompts = [1, 1, 1, 2, 2, 3, 4, 4, 4, 4, 5, 5]
    complete = partners(answered(*prompts), streamed=True)
    for start in range(len(prompts) - 2):  # from the last prompt on, a resumed run has no other prompt
        assert partners(list(answered(*prompts))[start:], streamed=True) == complete[start:]


def test_the_second_branch_is_not_trained_and_has_a_note() -> None:
    first, *_ = with_mismatched(answered(1, 2), 100, streamed=False)
    own, other = first.segments[1:]
    assert first.trained_tokens == 2 and own.columns == {"baseline": 0.0} and other.columns == {"baseline": 2.0}
    assert not other.weights.any() and other.notes == [(2, "answer of another row, for the baseline")]
    assert first.path_tokens(2) == [1001, 1001, 1001, 1, 1]


def test_the_second_branch_is_cut_at_the_limit() -> None:
    first, second = with_mismatched(iter([*answered(1), Example.branches([5], [[7] * 6])]), 5, streamed=False)
    assert first.longest == 5 and first.segments[2].tokens.tolist() == [7, 7]
    assert len(second.segments[2].tokens) == 2 and second.longest == 7  # its own answer is not cut


def test_a_row_without_a_trained_answer_gets_no_branch() -> None:
    matched = list(with_mismatched(answered(1, 2), 3, streamed=False))  # the prompt alone has three tokens
    assert [len(e.segments) for e in matched] == [2, 2]
    masked = Example([segment([1, 2]), segment([3, 4], 0.0, fork=2)])
    matched = list(with_mismatched(iter([*answered(1, 2), masked]), 100, streamed=False))
    assert [len(e.segments) for e in matched] == [3, 3, 2] and matched[1].segments[2].tokens.tolist() == [0, 0]


def test_a_prompt_may_be_in_the_segment_of_the_answer() -> None:
    texts = [Example.text([n, n, n + 1, n + 1], [0.0, 0.0, 1.0, 0.0]) for n in (10, 20)]
    first, _ = with_mismatched(iter(texts), 100, streamed=False)
    assert first.path_tokens(2) == [10, 10, 21, 21] and first.segments[2].parent == 1


def test_a_row_with_two_answers_is_refused() -> None:
    with pytest.raises(PluginError, match="must have one answer, got 2"):
        list(with_mismatched(iter([Example.branches([1], [[2], [3]])]), 100, streamed=False))


def test_several_processes_prepare_the_same_examples(tmp_path: Path) -> None:
    tiny.write_rows(tmp_path / "labelled.jsonl", rows.labelled(2 * ROWS_PER_BLOCK + 300))
    runs = [tiny.start(rows.config(tmp_path, "kto", dataset_num_proc=number)) for number in (1, 2)]
    alone, several = (prepare(run).data for run in runs)
    assert alone.train.content() == several.train.content()
    assert np.diff(alone.train.arrays["example_start"]).min() == 3
    assert alone.counts == several.counts


def test_only_the_rows_own_answer_is_counted_and_shown_as_trained(tmp_path: Path) -> None:
    kto, apo = (
        prepare(tiny.start(rows.config(tmp_path, "kto", kto_loss_type=kind))).data
        for kind in ("kto", "apo_zero_unpaired")
    )
    (ours,), (theirs,) = kto.counts.values(), apo.counts.values()
    assert ours.trained_tokens == theirs.trained_tokens and ours.tokens > theirs.tokens
    assert all(len(example.segments) == 2 for example in apo.train)
