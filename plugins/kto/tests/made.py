"""What the tests share: runs of KTO on tiny models, and TRL's trainer on the same model and mismatched answers."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import torch
from tunesmith_kto import KTOSettings
from tunesmith_kto.loss import terms
from tunesmith_kto.step import prepare as prepare_step

from tests import tiny
from tunesmith import Policy, Run, build_policy, collate
from tunesmith.api import prepare

NUMBER = 7


def rows(number: int = NUMBER, seed: int = 3) -> list[dict[str, Any]]:
    """Labelled answers of unequal lengths; of each three in succession, two have one prompt."""
    r = random.Random(seed)
    made: list[dict[str, Any]] = []
    for index in range(number):
        prompt = made[-1]["prompt"] if index % 3 == 1 else tiny.sentence(r)
        made.append({"prompt": prompt, "completion": tiny.sentence(r, 2, 9), "label": index % 5 in (0, 2)})
    return made


def config(folder: Path, name: str = "out", architecture: str = "llama", **keys: Any) -> Path:
    """A run of KTO on labelled answers of unequal lengths; all of them in each step."""
    model, data = folder / f"model-{architecture}", folder / "labelled.jsonl"
    if not model.exists():
        tiny.model_folder(model, architecture)
    if not data.exists():
        tiny.write_rows(data, rows())
    defaults: dict[str, Any] = {
        "base_model": str(model),
        "rl": "kto",
        "datasets": [{"path": str(data), "type": "passthrough"}],
        "sample_packing": False,
        "micro_batch_size": NUMBER,
        "num_epochs": 9,
        "max_steps": 4,
        "max_grad_norm": 0,
        "lr_scheduler": "constant",
        "learning_rate": 1e-3,
        "adam_epsilon": 1e-3,
        "output_dir": str(folder / name),
    }
    return tiny.write_config(folder, f"{name}.yaml", **(defaults | keys))


def moved(model: Any, seed: int = 1, size: float = 0.1) -> None:
    """Move the trained weights, so that the policy is no longer its reference."""
    made = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(size * torch.randn(parameter.shape, generator=made))


def started(path: Path, seed: int = 1) -> tuple[Run, Policy]:
    """A prepared run and its policy, moved away from the reference."""
    run = prepare(tiny.start(path))
    policy = build_policy(run)
    policy.bare.eval()
    moved(policy.bare, seed)
    return run, policy


def loss_of(run: Run, policy: Policy, groups: list[list[Any]], share: bool = True) -> tuple[float, dict[str, float]]:
    """One step's loss over micro-batches, its gradients left in the policy; and all terms by name, averaged."""
    batches = [collate(group, share=share) for group in groups]
    with torch.no_grad():
        prepare_step(run, policy, batches)
    counts = {name: sum(batch.counts[name] for batch in batches) for name in batches[0].counts}
    found: dict[str, float] = {}
    total = 0.0
    for batch in batches:
        for name, term in terms(batch, policy(batch).logps, run.settings(KTOSettings)).items():
            mean = term.sum / counts[str(term.count)]
            found[name] = found.get(name, 0.0) + mean.item()
            if not term.metric:
                mean.backward(retain_graph=True)  # type: ignore[no-untyped-call]
                total += mean.item()
    return total, found


def gradients(model: Any) -> dict[str, torch.Tensor]:
    """Gradients by name, taken out of the model."""
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def largest_difference(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    assert ours.keys() == theirs.keys() and ours
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


def trainer(model: Any, reference: Any, examples: list[Any], folder: Path, **options: Any) -> Any:
    """TRL's KTOTrainer on tokens that are ours already, and on our mismatched answers."""
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    class Given(KTOTrainer):
        def _prepare_dataset(self, dataset: Any, *args: Any) -> Any:
            return dataset

    names = ("prompt_ids", "completion_ids", "KL_completion_ids")
    given = [
        {name: s.tokens.tolist() for name, s in zip(names, e.segments, strict=False)}
        | {"label": bool(e.columns["label"])}
        for e in examples
    ]
    defaults = {
        "output_dir": str(folder),
        "per_device_train_batch_size": len(given),
        "max_length": None,
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": 1,
        "learning_rate": 1e-3,
        "adam_epsilon": 1e-3,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "max_steps": 4,
        "disable_tqdm": True,
    }
    arguments = KTOConfig(**(defaults | options))
    tokenizer = copy.deepcopy(tiny.tokenizer())
    return Given(model, reference, arguments, train_dataset=Dataset.from_list(given), processing_class=tokenizer)
