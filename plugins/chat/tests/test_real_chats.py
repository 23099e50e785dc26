"""Under common built-in templates, exactly the assistant turns of conversations and their end tokens are trained."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tunesmith_chat import ChatSettings, inspect, load_tokenizer, named, validate

from tunesmith import ConfigError, DataError, ModelError

NAMES = ["chatml", "llama3", "qwen3", "gemma3", "mistral_v7_tekken", "phi_4"]
CHAT = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


def equipped(tokenizer: Any, name: str) -> tuple[Any, str]:
    """Return the tokenizer with the tokens of a template added, and the token that ends a turn."""
    eos = (*named.END_TOKENS[name], "</s>")[0]
    tokenizer.add_special_tokens({"eos_token": eos, "bos_token": "<s>"})
    tokenizer.add_tokens([*named.NEEDS[name]], special_tokens=True)
    return tokenizer, eos


def hooked(bench: Any) -> Any:
    """Return the bench after the hooks that are called before rows are read."""
    validate(bench.run)
    inspect(bench.run)
    wrapper = load_tokenizer(bench.run)
    next(wrapper)
    with pytest.raises(StopIteration) as done:
        wrapper.send(bench.run.tokenizer)
    bench.run.tokenizer = done.value.value
    return bench


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("where", ["blocks", "rendering"])
def test_every_turn_is_trained_with_its_end_token_and_nothing_else(
    real: Any, make_bench: Any, name: str, where: str
) -> None:
    plain, rows = real
    tokenizer, end = equipped(plain, name)
    # Another role in roles_to_train makes rendering find the turns instead of blocks. qwen3 is not prefix-stable, so
    # its blocks are used in both cases
    options = {} if where == "blocks" else {"roles_to_train": ["assistant", "tool"]}
    bench = hooked(make_bench(tokenizer=tokenizer, top=ChatSettings(chat_template=name), **options))
    records = rows("multiturn.jsonl", 150)
    for record, example in zip(records, bench.examples(*records), strict=True):
        ids = tokenizer.apply_chat_template(record["messages"], return_dict=False)
        assert example.segments[1].tokens.tolist() == ids
        answers = [m["content"].strip() + end for m in record["messages"] if m["role"] == "assistant"]
        assert [span.removeprefix("<think>\n\n</think>\n\n") for span in bench.spans(example.segments[1])] == answers


@pytest.mark.parametrize("name", NAMES)
def test_answers_of_pairs_are_trained_with_their_end_token(real: Any, make_bench: Any, name: str) -> None:
    plain, rows = real
    tokenizer, end = equipped(plain, name)
    bench = hooked(make_bench(tokenizer=tokenizer, kind="pair", top=ChatSettings(chat_template=name)))
    records = rows("preference_chat.jsonl", 50)
    for record, example in zip(records, bench.examples(*records), strict=True):
        for number, side in enumerate(("chosen", "rejected"), 1):
            assert example.path_tokens(number) == tokenizer.apply_chat_template(record[side], return_dict=False)
            (span,) = bench.spans(example.segments[number])
            assert span.removeprefix("<think>\n\n</think>\n\n") == record[side][-1]["content"].strip() + end


def test_a_named_template_of_the_run_becomes_the_tokenizers(make_bench: Any) -> None:
    bench = hooked(make_bench(template=None, top=ChatSettings(chat_template="chatml")))
    assert bench.run.tokenizer.chat_template == named.read("chatml")
    assert bench.trained(CHAT) == ["b<|im_end|>"]


@pytest.mark.parametrize("has_one", [True, False])
def test_a_fallback_is_used_if_the_tokenizer_has_no_template_and_noted(make_bench: Any, has_one: bool) -> None:
    own = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
    bench = hooked(
        make_bench(
            template=own if has_one else None, top=ChatSettings(chat_template="tokenizer_default_fallback_chatml")
        )
    )
    assert bench.run.tokenizer.chat_template == (own if has_one else named.read("chatml"))
    assert "chatml" in bench.notes["chat template"]


def test_a_named_template_of_an_entry_is_used_and_part_of_its_options(make_bench: Any) -> None:
    for name in ("chatml", "tokenizer_default_fallback_chatml"):
        bench = hooked(make_bench(template=None, chat_template=name))
        assert "chatml" in str(bench.notes)
        assert bench.run.config.entries[0].options.chat_template_jinja == named.read("chatml")
        assert bench.trained(CHAT) == ["b<|im_end|>"]


def test_a_template_whose_end_token_can_not_be_learned_is_refused(make_bench: Any) -> None:
    for bench in (make_bench(top=ChatSettings(chat_template="llama3")), make_bench(chat_template="llama3")):
        with pytest.raises(
            ConfigError,
            match=r"(?s)ends a turn with '<\|eot_id\|>'; that is not in the vocabulary.*tokens: \['<\|eot_id\|>'",
        ):
            hooked(bench)


def test_another_end_token_than_the_tokenizers_is_trained_with_a_warning(make_bench: Any) -> None:
    bench = make_bench(top=ChatSettings(chat_template="chatml"))
    bench.run.tokenizer.eos_token = "<|end|>"
    assert hooked(bench).trained(CHAT) == ["b<|im_end|>"]
    assert any("generation would not stop" in str(note) for note in bench.notes.values())


def test_template_tokens_missing_from_the_vocabulary_are_noted(make_bench: Any) -> None:
    bench = hooked(make_bench(top=ChatSettings(chat_template="phi_4")))
    assert any("'<|im_sep|>'" in str(note) for note in bench.notes.values())


def test_a_tokenizer_without_any_template_is_refused(make_bench: Any) -> None:
    with pytest.raises(ModelError, match="write chat_template: with the name of its family"):
        make_bench(template=None).examples(CHAT)


def test_a_template_that_is_not_prefix_stable_has_its_own_error_code(make_bench: Any) -> None:
    template = "{% for m in messages %}{{ m.role }}{{ '!' if loop.last }}{{ m.content }}<|im_end|>{% endfor %}"
    with pytest.raises(
        DataError, match=r"error\[template-unstable\]: messages: the chat template is not prefix-stable"
    ):
        make_bench(template).examples([*CHAT, *CHAT])


def test_the_readme_names_every_template() -> None:
    listed = (Path(__file__).parents[1] / "README.md").read_text("utf-8").split("## Templates by name")[1]
    assert tuple(re.findall(r"`(\w+)`", listed)) == tuple(sorted(named.NAMES))
