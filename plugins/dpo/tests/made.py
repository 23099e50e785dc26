"""What the tests share: runs of DPO on tiny models, and TRL's trainer on the same model and the same tokens."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

from tests import tiny
from tests.one_step import TRL

NUMBER = 7


def rows() -> list[dict[str, str]]:
    """Pairs of unequal lengths, of which the answers are nearly of one: so the order of margins changes with a step."""
    r = random.Random(3)
    made = [(r.randint(4, 8), tiny.sentence(r)) for _ in range(NUMBER)]
    return [
        {"prompt": prompt, "chosen": tiny.sentence(r, n, n), "rejected": tiny.sentence(r, n - 1, n + 1)}
        for n, prompt in made
    ]


def config(folder: Path, name: str = "out", architecture: str = "llama", **keys: Any) -> Path:
    """A run of DPO on pairs of unequal lengths; all of them in each step."""
    model, data = folder / f"model-{architecture}", folder / "pairs.jsonl"
    if not model.exists():
        tiny.model_folder(model, architecture)
    if not data.exists():
        tiny.write_rows(data, rows())
    defaults: dict[str, Any] = {
        "base_model": str(model),
        "rl": "dpo",
        "datasets": [{"path": str(data), "type": "passthrough"}],
        "sample_packing": False,
        "micro_batch_size": NUMBER,
        "num_epochs": 9,
        "max_steps": 4,
        "max_grad_norm": 0,
        "lr_scheduler": "constant",
        "learning_rate": 1e-3,
        "output_dir": str(folder / name),
    }
    return tiny.write_config(folder, f"{name}.yaml", **(defaults | keys))


def trainer(model: Any, reference: Any, examples: list[Any], folder: Path, **options: Any) -> Any:
    """TRL's DPOTrainer on tokens that are ours already."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    class Given(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *args: Any) -> Any:
            return dataset

    rows = [
        {
            name: s.tokens.tolist()
            for name, s in zip(("prompt_ids", "chosen_ids", "rejected_ids"), e.segments, strict=True)
        }
        for e in examples
    ]
    defaults = TRL | {"output_dir": str(folder), "per_device_train_batch_size": len(rows)}
    arguments = DPOConfig(**(defaults | options))
    return Given(
        model,
        reference,
        arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=copy.deepcopy(tiny.tokenizer()),
    )
