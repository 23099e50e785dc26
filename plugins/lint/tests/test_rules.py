"""Each planted fault is found by its own rule only, and good rows have no findings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tunesmith_lint.linter import Report, lint
from tunesmith_lint.rules import BY_NAME

from plugins.lint.tests.planted import BAD, CHATS, GOOD, LONG, PAIRS, TEXTS, Planted, chat, config
from tests import tiny
from tunesmith import load_config, start
from tunesmith.files.turns import UNUSUAL


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.model_folder(tmp_path_factory.mktemp("lint") / "model")


def lint_rows(folder: Path, model: Path, planted: Planted, off: tuple[str, ...] = (), **keys: Any) -> Report:
    overrides = [f"{key}={json.dumps(value)}" for key, value in keys.items()]
    return lint(start(load_config(config(folder, model, planted), overrides), check_rows=False), off)


def names(report: Report) -> list[str]:
    return [fault.name for fault in report.faults]


@pytest.mark.parametrize("case", GOOD)
def test_nothing_is_found_in_good_rows(case: str, tmp_path: Path, model: Path) -> None:
    assert names(lint_rows(tmp_path, model, GOOD[case])) == []


@pytest.mark.parametrize("name", BAD)
def test_a_planted_fault_is_found_by_its_rule_only_and_off_disables_it(name: str, tmp_path: Path, model: Path) -> None:
    planted = BAD[name]
    report = lint_rows(tmp_path, model, planted)
    assert names(report) == [name]
    [fault] = report.faults
    assert fault.severity == BY_NAME[name].severity and fault.help
    bad = [f"{tmp_path / 'data.jsonl'}:{len(planted.good) + i + 1}" for i in range(len(planted.bad))]
    if planted.tests:
        bad = [f"{tmp_path / 'tests.jsonl'}:1"]
    if BY_NAME[name].entry or name == "no-rows":
        assert fault.first == [start(load_config(tmp_path / "run.yaml")).config.entries[0].where]
    else:
        assert (fault.count, fault.first) == (len(bad), bad[:3])
    assert names(lint_rows(tmp_path, model, planted, (name,))) == []


def test_every_rule_has_a_planted_fault() -> None:
    assert BAD.keys() | {"unknown-token", "too-many-refused", "duplicate-key"} == BY_NAME.keys()


def test_a_duplicate_key_in_a_message_is_found(tmp_path: Path, model: Path) -> None:
    path = config(tmp_path, model, Planted(CHATS, []))
    with (tmp_path / "data.jsonl").open("a") as file:
        file.write(
            json.dumps(chat("Why?", "So.")).replace('"content": "So."', '"content": "No.", "content": "So."') + "\n"
        )
    [fault] = lint(start(load_config(path))).faults
    assert (fault.name, fault.first) == ("duplicate-key", [f"{tmp_path / 'data.jsonl'}:{len(CHATS) + 1}"])


@pytest.mark.parametrize("roles", [("human", "gpt"), ("user", "assistant")])
def test_usual_turns_are_not_reported(roles: tuple[str, str], tmp_path: Path, model: Path) -> None:
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    rows = [{"messages": [{"role": roles[0], "content": "Why?"}, call, {"role": "tool", "content": "7"},
                          {"role": "tool", "content": "8"}, {"role": roles[1], "content": "So."}]}]  # fmt: skip
    report = lint_rows(tmp_path, model, Planted([*CHATS, *rows], []))
    assert not [name for name in names(report) if name in UNUSUAL]


def test_a_pair_that_differs_behind_the_cut_only_is_found(tmp_path: Path, model: Path) -> None:
    pair = {"prompt": "Why?", "chosen": f"{LONG} Yes.", "rejected": f"{LONG} No."}
    planted = Planted(PAIRS, [pair], "passthrough.default", "pair", keys={"excess_length_strategy": "truncate"})
    assert names(lint_rows(tmp_path, model, planted)) == ["chosen-is-rejected", "answer-cut"]


def test_an_unknown_token_in_trained_text_is_found(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    ids = {word: id for id, word in enumerate(["[UNK]", "</s>", "the", "cat", "sees", "dog", "a"])}
    backend = Tokenizer(models.WordLevel(ids, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = tiny.model_folder(tmp_path / "model")
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", eos_token="</s>").save_pretrained(folder)
    good = [{"text": "the cat sees a dog"}, {"text": "the dog sees"}]
    report = lint_rows(tmp_path, folder, Planted(good, [{"text": "the zebra sees a cat"}], "completion"))
    assert names(report) == ["unknown-token"] and report.faults[0].first == [f"{tmp_path / 'data.jsonl'}:3"]


def test_a_too_long_row_is_an_error_if_the_run_would_refuse_it(tmp_path: Path, model: Path) -> None:
    planted = BAD["too-long"]._replace(keys={"excess_length_strategy": "raise"})
    [fault] = lint_rows(tmp_path, model, planted).faults
    assert (fault.name, fault.severity, fault.first) == ("too-long", "error", [f"{tmp_path / 'data.jsonl'}:9"])


def test_rows_after_a_refused_row_are_checked_and_rows_before_it_count_once(tmp_path: Path, model: Path) -> None:
    bad = {"messages": None}
    rows = [bad, *CHATS[:3], bad, bad, *CHATS[3:], bad]
    report = lint_rows(tmp_path, model, Planted(rows, []))
    assert [(fault.name, fault.count, fault.rows) for fault in report.faults] == [("row", 4, 12)]
    assert [place.rpartition(":")[2] for place in report.faults[0].first] == ["1", "5", "6"]
    assert (report.tallies[0].rows, report.tallies[0].refused) == (8, 4)


def test_a_truncated_file_is_one_finding_and_the_rows_before_it_are_checked(tmp_path: Path, model: Path) -> None:
    path = config(tmp_path, model, Planted(CHATS, [{"messages": None}]))
    with (tmp_path / "data.jsonl").open("a") as file:
        file.write('{"messages": [\n')
    report = lint(start(load_config(path)))
    assert sorted(names(report)) == ["broken-json", "row"] and report.tallies[0].rows == 8


def test_too_many_refused_rows_end_the_check_of_an_entry_with_a_finding(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesmith_lint.outcomes.MOST", 2)
    report = lint_rows(tmp_path, model, Planted([*TEXTS, *[{"output": ""}] * 5, *TEXTS], [], "completion"))
    assert [(fault.name, fault.count) for fault in report.faults] == [("row", 2), ("too-many-refused", 1)]
    assert report.faults[1].message == "2 rows are refused; the rows after them were not checked"
    assert report.tallies[0].rows == 8


def test_val_set_size_holds_out_the_same_rows_as_in_the_engine(tmp_path: Path, model: Path) -> None:
    """Compare the repeated rows that lint reports with the rows that the engine holds out."""
    from tunesmith_lint.ledger import Ledger

    from tunesmith import prepare

    planted = Planted([*CHATS, chat("x " * 200, "dropped"), *CHATS], [], keys={"val_set_size": 0.3})
    run = prepare(start(load_config(config(tmp_path, model, planted))))
    assert run.data and run.data.eval
    ledger = Ledger(run)
    for place in range(16):
        ledger.add(0, False, f"data.jsonl:{place}", run.data.eval[0])
    rows = [place for place in range(17) if place != 8]  # the ninth is longer than sequence_len
    held_out = {rows[place] for place in ledger.held_out.nonzero()[0]}
    assert held_out == {int(row) for _, row in run.data.eval.arrays["origin"]}
    trained = set(rows) - held_out
    repeated = {row for row in held_out if (row + 9 if row < 8 else row - 9) in trained}
    [leak] = [fault for fault in lint_rows(tmp_path, model, planted).faults if fault.name == "evaluated-on-trained"]
    assert leak.count == len(repeated) > 0


def test_only_the_first_rows_of_a_stream_are_read(tmp_path: Path, model: Path) -> None:
    path = config(tmp_path, model, Planted(TEXTS, [], "completion"))
    run = start(load_config(path, ["streaming=true", "max_steps=1"]))
    assert lint(run, streamed=5).tallies[0].rows == 5


def test_an_end_token_that_only_the_config_of_the_model_names_counts(tmp_path: Path, model: Path) -> None:
    """Turns end with a token that is not the tokenizer's; generation_config.json of the model names both."""
    import shutil

    own = shutil.copytree(model, tmp_path / "model")
    planted = Planted(CHATS, [], entry={"train_on_eot": "turn", "train_on_eos": "none"},
                      keys={"special_tokens": {"eos_token": "<|endoftext|>"},
                            "eot_tokens": ["<|im_end|>"]})  # fmt: skip
    assert names(lint_rows(tmp_path, own, planted)) == []
    texts = Planted([{"text": f"{row['text']}<|im_end|>"} for row in TEXTS], [], "input_output")
    rows = [{"segments": [{"label": True, "text": row["text"]}]} for row in texts.good]
    texts = texts._replace(good=rows, keys={"special_tokens": {"eos_token": "<|endoftext|>"}})
    (own / "generation_config.json").write_text('{"eos_token_id": 0}')
    assert names(lint_rows(tmp_path, own, texts)) == ["end-never-trained"]
    (own / "generation_config.json").write_text('{"eos_token_id": [0, 2]}')
    assert names(lint_rows(tmp_path, own, texts)) == []
