"""Entries are mixed by weight and order, shards and test_datasets are separate, and resumed runs continue exactly."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunesmith_engine.batch.packing import pack_in_order
from tunesmith_engine.data.mixing import Mixture, packs_in_order, shares
from tunesmith_engine.rounds.stored import StoredRounds

from tests import tiny
from tunesmith import ConfigError
from tunesmith.api import prepare

SIZES = (10, 4)


def texts(name: str, number: int) -> list[dict[str, str]]:
    return [{"text": f"{name} " + "stone " * (i % 7 + 1)} for i in range(number)]


def mixed(folder: Path, entries: list[dict[str, Any]] | None = None, **keys: Any) -> Path:
    """Write a config of two text files with 10 and 4 rows; `entries` add keys to their dataset entries."""
    for name, number in zip("ab", SIZES, strict=True):
        tiny.write_rows(folder / f"{name}.jsonl", texts(name, number))
    datasets = [
        {"path": str(folder / f"{name}.jsonl"), "type": "completion", **more}
        for name, more in zip("ab", entries or [{}, {}], strict=True)
    ]
    model = tiny.model_folder(folder / "model")
    return tiny.write_config(folder, base_model=str(model), datasets=datasets, **{"sequence_len": 64, **keys})


def origins(path: Path, epochs: int = 1) -> list[list[tuple[int, int]]]:
    """Return the origins (entry, row) of the examples of each epoch, in training order."""
    run = prepare(tiny.start(path))
    loader = StoredRounds(run, run.data.train)
    all_origins = run.data.train.arrays["origin"].tolist()
    return [[tuple(all_origins[i]) for pack in loader.packs_of(epoch) for i in pack] for epoch in range(epochs)]


def test_weight_sets_how_often_rows_are_used(tmp_path: Path) -> None:
    first, second = origins(mixed(tmp_path, [{"weight": 0.5}, {"weight": 3.0}], sample_packing=False), epochs=2)
    for epoch in (first, second):
        assert Counter(entry for entry, _ in epoch) == {0: 5, 1: 12}
        assert Counter(epoch) == {origin: 1 if origin[0] == 0 else 3 for origin in epoch}
    first_entry = {origin for origin in first + second if origin[0] == 0}
    assert first_entry == {(0, i) for i in range(10)}, "each row is in every other epoch"


def test_epoch_without_weights_has_every_row_once(tmp_path: Path) -> None:
    (epoch,) = origins(mixed(tmp_path))
    assert Counter(epoch) == {(entry, i): 1 for entry, size in enumerate(SIZES) for i in range(size)}


def test_temperature_balances_entries_and_keeps_the_epoch_length() -> None:
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
def test_examples_of_an_entry_are_used_equally_often(
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
        uses = [counts[int(i)] for i in members]
        assert not uses or max(uses) - min(uses) <= 1


def test_order_is_deterministic_and_differs_between_epochs(tmp_path: Path) -> None:
    path = mixed(tmp_path, [{"weight": 0.5}, {"weight": 3.0}])
    assert origins(path, 3) == origins(path, 3)
    first, second = origins(path, 2)
    assert first != second


def test_curriculum_sampling_keeps_the_order_of_the_data(tmp_path: Path) -> None:
    expected = [(entry, i) for entry, size in enumerate(SIZES) for i in range(size)]
    assert origins(mixed(tmp_path, curriculum_sampling=True), 2) == [expected, expected]
    assert origins(mixed(tmp_path, curriculum_sampling=True, sample_packing=False), 1) == [expected]


def test_pack_in_order_closes_a_pack_at_the_first_item_that_does_not_fit() -> None:
    assert pack_in_order(np.array([5, 5, 3, 9, 1, 30, 2]), 10) == [[0, 1], [2], [3, 4], [5], [6]]


def test_unmerged_entries_are_trained_one_after_the_other(tmp_path: Path) -> None:
    (epoch,) = origins(mixed(tmp_path, shuffle_merged_datasets=False))
    assert [entry for entry, _ in epoch] == [0] * 10 + [1] * 4
    assert [i for _, i in epoch[:10]] != list(range(10)), "each entry is shuffled"


def test_epochs_of_other_widths_may_have_fewer_packs() -> None:
    widths = np.array([60, 10, 10, 10, 60, 60])
    epochs = [packs_in_order(widths, [np.array(part)], 64, (1,), "merged") for part in ([0, 4, 5], [1, 2, 3])]
    assert [len(packs) for packs in epochs] == [3, 1], "so the loader repeats packs or stops early"


def test_resume_with_fractional_weights_equals_uninterrupted(tmp_path: Path) -> None:
    keys = {"num_epochs": 4, "save_steps": 2, "learning_rate": 1e-3, "lr_scheduler": "constant"}
    path = mixed(tmp_path, [{"weight": 0.7}, {"weight": 1.6}], **keys)
    tiny.train(path)
    uninterrupted = tiny.weights(tmp_path / "out")
    tiny.train(path, "max_steps=3", f"output_dir={tmp_path / 'two'}")
    tiny.train(path, f"output_dir={tmp_path / 'two'}", "resume_from_checkpoint=auto")
    resumed = tiny.weights(tmp_path / "two")
    assert all((uninterrupted[name] == resumed[name]).all() for name in uninterrupted)


def test_changed_weight_on_resume_is_an_error(tmp_path: Path) -> None:
    tiny.train(mixed(tmp_path, [{"weight": 1.0}, {"weight": 2.0}], save_steps=1), "max_steps=1")
    path = mixed(tmp_path, [{"weight": 1.0}, {"weight": 3.0}], save_steps=1)
    with pytest.raises(ConfigError, match=r"weight of entries \[1.0, 2.0\] -> \[1.0, 3.0\]"):
        tiny.train(path, "resume_from_checkpoint=auto", "max_steps=2")
    tiny.train(path, "resume_from_checkpoint=auto", "max_steps=2", "accept_changes=[data]")


# shards, test_datasets, streaming


def test_shards_are_interleaved_disjoint_and_complete(tmp_path: Path) -> None:
    places = []
    for index in range(3):
        run = tiny.start(mixed(tmp_path, [{"shards": 3, "shards_idx": index}, {}]))
        source = read_first(run)
        places += [row.where.rpartition(":")[2] for row in source.rows]
        assert places[-1:] == [str([10, 8, 9][index])]
    assert sorted(map(int, places)) == list(range(1, 11))


def read_first(run: Any) -> Any:
    """Read the first source of a run."""
    from tunesmith_engine.data.rows import read_all

    return read_all(run)[0]


def test_test_datasets_are_evaluated_but_not_trained(tmp_path: Path) -> None:
    tiny.write_rows(tmp_path / "held.jsonl", texts("held", 3))
    path = mixed(tmp_path, test_datasets=[{"path": str(tmp_path / "held.jsonl"), "type": "completion"}])
    run = prepare(tiny.start(path))
    assert len(run.data.train) == 14 and len(run.data.eval) == 3
    assert {tuple(o) for o in run.data.eval.arrays["origin"].tolist()} == {(2, 0), (2, 1), (2, 2)}
    tiny.train(path, "max_steps=2", "eval_steps=1")
    assert all("eval_loss" in line for line in tiny.metrics(tmp_path / "out"))


def test_conversations_stream_and_are_evaluated_on_test_datasets(tmp_path: Path) -> None:
    tiny.write_rows(tmp_path / "held.jsonl", tiny.rows("conversation", 4, seed=1))
    held_out = [{"path": str(tmp_path / "held.jsonl"), "type": "chat_template"}]
    path = tiny.sft_config(tmp_path, streaming=True, max_steps=3, eval_steps=3, test_datasets=held_out)
    tiny.train(path)
    lines = tiny.metrics(tmp_path / "out")
    assert len(lines) == 3 and "eval_loss" in lines[-1]
    run = prepare(tiny.start(path))
    assert run.data.train is None and len(run.data.eval) == 4 and not run.config.datasets


def test_resumed_stream_equals_uninterrupted(tmp_path: Path) -> None:
    keys = {"streaming_multipack_buffer_size": 5, "lr_scheduler": "constant"}
    path = tiny.sft_config(tmp_path, streaming=True, max_steps=4, save_steps=2, **keys)
    tiny.train(path)
    uninterrupted = tiny.weights(tmp_path / "out")
    tiny.train(path, "max_steps=2", f"output_dir={tmp_path / 'two'}")
    tiny.train(path, f"output_dir={tmp_path / 'two'}", "resume_from_checkpoint=auto")
    assert all((uninterrupted[name] == weight).all() for name, weight in tiny.weights(tmp_path / "two").items())


REFUSED = {
    "val_set_size with test_datasets": ({"test_datasets": True, "val_set_size": 2}, "val_set_size does not go with"),
    "stream without max_steps": ({"streaming": True}, "streaming has no end"),
    "held-out split of a stream": (
        {"streaming": True, "max_steps": 1, "val_set_size": 2},
        "can't be held out of a stream",
    ),
    "weight of a stream": ({"streaming": True, "max_steps": 1, "weight": 2.0}, r"datasets.0.weight is for data that"),
    "temperature of a stream": ({"streaming": True, "max_steps": 1, "mixing_temperature": 2.0}, "mixing_temperature"),
    "curriculum and shuffle": ({"curriculum_sampling": True, "shuffle_merged_datasets": True}, "has no effect"),
    "shard index out of range": ({"shards": 2, "shards_idx": 2}, r"shards_idx is 2, but the shards are 0 to 1"),
    "shard index without shards": ({"shards_idx": 1}, "shards_idx has no effect without shards"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_conflicting_settings_are_an_error(case: str, tmp_path: Path) -> None:
    keys, message = REFUSED[case]
    entry = {k: v for k, v in keys.items() if k in ("weight", "shards", "shards_idx")}
    rest = {k: v for k, v in keys.items() if k not in entry}
    if rest.get("test_datasets"):
        rest["test_datasets"] = [{"path": str(tmp_path / "b.jsonl"), "type": "completion"}]
    with pytest.raises(ConfigError, match=message):
        tiny.start(mixed(tmp_path, [entry, {}], **rest))


# the cache


def test_cache_ignores_settings_of_the_training_order(tmp_path: Path) -> None:
    """This test covers settings of the order. test_data.py covers content, template and tokenizer."""
    prepared = {"dataset_prepared_path": str(tmp_path / "prepared")}

    def cached(*overrides: str, **keys: Any) -> bool:
        is_cached: bool = prepare(tiny.start(mixed(tmp_path, **prepared, **keys), *overrides)).data.cached
        return is_cached

    assert [cached(), cached()] == [False, True]
    assert cached("seed=8"), "the seed is first used in training"
    assert cached("mixing_temperature=2", "shuffle_merged_datasets=false"), "the order is drawn during training"
    assert cached(entries=[{"weight": 3.0}, {}])
    assert not cached(entries=[{"shards": 2}, {}])
    assert [cached("val_set_size=3"), cached("val_set_size=3"), cached("val_set_size=3", "seed=8")] == [
        False, True, False,
    ]  # fmt: skip
    assert not cached("sequence_len=32")
    tiny.write_rows(tmp_path / "held.jsonl", texts("held", 3))
    held_out = [{"path": str(tmp_path / "held.jsonl"), "type": "completion"}]
    assert [cached(test_datasets=held_out), cached(test_datasets=held_out)] == [False, True]
