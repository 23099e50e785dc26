"""What the tests share: runs of KTO on tiny models, and TRL's trainer on the same model and mismatched answers."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

from tests import tiny
from tests.one_step import TRL

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
    defaults = TRL | {"output_dir": str(folder), "per_device_train_batch_size": len(given), "adam_epsilon": 1e-3}
    arguments = KTOConfig(**(defaults | options))
    tokenizer = copy.deepcopy(tiny.tokenizer())
    return Given(model, reference, arguments, train_dataset=Dataset.from_list(given), processing_class=tokenizer)
