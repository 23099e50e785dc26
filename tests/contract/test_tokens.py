"""`preprocess --debug` shows each token with its reason, and whether the engine keeps the example."""

from __future__ import annotations

import io
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from tunesmith_engine.data.lengths import fit

from tests import tiny
from tests.contract.test_trees import trees
from tests.repo.source import ROOT
from tunesmith import DataError, Example, segment
from tunesmith.cli import main
from tunesmith.cli.examples import shown_example, texts_of
from tunesmith.cli.shown import ShownExample, by_reason, printable
from tunesmith.cli.tokens import heading, show_example, style_of

SPEC: Any = {"group": "datasets", "index": 0, "settings": SimpleNamespace(path="data.jsonl"), "type": "some"}


def seen_of(example: Example, kind: str = "text", limit: int = 100, strategy: str = "drop") -> ShownExample:
    run: Any = SimpleNamespace(
        tokenizer=tiny.tokenizer(), core=SimpleNamespace(sequence_len=limit, excess_length_strategy=strategy)
    )
    return shown_example(run, SimpleNamespace(**SPEC, row_kind=kind), "data.jsonl:7", example)


def printed(seen: ShownExample, width: int = 80) -> str:
    """Return the console output for an example at a terminal width."""
    console = Console(file=io.StringIO(), width=width)
    show_example(console, seen)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def ids(text: str) -> list[int]:
    return tiny.tokenizer()(text).input_ids  # type: ignore[no-any-return]


PAIR = Example.branches(ids("the cat"), [ids(" sees a dog"), ids(" sees two birds")])


def test_characters_are_complete_and_control_characters_escaped() -> None:
    text = "\u00fc \u4f60 \x1b[2J \u202e\u2066a\n"
    texts = texts_of(tiny.tokenizer(), ids(text))
    assert len(texts) == len(ids(text)) and "".join(texts) == text
    out = printed(seen_of(Example.text(ids(text))))
    assert "\u00fc \u4f60 \\x1b[2J \\u202e\\u2066a\\n" in out and not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", out)
    assert printable("\ud800\x00\u2028") == "\\ud800\\x00\\u2028"


def test_space_that_depends_on_the_previous_token_is_shown() -> None:
    words = ["the", "cat", "sees"]
    tokenizer = SimpleNamespace(decode=lambda tokens: " ".join(words[token] for token in tokens))
    assert texts_of(tokenizer, [0, 1, 2]) == ["the", " cat", " sees"]
    assert texts_of(tokenizer, [2], [1]) == [" sees"]


@settings(max_examples=150, deadline=None)
@given(trees, st.integers(1, 14), st.sampled_from(["drop", "truncate", "split", "raise"]))
def test_tokens_shown_as_trained_equal_those_the_engine_trains(example: Example, limit: int, strategy: str) -> None:
    seen = seen_of(example, "text", limit, strategy)
    assert seen.tokens == example.width
    try:
        pieces, _ = fit(example, limit, strategy, "")
    except DataError as error:
        assert seen.outcome == f"refused: {error.problems[0].message}" and seen.dropped
        return
    assert seen.trained == sum(piece.trained_tokens for piece in pieces)
    assert seen.dropped == (seen.trained == 0)
    if not seen.dropped:
        kept = sum(len(stretch.tokens) for stretch in seen.stretches if not stretch.cut)
        assert kept == sum(piece.width for piece in pieces)


@pytest.mark.parametrize(
    ("strategy", "weights", "outcome", "dropped", "text"),
    [
        ("drop", [0, 1, 1, 1], "dropped: longer than sequence_len 3", True, "cat sees the  <- trained"),
        ("truncate", [0, 1, 1, 1], "cut to sequence_len 3", False, " the  <- cut: beyond sequence_len (trained)"),
        ("truncate", [0, 0, 0, 1], "dropped: nothing trained is left within sequence_len", True, "the  <- cut: beyond"),
        ("split", [0, 1, 1, 1], "split into 2 examples", False, "- - - example 2 begins here - - -\n the  <- trained"),
        ("raise", [0, 1, 1, 1], "refused: 4 tokens are more than sequence_len 3", True, "cat sees the  <- trained"),
    ],
)
def test_outcome_of_a_long_example_is_shown(
    strategy: str, weights: list[int], outcome: str, dropped: bool, text: str
) -> None:
    tokens = [ids(word)[0] for word in ("the", " cat", " sees", " the")]
    seen = seen_of(Example.text(tokens, weights), "text", 3, strategy)
    assert (seen.outcome, seen.dropped) == (outcome, dropped)
    out = printed(seen)
    assert outcome in out.partition("\n")[0] and text in out


def test_example_without_a_trained_token_is_shown_as_dropped() -> None:
    assert seen_of(Example.text(ids("the cat"), 0.0)).outcome == "dropped: nothing is trained"
    assert seen_of(Example([segment(ids("the cat"))]), "prompt").outcome == ""  # completions are generated


def test_pair_shows_its_prompt_once_and_its_answers_side_by_side_if_they_fit() -> None:
    seen = seen_of(PAIR, "pair")
    assert [part.name for part in seen.parts] == ["prompt", "chosen", "rejected"]
    wide, narrow = printed(seen, 140), printed(seen, 80)
    assert re.search(r"chosen: .*rejected: ", wide) and not re.search(r"chosen: .*rejected: ", narrow)
    assert re.search(r" sees a dog  <- trained +  ? sees two birds", wide)
    assert wide.count("the cat") == narrow.count("the cat") == 1


def test_differing_tokens_of_a_pair_are_highlighted() -> None:
    _, chosen, rejected = seen_of(PAIR, "pair").parts
    for part, words in ((chosen, " a dog"), (rejected, " two birds")):
        assert "".join(t.text for s in part.stretches for t in s.tokens if t.differs) == words
    [stretch] = chosen.stretches
    assert style_of(stretch.tokens[0], False) == "bold green"
    assert style_of(stretch.tokens[-1], False) == "bold green reverse"


@pytest.mark.parametrize(("label", "word"), [(1.0, "good"), (0.0, "bad")])
def test_labeled_answer_shows_its_label(label: float, word: str) -> None:
    example = Example.branches(ids("the cat"), [ids(" sees")])
    example.columns["label"] = label
    assert f"completion, labeled {word}: " in printed(seen_of(example, "labelled"))


def test_steps_show_their_label_at_their_end() -> None:
    labels = {"score_at": [0.0, 1.0, 0.0, 1.0], "label": [0.0, 1.0, 0.0, 0.0]}
    steps = segment([5, 6, 7, 8], labels["score_at"], fork=1, **{k: np.array(v) for k, v in labels.items()})
    steps.notes = [(1, "step 1"), (2, "score of step 1: right"), (3, "step 2"), (4, "score of step 2: wrong")]
    prompt, part = seen_of(Example([segment([4]), steps]), "stepwise").parts
    assert (prompt.name, part.name) == ("prompt", "steps")
    assert [token.columns for s in part.stretches for token in s.tokens] == [
        {}, {"score_at": 1, "label": 1}, {}, {"score_at": 1, "label": 0}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("weights", "suffix"), [([0.5, 0.5], ", weight 0.5"), ([0.2, 1], ", weight 0.2 to 1"), ([0, 1], ""), ([1, 1], "")]
)
def test_weights_other_than_0_and_1_are_shown(weights: list[float], suffix: str) -> None:
    example = Example.text([5, 6], weights, notes=[(2, "turn 1")])
    [part] = seen_of(example).parts
    assert part.stretches[0].label == f"turn 1{suffix}"
    assert [style_of(t, False) for t in part.stretches[0].tokens] == [
        {0: "dim", 1: "bold green"}.get(weight, "yellow") for weight in weights
    ]


def test_columns_and_fields_of_an_example_are_shown() -> None:
    example = Example.branches(ids("the"), [ids(" cat")], columns={"margin": 0.5}, fields={"answer": "42\x1b"})
    example.segments[1].columns["advantage"] = 2.0
    out = printed(seen_of(example))
    assert '{"margin": 0.5, "answer": "42\\u001b"}' in out and "after the prompt, advantage 2" in out


def test_reasons_are_counted_across_turns_and_steps() -> None:
    example = Example.text([5, 6, 7, 8], [0, 1, 1, 0.5], notes=[(1, "role user"), (2, "turn 1"), (4, "turn 2, last")])
    assert by_reason(seen_of(example).stretches) == {
        "role user": (1, 0), "turn": (1, 1), "turn, last": (2, 2)
    }  # fmt: skip


# complete runs

FILTER = """
from dataclasses import replace
from tunesmith import Plugin, hookimpl
plugin = Plugin()
@hookimpl
def filter_rows(run, sources):
    return [replace(source, rows=[row for row in source.rows if not row.where.endswith(":1")]) for source in sources]
"""


def test_every_entry_is_shown_with_its_filtered_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")  # a narrow terminal would wrap a long path
    (tmp_path / "drop_first.py").write_text(FILTER)
    texts = tiny.write_rows(tmp_path / "texts.jsonl", tiny.rows("text", 6))
    tests = [{"path": str(texts), "type": "completion"}]
    path = tiny.sft_config(tmp_path, plugins=["./drop_first.py"], test_datasets=tests)
    result = CliRunner().invoke(main, ["preprocess", str(path), "--debug", "--examples", "3"])
    assert result.exit_code == 0, result.output
    plain = " ".join(result.stdout.split())
    for name, kind in (("datasets[0]", "conversation rows"), ("test_datasets[0]", "text rows")):
        assert re.search(rf"{re.escape(name)} \S+, type: \w+, {kind}", plain), name
    assert [re.findall(rf"{file}\.jsonl:(\d+):", plain) for file in ("data", "texts")] == [["2", "3", "4"]] * 2


def test_data_page_shows_the_printed_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.model_folder(tmp_path / "models/my-model")
    (tmp_path / "data").mkdir()
    tiny.write_rows(tmp_path / "data/train.jsonl", tiny.rows("conversation", 40))
    entry = {"path": "./data/train.jsonl", "type": "chat_template"}
    tiny.write_config(tmp_path, base_model="./models/my-model", datasets=[entry], val_set_size=4, sequence_len=70,
                      excess_length_strategy="truncate")  # fmt: skip
    page = (ROOT / "docs/data.md").read_text("utf-8")
    blocks = re.findall(r"^```text\n\$ tunesmith ([^\n]*)\n(.*?)^```$", page, re.M | re.S)
    assert [arguments for arguments, _ in blocks] == ["preprocess run.yaml --debug --examples 1", "preprocess run.yaml"]
    for arguments, text in blocks:
        result = CliRunner().invoke(main, arguments.split())
        assert [line.rstrip() for line in result.stdout.strip().split("\n")] == text.strip().split("\n"), arguments


def test_heading_names_the_entry() -> None:
    assert heading(seen_of(PAIR, "pair")) == "datasets[0] data.jsonl, type: some, pair rows"
