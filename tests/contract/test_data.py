"""Data: packing, length policy, counts, split, cache, order, streaming."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tunesmith_engine.batch.packing import efficiency, pack
from tunesmith_engine.data.loader import StoredLoader, StreamLoader
from tunesmith_engine.data.prepare import fit

from tests import tiny
from tunesmith import ConfigError, DataError, Example
from tunesmith.api import prepare


def log_normal(number: int) -> Any:
    lengths = np.random.default_rng(0).lognormal(5.5, 0.8, number)
    return np.clip(lengths, 8, 2048).astype(np.int64)


def test_packing_loses_nothing_overfills_nothing_and_is_the_same_each_time() -> None:
    widths = log_normal(20_000)
    rows = pack(widths, 2048, (1, 2))
    assert sorted(i for row in rows for i in row) == list(range(len(widths)))
    assert max(int(widths[row].sum()) for row in rows) <= 2048
    assert rows == pack(widths, 2048, (1, 2)) != pack(widths, 2048, (1, 3))
    assert len(rows) == len(pack(widths, 2048, (9, 9)))
    assert efficiency(widths, rows, 2048) > 0.99


def test_an_item_wider_than_a_row_gets_one_of_its_own() -> None:
    assert sorted(map(sorted, pack(np.array([5, 30, 3]), 10, (0,)))) == [[0, 2], [1]]


def test_a_million_lengths_pack_in_seconds() -> None:
    started = time.process_time()
    pack(log_normal(1_000_000), 2048, (0,))
    assert time.process_time() - started < 10  # 2 to 3 s on an idle core; bench/ has the figure


def test_the_test_data_packs_to_99_percent(test_data: Path, tmp_path: Path) -> None:
    tiny.model_folder(tmp_path / "model")
    path = tiny.write_config(
        tmp_path, base_model=str(tmp_path / "model"), tokenizer_config=str(test_data / "tokenizer-gpt2-chatml"),
        datasets=[{"path": str(test_data / "gsm8k/messages.jsonl"), "type": "chat_template"}], sequence_len=2048,
    )  # fmt: skip
    run = prepare(tiny.start(path))
    assert StoredLoader(run, run.data.train).efficiency() >= 0.99


def test_length_policies_do_what_they_say() -> None:
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
    """Kept, too long or untrained; the summary says how many, and where the first are."""
    records = tiny.rows("conversation", 10)
    records[3]["messages"] = [{"role": "user", "content": "alone"}]
    records[5]["messages"][-1]["content"] = "long " * 400
    tiny.write_rows(tmp_path / "data.jsonl", records)
    run = prepare(tiny.start(tiny.sft_config(tmp_path)))
    (counts,) = run.data.counts.values()
    assert (counts.rows, counts.kept, counts.too_long, counts.untrained) == (10, 8, 1, 1)
    said = " ".join(map(str, run.notes.values()))
    assert "data.jsonl:4" in said and "data.jsonl:6" in said


def test_nothing_trained_is_an_error(tmp_path: Path) -> None:
    tiny.write_rows(tmp_path / "data.jsonl", [{"messages": [{"role": "user", "content": "alone"}]}] * 3)
    with pytest.raises(DataError, match="of 3 rows 3 have no trained token"):
        prepare(tiny.start(tiny.sft_config(tmp_path)))
    tiny.write_rows(tmp_path / "data.jsonl", [])
    with pytest.raises(DataError, match="has no rows"):
        prepare(tiny.start(tiny.sft_config(tmp_path)))


def test_the_held_out_split_is_shuffled_disjoint_and_of_the_size_asked_for(tmp_path: Path) -> None:
    def split(size: float, seed: int = 1) -> tuple[list[Any], list[Any]]:
        run = prepare(tiny.start(tiny.sft_config(tmp_path, number=40, val_set_size=size, seed=seed)))
        return [e.path_tokens(1) for e in run.data.train], [e.path_tokens(1) for e in run.data.eval]

    train, held = split(0.25)
    assert len(held) == 10 and len(train) == 30
    everything = prepare(tiny.start(tiny.sft_config(tmp_path, number=40)))
    assert sorted(train + held) == sorted(e.path_tokens(1) for e in everything.data.train)
    assert split(10)[1] == held != split(10, seed=2)[1]
    assert held != [e.path_tokens(1) for e in everything.data.train][-10:]


def test_the_cache_is_used_exactly_when_nothing_that_matters_changed(tmp_path: Path) -> None:
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


def test_a_cached_run_trains_as_an_uncached_one(tmp_path: Path) -> None:
    path = tiny.sft_config(tmp_path, dataset_prepared_path=str(tmp_path / "cache"))
    for name in ("made", "read"):
        tiny.train(path, f"output_dir={tmp_path / name}")
    losses = [[line["loss"] for line in tiny.metrics(tmp_path / name)] for name in ("made", "read")]
    assert losses[0] == losses[1]


def test_sources_are_read_alike(tmp_path: Path) -> None:
    """JSON Lines, a JSON array, parquet, and a folder of files give the same rows."""
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
    found = []
    for name in ("lines.jsonl", "array.json", "rows.parquet", "folder"):
        data = [{"path": str(tmp_path / name), "type": "completion"}]
        run = prepare(tiny.start(tiny.write_config(tmp_path, base_model=str(tmp_path / "model"), datasets=data)))
        found.append([e.path_tokens(1) for e in run.data.train])
    assert len(found[0]) == 6 and all(one == found[0] for one in found)


def stream_config(folder: Path, number: int = 60, **keys: Any) -> Path:
    tiny.model_folder(folder / "model")
    text = tiny.write_rows(folder / "text.jsonl", tiny.rows("text", number))
    defaults = {"max_steps": 3, "streaming_multipack_buffer_size": 8, "sequence_len": 64}
    data = [{"path": str(text), "type": "pretrain"}]
    return tiny.write_config(folder, base_model=str(folder / "model"), pretraining_dataset=data, **(defaults | keys))


def test_a_stream_reads_no_further_than_it_needs(tmp_path: Path) -> None:
    """A broken row far down is not met; and the one that is names file, line and column."""
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


def test_a_stream_goes_on_where_it_stopped_and_starts_again_at_its_end(tmp_path: Path) -> None:
    """Rows of 40 rounds, from the beginning and from each place in turn."""
    run = prepare(tiny.start(stream_config(tmp_path)))

    def tokens(rows: Any) -> list[Any]:
        return [[e.path_tokens(1) for e in row] for row in rows]

    loader, rounds, places = StreamLoader(run), [], []
    for _ in range(40):
        places.append(loader.state_dict())
        rounds.append(tokens(loader.next_packs()))
    assert places[-1]["place"][0] >= 1
    for index in (1, 7, 23, 39):
        again = StreamLoader(run)
        again.load_state_dict(json.loads(json.dumps(places[index])))
        assert [tokens(again.next_packs()) for _ in range(min(3, 40 - index))] == rounds[index : index + 3]


def test_a_stream_without_an_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_steps"):
        tiny.start(stream_config(tmp_path, max_steps=None))
