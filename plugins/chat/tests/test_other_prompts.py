"""A prompt next to whole conversations, or next to the messages of a prompt, is used, reported, or refused."""

from __future__ import annotations

from typing import Any

import pytest
from tunesmith_chat import build_dataset

from tunesmith import DataError, Row

USER = {"role": "user", "content": "Hi"}
GOOD = {"role": "assistant", "content": "the good"}
BAD = {"role": "assistant", "content": "the bad"}
ASKED = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
SYSTEM = {"role": "system", "content": "Answer in rhyme."}
WHOLE = {"chosen": [USER, GOOD], "rejected": [USER, BAD]}


@pytest.mark.parametrize("key", [{}, {"field_messages": "asked"}])
@pytest.mark.parametrize("earlier", [[SYSTEM], [SYSTEM, {**USER, "content": "Oh"}, {**GOOD, "content": "Yes"}]])
def test_messages_of_the_prompt_before_whole_conversations_are_kept(
    make_bench: Any, key: dict[str, str], earlier: list[Any]
) -> None:
    column = key.get("field_messages", "prompt")
    (example,) = make_bench(kind="pair", **key).examples({**WHOLE, column: [*earlier, USER]})
    (same,) = make_bench(kind="pair").examples({"messages": [*earlier, USER], "chosen": GOOD, "rejected": BAD})
    assert [s.tokens.tolist() for s in example.segments] == [s.tokens.tolist() for s in same.segments]
    (labeled,) = make_bench(kind="labelled", **key).examples(
        {column: [*earlier, USER], "completion": [USER, GOOD], "label": True}
    )
    assert labeled.segments[0].tokens.tolist() == example.segments[0].tokens.tolist()


@pytest.mark.parametrize("prompt", ["Oh", [SYSTEM], [SYSTEM, {**USER, "content": "Oh"}], [USER, SYSTEM]])
def test_a_prompt_that_whole_conversations_do_not_contain_is_an_error_with_its_row(
    make_bench: Any, prompt: Any
) -> None:
    fine = {**WHOLE, "prompt": [USER]}
    with pytest.raises(DataError, match=r"chats.jsonl:2: .*chosen: is a whole conversation, but does not begin with"):
        make_bench(kind="pair").examples(fine, {**WHOLE, "prompt": prompt})


def test_the_rated_conversation_next_to_a_pair_is_not_its_prompt(make_bench: Any) -> None:
    rated = {**GOOD, "content": "third"}
    bench = make_bench(kind="pair")
    for messages in ([USER, GOOD], [USER, rated]):
        (example,) = bench.examples({**WHOLE, "messages": messages})
        assert bench.run.tokenizer.decode(example.segments[0].tokens) == ASKED


def test_a_prompt_next_to_the_messages_of_a_prompt_row_is_reported_unless_it_is_the_same(make_bench: Any) -> None:
    bench = make_bench(kind="prompt")
    spec = bench.run.config.entries[0]
    rows = [Row({"messages": [USER], "prompt": prompt}, f"f:{prompt}") for prompt in ("Hi", "Oh", [USER])]
    examples = list(build_dataset(bench.run, spec, rows))
    assert [example.fields["prompt"] for example in examples] == ["Hi", "Oh", [USER]]
    assert [row.notices for row in rows] == [[], [rows[1].notices[0]], []] and "'prompt'" in rows[1].notices[0]
