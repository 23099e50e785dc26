"""In random conversations under every built-in template, generation blocks cover each answer and its end token only."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tunesmith_chat.named import END_TOKENS, NAMES, read
from tunesmith_chat.template import Template

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
INPUT, OUTPUT = "δθλ", "бжю"
"""Letters that no template writes: those of user and system messages, and those of answers."""


def text(letters: str) -> st.SearchStrategy[str]:
    return st.text(f"{letters} \n{{}}[]<>|'\"\\%#", max_size=12)


def turns() -> st.SearchStrategy[list[dict[str, Any]]]:
    turn = st.tuples(text(INPUT), text(OUTPUT))
    return st.lists(turn, min_size=1, max_size=4).map(
        lambda pairs: [
            {"role": role, "content": content}
            for pair in pairs
            for role, content in zip(("user", "assistant"), pair, strict=True)
        ]
    )


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(chat=turns(), system=st.none() | text(INPUT))
def test_exactly_the_answers_and_their_end_tokens_are_generated(
    name: str, chat: list[dict[str, Any]], system: str | None
) -> None:
    if system is not None and name != "gemma":
        chat = [{"role": "system", "content": system}, *chat]
    rendered, spans = Template(read(name), SPECIAL).render_generated(chat)
    answers = [message["content"] for message in chat if message["role"] == "assistant"]
    assert len(spans) == len(answers)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
    end = (END_TOKENS[name] or ("</s>",))[0]
    rest, position = "", 0
    for (start, stop), answer in zip(spans, answers, strict=True):
        assert answer.strip() in rendered[start:stop]
        assert rendered[start:stop].endswith(end)
        assert not set(INPUT) & set(rendered[start:stop])
        rest, position = rest + rendered[position:start], stop
    assert not set(OUTPUT) & set(rest + rendered[position:])
    inputs = [message["content"] for message in chat if message["role"] != "assistant"]
    assert all(content.strip() in rendered for content in inputs)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20, deadline=None)
@given(chat=turns())
def test_the_last_answer_begins_where_the_prompt_ends(name: str, chat: list[dict[str, Any]]) -> None:
    assume(name != "exaone4" or chat[-1]["content"])  # an empty answer has no think tags
    template = Template(read(name), SPECIAL, {"enable_thinking": False})
    rendered, spans = template.render_generated(chat)
    assert rendered[: spans[-1][0]] == template.render(chat[:-1], prompt=True)


@pytest.mark.parametrize("name", ["chatml", "llama3", "qwen3", "gemma3", "mistral_v7_tekken", "phi_4"])
def test_exactly_the_answers_of_real_conversations_and_their_end_tokens_are_generated(name: str) -> None:
    folder = os.environ.get("TUNESMITH_TEST_DATA")
    if not folder:
        pytest.skip("TUNESMITH_TEST_DATA is not set: no conversations")
    template, end = Template(read(name), SPECIAL), (END_TOKENS[name] or ("</s>",))[0]
    rows = (Path(folder) / "gsm8k" / "multiturn.jsonl").read_text("utf-8").splitlines()[:200]
    for chat in (json.loads(row)["messages"] for row in rows):
        rendered, spans = template.render_generated(chat)
        expected = [message["content"].strip() + end for message in chat if message["role"] == "assistant"]
        if name == "qwen3":  # the last answer has think tags, even if they are empty
            expected[-1] = "<think>\n\n</think>\n\n" + expected[-1]
        assert [rendered[start:stop] for start, stop in spans] == expected
