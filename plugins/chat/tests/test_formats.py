"""The plain formats equal texts and trained spans written by hand."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith import DataError

END = "<|im_end|>"


def text_and_trained(bench: Any, record: Any) -> tuple[str, list[str]]:
    (example,) = bench.examples(record)
    assert not len(example.segments[0].tokens)
    return bench.run.tokenizer.decode(example.segments[1].tokens), bench.spans(example.segments[1])


def turns(*texts: tuple[str, str], role: str = "from") -> list[dict[str, str]]:
    return [{role: who, "value": text} for who, text in texts]


def test_llama2_chat_encloses_user_turns_and_puts_the_system_message_into_the_first(make_bench: Any) -> None:
    bench = make_bench(template=None, type="llama2_chat")
    row = turns(("system", "S"), ("human", " a "), ("gpt", "b"), ("human", "c"), ("gpt", "d "))
    text, trained = text_and_trained(bench, {"conversations": row})
    assert text == f"[INST] <<SYS>>\nS\n<</SYS>>\n\na [/INST] b {END}[INST] c [/INST] d {END}"
    assert trained == [f" b {END}", f" d {END}"]


def test_llama2_chat_begins_each_pair_with_bos(make_bench: Any) -> None:
    bench = make_bench(template=None, type="llama2_chat", field_messages="chat")
    bench.run.tokenizer.bos_token = "<|end|>"
    row = {"chat": turns(("human", "a"), ("gpt", "b"), ("human", "c"), ("gpt", "d"))}
    assert text_and_trained(bench, row)[0].endswith(f"[INST] a [/INST] b {END}<|end|>[INST] c [/INST] d {END}")


def test_pygmalion_trains_the_turns_of_the_bot(make_bench: Any) -> None:
    row = turns(
        ("system", "Ann \n<START>"), ("human", " Hi"), ("bot", "Hello "), ("human", "?"), ("bot", "!"), role="role"
    )
    text, trained = text_and_trained(make_bench(template=None, type="pygmalion"), {"conversations": row})
    assert text == f"<|system|>Persona: Ann<|user|> Hi<|model|> Hello{END}<|user|> ?<|model|> !{END}"
    assert trained == [f" Hello{END}", f" !{END}"]


def test_metharme_trains_the_generation(make_bench: Any) -> None:
    row = {"prompt": "Hi", "generation": " Hello"}
    text, trained = text_and_trained(make_bench(template=None, type="metharme"), row)
    assert (text, trained) == (f"<|user|>Hi<|model|> Hello{END}", [f" Hello{END}"])


@pytest.mark.parametrize(
    ("type", "record", "message"),
    [
        ("llama2_chat", {"messages": []}, "conversations: no such column"),
        ("llama2_chat", {"conversations": []}, "conversations: has no messages"),
        (
            "llama2_chat",
            {"conversations": turns(("gpt", "a"))},
            "conversations: must be alternating turns of human and gpt",
        ),
        ("llama2_chat", {"conversations": turns(("human", "a"))}, "must be alternating turns of human and gpt"),
        ("llama2_chat", {"conversations": turns(("system", "a"))}, "must be alternating turns of human and gpt"),
        ("llama2_chat", {"conversations": [3]}, r"conversations\[0\]: must be a mapping, got int"),
        (
            "pygmalion",
            {"conversations": [{"role": "gpt", "value": "a"}]},
            r"\[0\].role: is 'gpt'; known: system, human",
        ),
        (
            "pygmalion",
            {"conversations": [{"role": "bot"}]},
            r"conversations\[0\].value: must be a string, got NoneType",
        ),
        ("pygmalion", {"conversations": [{"role": "bot", "value": "\ud800"}]}, "half of a surrogate pair"),
        ("metharme", {"prompt": "a"}, "generation: no such column"),
    ],
)
def test_a_row_of_another_shape_is_refused_with_its_place(
    make_bench: Any, type: str, record: Any, message: str
) -> None:
    with pytest.raises(DataError, match=rf"^chats.jsonl:1: error\[row\]: .*{message}"):
        make_bench(template=None, type=type).examples(record)
