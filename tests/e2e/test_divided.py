"""tensor_parallel_size and expert_parallel_size: layers, vocabulary and experts divided over processes."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests import tiny
from tunesmith import ConfigError, HeadShard, HeadWeights, ModelError, OutputHead, ScoreRequest

TENSOR = {"tensor_parallel_size": 2}
EXPERT = {"expert_parallel_size": 2}
LORA = {"adapter": "lora", "lora_r": 4, "lora_target_linear": True}
STEPS = {"num_epochs": 9, "lr_scheduler": "constant", "warmup_steps": 0, "max_steps": 10, "report": False}


def write(folder: Path, name: str, architecture: str = "llama", packs: int = 2, **keys: Any) -> Path:
    """Write the config of a run whose folder is `name`. Each process has `packs` packs in a step."""
    values = STEPS | {"micro_batch_size": 1, "gradient_accumulation_steps": packs, "output_dir": str(folder / name)}
    path = tiny.sft_config(folder, architecture, **(values | keys))
    return path.rename(folder / f"{name}-{(values | keys)['max_steps']}.yaml")


def pairs(folder: Path) -> dict[str, Any]:
    data = tiny.write_rows(folder / "pairs.jsonl", tiny.rows("pair", 24))
    return {"rl": "dpo", "datasets": [{"path": str(data), "type": "passthrough"}], "learning_rate": 1e-3}


def losses(folder: Path) -> list[tuple[float, float]]:
    return [(line["loss"], line["grad_norm"]) for line in tiny.metrics(folder)]


def assert_equal_losses(folder: Path, expected: Path) -> None:
    """Assert that losses and norms of gradients of ten steps are equal to 1e-5."""
    assert len(losses(folder)) == 10
    for numbers, others in zip(losses(folder), losses(expected), strict=True):
        assert numbers == pytest.approx(others, rel=1e-5)


def processes(folder: Path) -> str:
    return str(json.loads((folder / "run.json").read_text("utf-8"))["processes"])


@pytest.mark.slow
def test_two_processes_that_divide_layers_or_experts_equal_one(tmp_path: Path) -> None:
    tied = {"base_model": str(tiny.model_folder(tmp_path / "model-tied", tie_word_embeddings=True))}
    runs: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
        "tied": ("llama", tied | {"gradient_checkpointing": True}, TENSOR),
        "lora": ("qwen3", LORA, TENSOR),
        "dpo": ("qwen3", pairs(tmp_path), TENSOR),
        "moe": ("qwen3_moe", {}, TENSOR),
        "experts": ("qwen3_moe", {}, EXPERT),
    }
    for name, (architecture, keys, layout) in runs.items():
        tiny.train(write(tmp_path, f"{name}-one", architecture, packs=4 if layout is EXPERT else 2, **keys))
    tiny.torchrun(2, *(write(tmp_path, name, arch, **keys, **layout) for name, (arch, keys, layout) in runs.items()))
    assert "each layer over 2 processes" in processes(tmp_path / "moe")
    assert "experts over 2 processes" in processes(tmp_path / "experts")
    for name in runs:
        assert_equal_losses(tmp_path / name, tmp_path / f"{name}-one")
        own, expected = (tiny.weights(tmp_path / folder) for folder in (name, f"{name}-one"))
        assert own.keys() == expected.keys()  # tied weights are written once
        assert all(own[key].allclose(expected[key], atol=1e-3) for key in own), name


@pytest.mark.slow
def test_four_processes_with_different_packs_equal_one_and_resume_bit_for_bit(tmp_path: Path) -> None:
    sharded = TENSOR | {"fsdp_config": {}}
    runs: dict[str, tuple[str, int, dict[str, Any]]] = {
        "replicas": ("llama", 4, TENSOR),
        "lora": ("qwen3", 4, LORA | sharded),
        "parts": ("llama", 2, TENSOR | {"context_parallel_size": 2}),
        "experts": ("qwen3_moe", 4, sharded | {"expert_parallel_size": 4}),
    }
    for name, (architecture, packs, keys) in runs.items():
        adapter = LORA if "adapter" in keys else {}
        tiny.train(write(tmp_path, f"{name}-one", architecture, packs, **adapter))
    again = sharded | EXPERT | {"save_steps": 2, "resume_from_checkpoint": "auto"}
    tiny.torchrun(
        4,
        *(write(tmp_path, name, arch, **keys) for name, (arch, _, keys) in runs.items()),
        write(tmp_path, "through", "qwen3_moe", **again, max_steps=4),
        write(tmp_path, "stopped", "qwen3_moe", **again, max_steps=2),
        write(tmp_path, "stopped", "qwen3_moe", **again, max_steps=4),
    )
    for name in runs:
        assert_equal_losses(tmp_path / name, tmp_path / f"{name}-one")
    assert losses(tmp_path / "stopped") == losses(tmp_path / "through")
    tiny.assert_same_weights(tmp_path / "stopped", tmp_path / "through")
    resumed = json.loads((tmp_path / "stopped/run.json").read_text("utf-8"))
    assert resumed["notes"]["resumed from"] == "checkpoint-2"


def test_sizes_of_the_axes(tmp_path: Path) -> None:
    from tunesmith_engine.model.mesh import Sizes, sizes

    def of(processes: int, **keys: Any) -> Sizes:
        return sizes(tiny.start(tiny.sft_config(tmp_path, **keys)), processes)

    assert of(8, tensor_parallel_size=4) == Sizes(replicate=2, tensor=4)
    assert of(8, tensor_parallel_size=2, context_parallel_size=2, fsdp_config={}) == Sizes(1, 2, 2, 2)
    assert of(8, expert_parallel_size=4, tensor_parallel_size=2) == Sizes(replicate=4, tensor=2, expert=4)
    assert of(8, expert_parallel_size=4).processes == 8
    assert of(1, tensor_parallel_size=2, expert_parallel_size=2) == Sizes()
    with pytest.raises(ConfigError, match=r"tensor_parallel_size.*8 processes are not a multiple of 3"):
        of(8, tensor_parallel_size=3)
    with pytest.raises(ConfigError, match=r"4 shards of 2 parts of a layer need 8 processes, but there are 4"):
        of(4, tensor_parallel_size=2, dp_shard_size=4, fsdp_config={})
    with pytest.raises(ConfigError, match=r"expert_parallel_size.*can't be divided into groups of 3"):
        of(8, expert_parallel_size=3)
    with pytest.raises(ConfigError, match=r"groups of 2 that are a multiple of tensor_parallel_size: 4"):
        of(8, expert_parallel_size=2, tensor_parallel_size=4)


@pytest.mark.parametrize(
    ("architecture", "changes", "size", "message"),
    [
        ("gpt2", {}, 2, "transformers has no plan for dividing the layers of model_type gpt2"),
        ("llama", {}, 3, "num_attention_heads is 4, which can't be divided over 3 processes"),
        ("llama", {}, 4, "num_key_value_heads is 2, which can't be divided over 4 processes"),
        ("llama", {"vocab_size": 321}, 2, "vocab_size is 321, which can't be divided over 2 processes"),
    ],
)
def test_a_model_that_cannot_be_divided_is_refused(
    architecture: str, changes: dict[str, Any], size: int, message: str
) -> None:
    from transformers import GPT2Config
    from tunesmith_hf.divided import why_whole

    config = GPT2Config() if architecture == "gpt2" else tiny.config(architecture, **changes)
    assert (why_whole(config, size, 1) or ("",))[0] == message


def test_experts_that_cannot_be_divided_are_refused() -> None:
    from tunesmith_hf.divided import why_whole

    reasons = [why_whole(tiny.config(name), 1, size) for name, size in (("llama", 2), ("mixtral", 3), ("mixtral", 2))]
    assert [reason and reason[0] for reason in reasons] == [
        "transformers has no plan for dividing the experts of model_type llama",
        "4 experts can't be divided over 3 processes",
        None,
    ]


def _scores(scorer: Any, hidden: Tensor, weight: Tensor, targets: Tensor, request: ScoreRequest) -> list[Tensor]:
    """Return the outputs of a scorer, and the gradients of states and weight for a loss on all of them."""
    out = scorer(hidden, targets, request)
    values = [out["logps"], out["entropy"], out["topk_logps"], *out["logps_at"].values()]
    loss = sum((value * torch.linspace(0.1, 1, value.numel()).view_as(value)).sum() for value in values)
    return [*values, out["topk_ids"], *torch.autograd.grad(loss, [hidden, weight])]


def in_two_processes(folder: Path, call: Callable[[int], list[Tensor]]) -> list[list[Tensor]]:
    """Return what a function returns for the ranks 0 and 1 of a process group, from processes that are forked."""

    def join(rank: int) -> None:
        store = dist.FileStore(str(folder / "store"), 2)
        dist.init_process_group("gloo", rank=rank, world_size=2, store=store)
        values = {f"{number:02}": value.detach().contiguous() for number, value in enumerate(call(rank))}
        save_file(values, folder / f"{rank}.safetensors")
        dist.barrier()

    processes = [multiprocessing.get_context("fork").Process(target=join, args=(rank,)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        process.kill()
        assert process.exitcode == 0
    return [[value for _, value in sorted(load_file(folder / f"{rank}.safetensors").items())] for rank in (0, 1)]


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("chunk", [2**24, 64])
def test_scores_of_a_divided_vocabulary_equal_those_of_a_complete_one(
    softcap: float | None, chunk: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from tunesmith_engine.model import scoring, vocabulary
    from tunesmith_engine.runtime.world import Axis

    monkeypatch.setattr(vocabulary, "CHUNK", chunk)
    monkeypatch.setattr(vocabulary, "KEPT", 2 * chunk)
    generator = torch.Generator().manual_seed(0)
    states, matrix = (torch.randn(rows, 8, generator=generator, dtype=torch.float64) for rows in (13, 20))
    targets, others = (torch.randint(20, shape, generator=generator) for shape in ((13,), (13, 3)))
    temperature = torch.rand(13, generator=generator, dtype=torch.float64) + 0.5
    request = ScoreRequest(entropy=True, topk=4, logps_at={"others": others}, temperature=temperature)

    def leaf(tensor: Tensor) -> Tensor:
        return tensor.clone().requires_grad_()

    def complete() -> list[Tensor]:
        hidden, weight = leaf(states), leaf(matrix)

        def logits(part: Tensor) -> Tensor:
            values = nn.functional.linear(part, weight) * 0.5
            return torch.tanh(values / softcap) * softcap if softcap else values

        return _scores(scoring.ChunkedScorer(OutputHead(logits)), hidden, weight, targets, request)

    def divided(rank: int) -> list[Tensor]:
        hidden, weight = leaf(states), leaf(matrix[10 * rank :][:10])
        shard = HeadShard(HeadWeights(weight, None, 0.5, softcap), 10 * rank)
        head = OutputHead(lambda part: part, shard=lambda: shard)
        scorer = vocabulary.ShardedScorer(head, Axis(rank, 2))
        return _scores(scorer, hidden, weight, targets, request)

    expected = complete()
    for rank, own in enumerate(in_two_processes(tmp_path, divided)):
        for value, other in zip(own[:-1], expected[:-1], strict=True):
            torch.testing.assert_close(value, other, rtol=1e-5, atol=1e-6, check_dtype=False)
        torch.testing.assert_close(own[-1], expected[-1][10 * rank :][:10], rtol=1e-5, atol=1e-6)


def test_options_of_lora_that_need_complete_weights_are_refused(tmp_path: Path) -> None:
    from tunesmith_lora.divided import unsupported
    from tunesmith_lora.settings import LoraSettings

    assert list(unsupported(LoraSettings())) == []
    keys = {"peft_use_dora": True, "peft_init_lora_weights": "pissa", "lora_modules_to_save": ["lm_head"]}
    assert sorted(unsupported(LoraSettings(**keys))) == sorted(keys)  # type: ignore[arg-type]


def test_a_parallelism_that_divides_nothing_is_an_error(tmp_path: Path) -> None:
    """A plugin may answer build_parallelism or load_model without dividing layers: the key would have no effect."""
    from dataclasses import replace

    from tunesmith_engine.model.build import check_divided, load_models

    from tunesmith import prepare

    run = prepare(tiny.start(tiny.sft_config(tmp_path, **TENSOR)))
    model = load_models(run)["policy"]
    check_divided(run, model)  # one process
    run.parallelism.world = replace(run.world, size=2)
    with pytest.raises(ConfigError, match=r"tensor_parallel_size.*has complete layers on each process"):
        check_divided(run, model)
    with pytest.raises(ModelError, match="random weights are made complete"):
        from tunesmith_hf.divided import check

        check(run, run.policy_spec, tiny.config("llama"), "model", random=True)
