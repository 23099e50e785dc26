"""YAML values follow the core schema of YAML 1.2, errors have a place, and no input runs code or exhausts memory."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.contract.fakes import error_of, write
from tunesmith.cli.main import pairs
from tunesmith.config.load import load_config
from tunesmith.config.values import YamlText
from tunesmith.config.yamlfile import parse, read

VALUES: dict[str, Any] = {
    "2e-4": 2e-4, "1e3": 1000.0, ".5": 0.5, "-1.": -1.0, "3": 3, "+1": 1, "-7": -7, "0x1f": 31, "0o17": 15, "012": 12,
    "true": True, "False": False, "TRUE": True, "tRue": "tRue",
    "yes": "yes", "no": "no", "on": "on", "off": "off", "y": "y",
    "null": None, "~": None, "": None, ".inf": math.inf, "-.inf": -math.inf,
    "1_000": 1000, "1_000.5": 1000.5, "_1": "_1", "1__0": "1__0",
    "1,000": "1,000", "5%": "5%", "1:30": "1:30", "2024-01-01": "2024-01-01", "=": "=",
    "1.2.3": "1.2.3", "'3'": "3", '"true"': "true", "[1, a]": [1, "a"], "{a: 1e-1}": {"a": 0.1},
}  # fmt: skip


@pytest.mark.parametrize("text", VALUES)
def test_value_follows_yaml_1_2(text: str, tmp_path: Path) -> None:
    value = read(write(tmp_path, f"key: {text}\n")).values["key"]
    assert (value, type(value)) == (VALUES[text], type(VALUES[text]))


def test_a_text_is_read_as_a_file_of_its_name(tmp_path: Path) -> None:
    text = "a: 1\nb:\n  - {c: 2e-4}\n"
    path = write(tmp_path, text)
    assert parse(text, str(path), ["a=3"]) == read(path, ["a=3"])
    wrong = error_of(lambda: load_config(YamlText("base_model: x\nlerning_rate: 1\n", "open.yaml", tmp_path)))
    assert any(p.where == "open.yaml:2:1" and p.code == "unknown-key" for p in wrong.problems)
    local = YamlText("base_model: x\nplugins: [./gone.py]\ndatasets: []\n", "open.yaml", tmp_path)
    assert str(tmp_path / "gone.py") in str(error_of(lambda: load_config(local)))


def test_enormous_integer_does_not_crash_the_reader(tmp_path: Path) -> None:
    assert not isinstance(read(write(tmp_path, f"key: {'9' * 5000}\n")).values["key"], int)


LAUGHS = "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcde", "bcdef", strict=True))
REFUSED = {  # text -> exit code, place, part of the message
    "empty file": ("", 2, ":1:1", "is empty"),
    "only a comment": ("# nothing\n", 2, ":1:1", "is empty"),
    "list at the top": ("- a\n- b\n", 2, ":1:1", "top level"),
    "scalar at the top": ("abc\n", 2, ":1:1", "top level"),
    "null at the top": ("null\n", 2, ":1:1", "top level"),
    "two documents": ("a: 1\n---\nb: 1\n", 2, ":2:1", "single document"),
    "unclosed list": ("a: 1\nb: [1, 2\nc: 3\n", 2, ":2:4", "by line 3"),
    "unclosed list at the end": ("a: 1\nb: [1,\n", 2, ":2:4", "by line 3"),
    "unclosed list in a list": ("a: 1\nb: [[1, 2]\nc: 3\n", 2, ":2:4", "by line 3"),
    "unclosed mapping": ("a: 1\nb: {x: [1, 2]\nc: 3\n", 2, ":2:4", "by line 3"),
    "unclosed quote": ("a: 1\nb: 'x\nc: 3\n", 2, ":2:4", "by line 4"),
    "wrong indentation": ("a: 1\n b: 2\n", 2, ":2:3", "indented further than"),
    "tab": ("a:\n\tb: 1\n", 2, ":2:1", "a tab is not allowed"),
    "unknown alias": ("a: *x\n", 2, ":1:4", "undefined alias"),
    "list as a key": ("? [a]\n: 1\n", 2, ":1:3", "a key must be a string"),
    "merge of a number": ("a: 1\n<<: 3\n", 2, ":2:5", "<< must be a mapping"),
    "duplicate key": ("seed: 1\na: 2\nseed: 3\n", 2, ":3:1", "duplicate key 'seed'; first at {file}:1:1"),
    "nested duplicate key": ("a:\n  b: 1\n  b: 1\n", 2, ":3:3", "duplicate key 'b'; first at {file}:2:3"),
    "python object": ("a: !!python/object/apply:os.system [echo]\n", 9, ":1:4", "python/object/apply:os.system"),
    "python name": ("a:\n  - !!python/name:os.system\n", 9, ":2:5", "tag"),
    "local tag": ("a: 1\nb: !x 3\n", 9, ":2:4", "'!x'"),
    "binary": ("a: !!binary aGk=\n", 9, ":1:4", "tag"),
    "set": ("a: !!set {b}\n", 9, ":1:4", "tag"),
    "tag on a key": ("!x a: 1\n", 9, ":1:1", "tag"),
    "alias bomb": (f"a: &a [x, x, x, x, x, x, x, x, x, x]\n{LAUGHS}", 9, ":1:", "10,000"),
    "alias of itself": ("a: &a [*a]\n", 9, ":1:4", "64 levels"),
    "deep lists": (f"a: {'[' * 70}{']' * 70}\n", 9, ":1:68", "64 levels"),
    "deep keys": ("".join(f"{' ' * i}k:\n" for i in range(70)), 9, ":66:66", "64 levels"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_invalid_yaml_is_reported_with_its_place(case: str, tmp_path: Path) -> None:
    text, code, place, words = REFUSED[case]
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    error = error_of(read, path)
    assert error.exit_code == code
    assert str(error).startswith(f"{path}{place}")
    assert words.format(file=path) in str(error)


def test_nesting_that_would_overflow_the_stack_is_an_error(tmp_path: Path) -> None:
    """The test uses its own process, because composing the value would end it with a segmentation fault."""
    path = write(tmp_path, "a: " + "[" * 200_000)
    code = "import sys; from pathlib import Path; from tunesmith.config.yamlfile import read; read(Path(sys.argv[1]))"
    completed = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert (completed.returncode, "64 levels" in completed.stderr) == (1, True)


def test_nesting_below_the_limit_is_read(tmp_path: Path) -> None:
    assert read(write(tmp_path, f"a: {'[' * 60}{']' * 60}\n")).values["a"]


def test_50_megabytes_are_an_error_without_reading_them(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    with path.open("wb") as file:
        file.truncate(50_000_000)
    error = error_of(read, path)
    assert (error.exit_code, error.problems[0].code, error.problems[0].where) == (9, "yaml-size", str(path))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_other_encodings_are_an_error(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes("a: gr\u00fcn\n".encode(encoding))
    error = error_of(read, path)
    assert error.exit_code == 2
    if encoding in ("utf-16", "latin-1"):
        assert f"byte {0 if encoding == 'utf-16' else 5}" in str(error)


def test_utf_8_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\nb: 2\n")
    document = read(path)
    assert (document.values, document.where(("a",))) == ({"a": 1, "b": 2}, f"{path}:1:1")


def test_unreadable_path_is_an_error_that_names_it(tmp_path: Path) -> None:
    good = write(tmp_path, "a: 1\n", "good.yaml")
    for path, words in (
        (tmp_path / "nothing.yaml", "here: good.yaml"),
        (tmp_path, "is a folder"),
        (good / "below.yaml", "can't be read"),
        (tmp_path / ("n" * 300), "can't be read"),
    ):
        error = error_of(read, path)
        assert error.exit_code == 2
        assert str(path) in str(error) and words in str(error)


def test_merge_keys_merge_and_own_keys_win(tmp_path: Path) -> None:
    text = """\
        one: &one {a: 1, b: 1}
        two: &two {b: 2, c: 2}
        both:
          c: 3
          <<: [*one, *two]
        single:
          <<: *two
          d: 4
    """
    path = write(tmp_path, text)
    document = read(path)
    assert document.values["both"] == {"a": 1, "b": 1, "c": 3}
    assert document.values["single"] == {"b": 2, "c": 2, "d": 4}
    assert document.where(("both", "c")) == f"{path}:4:3"
    assert document.where(("both", "a")) == f"{path}:1:12"  # the place of the merged key


def test_places_of_keys_and_values(tmp_path: Path) -> None:
    path = write(tmp_path, "a: 1\nb:\n  - x\n  - c:   3\n")
    document = read(path)
    for key, value, place in (
        (("a",), False, "1:1"), (("a",), True, "1:4"), (("b", 0), False, "3:5"),
        (("b", 1, "c"), False, "4:5"), (("b", 1, "c"), True, "4:10"), (("b", 1, "none"), False, "4:5"),
        (("none",), False, "1:1"),
    ):  # fmt: skip
        assert document.where(key, value) == f"{path}:{place}", key


# the command line

FILE = "a: 1\nlist: [{x: 1}, {x: 2}]\ngroup: {b: 1, c: 2}\n"
OVERRIDES: dict[str, tuple[list[str], str, Any]] = {
    "key=value": (["a=2e-4"], "a", 2e-4),
    "string": (["a=yes"], "a", "yes"),
    "with an equals sign": (["a=b=c"], "a", "b=c"),
    "--key=value": (["--a=5"], "a", 5),
    "--key value": (["--a", "5"], "a", 5),
    "negative value": (["--a", "-1"], "a", -1),
    "flag": (["--a"], "a", True),
    "flag before a key": (["--a", "--new", "1"], "a", True),
    "null": (["a=null"], "a", None),
    "list": (["a=[1, x]"], "a", [1, "x"]),
    "group": (["a={b: 2}"], "a", {"b": 2}),
    "quoted": (["a='3'"], "a", "3"),
    "inside a group": (["group.b=5"], "group", {"b": 5, "c": 2}),
    "new in a group": (["group.d=5"], "group", {"b": 1, "c": 2, "d": 5}),
    "new group": (["new.b.c=5"], "new", {"b": {"c": 5}}),
    "list index": (["list.1.x=5"], "list", [{"x": 1}, {"x": 5}]),
    "--list index": (["--list.0", "{y: 1}"], "list", [{"y": 1}, {"x": 2}]),
    "repeated": (["a=1", "a=2"], "a", 2),
}


@pytest.mark.parametrize("case", OVERRIDES)
def test_command_line_override_sets_the_value(case: str, tmp_path: Path) -> None:
    words, key, value = OVERRIDES[case]
    assert read(write(tmp_path, FILE), pairs(tuple(words))).values[key] == value


@pytest.mark.parametrize(
    ("word", "code"),
    [
        ("a", 2), ("a=", 2), ("list.5.x=1", 2), ("list.5=1", 2), ("list.x=1", 2), ("a=[1,", 2), ("a=@x", 2),
        ("a=*x", 2), ("a='x", 2), ("a={b: 1, b: 2}", 2), ("a=!x 1", 9), ("a=!!python/name:os.system", 9),
        (f"a={'[' * 70}{']' * 70}", 9),
    ],
)  # fmt: skip
def test_error_in_an_override_names_the_command_line(word: str, code: int, tmp_path: Path) -> None:
    error = error_of(read, write(tmp_path, FILE), [word])
    assert error.exit_code == code
    assert str(error).startswith("command line")


def test_override_without_a_value_is_not_null(tmp_path: Path) -> None:
    """In a shell, `max_steps=$STEPS` with an unset variable would train the complete data."""
    assert "give it a value, or write a=null" in str(error_of(read, write(tmp_path, FILE), ["a="]))


def test_overridden_value_has_no_place_in_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, FILE)
    document = read(path, ["group={c: 3, d: 4}", "a.x=1", "list.0.x=7"])
    for key in (("group", "c"), ("group", "d"), ("a",), ("a", "x"), ("list", 0, "x")):
        assert document.where(key).startswith("command line"), key
    assert document.where(("list", 1, "x")) == f"{path}:2:17"
