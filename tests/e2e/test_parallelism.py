"""build_parallelism decides how a model is distributed: ZeRO-1 by a plugin, HSDP, and a batch that is split."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from tests import tiny
from tunesmith import Batch, ConfigError, Replicated, World, build_policy, collate
from tunesmith.api import prepare

ZERO1 = Path(__file__).parents[1] / "contract/plugins/zero1.py"
STEPS = {"num_epochs": 9, "lr_scheduler": "constant", "warmup_steps": 0, "save_steps": 2, "max_steps": 4}


def write(folder: Path, name: str, **keys: Any) -> Path:
    """Write the config of a run whose folder is `name`, with one pack in each micro-batch."""
    values = STEPS | {"micro_batch_size": 1, "output_dir": str(folder / name)} | keys
    path = tiny.sft_config(folder, **values)
    return path.rename(folder / f"{name}-{values['max_steps']}.yaml")


def losses(folder: Path) -> list[tuple[float, float]]:
    return [(line["loss"], line["grad_norm"]) for line in tiny.metrics(folder)]


@pytest.mark.slow
def test_zero1_of_a_plugin_equals_ddp_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    assert len(ZERO1.read_text().splitlines()) <= 40
    zero1 = {"plugins": [str(ZERO1)], "resume_from_checkpoint": "auto"}
    first = [
        write(tmp_path, "ddp"), write(tmp_path, "zero1", **zero1), write(tmp_path, "parts", **zero1, max_steps=2)
    ]  # fmt: skip
    tiny.torchrun(2, *first)
    tiny.torchrun(2, write(tmp_path, "parts", **zero1))
    assert "ZeRO-1, 2 x cpu" in json.loads((tmp_path / "zero1/run.json").read_text())["processes"]
    assert losses(tmp_path / "zero1") == losses(tmp_path / "ddp") == losses(tmp_path / "parts")
    for name in ("zero1", "parts"):
        tiny.assert_same_weights(tmp_path / name, tmp_path / "ddp")
    resumed = json.loads((tmp_path / "parts/run.json").read_text())
    assert resumed["notes"]["resumed from"] == "checkpoint-2"


@pytest.mark.slow
def test_two_replicas_of_two_shards_equal_one_process_and_resume_bit_for_bit(tmp_path: Path) -> None:
    hsdp = {"fsdp_config": {}, "dp_replicate_size": 2, "resume_from_checkpoint": "auto"}
    lora = {"adapter": "lora", "lora_r": 2}
    tiny.train(write(tmp_path, "one", gradient_accumulation_steps=4))
    tiny.train(write(tmp_path, "one-lora", gradient_accumulation_steps=4, **lora))
    complete = [write(tmp_path, "hsdp", **hsdp), write(tmp_path, "hsdp-lora", **hsdp, **lora)]
    tiny.torchrun(4, *complete, write(tmp_path, "parts", **hsdp, max_steps=2))
    tiny.torchrun(4, write(tmp_path, "parts", **hsdp))
    assert "HSDP (2 replicas of 2 shards), 4 x cpu" in json.loads((tmp_path / "hsdp/run.json").read_text())["processes"]
    for sharded, one in (("hsdp", "one"), ("hsdp-lora", "one-lora")):
        for numbers, expected in zip(losses(tmp_path / sharded), losses(tmp_path / one), strict=True):
            assert numbers == pytest.approx(expected, rel=1e-4)
    assert losses(tmp_path / "parts") == losses(tmp_path / "hsdp")
    tiny.assert_same_weights(tmp_path / "parts", tmp_path / "hsdp")


def test_product_of_the_axes_has_to_be_the_number_of_processes(tmp_path: Path) -> None:
    from tunesmith_engine.model.mesh import Sizes, sizes

    def of(processes: int, **keys: Any) -> Sizes:
        return sizes(tiny.start(tiny.sft_config(tmp_path, **({"fsdp_config": {}} | keys))), processes)

    assert of(8) == Sizes(shard=8)
    assert of(8, dp_replicate_size=2) == of(8, dp_shard_size=4) == Sizes(2, 4)
    assert of(8, dp_replicate_size=4, dp_shard_size=2) == Sizes(4, 2)
    assert of(8, context_parallel_size=4) == of(8, context_parallel_size=4, dp_shard_size=2) == Sizes(1, 2, 4)
    assert of(8, context_parallel_size=2, fsdp_config=None) == Sizes(replicate=4, context=2)
    with pytest.raises(ConfigError, match=r"run.yaml:\d+.*8 processes are not a multiple of 3"):
        of(8, context_parallel_size=3)
    with pytest.raises(
        ConfigError, match=r"3 replicas of 1 shards of 2 parts of a pack need 6 processes, but there are 8"
    ):
        of(8, context_parallel_size=2, dp_replicate_size=3)
    with pytest.raises(ConfigError, match=r"run.yaml:\d+.*3 replicas of 2 shards need 6 processes, but there are 8"):
        of(8, dp_replicate_size=3)
    with pytest.raises(ConfigError, match=r"run.yaml:\d+.*need 5 processes, but there are 4"):
        of(4, dp_shard_size=5)
    with pytest.raises(ConfigError, match=r"dp_shard_size.*has no effect without fsdp_config"):
        tiny.start(tiny.sft_config(tmp_path, dp_shard_size=2))


@pytest.fixture
def eight_processes() -> Iterator[int]:
    """Be process 5 of 8, which do not exist: torch's fake process group communicates with nobody."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=5, world_size=8, store=FakeStore())
    yield 5
    dist.destroy_process_group()


def test_data_axis_leaves_out_context_and_tensor(eight_processes: int) -> None:
    """Process 5 is (replicate 1, shard 0, context 1) of 2 x 2 x 2."""
    names = ("replicate", "shard", "context")
    world = World(5, 8, torch.device("cpu"), mesh=init_device_mesh("cpu", (2, 2, 2), mesh_dim_names=names))
    assert [(world.axis(name).rank, world.axis(name).size) for name in (*names, "tensor", "data", "world")] == [
        (1, 2), (0, 2), (1, 2), (0, 1), (2, 4), (5, 8)
    ]  # fmt: skip
    assert world.data == world.axis("data")
    assert dist.get_process_group_ranks(world.data.group) == [1, 3, 5, 7]
    plain = World(5, 8, torch.device("cpu"), mesh=init_device_mesh("cpu", (8,), mesh_dim_names=("shard",)))
    assert (plain.data.rank, plain.data.size) == (5, 8)


class Context(Replicated):
    """Halves of a pack. `part` is the one that this process computes; the other's outputs are in `outputs`."""

    def __init__(self, world: World):
        super().__init__(world)
        self.part, self.outputs = 0, [torch.zeros(()), torch.zeros(())]

    def split(self, batch: Batch) -> Batch:
        half = batch.tokens // 2
        first, last = (0, half) if self.part == 0 else (half, batch.tokens)
        own = (batch.score_from >= first) & (batch.score_from < last)
        names = ("score_from", "target_ids", "target_at", "weight", "sequence")
        part = replace(batch, counts={}, **{name: getattr(batch, name)[own] for name in names})
        self.own = own
        return part

    def join(self, outputs: dict[str, Any], batch: Batch) -> dict[str, Any]:
        self.outputs[self.part] = torch.zeros(len(self.own)).masked_scatter(self.own, outputs["logps"])
        return {**outputs, "logps": self.outputs[0] + self.outputs[1]}


def test_parts_of_a_split_batch_add_up_to_the_batch(tmp_path: Path) -> None:
    """Each process scores its half of a pack; hooks see the complete batch, whose counts and loss do not change."""
    run = prepare(tiny.start(tiny.sft_config(tmp_path)))
    policy = build_policy(run)
    batch = collate([run.data.train[index] for index in range(4)])
    counts, scored = dict(batch.counts), batch.score_from.clone()
    expected = policy(batch).logps
    expected_terms = run.hooks.compute_loss(run, policy, policy(batch), batch)
    context = Context(run.world)
    run._parallelism = context
    owned = []
    for part in (0, 1):
        context.part = part
        out = policy(batch)
        owned.append(context.own)
    assert torch.equal(owned[0] ^ owned[1], torch.ones_like(owned[0])) and 0 < int(owned[0].sum()) < len(scored)
    torch.testing.assert_close(out.logps, expected, atol=1e-6, rtol=1e-6)
    assert batch.counts == counts and torch.equal(batch.score_from, scored)
    terms = run.hooks.compute_loss(run, policy, out, batch)
    assert terms["nll"].count == "tokens"
    torch.testing.assert_close(terms["nll"].sum, expected_terms["nll"].sum)
