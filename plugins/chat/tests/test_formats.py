"""Formats that are plain text, against texts and trained stretches written by hand."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith import DataError

END = "<|im_end|>"


def both(bench: Any, record: Any) -> tuple[str, list[str]]:
    (example,) = bench.examples(record)
    assert not len(example.segments[0].tokens)
    return bench.run.tokenizer.decode(example.segments[1].tokens), bench.stretches(example.segments[1])


def turns(*texts: tuple[str, str], role: str = "from") -> list[dict[str, str]]:
    return [{role: who, "value": text} for who, text in texts]


def test_llama2_chat_puts_each_pair_into_marks_and_the_system_into_the_first(bench: Any) -> None:
    made = bench(template=None, type="llama2_chat")
    row = turns(("system", "S"), ("human", " a "), ("gpt", "b"), ("human", "c"), ("gpt", "d "))
    text, trained = both(made, {"conversations": row})
    assert text == f"[INST] <<SYS>>\nS\n<</SYS>>\n\na [/INST] b {END}[INST] c [/INST] d {END}"
    assert trained == [f" b {END}", f" d {END}"]


def test_llama2_chat_begins_each_pair_with_the_first_token_of_a_text(bench: Any) -> None:
    made = bench(template=None, type="llama2_chat", field_messages="chat")
    made.run.tokenizer.bos_token = "<|end|>"
    row = {"chat": turns(("human", "a"), ("gpt", "b"), ("human", "c"), ("gpt", "d"))}
    assert both(made, row)[0].endswith(f"[INST] a [/INST] b {END}<|end|>[INST] c [/INST] d {END}")


def test_pygmalion_trains_what_the_bot_says(bench: Any) -> None:
    row = turns(
        ("system", "Ann \n<START>"), ("human", " Hi"), ("bot", "Hello "), ("human", "?"), ("bot", "!"), role="role"
    )
    text, trained = both(bench(template=None, type="pygmalion"), {"conversations": row})
    assert text == f"<|system|>Persona: Ann<|user|> Hi<|model|> Hello{END}<|user|> ?<|model|> !{END}"
    assert trained == [f" Hello{END}", f" !{END}"]


def test_metharme_trains_the_generation(bench: Any) -> None:
    row = {"prompt": "Hi", "generation": " Hello"}
    text, trained = both(bench(template=None, type="metharme"), row)
    assert (text, trained) == (f"<|user|>Hi<|model|> Hello{END}", [f" Hello{END}"])


@pytest.mark.parametrize(
    ("type", "record", "message"),
    [
        ("llama2_chat", {"messages": []}, "conversations: no such column"),
        ("llama2_chat", {"conversations": []}, "conversations: has no messages"),
        ("llama2_chat", {"conversations": turns(("gpt", "a"))}, "conversations: has to be turns of human and gpt"),
        ("llama2_chat", {"conversations": turns(("human", "a"))}, "has to be turns of human and gpt"),
        ("llama2_chat", {"conversations": turns(("system", "a"))}, "has to be turns of human and gpt"),
        ("llama2_chat", {"conversations": [3]}, r"conversations\[0\]: is int, not a mapping"),
        (
            "pygmalion",
            {"conversations": [{"role": "gpt", "value": "a"}]},
            r"\[0\].role: is 'gpt'; known: system, human",
        ),
        ("pygmalion", {"conversations": [{"role": "bot"}]}, r"conversations\[0\].value: is NoneType, not a text"),
        ("pygmalion", {"conversations": [{"role": "bot", "value": "\ud800"}]}, "half of a character"),
        ("metharme", {"prompt": "a"}, "generation: no such column"),
    ],
)
def test_rows_of_another_shape_are_refused(bench: Any, type: str, record: Any, message: str) -> None:
    with pytest.raises(DataError, match=rf"^chats.jsonl:1: error\[row\]: .*{message}"):
        bench(template=None, type=type).examples(record)
