"""`tunesmith init` looks at files of models and data, asks on a terminal only, and says in words what does not fit."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tunesmith_starter.model import look_at

from tunesmith import ModelError
from tunesmith.cli import main
from tunesmith.config.yamlfile import read

TINY = Path(__file__).resolve().parents[3] / "examples" / "tiny"
CHAT = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "chats.jsonl", CHAT)
    return tmp_path


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def init(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["init", *arguments])


def model(folder: Path, template: str | None = None, tokens: tuple[str, ...] = (), **config: Any) -> Path:
    """Write the files of a model without weights."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config}), encoding="utf-8")
    added = [{"content": token} for token in tokens]
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": added}), encoding="utf-8")
    if template is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}), encoding="utf-8")
    return folder


def test_the_file_is_checked_before_init_ends(here: Path) -> None:
    result = init("--model", str(TINY), "--data", "chats.jsonl", "--yes")
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-2].startswith("run.yaml: no problems found")
    assert result.output.endswith("next: tunesmith check run.yaml\n")
    assert init("--model", str(TINY), "--data", "chats.jsonl", "--yes").exit_code == 2  # it exists
    assert init("--model", str(TINY), "--data", "chats.jsonl", "--yes", "--force").exit_code == 0


def test_a_problem_that_check_finds_is_the_result_of_init(here: Path) -> None:
    write(here / "chats.jsonl", CHAT, CHAT)
    (here / "bad").mkdir()
    (here / "bad" / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    (here / "bad" / "model.safetensors").write_bytes(b"no weights")
    result = init("--model", "bad", "--data", "chats.jsonl", "--yes")
    assert result.exit_code == 4 and "error[" in result.output and "no problems found" not in result.output
    assert "next:" not in result.output and (here / "run.yaml").exists()


@pytest.mark.parametrize("missing", ["--model", "--data"])
def test_without_a_terminal_nothing_is_asked(here: Path, missing: str) -> None:
    given = {"--model": str(TINY), "--data": "chats.jsonl"}
    del given[missing]
    result = init(*[word for pair in given.items() for word in pair])
    assert result.exit_code == 2 and f"{missing} is not given" in result.output


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="there are no pseudo terminals here")
def test_on_a_terminal_it_asks_for_what_is_not_given(here: Path) -> None:
    answers = [
        ("Model to train", str(TINY)), ("Data", "chats.jsonl"), ("Method", ""), ("Adapter", ""),
        ("File to write", "asked.yaml"),
    ]  # fmt: skip
    master, slave = os.openpty()
    command = [sys.executable, "-m", "tunesmith", "init"]
    child = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, cwd=here, close_fds=True)
    os.close(slave)
    shown, deadline = "", time.monotonic() + 60
    while time.monotonic() < deadline:
        if not select.select([master], [], [], 0.2)[0]:
            continue
        try:
            shown += os.read(master, 4096).decode()
        except OSError:  # the child has closed its side
            break
        if answers and answers[0][0] in shown and shown.rstrip(" ").endswith(":"):
            os.write(master, (answers.pop(0)[1] + "\n").encode())
    os.close(master)
    assert child.wait(10) == 0 and not answers, shown
    assert "methods for these rows: sft\r\n" in shown and "[sft]" in shown and "[full]" in shown
    assert read(here / "asked.yaml").values["reinit_weights"] is True


def test_columns_that_no_layout_has_are_listed_with_what_can_be_written(here: Path) -> None:
    write(here / "odd.jsonl", {"a": "x", "b": 1, "c\u001b[31m": [1], "d": {"e": 1}, "f": True})
    result = init("--model", str(TINY), "--data", "odd.jsonl", "--yes")
    assert result.exit_code == 3 and "\u001b" not in result.output
    for words in ("a: text", "b: 0 or 1", "d: mapping of e", "f: true or false", "prompt, chosen, rejected", "rows.py"):
        assert words in result.output
    assert not (here / "run.yaml").exists()


def test_trees_are_an_error_with_the_option_that_converts_them(here: Path) -> None:
    row = {"message_id": "a", "parent_id": None, "role": "prompter", "text": "q"}
    write(here / "tree.jsonl", row, {"message_id": "b", "parent_id": "a", "role": "assistant", "text": "a"})
    result = init("--model", str(TINY), "--data", "tree.jsonl", "--yes")
    assert result.exit_code == 2 and "error[tree-layout]" in result.output and "--linearize FILE" in result.output
    assert init("--model", str(TINY), "--data", "tree.jsonl", "--yes", "--linearize", "out.jsonl").exit_code == 0
    (line,) = (here / "out.jsonl").read_text("utf-8").splitlines()
    assert json.loads(line) == CHAT


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([{"message_id": "b", "parent_id": "a", "role": "assistant", "text": "x"}], "is not the message_id of a row"),
        ([{"message_id": "b", "parent_id": None, "role": "judge", "text": "x"}], "unknown role 'judge'"),
        ([{"message_id": "b", "parent_id": None, "role": "prompter", "text": "x"}], "no message of the trees"),
        ([{"message_id": "a", "parent_id": "b", "role": "prompter", "text": "x"},
          {"message_id": "b", "parent_id": "a", "role": "prompter", "text": "x"},
          {"message_id": "c", "parent_id": "a", "role": "assistant", "text": "x"}], "leads around in a circle"),
        ([{"message_id": "a", "parent_id": None, "role": "prompter", "text": "x"}] * 2, "is that of"),
        ([{"message_id": ["a"], "parent_id": None, "role": "prompter", "text": "x"}], "must be a string"),
        ([{"message_id": "a", "parent_id": {}, "role": "prompter", "text": "x"}], "must be a string"),
        ([{"message_id": "a", "parent_id": None, "role": [], "text": "x"}], "unknown role"),
        ([{"prompt": {"role": "prompter", "text": "x", "replies": 1}}], "not a list"),
        ([{"prompt": {"role": "prompter", "text": "x", "replies": ["y"]}}], "not a mapping"),
    ],
)  # fmt: skip
def test_a_broken_tree_is_an_error(here: Path, rows: list[Any], problem: str) -> None:
    write(here / "tree.jsonl", *rows)
    result = init("--model", str(TINY), "--data", "tree.jsonl", "--yes", "--linearize", "out.jsonl")
    assert result.exit_code == 3 and problem in result.output and not (here / "out.jsonl").exists()


def test_paths_without_an_answer_are_counted(here: Path) -> None:
    def node(id: str, parent: str | None, role: str) -> dict[str, Any]:
        return {"message_id": id, "parent_id": parent, "role": role, "text": id}

    write(here / "tree.jsonl", node("a", None, "prompter"), node("b", "a", "assistant"), node("c", "b", "prompter"),
          node("d", "b", "prompter"), node("e", None, "prompter"))  # fmt: skip
    result = init("--model", str(TINY), "--data", "tree.jsonl", "--yes", "--linearize", "out.jsonl")
    assert "1 conversations from 3 paths, 1 without an answer left out, 1 repeated once more" in result.output


def test_several_datasets_are_entries_of_one_config(here: Path) -> None:
    write(here / "tasks file.jsonl", {"instruction": "q", "input": "", "output": "a"})
    assert init("--model", str(TINY), "--data", "chats.jsonl", "--data", "tasks file.jsonl", "--yes").exit_code == 0
    values = read(here / "run.yaml").values
    assert [entry["type"] for entry in values["datasets"]] == ["chat_template", "alpaca"]
    write(here / "pairs.jsonl", {"prompt": "q", "chosen": "a", "rejected": "b"})
    result = init("--model", str(TINY), "--data", "chats.jsonl", "--data", "pairs.jsonl", "--yes", "--force")
    assert (
        result.exit_code == 2 and "pairs.jsonl: the rows are prompts with a better and a worse answer" in result.output
    )


def test_a_role_with_an_unknown_name_is_in_a_comment(here: Path) -> None:
    write(here / "chats.jsonl", {"messages": [*CHAT["messages"], {"role": "oracle", "content": "x"}]})
    result = init("--model", str(TINY), "--data", "chats.jsonl", "--yes")
    assert result.exit_code == 3 and "unknown role 'oracle'" in result.output  # of the check
    assert "# unknown roles in the data: oracle" in (here / "run.yaml").read_text("utf-8")


def test_nothing_heavy_is_imported(here: Path) -> None:
    code = "import sys; from tunesmith.cli import main; main.main(sys.argv[1:], standalone_mode=False); "
    code += "print(*{'torch', 'transformers', 'datasets', 'pyarrow'} & sys.modules.keys(), file=sys.stderr)"
    command = [sys.executable, "-c", code, "init", "--model", str(TINY), "--data", "chats.jsonl", "--yes"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == "\n" and "no problems found" in done.stdout


# models


def test_a_model_without_a_template_gets_one(here: Path) -> None:
    model(here / "plain")
    model(here / "marked", tokens=("<|im_start|>", "<|im_end|>"))
    names = {"plain": "alpaca", "marked": "chatml"}
    for name, template in names.items():
        init("--model", name, "--data", "chats.jsonl", "--yes", "--output", f"{name}.yaml")
        assert read(here / f"{name}.yaml").values["chat_template"] == template


def test_rows_with_tools_need_a_template_that_writes_them(here: Path) -> None:
    tool = {"name": "add", "parameters": {}}
    write(here / "tools.jsonl", {**CHAT, "tools": [tool]})
    model(here / "own", template="{% for t in tools %}{{ t }}{% endfor %}")
    model(here / "other", template="{{ messages }}")
    init("--model", "own", "--data", "tools.jsonl", "--yes")
    assert "chat_template" not in read(here / "run.yaml").values
    result = init("--model", "other", "--data", "tools.jsonl", "--yes", "--force")
    assert result.exit_code == 2 and "does not write tools" in result.output


def test_a_model_of_the_hub_is_looked_at_if_it_is_in_the_cache(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(here / "hub"))
    assert look_at("owner/name").template is None
    snapshots = here / "hub" / "models--owner--name" / "snapshots"
    snapshots.mkdir(parents=True)
    (snapshots.parent / "refs").mkdir()
    (snapshots.parent / "refs" / "main").write_text("abc", encoding="utf-8")
    model(snapshots / "abc", template="{{ messages }}", max_position_embeddings=64)
    looked = look_at("owner/name")
    assert looked.template == "{{ messages }}" and looked.context == 64 and looked.weights is None
    init("--model", "owner/name", "--data", "chats.jsonl", "--yes")
    assert read(here / "run.yaml").values["sequence_len"] == 64


def test_a_folder_that_is_not_a_model_is_an_error(here: Path) -> None:
    for name in ("./missing", str(here)):
        with pytest.raises(ModelError):
            look_at(name)
    (here / "broken").mkdir()
    (here / "broken" / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match="can't be read"):
        look_at("broken")


def test_a_large_model_gets_an_adapter(here: Path) -> None:
    sizes = {"hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 11008, "vocab_size": 32000}
    (model(here / "large", template="{{ messages }}", **sizes) / "model.safetensors").write_bytes(b"")
    init("--model", "large", "--data", "chats.jsonl", "--yes")
    values = read(here / "run.yaml").values
    assert values["adapter"] == "lora" and values["learning_rate"] == 2e-4
    init("--model", "large", "--data", "chats.jsonl", "--yes", "--adapter", "full", "--force")
    values = read(here / "run.yaml").values
    assert "adapter" not in values and values["learning_rate"] == 2e-5


@pytest.mark.parametrize(("method", "words"), [("dpoo", "did you mean 'dpo'"), ("nothing", "methods: ")])
def test_an_unknown_method_is_an_error(here: Path, method: str, words: str) -> None:
    result = init("--model", str(TINY), "--data", "chats.jsonl", "--yes", "--method", method)
    assert result.exit_code == 2 and f"unknown method '{method}'" in result.output and words in result.output


def test_prompts_without_an_answer_have_no_reward(here: Path) -> None:
    result = init("--model", str(TINY), "--data", "chats.jsonl", "--yes", "--method", "grpo")
    assert result.exit_code == 2 and "no column has a reference answer" in result.output
