"""Every mistake of YAML syntax is reported with its place and what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.bad import Case, judge, tunesmith
from tests.contract.fakes import BASE, DATA, error_of
from tunesmith.config.load import load_config

GOOD = BASE + DATA
LAUGHS = "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcde", "bcdef", strict=True))


def plus(text: str, message: str, help: str | None = None) -> Case:
    """Return the case of a valid config with bad lines appended."""
    return Case(GOOD + text, 2, message, help)


TEXT = {
    "empty": Case("@", 2, "is empty", "docs/start.md"),
    "only comments": Case("@# a run to come\n", 2, "is empty", "docs/start.md"),
    "UTF-16": Case(GOOD.encode("utf-16"), 2, "is not UTF-8: byte 0", "save the file as UTF-8", "run.yaml:1:1"),
    "Latin-1 in a later line": Case(b"seed: 3\noutput_dir: gr\xfcn\n", 2, "byte 22", "as UTF-8", "run.yaml:2:15"),
    "control character": Case("seed: 3\nrl: @\x07\n", 2, "U+0007 is not allowed", "as UTF-8"),
    "tab": Case(BASE + "datasets:\n@\t- path: x\n", 2, "a tab is not allowed", "indent with spaces"),
    "tab before a key": Case("base_model: x\n@\tseed: 1\n", 2, "a tab is not allowed", "indent with spaces"),
    "no space after a colon": Case("base_model:x\nseed@: 1\n", 2, "'base_model:x', has no space", "write 'key: value'"),
    "key indented too far": Case(
        BASE + "datasets:\n  - path: x\n      type@: y\n", 2, "indented further than", "in the same column"
    ),
    "key indented too little": Case(
        BASE + "datasets:\n  - path: x\n   @type: y\n", 2, "did not find expected", "in the same column"
    ),
    "colon in a value": plus("output_dir: a@: b\n", "a value contains ': '", "in quotes"),
    "pattern without quotes": plus("data: *@.jsonl\n", "alias", "in quotes"),
    "backtick": plus("output_dir: @`x`\n", "cannot start any token: '`'", "in quotes"),
    "backslash in double quotes": plus('output_dir: "a@\\q"\n', "unknown escape character", "single quotes"),
    "unclosed bracket": plus("plugins: @[earlystop\nseed: 1\n", "by line 4", "close the"),
    "unclosed quote": plus("seed: 1\noutput_dir: @'x\n", "unexpected end of stream", "close the"),
    "list at the top": Case("@- a\n", 2, "the top level must be a mapping"),
    "duplicate key": plus("seed: 1\n@seed: 2\n", "duplicate key 'seed'; first at run.yaml:3:1", "keep one"),
    "tag": Case("base_model: @!!python/object/apply:os.system [echo]\n", 9, "python/object/apply"),
    "alias bomb": Case(f"a: &a [x, x, x, x, x, x, x, x, x, x]\n{LAUGHS}", 9, "10,000 values", None, "run.yaml:1:35"),
    "deep nesting": Case(f"rl: {'[' * 70}{']' * 70}\n", 9, "64 levels", None, "run.yaml:1:69"),
    "50 megabytes": Case(b"#" * 50_000_000, 9, "too large: 50,000,000 bytes", None, "run.yaml"),
}


@pytest.mark.parametrize("name", TEXT)
def test_bad_yaml_is_reported_with_its_place_and_advice(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    judge(TEXT[name], tmp_path)


def test_keys_that_only_hold_anchors_are_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = f"x-entry: &entry {{type: completion}}\n_rows: &rows nobody/rows\n{BASE}"
    (tmp_path / "run.yaml").write_text(text + "datasets: [{<<: *entry, path: *rows}]\n")
    result = tunesmith("check", "run.yaml")
    assert (result.exit_code, result.stderr) == (0, "")
    (tmp_path / "run.yaml").write_text(GOOD + "_seed: 3\n")
    assert "unknown key: _seed" in tunesmith("check", "run.yaml").stderr


def test_file_of_rows_instead_of_a_config_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text('{"text": "a"}\n')
    [problem] = error_of(load_config, path).problems
    assert problem.code == "no-config" and "datasets: [{path:" in str(problem.help)
