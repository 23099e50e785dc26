"""Rows with media, and batches in which only some rows have model inputs, are refused instead of losing them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tunesmith_engine.batch.examples import ExampleStore

from tests import one_step, tiny
from tunesmith import DataError, Example, Media, PluginError, collate
from tunesmith.api import prepare

PICTURE = Media("image", "cat.png", 1, 2)
PIXELS = {"pixels": np.ones((2, 4), np.float32)}

STRATEGY = """
from tunesmith import Example, Media, Plugin, hookimpl

plugin = Plugin(strategies={"text": ("pictures",)})


@hookimpl
def build_dataset(run, rows):
    for row in rows:
        assert row["kind"] != "never", "an earlier row is refused before this one is built"
        example = Example.text([1, 2, 3])
        if row["kind"] == "media":
            example.media = [Media("image", "cat.png", 1, 0)]
        if row["kind"] == "inputs":
            example.inputs = {"pixels": [[1.0]]}
        yield example
"""


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (["text", "media"], "row 2: no method supports media yet: image cat.png"),
        (["media"], "row 1: no method supports media yet: image cat.png"),
        (["text", "inputs"], "row 2: this row has a model input 'pixels', but an earlier row has none"),
        (["inputs", "text"], "row 2: this row has no model input 'pixels', but an earlier row has one"),
    ],
)
def test_a_row_is_refused_at_its_line(kinds: list[str], message: str, processes: int, tmp_path: Path) -> None:
    path = config(tmp_path, kinds if processes > 1 else [*kinds, "never"], dataset_num_proc=processes)
    with pytest.raises(DataError) as error:
        prepare(tiny.start(path))
    (problem,) = error.value.problems
    place = str(problem.where).rpartition(":")[2]
    assert f"row {place}: {problem.message}" == message and problem.code == "row" and problem.help


def config(folder: Path, kinds: list[str], **keys: Any) -> Path:
    (folder / "pictures.py").write_text(STRATEGY)
    tiny.write_rows(folder / "data.jsonl", [{"kind": kind} for kind in kinds])
    return tiny.write_config(
        folder, base_model=str(tiny.model_folder(folder / "model")), plugins=["./pictures.py"],
        **{"datasets": [{"path": str(folder / "data.jsonl"), "type": "pictures"}]} | keys,
    )  # fmt: skip


def test_a_stream_refuses_media(tmp_path: Path) -> None:
    entry = {"path": str(tmp_path / "data.jsonl"), "type": "pictures"}
    path = config(tmp_path, ["text", "media"], datasets=None, pretraining_dataset=[entry], max_steps=1)
    with pytest.raises(DataError, match=r"data.jsonl:2: .*no method supports media yet"):
        tiny.train(path)


def test_a_store_keeps_media(tmp_path: Path) -> None:
    """From memory and from the files, and as part of the hash. A store without media has no array of them."""
    examples = [Example.text([1, 2, 3]), Example.text([1, 2, 3], media=[PICTURE, Media("audio", "ü.wav", 1, 0)])]
    store = ExampleStore.collect(examples)
    store.save(tmp_path)
    for copy in (store, ExampleStore.load(tmp_path), store.take([0, 1])):
        assert [e.media for e in copy] == [e.media for e in examples]
    without = ExampleStore.collect([Example.text([1, 2, 3])] * 2)
    assert without.content() != store.content() and not any("media" in name for name in without.arrays)


def test_a_policy_refuses_a_batch_with_media(tmp_path: Path) -> None:
    _, policy = one_step.started(tiny.sft_config(tmp_path))
    batch = collate([Example.text([5, 6, 7]), Example.text([5, 6, 7], media=[PICTURE], origin=(1, 4))])
    assert batch.media == [[], [PICTURE]]
    with pytest.raises(DataError, match="row 5 of data entry 1: no method supports media yet: image cat"):
        policy(batch)
    with pytest.raises(DataError, match="an example that a plugin built: no method supports media yet"):
        policy(collate([Example.text([5, 6, 7], media=[PICTURE])]))
    assert policy(batch.restrict([0])).logps.shape == (2,)


@pytest.mark.parametrize("pixels_first", [True, False])
def test_a_batch_does_not_mix_rows_with_and_without_inputs(pixels_first: bool) -> None:
    """Text first dropped the input, and text last was a KeyError."""
    examples = [Example.text([1, 2], inputs=PIXELS, origin=(0, 0)), Example.text([3, 4], origin=(0, 6))]
    examples = examples if pixels_first else examples[::-1]
    message = "row 7 of data entry 0 has no model input 'pixels', but row 1 of data entry 0 in its batch has one"
    if not pixels_first:
        message = "row 1 of data entry 0 has a model input 'pixels', but row 7 of data entry 0 in its batch has none"
    for gather in (collate, ExampleStore.collect):
        with pytest.raises(DataError, match=message):
            gather(examples)


def test_inputs_are_not_there_once_for_repeated_prompts() -> None:
    pair = Example.branches([1, 2], [[3], [4]], inputs=PIXELS, origin=(0, 2))
    assert collate([pair]).inputs["pixels"].shape == (2, 4)
    with pytest.raises(PluginError, match=r"row 3 of data entry 0 has 2 completions, but its model inputs \(pixels\)"):
        collate([pair], share=False)
    answer = Example.branches([1, 2], [[3]], inputs=PIXELS)
    assert collate([answer, answer], share=False).inputs["pixels"].shape == (4, 4)
