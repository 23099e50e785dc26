"""Data is packed without loss, counted, split, cached and streamed as the config says."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tunesmith_engine.batch.packing import efficiency, pack
from tunesmith_engine.data.lengths import fit
from tunesmith_engine.rounds.stored import StoredRounds
from tunesmith_engine.rounds.streamed import StreamedRounds

from tests import tiny
from tunesmith import ConfigError, DataError, Example
from tunesmith.api import prepare


def log_normal(number: int) -> Any:
    """Return log-normal lengths of 8 to 2048 tokens."""
    lengths = np.random.default_rng(0).lognormal(5.5, 0.8, number)
    return np.clip(lengths, 8, 2048).astype(np.int64)


def test_packing_loses_nothing_fits_sequence_len_and_is_deterministic() -> None:
    widths = log_normal(20_000)
    packs = pack(widths, 2048, (1, 2))
    assert sorted(i for members in packs for i in members) == list(range(len(widths)))
    assert max(int(widths[members].sum()) for members in packs) <= 2048
    assert packs == pack(widths, 2048, (1, 2)) != pack(widths, 2048, (1, 3))
    assert len(packs) == len(pack(widths, 2048, (9, 9)))
    assert efficiency(widths, packs, 2048) > 0.99


def test_item_wider_than_a_pack_gets_its_own_pack() -> None:
    assert sorted(map(sorted, pack(np.array([5, 30, 3]), 10, (0,)))) == [[0, 2], [1]]


def test_a_million_lengths_pack_in_seconds() -> None:
    started = time.process_time()
    pack(log_normal(1_000_000), 2048, (0,))
    assert time.process_time() - started < 10  # 2 to 3 s on an idle core, as measured in bench/


def test_test_data_packs_to_99_percent(test_data: Path, tmp_path: Path) -> None:
    tiny.model_folder(tmp_path / "model")
    path = tiny.write_config(
        tmp_path, base_model=str(tmp_path / "model"), tokenizer_config=str(test_data / "tokenizer-gpt2-chatml"),
        datasets=[{"path": str(test_data / "gsm8k/messages.jsonl"), "type": "chat_template"}], sequence_len=2048,
    )  # fmt: skip
    run = prepare(tiny.start(path))
    assert StoredRounds(run, run.data.train).efficiency() >= 0.99


def test_length_strategies_drop_split_truncate_or_raise() -> None:
    text, pair = Example.text(list(range(10))), Example.branches(list(range(6)), [[7, 8, 9], [7]])
    assert fit(text, 10, "raise", "x") == ([text], None)
    assert fit(text, 4, "drop", "x") == ([], "too_long")
    with pytest.raises(DataError, match=r"x:.*10 tokens are more than sequence_len 4"):
        fit(text, 4, "raise", "x")
    pieces, outcome = fit(text, 4, "split", "x")
    assert outcome == "split" and [p.segments[1].tokens.tolist() for p in pieces] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9],
    ]
    with pytest.raises(DataError, match="can't be split"):
        fit(pair, 8, "split", "x")
    (cut,), outcome = fit(pair, 8, "truncate", "x")
    assert outcome == "truncated" and [s.tokens.tolist() for s in cut.segments[1:]] == [[7, 8], [7]]


def test_every_row_is_accounted_for(tmp_path: Path) -> None:
    """A row is kept, too long or untrained. The summary has the counts and the places of the first rows."""
    records = tiny.rows("conversation", 10)
    records[3]["messages"] = [{"role": "user", "content": "alone"}]
    records[5]["messages"][-1]["content"] = "long " * 400
    tiny.write_rows(tmp_path / "data.jsonl", records)
    run = prepare(tiny.start(tiny.sft_config(tmp_path)))
    (counts,) = run.data.counts.values()
    assert (counts.rows, counts.kept, counts.too_long, counts.untrained) == (10, 8, 1, 1)
    notes = " ".join(map(str, run.notes.values()))
    assert "data.jsonl:4" in notes and "data.jsonl:6" in notes


def test_data_without_trained_tokens_is_an_error(tmp_path: Path) -> None:
    tiny.write_rows(tmp_path / "data.jsonl", [{"messages": [{"role": "user", "content": "alone"}]}] * 3)
    with pytest.raises(DataError, match="of 3 rows 3 have no trained token"):
        prepare(tiny.start(tiny.sft_config(tmp_path)))
    tiny.write_rows(tmp_path / "data.jsonl", [])
    with pytest.raises(DataError, match="has no rows"):
        prepare(tiny.start(tiny.sft_config(tmp_path)))


COLUMNS = """
from tunesmith import Example, Plugin, hookimpl

plugin = Plugin(strategies={"text": ("scored",)})


@hookimpl
def build_dataset(run, rows):
    for row in rows:
        example = Example.text([1, 2, 3])
        example.columns |= {name: row[name] for name in ("margin",) if name in row}
        yield example
"""


@pytest.mark.parametrize("processes", [1, 2])
def test_row_with_other_columns_is_an_error_at_its_line(processes: int, tmp_path: Path) -> None:
    (tmp_path / "scored.py").write_text(COLUMNS)
    for name, margins in (("a", [1.0, 2.0, None, 3.0]), ("b", [1.0, None]), ("c", [None, 1.0])):
        tiny.write_rows(tmp_path / f"{name}.jsonl", [{} if m is None else {"margin": m} for m in margins])

    def error(*names: str) -> str:
        data = [{"path": str(tmp_path / f"{name}.jsonl"), "type": "scored"} for name in names]
        path = tiny.write_config(
            tmp_path, base_model=str(tiny.model_folder(tmp_path / "model")), plugins=["./scored.py"],
            datasets=data, dataset_num_proc=processes,
        )  # fmt: skip
        with pytest.raises(DataError) as caught:
            prepare(tiny.start(path))
        (problem,) = caught.value.problems
        assert problem.code == "row" and problem.where
        return f"{Path(problem.where).name}: {problem.message}"

    assert error("a") == "a.jsonl:3: this row has no column 'margin', but an earlier row has one"
    assert error("c") == "c.jsonl:2: this row has a column 'margin', but an earlier row has none"
    (tmp_path / "a.jsonl").write_text('{"margin": 1.0}\n')
    assert error("a", "b") == "b.jsonl:2: this row has no column 'margin', but an earlier entry has one"


def test_held_out_split_is_shuffled_disjoint_and_of_the_requested_size(tmp_path: Path) -> None:
    def split(size: float, seed: int = 1) -> tuple[list[Any], list[Any]]:
        run = prepare(tiny.start(tiny.sft_config(tmp_path, number=40, val_set_size=size, seed=seed)))
        return [e.path_tokens(1) for e in run.data.train], [e.path_tokens(1) for e in run.data.eval]

    train, held_out = split(0.25)
    assert len(held_out) == 10 and len(train) == 30
    everything = prepare(tiny.start(tiny.sft_config(tmp_path, number=40)))
    assert sorted(train + held_out) == sorted(e.path_tokens(1) for e in everything.data.train)
    assert split(10)[1] == held_out != split(10, seed=2)[1]
    assert held_out != [e.path_tokens(1) for e in everything.data.train][-10:]


def test_cache_is_used_only_if_no_relevant_setting_changed(tmp_path: Path) -> None:
    path = tiny.sft_config(tmp_path, dataset_prepared_path=str(tmp_path / "cache"), val_set_size=4)

    def cached(*overrides: str) -> bool:
        return bool(prepare(tiny.start(path, *overrides)).data.cached)

    assert not cached()
    assert cached() and cached("learning_rate=0.5", "micro_batch_size=1", "num_epochs=3")
    for change in (
        "sequence_len=64",
        "seed=8",
        "val_set_size=5",
        "datasets.0.train_on_eos=none",
        "excess_length_strategy=raise",
    ):
        assert not cached(change) and cached(change), change
    records = tiny.rows("conversation", 24)
    records[0]["messages"][1]["content"] += "!"
    tiny.write_rows(tmp_path / "data.jsonl", records)
    assert not cached() and cached()
    settings = tmp_path / "model-llama/chat_template.jinja"
    settings.write_text(settings.read_text().replace("<|im_start|>", "<|im_start|> "))
    assert not cached() and cached()


def test_cached_run_equals_uncached_run(tmp_path: Path) -> None:
    path = tiny.sft_config(tmp_path, dataset_prepared_path=str(tmp_path / "cache"))
    for name in ("uncached", "cached"):
        tiny.train(path, f"output_dir={tmp_path / name}")
    losses = [[line["loss"] for line in tiny.metrics(tmp_path / name)] for name in ("uncached", "cached")]
    assert losses[0] == losses[1]


def test_file_formats_give_the_same_rows(tmp_path: Path) -> None:
    """The formats are JSON Lines, a JSON array, parquet, and a folder of files."""
    import pyarrow
    import pyarrow.parquet

    records = tiny.rows("text", 6)
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "array.json").write_text(json.dumps(records, indent=2))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), tmp_path / "rows.parquet")
    for part, name in ((records[:3], "a.jsonl"), (records[3:], "b.jsonl")):
        tiny.write_rows(folder / name, part)
    tiny.write_rows(tmp_path / "lines.jsonl", records)
    tiny.model_folder(tmp_path / "model")
    tokens = []
    for name in ("lines.jsonl", "array.json", "rows.parquet", "folder"):
        data = [{"path": str(tmp_path / name), "type": "completion"}]
        run = prepare(tiny.start(tiny.write_config(tmp_path, base_model=str(tmp_path / "model"), datasets=data)))
        tokens.append([e.path_tokens(1) for e in run.data.train])
    assert len(tokens[0]) == 6 and all(rows == tokens[0] for rows in tokens)


def stream_config(folder: Path, number: int = 60, **keys: Any) -> Path:
    tiny.model_folder(folder / "model")
    text = tiny.write_rows(folder / "text.jsonl", tiny.rows("text", number))
    defaults = {"max_steps": 3, "streaming_multipack_buffer_size": 8, "sequence_len": 64}
    data = [{"path": str(text), "type": "pretrain"}]
    return tiny.write_config(folder, base_model=str(folder / "model"), pretraining_dataset=data, **(defaults | keys))


def test_stream_reads_only_the_rows_it_needs(tmp_path: Path) -> None:
    """A broken row far down is not read. A broken row that is read is reported with file, line and column."""
    path = stream_config(tmp_path, number=3000)
    text = tmp_path / "text.jsonl"
    lines = text.read_text().splitlines()
    lines[2000] = '{"text": "broken'
    text.write_text("\n".join(lines) + "\n")
    assert tiny.train(path).steps == 3
    lines[4] = '{"text": "broken'
    text.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"text\.jsonl:5:\d+: error\[broken-json\]"):
        tiny.train(path, f"output_dir={tmp_path / 'again'}")


def test_stream_resumes_at_its_place_and_restarts_at_its_end(tmp_path: Path) -> None:
    """The test compares the packs of 40 rounds with those of loaders that resume from four of the places."""
    run = prepare(tiny.start(stream_config(tmp_path)))

    def tokens(packs: Any) -> list[Any]:
        return [[e.path_tokens(1) for e in examples] for examples in packs]

    loader, rounds, places = StreamedRounds(run), [], []
    for _ in range(40):
        places.append(loader.state_dict())
        rounds.append(tokens(loader.next().next_packs()))
    assert places[-1]["place"][0] >= 1
    for index in (1, 7, 23, 39):
        resumed = StreamedRounds(run)
        resumed.load_state_dict(json.loads(json.dumps(places[index])))
        assert [tokens(resumed.next().next_packs()) for _ in range(min(3, 40 - index))] == rounds[index : index + 3]


def test_stream_without_max_steps_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_steps"):
        tiny.start(stream_config(tmp_path, max_steps=None))
