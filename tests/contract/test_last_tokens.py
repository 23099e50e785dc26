"""The last tokens of all answers are found, not those of a sample."""

from __future__ import annotations

from tunesmith_engine.batch.examples import ExampleStore

from tunesmith import Example


def test_last_tokens_are_those_of_every_answer_and_of_the_prompt_of_an_empty_one() -> None:
    examples = [Example.branches([1, 2], [[3, 4], [5, 6]]) for _ in range(300)]
    examples += [Example.branches([1, 2, 9], [[], [7]]), Example.text([10, 11, 12])]
    assert ExampleStore.collect(examples).last_tokens() == {4, 6, 9, 7, 12}
