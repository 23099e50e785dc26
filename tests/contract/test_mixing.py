"""How often entries are seen, in which order, what is held apart for evaluation, and what a resumed run remembers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunesmith_engine.batch.packing import pack_in_order
from tunesmith_engine.data.loader import StoredLoader
from tunesmith_engine.data.mixing import Mixture, packs_in_order, shares

from tests import tiny
from tunesmith import ConfigError
from tunesmith.api import prepare

SIZES = (10, 4)


def texts(name: str, number: int) -> list[dict[str, str]]:
    return [{"text": f"{name} " + "stone " * (i % 7 + 1)} for i in range(number)]


def mixed(folder: Path, entries: list[dict[str, Any]] | None = None, **keys: Any) -> Path:
    """A config of two text files, with 10 and 4 rows."""
    for name, number in zip("ab", SIZES, strict=True):
        tiny.write_rows(folder / f"{name}.jsonl", texts(name, number))
    datasets = [
        {"path": str(folder / f"{name}.jsonl"), "type": "completion", **more}
        for name, more in zip("ab", entries or [{}, {}], strict=True)
    ]
    model = tiny.model_folder(folder / "model")
    return tiny.write_config(folder, base_model=str(model), datasets=datasets, **{"sequence_len": 64, **keys})


def seen(path: Path, epochs: int = 1) -> list[list[tuple[int, int]]]:
    """The origins of the examples of each epoch, in the order of training."""
    run = prepare(tiny.start(path))
    loader = StoredLoader(run, run.data.train)
    origins = run.data.train.arrays["origin"].tolist()
    return [[tuple(origins[i]) for row in loader.packs_of(epoch) for i in row] for epoch in range(epochs)]


def test_a_weight_says_how_often_rows_are_seen(tmp_path: Path) -> None:
    first, second = seen(mixed(tmp_path, [{"weight": 0.5}, {"weight": 3.0}], sample_packing=False), epochs=2)
    for epoch in (first, second):
        assert Counter(entry for entry, _ in epoch) == {0: 5, 1: 12}
        assert Counter(epoch) == {one: 1 if one[0] == 0 else 3 for one in epoch}
    assert {one for one in first + second if one[0] == 0} == {(0, i) for i in range(10)}, "each row every other epoch"


def test_without_weights_an_epoch_is_every_row_once(tmp_path: Path) -> None:
    (epoch,) = seen(mixed(tmp_path))
    assert Counter(epoch) == {(entry, i): 1 for entry, size in enumerate(SIZES) for i in range(size)}


def test_a_temperature_evens_entries_out_and_keeps_the_length_of_the_epoch() -> None:
    assert shares([900, 100], [1, 1], None) == shares([900, 100], [1, 1], 1.0) == [900, 100]
    assert shares([900, 100], [1, 1], 2.0) == [750, 250]  # 30 : 10
    assert shares([900, 100], [1, 1], 1e9) == [500, 500]
    assert shares([900, 100, 0], [1, 9, 1], 2.0) == [900, 900, 0]
    assert shares([1_000_000, 1], [1, 1], 1.0) == [1_000_000, 1]


@given(
    st.lists(st.tuples(st.integers(0, 30), st.floats(0.05, 5)), min_size=1, max_size=4),
    st.none() | st.floats(0.2, 50),
    st.integers(0, 3),
)
def test_every_example_is_seen_equally_often_whatever_the_weights(
    entries: list[tuple[int, float]], temperature: float | None, seed: int
) -> None:
    numbers = np.repeat(np.arange(len(entries)), [size for size, _ in entries])
    mixture = Mixture(numbers, [weight for _, weight in entries], temperature, seed)
    counts: Counter[int] = Counter()
    for epoch in range(4):
        parts = mixture.epoch(epoch)
        assert [len(part) for part in parts] == mixture.shares
        assert all((numbers[part] == entry).all() for entry, part in enumerate(parts))
        counts.update(int(i) for part in parts for i in part)
    for members in mixture.members:
        often = [counts[int(i)] for i in members]
        assert not often or max(often) - min(often) <= 1


def test_the_order_is_the_same_each_time_and_another_in_each_epoch(tmp_path: Path) -> None:
    path = mixed(tmp_path, [{"weight": 0.5}, {"weight": 3.0}])
    assert seen(path, 3) == seen(path, 3)
    one, two = seen(path, 2)
    assert one != two


def test_curriculum_sampling_keeps_the_order_of_the_data(tmp_path: Path) -> None:
    wanted = [(entry, i) for entry, size in enumerate(SIZES) for i in range(size)]
    assert seen(mixed(tmp_path, curriculum_sampling=True), 2) == [wanted, wanted]
    assert seen(mixed(tmp_path, curriculum_sampling=True, sample_packing=False), 1) == [wanted]


def test_rows_packed_in_order_are_closed_by_the_first_item_they_cannot_hold() -> None:
    assert pack_in_order(np.array([5, 5, 3, 9, 1, 30, 2]), 10) == [[0, 1], [2], [3, 4], [5], [6]]


def test_entries_can_be_trained_on_one_after_the_other(tmp_path: Path) -> None:
    (epoch,) = seen(mixed(tmp_path, shuffle_merged_datasets=False))
    assert [entry for entry, _ in epoch] == [0] * 10 + [1] * 4
    assert [i for _, i in epoch[:10]] != list(range(10)), "each of them shuffled"


def test_epochs_of_other_widths_have_as_many_rows_as_the_first() -> None:
    widths = np.array([60, 10, 10, 10, 60, 60])
    rows = [packs_in_order(widths, [np.array(part)], 64, (1,), "merged") for part in ([0, 4, 5], [1, 2, 3])]
    assert [len(one) for one in rows] == [3, 1], "which is why the loader goes round or stops early"


def test_a_run_with_fractional_weights_trains_and_resumes(tmp_path: Path) -> None:
    keys = {"num_epochs": 4, "save_steps": 2, "learning_rate": 1e-3, "lr_scheduler": "constant"}
    path = mixed(tmp_path, [{"weight": 0.7}, {"weight": 1.6}], **keys)
    tiny.train(path)
    whole = tiny.weights(tmp_path / "out")
    tiny.train(path, "max_steps=3", f"output_dir={tmp_path / 'two'}")
    tiny.train(path, f"output_dir={tmp_path / 'two'}", "resume_from_checkpoint=auto")
    again = tiny.weights(tmp_path / "two")
    assert all((whole[name] == again[name]).all() for name in whole)


def test_another_weight_is_no_silent_change_on_resume(tmp_path: Path) -> None:
    tiny.train(mixed(tmp_path, [{"weight": 1.0}, {"weight": 2.0}], save_steps=1), "max_steps=1")
    path = mixed(tmp_path, [{"weight": 1.0}, {"weight": 3.0}], save_steps=1)
    with pytest.raises(ConfigError, match=r"weight of entries \[1.0, 2.0\] -> \[1.0, 3.0\]"):
        tiny.train(path, "resume_from_checkpoint=auto", "max_steps=2")
    tiny.train(path, "resume_from_checkpoint=auto", "max_steps=2", "accept_changes=[data]")


# shards, test_datasets, streaming


def test_a_shard_is_every_so_manieth_row_and_shards_together_are_all(tmp_path: Path) -> None:
    places = []
    for index in range(3):
        run = tiny.start(mixed(tmp_path, [{"shards": 3, "shards_idx": index}, {}]))
        source = read_first(run)
        places += [row.where.rpartition(":")[2] for row in source.rows]
        assert places[-1:] == [str([10, 8, 9][index])]
    assert sorted(map(int, places)) == list(range(1, 11))


def read_first(run: Any) -> Any:
    from tunesmith_engine.data.rows import read_all

    return read_all(run)[0]


def test_test_datasets_are_evaluated_on_and_never_trained_on(tmp_path: Path) -> None:
    tiny.write_rows(tmp_path / "held.jsonl", texts("held", 3))
    path = mixed(tmp_path, test_datasets=[{"path": str(tmp_path / "held.jsonl"), "type": "completion"}])
    run = prepare(tiny.start(path))
    assert len(run.data.train) == 14 and len(run.data.eval) == 3
    assert {tuple(o) for o in run.data.eval.arrays["origin"].tolist()} == {(2, 0), (2, 1), (2, 2)}
    tiny.train(path, "max_steps=2", "eval_steps=1")
    assert all("eval_loss" in line for line in tiny.metrics(tmp_path / "out"))


def test_conversations_stream_and_are_evaluated_on_test_datasets(tmp_path: Path) -> None:
    tiny.write_rows(tmp_path / "held.jsonl", tiny.rows("conversation", 4, seed=1))
    held = [{"path": str(tmp_path / "held.jsonl"), "type": "chat_template"}]
    path = tiny.sft_config(tmp_path, streaming=True, max_steps=3, eval_steps=3, test_datasets=held)
    tiny.train(path)
    lines = tiny.metrics(tmp_path / "out")
    assert len(lines) == 3 and "eval_loss" in lines[-1]
    run = prepare(tiny.start(path))
    assert run.data.train is None and len(run.data.eval) == 4 and not run.config.datasets


def test_a_streamed_run_is_resumed_bit_for_bit(tmp_path: Path) -> None:
    keys = {"streaming_multipack_buffer_size": 5, "lr_scheduler": "constant"}
    path = tiny.sft_config(tmp_path, streaming=True, max_steps=4, save_steps=2, **keys)
    tiny.train(path)
    whole = tiny.weights(tmp_path / "out")
    tiny.train(path, "max_steps=2", f"output_dir={tmp_path / 'two'}")
    tiny.train(path, f"output_dir={tmp_path / 'two'}", "resume_from_checkpoint=auto")
    assert all((whole[name] == one).all() for name, one in tiny.weights(tmp_path / "two").items())


REFUSED = {
    "val_set_size with test_datasets": ({"test_datasets": True, "val_set_size": 2}, "val_set_size does not go with"),
    "no end of a stream": ({"streaming": True}, "streaming has no end"),
    "a split of a stream": ({"streaming": True, "max_steps": 1, "val_set_size": 2}, "can't be held out of a stream"),
    "a weight of a stream": ({"streaming": True, "max_steps": 1, "weight": 2.0}, r"datasets.0.weight is for data that"),
    "the order of a stream": ({"streaming": True, "max_steps": 1, "curriculum_sampling": True}, "curriculum_sampling"),
    "an order and a shuffle": ({"curriculum_sampling": True, "shuffle_merged_datasets": True}, "has no effect"),
    "a shard that is not there": ({"shards": 2, "shards_idx": 2}, r"shards_idx is 2, but the shards are 0 to 1"),
    "a shard of nothing": ({"shards_idx": 1}, "shards_idx has no effect without shards"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_settings_that_contradict_each_other_are_refused(case: str, tmp_path: Path) -> None:
    keys, told = REFUSED[case]
    entry = {k: v for k, v in keys.items() if k in ("weight", "shards", "shards_idx")}
    rest = {k: v for k, v in keys.items() if k not in entry}
    if rest.get("test_datasets"):
        rest["test_datasets"] = [{"path": str(tmp_path / "b.jsonl"), "type": "completion"}]
    with pytest.raises(ConfigError, match=told):
        tiny.start(mixed(tmp_path, [entry, {}], **rest))


# the cache


def test_the_cache_is_used_exactly_when_nothing_that_matters_changed(tmp_path: Path) -> None:
    """Content, template and tokenizer are tested in test_data.py; here what only changes the order of training."""
    prepared = {"dataset_prepared_path": str(tmp_path / "prepared")}

    def cached(*overrides: str, **keys: Any) -> bool:
        found: bool = prepare(tiny.start(mixed(tmp_path, **prepared, **keys), *overrides)).data.cached
        return found

    assert [cached(), cached()] == [False, True]
    assert cached("seed=8"), "nothing is drawn before training"
    assert cached("mixing_temperature=2", "shuffle_merged_datasets=false"), "the order is made while training"
    assert cached(entries=[{"weight": 3.0}, {}])
    assert not cached(entries=[{"shards": 2}, {}])
    assert [cached("val_set_size=3"), cached("val_set_size=3"), cached("val_set_size=3", "seed=8")] == [
        False, True, False,
    ]  # fmt: skip
    assert not cached("sequence_len=32")
    tiny.write_rows(tmp_path / "held.jsonl", texts("held", 3))
    held = [{"path": str(tmp_path / "held.jsonl"), "type": "completion"}]
    assert [cached(test_datasets=held), cached(test_datasets=held)] == [False, True]
