"""Pairs are chosen by rewards, loss and gradients equal those of TRL, and every completion is counted once."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tunesmith_onlinedpo import TRL
from tunesmith_onlinedpo.loss import losses
from tunesmith_onlinedpo.pairing import missing_ends, sides

from tests import one_step, tiny
from tunesmith import Completion, Example, Group, collate, segment
from tunesmith.cli import main
from tunesmith.testing.conformance import conformance

test_conformance = conformance("onlinedpo")
REWARD = """
from tunesmith import Plugin

plugin = Plugin(offers={"rewards": {"score": ":score", "constant": ":constant"}})

def score(completion_ids, **columns):
    return [float(sum(ids) % 7) for ids in completion_ids]

def constant(completion_ids, **columns):
    return [1.0 for ids in completion_ids]
"""
NAN = float("nan")


def config(folder: Path, name: str = "out", reward: str = "score", **keys: Any) -> Path:
    """Write the config of a run with 4 completions in each micro-batch. `trl` adds to the block."""
    if not (folder / "model").exists():
        tiny.model_folder(folder / "model")
        tiny.write_rows(folder / "data.jsonl", tiny.rows("prompt", 12))
        (folder / "scored.py").write_text(REWARD)
    block = {"max_completion_length": 8} | keys.pop("trl", {})
    defaults: dict[str, Any] = {
        "base_model": str(folder / "model"), "rl": "online_dpo", "plugins": ["./scored.py"], "rewards": [reward],
        "trl": block,
        "datasets": [{"path": str(folder / "data.jsonl"), "type": "prompt"}], "micro_batch_size": 4,
        "gradient_accumulation_steps": 2, "max_steps": 2, "num_epochs": 9, "output_dir": str(folder / name),
    }  # fmt: skip
    return tiny.write_config(folder, f"{name}.yaml", **(defaults | keys))


def completion(tokens: list[int], finish: Any = "stop") -> Completion:
    ones = np.ones(len(tokens), np.float32)
    ids = np.array(tokens, np.int32)
    return Completion(ids, -ones, ones, ones > 0, finish, np.zeros_like(ids))


def group(rewards: list[float], tokens: Any = None, prompt: Any = (5, 6), temperature: float = 1.0) -> Group:
    texts = tokens or [[9 + k] for k in range(len(rewards))]
    one = Group(Example([segment(list(prompt))]), [completion(t) for t in texts], temperature=temperature)
    one.rewards, one.reward = {"score": np.array(rewards)}, np.array(rewards)
    return one


@pytest.mark.parametrize(
    ("rewards", "keep", "expected", "buckets"),
    [
        ([0.0, 1.0], False, [-1, 1], "trained trained"),
        ([1.0, 1.0], False, [0, 0], "dead dead"),
        ([1.0, 1.0], True, [1, -1], "trained trained"),
        ([2.0, 5.0, 1.0, 5.0], False, [0, 1, -1, 0], "over_budget trained trained over_budget"),
        ([2.0, NAN, 1.0], False, [1, 0, -1], "trained abstained trained"),
        ([NAN, 1.0], True, [0, 0], "abstained dead"),
        ([3.0, 3.0, 3.0], True, [1, -1, 0], "trained trained over_budget"),
    ],
)
def test_the_best_completion_is_compared_with_the_worst(
    rewards: list[float], keep: bool, expected: list[int], buckets: str
) -> None:
    one = group(rewards)
    one.buckets = ["abstained" if math.isnan(reward) else "trained" for reward in rewards]
    assert sides(one, keep).tolist() == expected
    assert one.buckets == buckets.split()


def test_a_completion_that_is_masked_is_not_compared() -> None:
    one = group([9.0, 1.0, 2.0])
    one.buckets[0] = "truncated"
    assert sides(one, False).tolist() == [0, -1, 1] and one.buckets[0] == "truncated"


def test_the_penalty_applies_to_completions_without_an_end_that_have_a_reward() -> None:
    one = group([1.0, 1.0, NAN])
    one.completions[1:] = [completion([9], "length"), completion([9], "length")]
    assert str(missing_ends([one])) == "[[0.0, -1.0, None]]"  # not -0.0


@pytest.mark.parametrize(("chosen", "rejected"), [(1.2, -0.7), (-2.0, 0.4), (0.0, 0.0)])
def test_losses_equal_their_formulas(chosen: float, rejected: float) -> None:
    pair, delta = (torch.tensor([chosen]), torch.tensor([rejected])), chosen - rejected
    sigmoid = math.log1p(math.exp(-0.3 * delta))
    assert losses(TRL(beta=0.3), *pair).item() == pytest.approx(sigmoid, rel=1e-6)
    assert losses(TRL(beta=0.3, loss_type="ipo"), *pair).item() == pytest.approx((delta - 1 / 0.6) ** 2, rel=1e-5)


PROMPTS = [[5, 6, 7], [8, 9], [10, 11, 12, 13]]
TOKENS = [[[20, 21, 2], [22, 2]], [[23, 24, 25, 2], [26, 27, 28, 29]], [[30, 2], [31, 32, 2]]]
REWARDS = [[1.0, 0.0], [0.2, 0.4], [-1.0, 3.0]]


def started(folder: Path, temperature: float = 1.0, **keys: Any) -> tuple[Any, Any, list[Example]]:
    """Return a run, its policy, which differs from the reference, and the examples of PROMPTS."""
    run, policy = one_step.started(config(folder, trl={"temperature": temperature, **keys}))
    groups = [group(r, t, p, temperature) for r, t, p in zip(REWARDS, TOKENS, PROMPTS, strict=True)]
    for one, values in zip(groups, run.hooks.compute_advantages(run, policy, groups), strict=True):
        one.advantages = values
    return run, policy, [one.example() for one in groups]


def trl_step(folder: Path, model: Any, **options: Any) -> tuple[float, Any, dict[str, float]]:
    """Return loss, gradients and metrics of TRL's trainer on the completions of TOKENS."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

    reference = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    arguments = OnlineDPOConfig(
        output_dir=str(folder / "trl"), per_device_train_batch_size=3, bf16=False, use_cpu=True, report_to=[],
        gradient_checkpointing=False, **options,
    )  # fmt: skip
    flat = [REWARDS[p][k] for k in range(2) for p in range(3)]
    trainer = OnlineDPOTrainer(
        model=copy.deepcopy(model), ref_model=reference, reward_funcs=lambda **columns: flat, args=arguments,
        train_dataset=Dataset.from_list([{"prompt": "a"}] * 3), processing_class=copy.deepcopy(tiny.tokenizer()),
    )  # fmt: skip
    for network in (trainer.model, reference):
        network.set_attn_implementation("sdpa")
    padded = [([0] * (4 - len(p)) + p, [0] * (4 - len(p)) + [1] * len(p)) for p in PROMPTS] * 2
    answers = [TOKENS[p][k] for k in range(2) for p in range(3)]
    filled = [(a + [0] * (4 - len(a)), [1] * len(a) + [0] * (4 - len(a))) for a in answers]
    columns = [torch.tensor(column) for pairs in (padded, filled) for column in zip(*pairs, strict=True)]
    trainer._generate = lambda *_: (*columns, None)
    loss = trainer.training_step(trainer.model, {"prompt": ["a"] * 3})
    return loss.item(), one_step.gradients(trainer.model), {k: v[-1] for k, v in trainer.stats.items() if v}


@pytest.mark.slow
@pytest.mark.parametrize("loss_type", ["sigmoid", "ipo"])
def test_loss_gradients_and_metrics_equal_those_of_trl(loss_type: str, tmp_path: Path) -> None:
    run, policy, examples = started(tmp_path, loss_type=loss_type, beta=0.2)
    loss, terms = one_step.loss_of(run, policy, [examples[:1], examples[1:]])
    ours = one_step.gradients(policy.model)
    expected, theirs, stats = trl_step(tmp_path, policy.model, loss_type=loss_type, beta=0.2)
    assert loss == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert max(float(g.abs().max()) for g in ours.values()) > 1e-3
    assert one_step.largest_difference(ours, theirs, scaled=True) < 1e-5
    for kind in ("chosen", "rejected", "margins", "accuracies"):
        assert terms[f"rewards/{kind}"] == pytest.approx(stats[f"rewards/{kind}"], rel=1e-5, abs=1e-5), kind
    assert terms["logps/chosen"] == pytest.approx(stats["logps/chosen"], rel=1e-5)


def test_log_probabilities_are_at_the_temperature(tmp_path: Path) -> None:
    run, policy, examples = started(tmp_path, temperature=0.5)
    loss, _ = one_step.loss_of(run, policy, [examples])
    ratios = {}
    for name, model in (("policy", policy.model), ("reference", None)):
        if model is None:
            from transformers import AutoModelForCausalLM

            model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
        for p, prompt in enumerate(PROMPTS):
            for k, tokens in enumerate(TOKENS[p]):
                model.set_attn_implementation("sdpa")
                with torch.no_grad():
                    logits = model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]
                logps = torch.log_softmax(logits / 0.5, -1).gather(-1, torch.tensor(tokens)[:, None])
                ratios[p, k] = ratios.get((p, k), 0.0) + float(logps.sum()) * (1 if name == "policy" else -1)
    better = [int(np.argmax(rewards)) for rewards in REWARDS]
    deltas = [ratios[p, k] - ratios[p, 1 - k] for p, k in enumerate(better)]
    assert loss == pytest.approx(np.mean([math.log1p(math.exp(-0.1 * d)) for d in deltas]), abs=1e-5)


def test_the_loss_is_a_mean_over_pairs_however_they_are_divided(tmp_path: Path) -> None:
    """An example without a pair counts for nothing, and completions beside the pair get no gradient."""
    run, policy, examples = started(tmp_path)
    tie, four = group([1.0, 1.0]), group([1.0, 5.0, 0.0, 2.0])
    same = group([5.0, 0.0], [[10], [11]])
    for one, values in zip(
        (tie, four, same), run.hooks.compute_advantages(run, policy, [tie, four, same]), strict=True
    ):
        one.advantages = values
    loss, _ = one_step.loss_of(run, policy, [[*examples, same.example()]])
    expected = one_step.gradients(policy.model)
    for parts in (
        [[*examples, tie.example(), four.example()]],
        [[e] for e in [four.example(), tie.example(), *examples]],
    ):
        other, _ = one_step.loss_of(run, policy, parts)
        assert other == pytest.approx(loss, abs=1e-6)
        assert one_step.largest_difference(one_step.gradients(policy.model), expected) < 1e-5
    assert not collate([tie.example()]).weight.any()


def counts(line: dict[str, Any]) -> dict[str, int]:
    return {name.removeprefix("rollout/"): int(v) for name, v in line.items() if name.startswith("rollout/")}


@pytest.mark.parametrize("adapter", [None, "lora"])
def test_a_run_trains_and_counts_each_completion_once(adapter: str | None, tmp_path: Path) -> None:
    lora = {"adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_target_linear": True} if adapter else {}
    tiny.train(config(tmp_path, micro_batch_size=8, trl={"num_generations": 4}, **lora))
    first, last = tiny.metrics(tmp_path / "out")
    now = counts(last)
    assert now["sequences"] == 32 and now["trained"] <= 16 <= now["trained"] + now["over_budget"] + now["dead"]
    assert now["sequences"] == now["trained"] + now["dead"] + now["over_budget"]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-5) and first["rewards/margins"] == pytest.approx(
        0, abs=1e-5
    )
    assert last["loss"] != first["loss"] and last["rewards/margins"] != 0


@pytest.mark.parametrize("dead", ["keep", "drop", "redraw"])
def test_ties_are_trained_only_if_they_are_kept(dead: str, tmp_path: Path) -> None:
    path = config(tmp_path, reward="constant", trl={"dead_groups": dead}, max_steps=1, weight_decay=0.0)
    before = tiny.weights(tmp_path / "model")
    tiny.train(path)
    (line,) = tiny.metrics(tmp_path / "out")
    now = counts(line)
    assert now["trained"] == (8 if dead == "keep" else 0) and now["sequences"] == now["trained"] + now["dead"]
    changed = any(not bool((tiny.weights(tmp_path / "out")[name] == value).all()) for name, value in before.items())
    assert changed == (dead == "keep")


def test_a_missing_end_decides_between_equal_rewards(tmp_path: Path) -> None:
    keys = {"missing_eos_penalty": 2.0, "max_completion_length": 2, "dead_groups": "keep"}
    tiny.train(config(tmp_path, reward="constant", trl=keys, max_steps=1))
    (line,) = tiny.metrics(tmp_path / "out")
    assert line["rewards/missing_eos/mean"] == pytest.approx(-line["completions/clipped_ratio"])
    assert line["reward"] == pytest.approx(1 - 2 * line["completions/clipped_ratio"])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"trl": {"num_generations": 1}}, "num_generations is 1, but a pair has two completions"),
        ({"micro_batch_size": 3}, "micro_batch_size 3 is not a multiple of num_generations 2"),
        (
            {"trl": {"missing_eos_penalty": 1.0, "mask_truncated_completions": True}},
            "missing_eos_penalty has no effect",
        ),
        ({"trl": {"loss_type": "hinge"}}, "loss_type"),
        ({"rewards": []}, "rewards is not set"),
    ],
)
def test_keys_that_contradict_are_errors(keys: dict[str, Any], message: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["check", str(config(tmp_path, **keys))])
    assert result.exit_code == 2 and message in result.output, result.output
