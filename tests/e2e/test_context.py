"""Context parallelism: several processes that compute each pack together train as one process does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tunesmith_engine.batch import stretch
from tunesmith_engine.batch.stretch import cut, repeated
from tunesmith_engine.model.mesh import Sizes
from tunesmith_engine.preflight import scaling
from tunesmith_engine.runtime.world import Axis

from tests import tiny
from tunesmith import ConfigError, ModelError, PluginError, Run, World, build_policy, collate
from tunesmith.api import plan, prepare
from tunesmith.cli import show_plan

STEPS = {"num_epochs": 9, "lr_scheduler": "constant", "warmup_steps": 0, "max_steps": 3, "micro_batch_size": 1}
GRPO = {
    "rl": "grpo", "rewards": [{"name": "length", "maximum": 6}], "micro_batch_size": 8,
    "trl": {"num_generations": 4, "max_completion_length": 6},
}  # fmt: skip
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "lora": ("llama", "conversation", {"adapter": "lora", "lora_r": 2, "gradient_checkpointing": True}),
    "sliding-window": ("gemma3", "conversation", {}),
    "experts": ("qwen3_moe", "conversation", {"fsdp_config": {}}),
    "shared-prompts": ("qwen3", "pair", {"rl": "dpo"}),
    "reward-model": ("llama", "pair", {"reward_model": True}),
    "completions": ("llama", "prompt", GRPO),
}


def write(folder: Path, case: str, name: str, **keys: Any) -> Path:
    """Write the config of a case, with its model and data unless the folder has them."""
    architecture, kind, own = CASES[case]
    model, data = folder / architecture, folder / f"{kind}.jsonl"
    if not model.is_dir():
        tiny.model_folder(model, architecture)
    tiny.write_rows(data, tiny.rows(kind, 24))
    strategy = "prompt" if kind == "prompt" else "chat_template"
    values = STEPS | own | {"base_model": str(model), "datasets": [{"path": str(data), "type": strategy}]} | keys
    values["output_dir"] = str(folder / f"{name}-{case}")
    return tiny.write_config(folder, **values).rename(folder / f"{name}-{case}.yaml")


def curve(folder: Path) -> list[tuple[float, float]]:
    return [(line["loss"], line["grad_norm"]) for line in tiny.metrics(folder)]


@pytest.mark.slow
def test_two_processes_on_one_pack_train_as_one(tmp_path: Path) -> None:
    """Packed rows, shared prompts, sliding windows, experts, a reward model and sampled completions."""
    for case in CASES:
        tiny.train(write(tmp_path, case, "one"))
    tiny.torchrun(2, *(write(tmp_path, case, "two", context_parallel_size=2) for case in CASES))
    for case in CASES:
        expected = curve(tmp_path / f"one-{case}")
        assert len(expected) == 3
        for numbers, others in zip(curve(tmp_path / f"two-{case}"), expected, strict=True):
            assert numbers == pytest.approx(others, rel=1e-5), case


@pytest.mark.slow
def test_run_resumes_with_layers_then_packs_then_weights_divided(tmp_path: Path) -> None:
    tiny.train(write(tmp_path, "lora", "one", gradient_accumulation_steps=2))
    layouts: list[dict[str, Any]] = [
        {"tensor_parallel_size": 2, "gradient_accumulation_steps": 2},
        {"context_parallel_size": 2, "gradient_accumulation_steps": 2},
        {"fsdp_config": {"state_dict_type": "SHARDED_STATE_DICT"}},
    ]
    paths = [
        write(tmp_path, "lora", "moved", max_steps=step, resume_from_checkpoint="auto", **keys).rename(
            tmp_path / f"moved-{step}.yaml"
        )
        for step, keys in enumerate(layouts, 1)
    ]
    tiny.torchrun(2, *paths)
    expected = curve(tmp_path / "one-lora")
    assert len(expected) == 3
    for numbers, others in zip(curve(tmp_path / "moved-lora"), expected, strict=True):
        assert numbers == pytest.approx(others, rel=1e-5)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return prepare(tiny.start(tiny.sft_config(tmp_path_factory.mktemp("context"))))


@pytest.mark.parametrize("size", [2, 3, 7])
def test_stretches_have_each_token_and_score_once(run: Run, size: int) -> None:
    batch = collate([run.data.train[index] for index in range(4)])
    counts = dict(batch.counts)
    parts = [cut(batch, Axis(rank, size)) for rank in range(size)]
    assert torch.cat([part.input_ids for part in parts], 1).equal(batch.input_ids)
    assert torch.cat([part.position_ids for part in parts], 1).equal(batch.position_ids)
    lengths = [part.tokens for part in parts]
    assert max(lengths) - min(lengths) <= 1 and sum(lengths) == batch.tokens
    total = torch.zeros(len(batch.target_ids), dtype=torch.long)
    for part in parts:
        assert part.stretch is not None and all(0 <= place < part.tokens for place in part.score_from.tolist())
        total += part.stretch.spread(part.target_ids)
    assert total.equal(batch.target_ids)
    assert sum((part.last_at >= 0).long() for part in parts).tolist() == [1] * batch.sequences
    assert batch.counts == counts and batch.stretch is None


def test_pack_with_fewer_tokens_than_processes(run: Run) -> None:
    batch = collate([run.data.train[0]])
    parts = [cut(batch, Axis(rank, batch.tokens + 2)) for rank in range(batch.tokens + 2)]
    assert [part.tokens for part in parts] == [1] * batch.tokens + [0, 0]


@pytest.mark.parametrize(
    ("heads", "groups", "size", "times"), [(8, 4, 2, 1), (8, 2, 4, 2), (8, 1, 8, 8), (6, 2, 3, 3), (12, 4, 6, 3)]
)
def test_heads_of_keys_are_repeated_to_divide_them(heads: int, groups: int, size: int, times: int) -> None:
    assert repeated(heads, groups, size) == times
    assert groups * times % size == 0 and heads % (groups * times) == 0


def test_what_needs_all_tokens_of_a_pack_is_refused(run: Run) -> None:
    batch = collate([run.data.train[0]])
    with pytest.raises(PluginError, match="a head at 'mean' can't be computed from a part of a pack"):
        stretch.check_whole(cut(batch, Axis(0, 2)), "a head at 'mean'")
    extra = replace(batch, inputs={"segment_ids": batch.input_ids[0]})
    with pytest.raises(PluginError, match="can't be divided over processes: segment_ids"):
        cut(extra, Axis(0, 2))


def world_of(size: int) -> World:
    """Return a world whose context axis has `size` processes, which do not exist."""
    world = World(0, size, torch.device("cpu"))
    world._axes["context"] = Axis(0, size)
    return world


@pytest.mark.parametrize(
    ("size", "keys", "message"),
    [
        (3, {}, "the 4 attention heads of the model can't be divided over 3 processes"),
        (2, {"attn_implementation": "dense"}, "the attention backend dense can't divide a pack over 2 processes"),
        (2, {"attn_implementation": "padded"}, "the attention backend padded can't divide a pack over 2 processes"),
    ],
)
def test_model_that_can_not_divide_a_pack_is_refused(
    size: int, keys: dict[str, Any], message: str, tmp_path: Path
) -> None:
    run = prepare(tiny.start(tiny.sft_config(tmp_path, context_parallel_size=size, **keys)))
    run.parallelism.world = world_of(size)
    with pytest.raises(ModelError, match=message) as caught:
        build_policy(run)
    (problem,) = caught.value.problems
    assert "context_parallel_size" in line_of(tmp_path, problem.where) and problem.help


def line_of(folder: Path, where: str | None) -> str:
    """Return the line of the config that an error names."""
    assert where is not None
    return (folder / "run.yaml").read_text().splitlines()[int(where.split(":")[1]) - 1]


def test_one_process_notes_that_it_computes_packs_alone(tmp_path: Path) -> None:
    run = tiny.start(tiny.sft_config(tmp_path, context_parallel_size=4))
    assert run.world.size == 1 and run.notes["context_parallel_size"] == "has no effect on one process"


def test_plan_has_memory_and_traffic_of_each_process(tmp_path: Path) -> None:
    config = tiny.sft_config(tmp_path, fsdp_config={}, context_parallel_size=2, micro_batch_size=2)
    alone = plan(config)
    assert "scaling" not in alone
    several = plan(config, processes=8)["scaling"]
    assert several["mesh"] == "shard 4 x context 2" and several["packs_per_step"] == 8
    assert several["memory"]["optimizer"] == alone["memory"]["optimizer"] // 8
    assert several["memory"]["activations"] == alone["memory"]["activations"] // 2
    assert several["sent_per_step"]["gradients"] == int(7 / 8 * 4 * alone["trained_parameters"])
    assert several["sent_per_step"].keys() == {"gradients", "weights", "attention"}
    with pytest.raises(ConfigError, match="7 processes are not a multiple of 2"):
        plan(config, processes=7)


def test_plan_of_one_process_does_not_ask_for_axes(tmp_path: Path) -> None:
    run = prepare(tiny.start(tiny.sft_config(tmp_path, context_parallel_size=4)))
    run.notes.clear()  # run.parallelism, which is that of a launcher under torchrun, has noted it
    assert "context_parallel_size" not in plan(run)["notes"]


def test_plan_does_not_predict_experts(tmp_path: Path) -> None:
    axes = Sizes(replicate=2, expert=2)
    run = prepare(tiny.start(tiny.sft_config(tmp_path)))
    report = scaling.scaling(run, axes, {"total": 1, "weights": 1})
    assert report.keys() == {"processes", "mesh", "packs_per_step"}
    assert ("", "memory and traffic of each are not predicted with expert_parallel_size") in show_plan._scaling(report)


def test_plan_counts_layers_of_divided_weights(tmp_path: Path) -> None:
    run = prepare(tiny.start(tiny.sft_config(tmp_path, gradient_accumulation_steps=1)))
    axes = Sizes(context=2, tensor=2)
    memory = {"total": 1000, "weights": 800, "loss": 80, "activations": 120}
    weights, _ = scaling.count_weights(run, scaling.fsdp_config(run, axes))
    policy = weights["policy"]
    assert policy.largest > 0 and policy.root < policy.total
    parts = scaling.divide_memory(memory, axes, scaling.fsdp_config(run, axes), weights, 1)
    assert parts["loss"] == 20 and parts["activations"] == 60 and parts["weights"] == 200
    assert parts["gathered"] == (policy.root + 2 * policy.largest) // 2


def test_a_reference_adds_a_forward_to_traffic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = prepare(tiny.start(tiny.sft_config(tmp_path)))
    axes = Sizes(context=2, tensor=2)
    weights, policy = scaling.count_weights(run, scaling.fsdp_config(run, axes))
    alone = scaling.traffic(run, axes, weights, policy, 512)
    monkeypatch.setattr(scaling, "_reference_forwards", lambda run: 1)
    assert run.core.adapter is None
    both = scaling.traffic(run, axes, weights, policy, 512)
    assert both["attention"] == alone["attention"] * 3 / 2 and both["layers"] > alone["layers"]
    assert both["weights"] == alone["weights"], "those of its own are counted by name"


def test_plan_does_not_predict_what_a_plugin_distributes(tmp_path: Path) -> None:
    zero1 = Path(__file__).parents[1] / "contract/plugins/zero1.py"
    with pytest.raises(ConfigError, match="zero1 distributes the model, and --processes is not available"):
        plan(tiny.sft_config(tmp_path, plugins=[str(zero1)]), processes=2)
