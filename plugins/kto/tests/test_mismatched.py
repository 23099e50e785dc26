"""Which answer stands beside a row's own: never one to the same prompt, the same for every way to prepare the rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tunesmith_kto.mismatched import BLOCK, with_mismatched

from plugins.kto.tests import made
from tests import tiny
from tunesmith import Example, PluginError, segment
from tunesmith.api import prepare


def rows(*prompts: int) -> Iterator[Example]:
    """Examples with these prompts, each of which answers with its own number, twice."""
    for number, prompt in enumerate(prompts):
        yield Example.branches([1000 + prompt] * 3, [[number, number]], columns={"label": 1.0})


def taken(examples: Any, limit: int = 100, streamed: bool = False) -> list[int | None]:
    """Of each example the row that its second branch is from."""
    given = list(with_mismatched(examples, limit, streamed=streamed))
    return [int(e.segments[2].tokens[0]) if len(e.segments) > 2 else None for e in given]


def test_an_answer_is_of_the_next_rows_with_another_prompt() -> None:
    assert taken(rows(1, 2, 3)) == [1, 2, 1]


def test_rows_with_one_prompt_take_different_answers() -> None:
    assert taken(rows(1, 1, 2, 2, 3)) == [3, 2, 4, 4, 3]  # the last row has none after it
    assert taken(rows(1, 1, 1, 2, 2)) == [3, 4, 3, 2, 2]


def test_the_prompt_is_never_ones_own() -> None:
    prompts = np.random.default_rng(0).integers(0, 3, 3000).tolist()
    for streamed in (False, True):
        found = taken(rows(*prompts), streamed=streamed)
        assert all(other is not None and prompts[other] != own for own, other in zip(prompts, found, strict=True))


def test_with_one_prompt_there_is_none() -> None:
    assert taken(rows(1, 1, 1)) == [None] * 3 and taken(rows(1)) == [None] and taken(rows()) == []


def test_a_stream_that_is_read_from_the_middle_has_the_same_answers() -> None:
    prompts = [1, 1, 1, 2, 2, 3, 4, 4, 4, 4, 5, 5]
    whole = taken(rows(*prompts), streamed=True)
    for start in range(len(prompts) - 2):  # of the last prompt alone, a resumed run knows no other
        assert taken(list(rows(*prompts))[start:], streamed=True) == whole[start:]


def test_the_branch_trains_nothing_and_says_why() -> None:
    first, *_ = with_mismatched(rows(1, 2), 100, streamed=False)
    own, other = first.segments[1:]
    assert first.trained_tokens == 2 and own.columns == {"baseline": 0.0} and other.columns == {"baseline": 2.0}
    assert not other.weights.any() and other.notes == [(2, "answer of another row, for the baseline")]
    assert first.path_tokens(2) == [1001, 1001, 1001, 1, 1]


def test_a_row_is_never_too_long_for_its_branch() -> None:
    first, second = with_mismatched(iter([*rows(1), Example.branches([5], [[7] * 6])]), 5, streamed=False)
    assert first.longest == 5 and first.segments[2].tokens.tolist() == [7, 7]
    assert len(second.segments[2].tokens) == 2 and second.longest == 7  # by its own answer


def test_a_row_whose_own_answer_is_lost_gets_no_branch() -> None:
    given = list(with_mismatched(rows(1, 2), 3, streamed=False))  # the prompt alone has three tokens
    assert [len(e.segments) for e in given] == [2, 2]
    masked = Example([segment([1, 2]), segment([3, 4], 0.0, fork=2)])
    given = list(with_mismatched(iter([*rows(1, 2), masked]), 100, streamed=False))
    assert [len(e.segments) for e in given] == [3, 3, 2] and given[1].segments[2].tokens.tolist() == [0, 0]


def test_a_prompt_may_stand_in_the_segment_of_the_answer() -> None:
    texts = [Example.text([n, n, n + 1, n + 1], [0.0, 0.0, 1.0, 0.0]) for n in (10, 20)]
    first, _ = with_mismatched(iter(texts), 100, streamed=False)
    assert first.path_tokens(2) == [10, 10, 21, 21] and first.segments[2].parent == 1


def test_a_row_with_two_answers_is_refused() -> None:
    with pytest.raises(PluginError, match="gives 2 answers, not one"):
        list(with_mismatched(iter([Example.branches([1], [[2], [3]])]), 100, streamed=False))


def test_several_processes_prepare_the_same_examples(tmp_path: Path) -> None:
    tiny.write_rows(tmp_path / "labelled.jsonl", made.rows(2 * BLOCK + 300))
    one, two = (prepare(tiny.start(made.config(tmp_path, dataset_num_proc=number))).data for number in (1, 2))
    assert one.train.content() == two.train.content() and np.diff(one.train.arrays["example_start"]).min() == 3
    assert one.counts == two.counts


def test_what_is_counted_and_shown_as_trained_is_the_rows_own_answer(tmp_path: Path) -> None:
    kto, apo = (
        prepare(tiny.start(made.config(tmp_path, kto_loss_type=kind))).data for kind in ("kto", "apo_zero_unpaired")
    )
    (ours,), (theirs,) = kto.counts.values(), apo.counts.values()
    assert ours.trained_tokens == theirs.trained_tokens and ours.tokens > theirs.tokens
    assert all(len(example.segments) == 2 for example in apo.train)
