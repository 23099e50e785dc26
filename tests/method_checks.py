"""Checks of a method that do not depend on what it computes: layouts, processes, resuming, and parity with TRL."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import one_step, rows, tiny
from tunesmith import Policy, Run, build_policy
from tunesmith.api import prepare
from tunesmith.config.load import load_config

Gradients = dict[str, torch.Tensor]


def check_layouts(run: Run, policy: Policy, scaled: bool = False) -> None:
    """Check that repeated prompts, single examples and uneven micro-batches give the same loss, terms and gradients."""
    examples = list(run.data.train)
    layouts = {
        "repeated": ([examples], False),
        "alone": ([[example] for example in examples], True),
        "accumulated": ([examples[:2], examples[2:5], examples[5:]], True),
    }
    loss, terms = one_step.loss_of(run, policy, [examples])
    gradients = one_step.gradients(policy.model)
    assert max(float(gradient.abs().max()) for gradient in gradients.values()) > 1e-3
    for layout, (groups, share) in layouts.items():
        other_loss, other_terms = one_step.loss_of(run, policy, groups, share)
        assert other_loss == pytest.approx(loss, abs=1e-5), layout
        assert other_terms == pytest.approx(terms, rel=1e-5, abs=1e-5), layout
        assert one_step.largest_difference(one_step.gradients(policy.model), gradients, scaled) < 1e-5, layout


def check_same(ours: Path, theirs: Path, steps: int, names: Sequence[str] = (), tolerance: float = 1e-5) -> None:
    """Check that two runs have the same metrics and gradient norm at each step.

    Without `names`, compare the losses and all metrics with a slash in their name.
    """
    lines = tiny.metrics(ours)
    assert len(lines) == steps and all(math.isfinite(line["loss"]) for line in lines)
    for line, other in zip(lines, tiny.metrics(theirs), strict=True):
        compared = names or [name for name in other if "/" in name or "loss" in name]
        expected = {name: other[name] for name in compared}
        assert {name: line[name] for name in compared} == pytest.approx(expected, rel=1e-5, abs=tolerance), ours
        assert line["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4, abs=1e-5), ours


def first_step(path: Path) -> tuple[Run, Policy, float, Gradients]:
    """Prepare a run and compute its first step on all rows: return the run, its policy, the loss and the gradients."""
    run = prepare(tiny.start(path))
    policy = build_policy(run)
    policy.model.eval()
    loss, _ = one_step.loss_of(run, policy, [list(run.data.train)])
    return run, policy, loss, one_step.gradients(policy.model)


def check_step(loss: float, gradients: Gradients, expected_loss: float, expected_gradients: Gradients) -> None:
    """Check that loss and gradients agree to 1e-5, and that there are gradients."""
    assert abs(loss - expected_loss) < 1e-5
    assert max(float(gradient.abs().max()) for gradient in gradients.values()) > 1e-3
    assert one_step.largest_difference(gradients, expected_gradients) < 1e-5


def check_held_out(test_data: Path, folder: Path, **keys: Any) -> None:
    """Check that training on real pairs of short answers raises accuracy and margin of pairs with other prompts."""
    pairs = [row for row in rows.real(test_data, "preference.jsonl") if len(json.dumps(row, ensure_ascii=False)) < 700]
    form = {"type": "passthrough", "prompt_format": "{prompt}\n"}
    steps = {"micro_batch_size": 2, "max_steps": 28}
    before, after = rows.before_and_after(folder, test_data, pairs[:-200], pairs[-200:], **(form | steps | keys))
    for name in ("eval_rewards/accuracies", "eval_rewards/margins", "eval_loss"):
        print(f"{name}: {before[name]:.4f} -> {after[name]:.4f}")
    assert after["eval_rewards/accuracies"] > before["eval_rewards/accuracies"] + 0.03
    assert after["eval_rewards/margins"] > before["eval_rewards/margins"]


def loss_plugins(config: Path) -> list[str]:
    """Return the plugins that answer compute_loss in a config."""
    return [call.plugin for call in load_config(config).hooks().calls("compute_loss")]


def trl_trainer(
    kind: str, model: Any, reference: Any, records: list[dict[str, Any]], folder: Path, **options: Any
) -> Any:
    """Return TRL's DPO or KTO trainer on rows that are tokenized already."""
    import trl
    from datasets import Dataset

    class OnTokens(getattr(trl, f"{kind}Trainer")):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *args: Any) -> Any:
            return dataset

    defaults = one_step.TRL | {"output_dir": str(folder), "per_device_train_batch_size": len(records)}
    return OnTokens(
        model,
        reference,
        getattr(trl, f"{kind}Config")(**(defaults | options)),
        train_dataset=Dataset.from_list(records),
        processing_class=copy.deepcopy(tiny.tokenizer()),
    )


def trl_pair_trainer(
    kind: str, folder: Path, records: list[dict[str, Any]], architecture: str = "llama", **options: Any
) -> Any:
    """Return TRL's ORPO or CPO trainer on the model of `rows.config` and on its rows, with the same optimizer."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from transformers.trainer_callback import PrinterCallback
    from trl.experimental import cpo, orpo

    home = {"CPO": cpo, "ORPO": orpo}[kind]
    arguments = getattr(home, f"{kind}Config")(
        output_dir=str(folder / "trl"), per_device_train_batch_size=len(records), max_steps=3, learning_rate=1e-2,
        lr_scheduler_type="constant", max_grad_norm=1e9, weight_decay=0.0, bf16=False, use_cpu=True,
        gradient_checkpointing=False, logging_steps=1, report_to=[], save_strategy="no", disable_tqdm=True,
        **rows.SMOOTH, **options,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(folder / f"model-{architecture}", dtype=torch.float32)
    trainer = getattr(home, f"{kind}Trainer")(
        model=model, args=arguments, train_dataset=Dataset.from_list(records), processing_class=tiny.tokenizer()
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def trl_step(trainer: Any) -> tuple[float, Gradients, dict[str, float]]:
    """Return loss, gradients and metrics of TRL's ORPO or CPO trainer on all its rows."""
    model = trainer.model.eval()
    model.zero_grad()
    loss, metrics = trainer.get_batch_loss_metrics(model, next(iter(trainer.get_train_dataloader())))
    loss.backward()
    return loss.item(), one_step.gradients(model), metrics


def trl_log(trainer: Any) -> list[dict[str, float]]:
    """Train with TRL's trainer, and return the metrics that it logs at each step."""
    trainer.train()
    return [line for line in trainer.state.log_history if "rewards/margins" in line]
