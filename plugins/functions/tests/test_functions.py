"""Your own function builds the examples. It is checked before it runs, and its errors are reported with the row."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tunesmith import ConfigError, DataError
from tunesmith.api import prepare

ROWS = [{"q": "the old stone", "a": "a bird"}, {"q": "three trees", "a": "red house"}]
CODE = """
from tunesmith import Example, Piece

def plain(row, before=""):
    return {"prompt": before + row["q"] + " ", "completion": row["a"]}

def text(row):
    return {"completion": row["a"]}

def pieces(row):
    return [(row["q"], False), (row["a"], True)]

def weighted(row):
    return [Piece(row["q"], 0.5, "half"), Piece.end()]

def example(row, tokenizer):
    return Example.text(tokenizer(row["a"]).input_ids)

def second(row):
    return plain(row) if row["q"].startswith("three") else None

def choice(row):
    return {"prompt": row["q"], "chosen": row["a"], "rejected": "no", "margin": 2}

def wrong(row):
    return row["missing"]

def number(row):
    return 3

def half(row):
    return {"prompt": "a", "completion": "\\ud800"}

NOT_CALLABLE = 3
"""


def config(folder: Path, function: str, code: str = CODE, **keys: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "ownrows.py").write_text(code, encoding="utf-8")
    (folder / "texts.py").write_text(TEXTS, encoding="utf-8")
    tiny.write_rows(folder / "data.jsonl", ROWS)
    entry = {k: keys.pop(k) for k in ("arguments", "function_sha256") if k in keys}
    return tiny.write_config(
        folder, base_model=str(tiny.model_folder(folder / "model")),
        datasets=[{"path": str(folder / "data.jsonl"), "type": function, **entry}], **keys,
    )  # fmt: skip


def shown(path: Path) -> list[list[tuple[str, float]]]:
    """Return the decoded text and weight of each piece of each example."""
    run: Any = prepare(tiny.start(path))
    examples = []
    for example in run.data.train:
        runs: list[tuple[list[int], float]] = []
        for segment in example.segments:
            for token, weight in zip(segment.tokens.tolist(), segment.weights.tolist(), strict=True):
                if not runs or runs[-1][1] != weight:
                    runs.append(([], weight))
                runs[-1][0].append(token)
        examples.append([(run.tokenizer.decode(tokens), weight) for tokens, weight in runs])
    return examples


END = tiny.tokenizer().eos_token
EXPECTED = {
    "plain": [[("the old stone ", 0), (f"a bird{END}", 1)], [("three trees ", 0), (f"red house{END}", 1)]],
    "text": [[(f"a bird{END}", 1)], [(f"red house{END}", 1)]],
    "pieces": [[("the old stone", 0), ("a bird", 1)], [("three trees", 0), ("red house", 1)]],
    "weighted": [[("the old stone", 0.5), (END, 1)], [("three trees", 0.5), (END, 1)]],
    "example": [[("a bird", 1)], [("red house", 1)]],
    "second": [[("three trees ", 0), (f"red house{END}", 1)]],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_returned_value_is_trained(name: str, tmp_path: Path) -> None:
    assert shown(config(tmp_path, f"./ownrows.py:{name}")) == EXPECTED[name]


def test_a_file_may_import_a_module_from_the_folder_of_the_yaml(tmp_path: Path) -> None:
    (tmp_path / "helpers_of_rows.py").write_text("BEFORE = 'so: '\n", encoding="utf-8")
    code = CODE + "\nfrom helpers_of_rows import BEFORE\ndef imported(row): return plain(row, BEFORE)\n"
    assert shown(config(tmp_path, "./ownrows.py:imported", code))[0][0] == ("so: the old stone ", 0)


def test_a_function_gets_the_arguments_of_its_entry(tmp_path: Path) -> None:
    path = config(tmp_path, "./ownrows.py:plain", arguments={"before": "so: "})
    assert shown(path)[0][0] == ("so: the old stone ", 0)


PAIRS = """
from tunesmith import Method, Plugin, hookimpl
plugin = Plugin(answers={"rl": ("pairs",)}, method=Method(rows=("pair",)))
@hookimpl
def compute_loss(): ...
"""


def test_a_pair_is_a_prompt_with_two_completions_and_a_margin(tmp_path: Path) -> None:
    (tmp_path / "pairmethod.py").write_text(PAIRS, encoding="utf-8")
    run: Any = prepare(tiny.start(config(tmp_path, "./ownrows.py:choice", plugins=["./pairmethod.py"], rl="pairs")))
    first = run.data.train[0]
    assert [run.tokenizer.decode(s.tokens) for s in first.segments] == ["the old stone", f"a bird{END}", f"no{END}"]
    assert [s.fork for s in first.segments[1:]] == [len(first.segments[0].tokens)] * 2
    assert first.columns == {"margin": 2.0}


BROKEN = {
    "undefined function": ("./ownrows.py:plane", {}, "does not define 'plane'", "did you mean 'plain'?"),
    "missing file": ("./gone.py:plain", {}, "can't be read", "relative to the folder of the YAML"),
    "changed file": ("./ownrows.py:plain", {"function_sha256": "0" * 64}, "has sha256", "review the changes"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_missing_function_or_file_is_reported_before_rows_are_read(case: str, tmp_path: Path) -> None:
    function, keys, message, help = BROKEN[case]
    with pytest.raises(ConfigError) as caught:
        tiny.start(config(tmp_path, function, **keys))
    (problem,) = caught.value.problems
    assert message in problem.message and help in (problem.help or "") and problem.where


def test_a_file_that_is_not_valid_python_is_reported_with_the_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"datasets.0.type ownrows.py is not valid Python: .*line 1"):
        tiny.start(config(tmp_path, "./ownrows.py:plain", "def plain(row) return"))


@pytest.mark.parametrize(
    ("function", "keys", "message"),
    [
        ("NOT_CALLABLE", {}, "can't be called"),
        ("plain", {"arguments": {"after": 1}}, "unexpected keyword argument 'after'"),
    ],
)
def test_a_function_that_can_not_be_called_is_reported_at_its_type(
    function: str, keys: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare(tiny.start(config(tmp_path, f"./ownrows.py:{function}", **keys)))


@pytest.mark.parametrize(
    ("function", "message", "help"),
    [("wrong", "wrong failed on this row: KeyError: 'missing'", "see ownrows.py:26"),
     ("number", "returned int", "a mapping of texts"), ("half", "completion: contains '\\ud800'", "")],
)  # fmt: skip
def test_an_error_in_the_function_is_reported_with_the_row_and_the_line(
    function: str, message: str, help: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as caught:
        prepare(tiny.start(config(tmp_path, f"./ownrows.py:{function}")))
    (problem,) = caught.value.problems
    assert message in problem.message and help in (problem.help or "")
    assert problem.where == f"{tmp_path / 'data.jsonl'}:1"


def test_prepared_data_is_rebuilt_if_the_file_changes(tmp_path: Path) -> None:
    prepared = {"dataset_prepared_path": str(tmp_path / "prepared")}
    digest = hashlib.sha256(CODE.encode()).hexdigest()
    path = config(tmp_path, "./ownrows.py:plain", function_sha256=digest, **prepared)
    runs: list[Any] = [prepare(tiny.start(path)) for _ in range(2)]
    assert [run.data.cached for run in runs] == [False, True]
    path = config(tmp_path, "./ownrows.py:plain", CODE.replace('+ " "', '+ ": "'), **prepared)
    run: Any = prepare(tiny.start(path))
    assert not run.data.cached and run.tokenizer.decode(run.data.train[0].segments[0].tokens) == "the old stone: "


def test_a_prompt_that_is_returned_for_a_text_is_context(tmp_path: Path) -> None:
    path = config(tmp_path, "./ownrows.py:plain", plugins=[str(tmp_path / "texts.py")], rl="texts")
    assert shown(path) == EXPECTED["plain"]


TEXTS = """
from tunesmith import Method, Plugin, hookimpl
plugin = Plugin(answers={"rl": ("texts",)}, method=Method(rows=("text",)))
@hookimpl
def compute_loss(run, out, batch):
    return {}
"""


def test_a_margin_may_be_none_and_a_key_that_is_not_read_is_counted(tmp_path: Path) -> None:
    code = """
def choice(row):
    return {"prompt": row["q"], "chosen": row["a"], "rejected": "no", "margin": None, "system": "Rhyme."}
"""
    run = prepare(tiny.start(config(tmp_path, "./ownrows.py:choice", code, rl="dpo")))
    assert run.data.train[0].columns == {}
    (note,) = (value for key, value in run.notes.items() if "returns 'system', which pair rows do not have" in key)
    assert note.startswith("2 of 2 rows")


def test_functions_within_if_and_try_and_under_other_statements_are_defined(tmp_path: Path) -> None:
    code = """
import sys
if sys.version_info:
    def one(row):
        return {"completion": row["a"]}
try:
    import nothing_of_this_name
except ImportError:
    def two(row):
        return {"completion": row["a"]}
three, other = one, two
four: object = one
"""
    for name in ("one", "two", "three", "four"):
        assert shown(config(tmp_path / name, f"./ownrows.py:{name}", code))[0] == [(f"a bird{END}", 1)]


def test_an_async_function_is_refused_as_such(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one is an async function"):
        tiny.start(config(tmp_path, "./ownrows.py:one", "async def one(row):\n    return None\n"))
