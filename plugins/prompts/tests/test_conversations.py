"""A conversation is rendered as apply_chat_template does, up to the answer, and rewards get its messages."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from tunesmith_prompts import PromptDataset, build_dataset

from tests import rows as byte_rows
from tests import tiny
from tunesmith import ConfigError, DataError, Example, ModelError, Row, prepare
from tunesmith.cli import main

GROUPS = Path(tiny.__file__).parent / "contract/plugins/groups.py"
TOOLS = "{% if tools %}{% for t in tools %}[{{ t | tojson }}]{% endfor %}{% endif %}"
TEMPLATE = tiny.CHATML.replace("<|im_start|>{{", "<|im_start|>{% if brief %}brief {% endif %}{{", 1)
USER = {"role": "user", "content": "2 + 2 ="}
SYSTEM = {"role": "system", "content": "Be brief."}
BEGUN = {"role": "assistant", "content": "The sum"}
ADD = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
CALL = {"role": "assistant", "tool_calls": [{"function": {"name": "add", "arguments": '{"a": 2}'}}]}


def tokenizer(template: str | None = TOOLS + TEMPLATE) -> Any:
    copied = copy.deepcopy(tiny.tokenizer())
    copied.chat_template = template
    return copied


def build(records: list[dict[str, Any]], of: Any = None, padded: bool = False, **options: Any) -> list[Example]:
    keys = PromptDataset(**options)

    def error(path: Any, message: str, help: str | None = None) -> ConfigError:
        return ConfigError(f"{path[-1]}: {message}", help=help)

    config = SimpleNamespace(document=SimpleNamespace(values={}), error=error)
    run: Any = SimpleNamespace(tokenizer=of or tokenizer(), config=config)
    spec: Any = SimpleNamespace(option=lambda model: keys, group="datasets", index=0)
    rows = [Row(row, f"f:{i}", padded=padded) for i, row in enumerate(records, 1)]
    examples = list(build_dataset(run, spec, rows))
    for example, row in zip(examples, rows, strict=True):
        example.columns["notices"] = row.notices  # type: ignore[assignment]
    return examples


def text_of(example: Example) -> str:
    (prompt,) = example.segments
    return str(tiny.tokenizer().decode(prompt.tokens))


def expected(messages: list[Any], tools: Any = None, **variables: Any) -> list[int]:
    options = {"add_generation_prompt": True, "return_dict": False} | variables
    return list(tokenizer().apply_chat_template(messages, tools=tools, **options))


@pytest.mark.parametrize("column", ["prompt", "messages", "question", "asked"])
def test_messages_are_rendered_up_to_the_answer_and_rewards_get_them(column: str) -> None:
    options = {"field_prompt": "asked"} if column == "asked" else {}
    (example,) = build([{column: [SYSTEM, USER], "answer": "4"}], **options)
    assert example.prompt == expected([SYSTEM, USER])
    assert text_of(example).endswith("2 + 2 =<|im_end|>\n<|im_start|>assistant\n")
    assert example.fields == {"prompt": [SYSTEM, USER], "answer": "4"}


def test_a_text_is_plain_unless_chat_wraps_it() -> None:
    row = {"question": USER["content"], "answer": "4"}
    (plain,), (wrapped,) = build([row]), build([row], chat=True, system_prompt="Be brief.")
    assert text_of(plain) == "2 + 2 =" and plain.fields == {"answer": "4"}
    assert wrapped.prompt == expected([SYSTEM, USER])
    assert wrapped.fields == {"prompt": [SYSTEM, USER], "answer": "4"}


def test_special_tokens_are_those_of_the_template_alone() -> None:
    adds_bos = copy.deepcopy(byte_rows.byte_tokenizer("<s> $A </s>"))
    for opening in ("", "<s>"):
        adds_bos.chat_template = opening + "{{ messages[0].content }}:"
        text, chat = build([{"prompt": "Q"}, {"prompt": [USER]}], adds_bos)
        assert adds_bos.decode(text.prompt) == "<s>Q" and adds_bos.decode(chat.prompt) == f"{opening}2 + 2 =:"


def test_texts_and_conversations_stay_in_order() -> None:
    records = [{"prompt": p} for p in ("a", [USER], [SYSTEM, USER], "b", "c", [USER])]
    texts = [text_of(example) for example in build(records)]
    assert [text[:1] for text in texts] == ["a", "<", "<", "b", "c", "<"]
    assert texts[1] == texts[5] != texts[2]


def test_the_system_message_of_a_row_precedes_that_of_the_entry() -> None:
    own = {"role": "system", "content": "Rhyme."}
    first, second = build([{"prompt": [own, USER]}, {"prompt": [USER]}], system_prompt="Be brief.")
    assert first.fields["prompt"] == [own, USER] and second.fields["prompt"] == [SYSTEM, USER]


@pytest.mark.parametrize("as_text", [False, True])
def test_tools_are_passed_to_the_template_and_kept_for_rewards(as_text: bool) -> None:
    tools = json.dumps([ADD]) if as_text else [ADD]
    (example,) = build([{"prompt": [USER], "tools": tools}])
    assert example.prompt == expected([USER], [ADD])
    assert example.fields["tools"] == tools
    (other,) = build([{"prompt": [USER], "functions": [ADD]}], field_tools="functions")
    assert other.prompt == example.prompt


def test_a_template_that_ignores_tools_is_an_error() -> None:
    with pytest.raises(DataError, match=r"f:1: .*prompt: the chat template does not render tools"):
        build([{"prompt": [USER], "tools": [ADD]}], tokenizer(TEMPLATE))
    assert build([{"prompt": [USER], "tools": []}], tokenizer(TEMPLATE))


def test_nulls_of_a_table_are_not_rendered() -> None:
    padded = {"prompt": [{**USER, "tool_calls": None}], "tools": [{**ADD, "strict": None}]}
    (example,) = build([padded], padded=True)
    assert example.prompt == expected([USER], [ADD]) and example.fields["prompt"] == [USER]


def test_arguments_of_a_call_are_parsed() -> None:
    result = {"role": "tool", "content": "4"}
    template = TOOLS + TEMPLATE.replace("{{ m['content'] }}", "{{ m['content'] or m.tool_calls | tojson }}")
    (example,) = build([{"prompt": [USER, CALL, result], "tools": [ADD]}], tokenizer(template))
    assert '"arguments": {"a": 2}' in text_of(example)


def test_variables_of_a_row_precede_those_of_the_entry() -> None:
    records = [{"prompt": [USER]}, {"prompt": [USER], "chat_template_kwargs": {"brief": False}}]
    first, second = build(records, chat_template_kwargs={"brief": True})
    assert first.prompt == expected([USER], brief=True)
    assert second.prompt == expected([USER]) and "chat_template_kwargs" not in second.fields


def test_a_variable_that_the_template_does_not_read_is_an_error() -> None:
    with pytest.raises(ConfigError, match="brif: has no effect"):
        build([{"prompt": [USER]}], chat_template_kwargs={"brif": True})
    for name in ("brif", "tokenize"):
        with pytest.raises(DataError, match=f"f:1: .*chat_template_kwargs.{name}: has no effect"):
            build([{"prompt": [USER], "chat_template_kwargs": {name: True}}])


def test_an_assistant_message_at_the_end_is_continued_or_an_error() -> None:
    row = {"prompt": [USER, BEGUN]}
    with pytest.raises(DataError, match=r"prompt: ends with an assistant message"):
        build([row])
    begun, other = build([row, {"prompt": [USER]}], continue_final_message=True)
    assert text_of(begun).endswith("<|im_start|>assistant\nThe sum") and begun.fields["prompt"] == [USER, BEGUN]
    assert other.prompt == expected([USER])


BAD: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"prompt": [{"from": "human", "value": "Q"}]}, {}, "prompt[0].role: is missing"),
    ({"prompt": [{"role": "user"}]}, {}, "prompt[0].content: is missing"),
    ({"prompt": [USER, {"role": "user", "content": 3}]}, {}, "prompt[1].content: must be a text"),
    ({"prompt": [{"role": "user", "content": [{"type": "image"}]}]}, {}, "prompt[0].content: must be a text"),
    ({"prompt": [{"role": "user", "content": "\udc00"}]}, {}, "prompt[0].content: contains '\\udc00'"),
    ({"prompt": [{"role": "user", "content": "Q", "at": b"x"}]}, {}, "prompt[0]: must be a JSON value"),
    ({"prompt": [USER, {**CALL, "tool_calls": ["add"]}, USER]}, {}, "prompt[1].tool_calls[0]: must be a call"),
    ({"prompt": [USER], "tools": "[{"}, {}, "tools: is not valid JSON"),
    ({"prompt": [USER], "tools": ["add"]}, {}, "tools: must be a list of JSON schemas"),
    ({"prompt": [USER]}, {"field_tools": "functions"}, "functions: no such column"),
    ({"prompt": [USER], "chat_template_kwargs": [1]}, {}, "chat_template_kwargs: must be a mapping"),
    ({"prompt": [USER, CALL]}, {"continue_final_message": True}, "prompt[1].content: must be a text to be continued"),
    ({"prompt": "Q"}, {"system_prompt": "S"}, "prompt: is a plain text, so system_prompt has no effect"),
    ({"prompt": "Q"}, {"chat_template_kwargs": {"brief": 1}}, "prompt: is a plain text, so chat_template_kwargs has"),
    ({"prompt": "Q"}, {"continue_final_message": True, "chat": True}, "prompt: is a text, so continue_final_message"),
    ({"question": "Q", "prompt": [1]}, {"field_prompt": "question"}, "prompt: is a list, but the prompt is the text"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "options", "message"), BAD, ids=[message for *_, message in BAD])
def test_an_invalid_row_is_one_error_with_its_place(row: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        build([row], **options)
    (problem,) = caught.value.problems
    assert problem.where == "f:1" and problem.message.startswith(message)


def test_what_the_template_does_not_write_is_an_error_or_a_notice() -> None:
    no_system = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    with pytest.raises(DataError, match="has a system message, which the chat template does not write"):
        build([{"prompt": [SYSTEM, USER]}], tokenizer(no_system))
    (example,) = build([{"prompt": [USER, BEGUN, USER], "system": "S"}], tokenizer(no_system))
    notices = [
        "column 'system' is not rendered; rewards get it",
        "messages: text that the chat template does not write",
    ]
    assert example.columns["notices"] == notices
    (plain,) = build([{"prompt": "Q", "tools": [ADD]}])
    assert len(plain.columns["notices"]) == 1  # type: ignore[arg-type]


def test_messages_without_a_template_and_a_template_that_fails_are_errors() -> None:
    with pytest.raises(ModelError, match="the tokenizer has none"):
        build([{"prompt": [USER]}], tokenizer(None))
    with pytest.raises(DataError, match=r"f:1: .*the chat template fails: no such role"):
        build([{"prompt": [USER]}], tokenizer("{{ raise_exception('no such role') }}"))


def config(folder: Path, records: list[Any], **entry: Any) -> Path:
    data = tiny.write_rows(folder / "data.jsonl", records)
    return tiny.write_config(
        folder,
        base_model=str(tiny.model_folder(folder / "model")),
        plugins=[str(GROUPS), str(GROUPS.with_name("odd_tokens.py"))],
        rl="groups",
        datasets=[{"path": str(data), "type": "prompt", **entry}],
        max_steps=1,
        num_epochs=9,
    )


def test_a_method_trains_on_conversations_that_prepared_data_keeps(tmp_path: Path) -> None:
    run = prepare(tiny.start(config(tmp_path, [{"messages": [USER], "answer": str(i)} for i in range(8)])))
    assert [example.fields["prompt"] for example in run.data.train] == [[USER]] * 8
    assert tiny.train(tmp_path / "run.yaml").steps == 1


def test_debug_shows_the_tokens_of_the_prompt(tmp_path: Path) -> None:
    path = config(tmp_path, [{"question": "Why?", "answer": str(i)} for i in range(8)], chat=True)
    result = CliRunner().invoke(main, ["preprocess", str(path), "--debug", "--examples", "1"])
    assert result.exit_code == 0 and "<|im_start|>" in result.output and "prompt" in result.output


def test_a_first_row_and_variables_are_checked_before_a_model_is_read(tmp_path: Path) -> None:
    path = config(tmp_path, [{"prompt": [USER, BEGUN]}])
    result = CliRunner().invoke(main, ["check", str(path)])
    assert (
        result.exit_code == 3 and "data.jsonl:1" in result.output and "ends with an assistant message" in result.output
    )
    path = config(tmp_path, [{"prompt": [USER]}], chat_template_kwargs={"tools": []})
    result = CliRunner().invoke(main, ["check", str(path)])
    assert result.exit_code == 2 and "can't be set: its value comes from the row" in result.output
