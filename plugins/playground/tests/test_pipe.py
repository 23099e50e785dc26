"""Sessions in a pipe: each line is a message, and stdout has the answers alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tunesmith_playground.decoding import TextStream
from tunesmith_playground.next import chat_command
from tunesmith_playground.speakers import speakers

import tunesmith
from tests import tiny
from tunesmith.cli import main
from tunesmith.printable import printable

GREEDY = ("--temperature", "0", "--max-new-tokens", "6")


def chat(source: Path, text: str, *options: str, code: int = 0) -> Any:
    """Run a session with the lines of a text on stdin, and return its result."""
    result = CliRunner().invoke(main, ["chat", str(source), "--device", "cpu", *options], input=text)
    assert result.exit_code == code, result.output
    return result


def answers(source: Path, *prompts: Any, **options: Any) -> list[str]:
    """Return the greedy answers of a model to prompts, as they are printed."""
    with tunesmith.open_model(source, device="cpu") as model:
        texts = [model.generate(prompt, max_new_tokens=6, temperature=0, **options) for prompt in prompts]
    return [printable(text) for text in texts]


def saved(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_only_answers_are_printed_and_each_turn_has_those_before(talker: Path, tmp_path: Path) -> None:
    file = tmp_path / "new" / "rows.jsonl"
    result = chat(talker, "hello\nand more\n", *GREEDY, "--system", "Be brief.", "--save", str(file))
    ((messages,),) = [row.values() for row in saved(file)]
    assert [one["role"] for one in messages] == ["system", "user", "assistant", "user", "assistant"]
    assert answers(talker, messages[:2], messages[:4]) == [printable(one["content"]) for one in messages[2::2]]
    assert result.stdout == "".join(f"{printable(one['content'])}\n" for one in messages[2::2])


def test_the_last_line_needs_no_end_and_lines_can_be_joined(talker: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    chat(talker, 'one\\\ntwo\n"""three\n\nfour"""\n"""\nfive\n"""\n//six', *GREEDY, "--save", str(file))
    assert [one["content"] for one in saved(file)[0]["messages"][::2]] == ["one\ntwo", "three\n\nfour", "five", "/six"]


def test_new_undo_and_system_change_the_conversation(talker: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    chat(talker, "one\n/new\ntwo\n/system Be kind.\nthree\n/undo\nfour\n", *GREEDY, "--save", str(file))
    contents = [[one["content"] for one in row["messages"] if one["role"] != "assistant"] for row in saved(file)]
    assert contents == [["one"], ["Be kind.", "two", "four"]]


def test_retry_draws_other_numbers_and_equal_seeds_draw_equal_ones(talker: Path) -> None:
    options = ("--temperature", "1", "--max-new-tokens", "8")
    first, again = chat(talker, "hello\n/retry\n/retry\n", *options).stdout, chat(talker, "hello\n", *options).stdout
    assert first.startswith(again)
    other = chat(talker, "hello\n", *options, "--seed", "1").stdout
    set_later = chat(talker, "/set seed 1\nhello\n", *options).stdout
    assert other == set_later != again
    texts = [chat(talker, "hello\n" + "/retry\n" * n, *options).stdout for n in range(3)]
    assert len({text[len(before) :] for text, before in zip(texts[1:], texts, strict=False)} | {texts[0]}) == 3


@pytest.mark.slow
def test_save_appends_a_row_that_trains_and_load_continues_it(talker: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"messages": []}')  # without a line end
    result = chat(talker, f"hello\n/save {file}\n/new\n/load {file}\nmore\n/save {file}\n", *GREEDY)
    rows = saved(file)
    assert len(rows) == 3 and rows[2]["messages"][:2] == rows[1]["messages"] and len(rows[2]["messages"]) == 4
    assert f"saved to {file}: 1 row" in result.stderr and "1 turn loaded" in result.stderr
    tiny.sft_config(tmp_path, datasets=[{"path": str(file), "type": "chat_template"}], max_steps=1)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows[1:] * 4))
    tiny.train(tmp_path / "run.yaml")
    assert tiny.metrics(tmp_path / "out")[-1]["step"] == 1


@pytest.mark.parametrize(
    ("line", "message", "help"),
    [
        ("/halp", "unknown command: /halp", "did you mean '/help'?"),
        ("/set temprature 1", "unknown setting: temprature", "did you mean 'temperature'?"),
        ("/set top_p 7", "top_p: not a valid value: '7'", "write a number above 0 and up to 1"),
        ("/retry", "nothing to retry yet", "write a message first"),
        ("/save", "/save needs the name of a file", "/save FILE"),
        ("/save x.jsonl", "nothing to save yet", "write a message first"),
        ("/load no-such-file", "can't be read", "name a file that /save wrote"),
    ],
)
def test_an_error_ends_a_session_in_a_pipe(line: str, message: str, help: str, talker: Path) -> None:
    result = chat(talker, f"{line}\nhello\n", code=2)
    assert message in result.stderr and help in result.stderr and result.stdout == ""


def test_files_of_another_form_are_not_loaded(talker: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    for text in ("", "[1]", '{"messages": [{"role": "user", "content": "x"}]}', '{"messages": {"role": 1}}'):
        file.write_text(text)
        assert "file" in chat(talker, f"/load {file}\n", code=2).stderr


def test_commands_report_to_stderr(talker: Path) -> None:
    result = chat(talker, "/set\n/set top-k 3\n/help\nhello\n/tokens\n/quit\nnot read\n", *GREEDY)
    assert len(result.stdout.splitlines()) <= 2
    assert "top_k           3" in result.stderr and "/undo" in result.stderr
    with tunesmith.open_model(talker, device="cpu") as model:
        prompt = len(model.prompt_tokens("hello"))
    used = int(next(line for line in result.stderr.splitlines() if "tokens; " in line).split()[0])
    assert used > prompt and f"{used} tokens; {512 - used} of 512 left" in result.stderr


def test_a_conversation_that_does_not_fit_is_refused_before_anything_is_generated(talker: Path) -> None:
    long = "word " * 900
    result = chat(talker, f"{long}\n", code=2)
    assert "of the 512 that fit into the context" in result.stderr and "/new" in result.stderr
    result = chat(talker, "hello\n", "--max-new-tokens", "500", code=2)
    assert "/set max_new_tokens 4" in result.stderr and result.stdout == ""
    answered = chat(talker, "hello\n/tokens\n").stderr  # auto: what fits
    assert "0 of 512 left" in answered


def test_a_model_without_a_template_continues_texts(writer: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    result = chat(writer, "hello\n\nother words\n", *GREEDY, "--save", str(file))
    first, second = (row["text"] for row in saved(file))
    (start,) = answers(writer, "hello")
    assert result.stdout.startswith(f"{start}\n") and first.startswith("hello") and second.startswith("other words")
    with tunesmith.open_model(writer, device="cpu") as model:
        stream = TextStream(model.tokenizer)
        assert model.prompt_tokens("hello") and stream.finish() == ""
        begun = first.removeprefix("hello")
        following = begun[len(model.generate("hello", max_new_tokens=6, temperature=0)) :]
        assert following and following == model.generate(first[: -len(following)], max_new_tokens=6, temperature=0)
    refused = chat(writer, "", "--system", "x", code=2)
    assert "without a chat template has no system message" in refused.stderr


def test_base_is_the_adapter_switched_off(adapted: Path) -> None:
    result = chat(adapted, "hello there\n", *GREEDY, "--compare", "base")
    (tuned,), (base,) = answers(adapted, "hello there"), answers(adapted.parent / "model-llama", "hello there")
    assert tuned != base
    assert result.stdout == f"[out]\n{tuned}\n[base]\n{base}\n"


@pytest.mark.slow
def test_base_of_a_full_model_is_what_its_run_trained_from(tmp_path: Path) -> None:
    tiny.train(tiny.sft_config(tmp_path, learning_rate=0.1, plugins=["-report"]))
    result = chat(tmp_path / "run.yaml", "hello there\n", *GREEDY, "--compare", "base")
    (tuned,), (base,) = answers(tmp_path / "out", "hello there"), answers(tmp_path / "model-llama", "hello there")
    assert tuned != base
    assert result.stdout == f"[run.yaml]\n{tuned}\n[base]\n{base}\n"


@pytest.mark.slow
def test_two_sources_answer_with_their_own_history(talker: Path, adapted: Path) -> None:
    result = chat(talker, "hello\nmore\n", *GREEDY, "--compare", str(adapted))
    for source in (talker, adapted):
        (first,) = answers(source, "hello")
        with tunesmith.open_model(source, device="cpu") as model:
            text = model.generate("hello", max_new_tokens=6, temperature=0)
        turns = ("user", "hello"), ("assistant", text), ("user", "more")
        (second,) = answers(source, [{"role": role, "content": content} for role, content in turns])
        assert f"[{source.name}]\n{first}\n" in result.stdout and f"[{source.name}]\n{second}\n" in result.stdout


def test_a_second_model_gets_the_messages_of_the_first(talker: Path, writer: Path) -> None:
    result = chat(talker, "hello\n", *GREEDY, "--compare", str(writer))
    assert "writer has no chat template, and gets that of talker" in result.stderr
    text = "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    (answer,) = answers(writer, text, stop="<|im_end|>")
    assert f"[writer]\n{answer}\n" in result.stdout
    result = chat(writer, "hello\n", *GREEDY, "--compare", str(talker))
    assert "without its chat template" in result.stderr
    (answer,) = answers(writer, "hello")
    assert result.stdout.startswith(f"[writer]\n{answer}\n")


def test_a_second_model_stops_where_the_first_does(talker: Path, writer: Path) -> None:
    for first, second, stop in ((talker, writer, ("<|im_end|>",)), (writer, talker, ())):
        with speakers(str(first), str(second), device="cpu") as sides:
            assert [side.model.stop for side in sides] == [stop, stop]


def with_template(talker: Path, folder: Path, template: str) -> Path:
    """Return a folder with the model that has another chat template."""
    shutil.copytree(talker, folder)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


def test_a_thought_that_the_prompt_begins_is_complete_in_the_row(talker: Path, tmp_path: Path) -> None:
    template = tiny.CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
    model = with_template(talker, tmp_path / "thinker", template)
    file = tmp_path / "rows.jsonl"
    result = chat(model, "hello\n", *GREEDY, "--save", str(file))
    (answer,) = answers(model, "hello")
    assert saved(file)[0]["messages"][1]["content"].startswith("<think>\n")
    assert result.stdout == f"<think>\n{answer}\n"


def test_a_template_that_refuses_the_conversation_is_an_error_in_words(talker: Path, tmp_path: Path) -> None:
    refuses = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + tiny.CHATML
    model = with_template(talker, tmp_path / "refuses", refuses)
    result = chat(model, "hello\n", "--system", "Be kind.", code=4)
    assert "the chat template refuses the conversation: no system role" in result.stderr
    assert chat(model, "hello\n", *GREEDY).stdout


def test_bytes_that_are_not_text_do_not_end_a_session(talker: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    options = ["chat", str(talker), "--device", "cpu", *GREEDY, "--save", str(file)]
    result = CliRunner().invoke(main, options, input=b"a\xffb\n")
    assert result.exit_code == 0 and saved(file)[0]["messages"][0]["content"] == "a\N{REPLACEMENT CHARACTER}b"


def test_what_was_trained_from_has_to_be_known(talker: Path) -> None:
    assert "name it: --compare MODEL" in chat(talker, "", "--compare", "base", code=2).stderr


@pytest.mark.slow
def test_a_score_head_is_refused(tmp_path: Path) -> None:
    rows = tiny.write_rows(tmp_path / "rows.jsonl", tiny.rows("pair", 16))
    datasets = [{"path": str(rows), "type": "chat_template"}]
    tiny.train(tiny.sft_config(tmp_path, datasets=datasets, reward_model=True, max_steps=1, plugins=["-report"]))
    result = chat(tmp_path / "out", "hello\n", code=4)
    assert f"tunesmith score {tmp_path / 'out'}" in result.stderr and result.stdout == ""
    assert chat_command(tmp_path / "out") is None


def test_characters_that_change_a_terminal_are_escaped(talker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def evil(self: TextStream, token: int) -> str:
        return "\x1b[31m\x07\u202e\n"

    monkeypatch.setattr(TextStream, "add", evil)
    assert chat(talker, "hello\n", "--max-new-tokens", "2").stdout == "\\x1b[31m\\x07\\u202e\n" * 2 + "\n"


@pytest.mark.parametrize(("options", "help"), [(("--port", "1"), "add --web"), (("--web", "--save", "x"), "download")])
def test_options_without_effect_are_errors(options: tuple[str, ...], help: str, talker: Path) -> None:
    assert help in chat(talker, "", *options, code=2).stderr


def test_a_finished_run_names_the_command(adapted: Path, talker: Path, tmp_path: Path) -> None:
    assert chat_command(adapted) == f"tunesmith chat {adapted}"
    assert chat_command(talker) == f"tunesmith chat {talker}"
    assert chat_command(tmp_path) is None
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForSequenceClassification"]}')
    assert chat_command(tmp_path) is None
    (tmp_path / "config.json").write_text("[]")
    assert chat_command(tmp_path) is None
    adapter = json.loads((adapted / "adapter_config.json").read_text("utf-8"))
    (tmp_path / "adapter_config.json").write_text(json.dumps(adapter | {"base_model_name_or_path": str(tmp_path)}))
    assert chat_command(tmp_path) is None  # the base has no weights
