"""Real conversations under templates that people name: every turn of the assistant with its end token, nothing else."""

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
    """The tokenizer with the tokens of a template, and the one that ends a turn."""
    eos = (*named.END_TOKENS[name], "</s>")[0]
    tokenizer.add_special_tokens({"eos_token": eos, "bos_token": "<s>"})
    tokenizer.add_tokens([*named.NEEDS[name]], special_tokens=True)
    return tokenizer, eos


def hooked(made: Any) -> Any:
    """The bench after the hooks that come before rows are read."""
    validate(made.run)
    inspect(made.run)
    wrapper = load_tokenizer(made.run)
    next(wrapper)
    with pytest.raises(StopIteration) as done:
        wrapper.send(made.run.tokenizer)
    made.run.tokenizer = done.value.value
    return made


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("where", ["blocks", "rendering"])
def test_every_turn_is_trained_with_its_end_token_and_nothing_else(
    real: Any, bench: Any, name: str, where: str
) -> None:
    plain, rows = real
    tokenizer, end = equipped(plain, name)
    # With another role to train, blocks can't be all, and rendering finds the turns: but for qwen3, which is not
    # prefix-stable, and where blocks tell them all the same
    options = {} if where == "blocks" else {"roles_to_train": ["assistant", "tool"]}
    made = hooked(bench(tokenizer=tokenizer, top=ChatSettings(chat_template=name), **options))
    records = rows("multiturn.jsonl", 150)
    for record, example in zip(records, made.examples(*records), strict=True):
        ids = tokenizer.apply_chat_template(record["messages"], return_dict=False)
        assert example.segments[1].tokens.tolist() == ids
        answers = [m["content"].strip() + end for m in record["messages"] if m["role"] == "assistant"]
        assert [said.removeprefix("<think>\n\n</think>\n\n") for said in made.stretches(example.segments[1])] == answers


@pytest.mark.parametrize("name", NAMES)
def test_answers_of_pairs_are_trained_with_their_end_token(real: Any, bench: Any, name: str) -> None:
    plain, rows = real
    tokenizer, end = equipped(plain, name)
    made = hooked(bench(tokenizer=tokenizer, kind="pair", top=ChatSettings(chat_template=name)))
    records = rows("preference_chat.jsonl", 50)
    for record, example in zip(records, made.examples(*records), strict=True):
        for number, side in enumerate(("chosen", "rejected"), 1):
            assert example.path_tokens(number) == tokenizer.apply_chat_template(record[side], return_dict=False)
            (said,) = made.stretches(example.segments[number])
            assert said.removeprefix("<think>\n\n</think>\n\n") == record[side][-1]["content"].strip() + end


def test_the_runs_template_by_name_becomes_the_tokenizers(bench: Any) -> None:
    made = hooked(bench(template=None, top=ChatSettings(chat_template="chatml")))
    assert made.run.tokenizer.chat_template == named.read("chatml")
    assert made.trained(CHAT) == ["b<|im_end|>"]


@pytest.mark.parametrize("has_one", [True, False])
def test_a_fallback_is_used_where_the_tokenizer_has_none_and_said(bench: Any, has_one: bool) -> None:
    own = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
    made = hooked(
        bench(template=own if has_one else None, top=ChatSettings(chat_template="tokenizer_default_fallback_chatml"))
    )
    assert made.run.tokenizer.chat_template == (own if has_one else named.read("chatml"))
    assert "chatml" in made.notes["chat template"]


def test_an_entrys_template_by_name_is_used_and_prepared_data_depends_on_it(bench: Any) -> None:
    for name in ("chatml", "tokenizer_default_fallback_chatml"):
        made = hooked(bench(template=None, chat_template=name))
        assert "chatml" in str(made.notes)
        assert made.run.config.entries[0].options.chat_template_jinja == named.read("chatml")
        assert made.trained(CHAT) == ["b<|im_end|>"]


def test_a_template_whose_end_token_could_not_be_learned_is_refused(bench: Any) -> None:
    for made in (bench(top=ChatSettings(chat_template="llama3")), bench(chat_template="llama3")):
        with pytest.raises(
            ConfigError, match=r"(?s)ends a turn with '<\|eot_id\|>': no token.*tokens: \['<\|eot_id\|>'"
        ):
            hooked(made)


def test_an_end_token_that_is_not_the_tokenizers_is_trained_and_warned_of(bench: Any) -> None:
    made = bench(top=ChatSettings(chat_template="chatml"))
    made.run.tokenizer.eos_token = "<|end|>"
    assert hooked(made).trained(CHAT) == ["b<|im_end|>"]
    assert any("who generates has to stop" in str(note) for note in made.notes.values())


def test_tokens_that_a_template_writes_and_the_vocabulary_lacks_are_said(bench: Any) -> None:
    made = hooked(bench(top=ChatSettings(chat_template="phi_4")))
    assert any("'<|im_sep|>'" in str(note) for note in made.notes.values())


def test_a_tokenizer_without_any_template_is_refused(bench: Any) -> None:
    with pytest.raises(ModelError, match="write chat_template: with the name of its family"):
        bench(template=None).examples(CHAT)


def test_a_row_that_is_written_otherwise_when_it_goes_on_has_a_code_of_its_own(bench: Any) -> None:
    template = "{% for m in messages %}{{ m.role }}{{ '!' if loop.last }}{{ m.content }}<|im_end|>{% endfor %}"
    with pytest.raises(
        DataError, match=r"error\[template-unstable\]: messages: the chat template is not prefix-stable"
    ):
        bench(template).examples([*CHAT, *CHAT])


def test_the_readme_names_every_template() -> None:
    listed = (Path(__file__).parents[1] / "README.md").read_text("utf-8").split("## Templates by name")[1]
    assert tuple(re.findall(r"`(\w+)`", listed)) == tuple(sorted(named.NAMES))
