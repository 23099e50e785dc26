"""Every kind of bad data is reported once, with file, line and field, what to do and exit code 3.

There are no cases for features that do not exist: rewards, images, dropping incomplete batches. test_bad_files.py has
the other kinds of files; pairs and labels are tested with their strategies.

Conversations are valid if the chat template accepts them: two turns of one role in a row, a first turn of the
assistant, a last turn of the user, and further properties of messages. A template that rejects them, such as STRICT,
makes them an error of the row. Duplicate rows, duplicate names in a row, overlap of training and held-out rows, and
tool results without a call are not detected in a single row. A dataset that is missing on the hub needs a network.
"""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.contract.bad import Case, judge, tunesmith

BASE = "base_model: ./models/tiny\ndevice: cpu\noutput_dir: out\nmax_steps: 2\nsequence_len: 64\n"
USER, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}
STRICT = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{{ m['role'] }}:{{ m['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def lines(*rows: Any) -> bytes:
    return b"".join((r if isinstance(r, bytes) else json.dumps(r).encode()) + b"\n" for r in rows)


def rows(
    content: bytes, type: str, place: str, message: str, help: str | None = None, name: str = "bad.jsonl", **more: Any
) -> Case:
    """Return the case of a bad data file, which is written to data/`name`."""
    keys = more.pop("keys", "")
    text = f"{BASE}datasets:\n  - path: ./data/{name}\n    type: {type}\n{keys}"
    defaults = {"exit_code": 3, "command": "preprocess"}
    return Case(text, message=message, help=help, place=place, files={f"data/{name}": content}, **(defaults | more))


def chat(at: str, message: str, help: str | None, *messages: Any, **row: Any) -> Case:
    """Return the case of a valid row followed by one with invalid messages, or other columns in `row`."""
    content = lines({"messages": [USER, ANSWER]}, {"messages": list(messages), **row})
    return rows(content, "chat_template", "data/bad.jsonl:2", f"{at}: {message}", help)


def file(path: str, message: str, help: str, exit_code: int = 3, keys: str = "", **more: Any) -> Case:
    """Return the case of a path that cannot be read."""
    mark = "" if "@" in keys or "place" in more else "@"
    return Case(
        f"{BASE}datasets:\n  - path: {mark}{path}\n    type: completion\n{keys}", exit_code, message, help, **more
    )


PATHS = {
    "missing": file("data/tetx.jsonl", "data/tetx.jsonl: no such file or folder", "did you mean data/text.jsonl?"),
    "misspelled folder": file("dta/text.jsonl", "no such file or folder", "did you mean data/text.jsonl?"),
    "not a hub id": file("data/txt", "data/txt: no such file or folder", "files in data: chat.jsonl, text.jsonl"),
    "file name instead of a hub id": file("text.csv", "no such file", "files in the working folder: "),
    "pattern": file("'data/*.jsonl'", "no such file or folder", "the pattern in data_files"),
    "home": file("~/text.jsonl", "contains ~, which is not expanded", "the complete path", 2),
    "empty folder": file("none", "has no .json, .jsonl, .ndjson", "it contains .keep", files={"none/.keep": ""}),
    "folder called csv": file("a.csv", "a.csv has no .json", "it contains part", files={"a.csv/part": "text\na\n"}),
    "misspelled file of a folder": file(
        "data", "data/txet.jsonl: no such file", "did you mean data/text.jsonl?", keys="    data_files: [@txet.jsonl]\n"
    ),
    "pattern without a match": file(
        "data", "no file in data matches *.csv", "**/*.jsonl does not", keys="    data_files: @'*.csv'\n"
    ),
    "data_files of a file": file(
        "data/text.jsonl", "needs a folder, but data/text.jsonl is a file", "drop data_files", 2,
        "    data_files: @[a.jsonl]\n",
    ),
    "unknown file type": file(
        "data/a.xlsx", "unknown kind of file", "convert it to one of", files={"data/a.xlsx": "a,b"}
    ),
    "pipe": file("pipe", "pipe is neither a file nor a folder", "write them to a file"),
    "a script": file(
        "load.py", "is a script, and scripts are never run", "run it yourself", 9, files={"load.py": "1 / 0"}
    ),
    "subset of a file": file(
        "data/text.jsonl", "is for datasets on the hub, but this one is local", "drop name", 2, "    name: @main\n"
    ),
    "sample_by for rows": file(
        "data/text.jsonl", "is for texts", "drop sample_by", 2, "    sample_by: @paragraph\n"
    ),
    "missing library": file(
        "s3://bucket/a.jsonl", "read with s3fs, which is not installed", 'pip install "tunesmith[s3]"', 5
    ),
    "unknown scheme": file(
        "gopher://a/b.jsonl", "no plugin answers a path of kind 'gopher'", "lists all", 2, place="run.yaml:7:5"
    ),
    "name too long": file("data/" + "a" * 300, "File name too long", None),  # type: ignore[arg-type]
}  # fmt: skip
TEXTS = {
    "broken JSON": rows(
        lines(*[{"text": "a"}] * 7, b'{"text": [}'), "completion", "data/bad.jsonl:8:11", "broken JSON", "JSON object"
    ),
    "broken array": rows(b'[{"text": "a"},\n {"text": }]', "completion", "data/bad.jsonl:2:11", "broken JSON", "array"),
    "NUL": rows(b'{"text": "a\x00b"}', "completion", "data/bad.jsonl:1:12", "control character", "one JSON object"),
    "Latin-1": rows(
        lines({"text": "a"}, b'{"a": "\xfc"}'), "completion", "data/bad.jsonl:2:8", "not UTF-8: byte 7", "as UTF-8"
    ),
    "UTF-16": rows('{"text": "a"}'.encode("utf-16"), "completion", "data/bad.jsonl:1:1", "byte 0", "save the file"),
    "compressed": rows(gzip.compress(b"{}"), "completion", "data/bad.jsonl:1:2", "is not UTF-8", "save the file"),
    "array not closed": rows(b'[{"text": "a"}', "completion", "data/bad.jsonl:1:15", "array is not closed", "array"),
    "content after an array": rows(
        b'[{"text": "a"}]\n{}', "completion", "data/bad.jsonl:2:1", "unexpected text after the array", "array"
    ),
    "Latin-1 in an array": rows(
        b'[{"text": "a"},\n{"text": "\xfc"}]', "completion", "data/bad.jsonl:2:11", "not UTF-8: byte 26", "as UTF-8"
    ),
    "thousands of brackets": rows(b'{"a": ' + b"[" * 100_000, "completion", "data/bad.jsonl:1", "recursion", "object"),
    "thousands of digits": rows(b'{"a": ' + b"9" * 5_000 + b"}", "completion", "data/bad.jsonl:1", "digits", "object"),
    "not an object": rows(lines({"text": "a"}, [1]), "completion", "data/bad.jsonl:2", "got list", 'write {"text"'),
    "not parquet": rows(b"PAR1", "completion", "data/bad.parquet", "can't be read as parquet", "again", "bad.parquet"),
    "empty": rows(b"", "completion", "run.yaml:7:11", "./data/bad.jsonl has no rows"),
    "empty array": rows(b"[]", "completion", "run.yaml:7:11", "./data/bad.jsonl has no rows"),
}  # fmt: skip


COLUMNS = {
    "misspelled column": rows(
        lines({"instruction": "a", "ouput": "b"}), "alpaca", "data/bad.jsonl:1",
        "output: no such column; found: instruction, ouput", "is it 'ouput'?",
    ),
    "missing column": rows(
        lines({"body": "a"}), "completion", "data/bad.jsonl:1", "text: no such column; found: body", "name the column"
    ),
    "null": rows(
        lines({"text": "a"}, {"text": None}), "completion", "data/bad.jsonl:2", "text: must be a string, got null"
    ),
    "a number": rows(lines({"text": 3}), "completion", "data/bad.jsonl:1", "text: must be a string, got int"),
    **{
        f"half a character for {type}": rows(
            lines(good, broken), type, "data/bad.jsonl:2", r"'\ud800' at character 2, which is half of a surrogate pair"
        )
        for type, good, broken in (
            ("completion", {"text": "a"}, {"text": "a \ud800"}),
            ("alpaca", {"instruction": "a", "output": "b"}, {"instruction": "a \ud800", "output": "b"}),
            ("chat_template", {"messages": [USER, ANSWER]}, {"messages": [USER, {**ANSWER, "content": "a \ud800"}]}),
        )
    },
}  # fmt: skip
MESSAGES = {
    "no messages": chat("messages", "has no messages", None),
    "not a list": rows(
        lines({"messages": "Hi"}), "chat_template", "data/bad.jsonl:1", "messages: must be a list, got str"
    ),
    "other column": rows(
        lines({"conversations": []}), "chat_template", "data/bad.jsonl:1", "found: conversations", "name the column"
    ),
    "not a mapping": chat("messages[0]", "must be a mapping, got str", "{role: user, content: Hello}", "Hi"),
    "content null": chat("messages[1].content", "is null", "tool_calls may have no text",
                         USER, ANSWER | {"content": None}),
    "content missing": chat("messages[0].content", "is missing; found: role, contnet", "message_property_mappings",
                            {"role": "user", "contnet": "Hi"}),
    "content a number": chat("messages[0].content", "must be a string, got int", None, {"role": "user", "content": 3}),
    "misspelled role": chat("messages[1].role", "unknown role 'assitant'", "did you mean 'assistant'?",
                          USER, ANSWER | {"role": "assitant"}),
    "role missing": chat("messages[0].role", "is missing; found: content", "message_property_mappings",
                         {"content": "a"}),
    "call without a list": chat("messages[1].tool_calls", "must be a list of tool calls", "for example",
                                USER, {"role": "assistant", "tool_calls": 3}),
    "arguments not JSON": chat(
        "messages[1].tool_calls[0].function.arguments", "is not valid JSON", "a call without arguments has {}",
        USER, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{x"}}]},
    ),
    "tools not JSON": chat("tools", "is not valid JSON", None, USER, ANSWER, tools="[x"),
    **{
        name: rows(
            lines({"messages": [USER, ANSWER]}, {"messages": messages}), "chat_template", "data/bad.jsonl:2",
            "messages: the chat template fails on this row: roles must alternate",
            keys="chat_template: jinja\nchat_template_jinja: ./strict.jinja\n",
        )
        for name, messages in (
            ("two answers in a row", [USER, ANSWER, ANSWER]), ("an answer first", [ANSWER, USER, ANSWER])
        )
    },
}  # fmt: skip
LENGTHS = {
    "too long": rows(lines({"text": "a " * 99}), "completion", "data/bad.jsonl:1", "are more than sequence_len 64",
                     "drop, truncate or split", keys="excess_length_strategy: raise\n"),
    "all rows too long": rows(lines({"text": "a " * 99}), "completion", "run.yaml:7:11",
                         "of 1 rows 0 have no trained token and 1 are longer", "raise sequence_len"),
    "nothing trained": rows(lines({"messages": [USER]}, {"messages": [USER]}), "chat_template", "run.yaml:7:11",
                            "first: data/bad.jsonl:1, data/bad.jsonl:2", "preprocess --debug"),
    "answer cut off": rows(lines({"instruction": "a " * 99, "output": "b"}), "alpaca", "run.yaml:7:11",
                            "of 1 rows 1 have no trained token", "--debug", keys="excess_length_strategy: truncate\n"),
    "prompt to split": rows(lines({"instruction": "a " * 99, "output": "b"}), "alpaca", "data/bad.jsonl:1",
                              "a prompt with completions can't be split", "truncate or drop",
                              keys="excess_length_strategy: split\n"),
    "all held out": rows(lines({"text": "a"}, {"text": "b"}), "completion", "run.yaml:9:15",
                         "leaves none of 2 examples", "0.05", keys="val_set_size: 2\n", exit_code=2),
}  # fmt: skip
TRAINING = {
    "broken row in a stream": Case(
        f"{BASE}pretraining_dataset:\n  - path: ./data/bad.jsonl\n", 3, "broken JSON", "one JSON object",
        "data/bad.jsonl:2:1", "train", began=True, files={"data/bad.jsonl": lines({"text": "a"}, b"x")},
    ),
    "wrong type for the rows": Case(
        f"{BASE}datasets:\n  - path: ./data/chat.jsonl\n    type: alpaca\n", 3,
        "instruction: no such column; found: messages", "name the column", "data/chat.jsonl:1", "train",
    ),
}  # fmt: skip
CASES = {
    f"{group}: {name}": case
    for group, cases in {
        "path": PATHS, "text": TEXTS, "column": COLUMNS, "messages": MESSAGES, "length": LENGTHS, "training": TRAINING
    }.items()
    for name, case in cases.items()
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_bad_data_is_reported_with_file_line_and_field(name: str, project: Path) -> None:
    (project / "strict.jinja").write_text(STRICT)
    os.mkfifo(project / "pipe")
    judge(CASES[name], project)


LENIENT: dict[str, tuple[str, bytes, str]] = {  # file, content, type
    "JSON Lines in a .json": ("a.json", lines({"text": "a b"}, {"text": "c"}), "completion"),
    "an array in a .jsonl": ("a.jsonl", b'[{"text": "a b"}, {"text": "c"}]', "completion"),
    "a byte order mark": ("a.jsonl", b"\xef\xbb\xbf" + lines({"text": "a b"}, {"text": "c"}), "completion"),
    "empty lines": ("a.jsonl", b"\n" + lines({"text": "a b"}, b"", {"text": "c"}), "completion"),
    "two answers in a row": ("a.jsonl", lines({"messages": [USER, ANSWER, ANSWER]}, {"messages": [USER, ANSWER]}),
                             "chat_template"),
    "a question at the end": ("a.jsonl", lines({"messages": [USER, ANSWER, USER]}, {"messages": [USER, ANSWER]}),
                              "chat_template"),
}  # fmt: skip


@pytest.mark.parametrize("name", LENIENT)
def test_unusual_file_is_read_completely(name: str, project: Path) -> None:
    file, content, type = LENIENT[name]
    (project / "data" / file).write_bytes(content)
    (project / "run.yaml").write_text(f"{BASE}datasets: [{{path: ./data/{file}, type: {type}}}]\n")
    result = tunesmith("preprocess", "run.yaml")
    assert (result.exit_code, "2 rows, 2 kept" in result.stdout) == (0, True), result.output


def test_broken_row_leaves_no_partial_cache(project: Path) -> None:
    case = rows(lines({"text": "a"}, b"x"), "completion", "data/bad.jsonl:2:1", "broken JSON", "one JSON object")
    case.text = f"{case.text}dataset_prepared_path: ./prepared\n"  # type: ignore[str-bytes-safe]
    judge(case, project)
    assert not (project / "prepared").exists()
