"""A child of bench/preference.py: the same work by TRL's trainers.

    python -m bench.preference_trl FOLDER random|grouped [STEPS] [peak]

Batches are padded, random or of about equal lengths; KTO's are in the order of the rows, as its trainer demands. With
`peak`, it tells the peak of memory above what is there after loading. It tells the shape of each batch: what is padded
decides what the work costs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from datasets import load_dataset
from transformers import AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, RewardConfig, RewardTrainer

from bench.child import tell
from bench.preference_off import clock
from bench.preference_work import Work, read

TRAINERS: dict[str, tuple[Any, Any]] = {
    "dpo": (DPOConfig, DPOTrainer), "kto": (KTOConfig, KTOTrainer), "reward": (RewardConfig, RewardTrainer)
}  # fmt: skip
IDS = ("prompt_ids", "completion_ids", "chosen_ids", "rejected_ids")


class Watched:
    """A collator that notes for each batch the rows and the width of each forward of the policy in it."""

    def __init__(self, collate: Any):
        self.collate = collate
        self.shapes: list[dict[str, list[int]]] = []

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        made = self.collate(rows)
        shapes = {name: list(made[name].shape) for name in ("input_ids", "KL_input_ids") if name in made}
        self.shapes.append(shapes | {"tokens": [int(made["attention_mask"].sum())]})
        return made


class Clock(TrainerCallback):
    """The clock of bench/preference_off.py, by TRL's callbacks."""

    def __init__(self, peak: bool):
        self.peak = peak

    def on_train_begin(self, *arguments: Any, **named: Any) -> None:
        clock.start(self.peak)

    def on_step_end(self, *arguments: Any, **named: Any) -> None:
        clock.step()

    def on_train_end(self, *arguments: Any, **named: Any) -> None:
        clock.tell()


def options(folder: Path, work: Work, grouped: bool, steps: int) -> Any:
    named: dict[str, Any] = {} if work.method == "kto" else {"train_sampling_strategy": "random"}
    if grouped:
        named = {"train_sampling_strategy": "group_by_length", "length_column_name": "length"}
        named["remove_unused_columns"] = False
    return TRAINERS[work.method][0](
        output_dir=str(folder / "trl"), seed=work.seed, use_cpu=True, bf16=False, gradient_checkpointing=False,
        max_length=None, num_train_epochs=work.epochs, max_steps=steps or -1,
        per_device_train_batch_size=work.batch, gradient_accumulation_steps=work.packs_per_step,
        learning_rate=work.learning_rate, lr_scheduler_type="constant", optim="adamw_torch_fused", weight_decay=0.0,
        max_grad_norm=1.0, logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True,
        model_init_kwargs={"attn_implementation": "sdpa", "dtype": "float32"}, dataloader_pin_memory=False, **named,
    )  # fmt: skip


def length(row: dict[str, Any]) -> dict[str, int]:
    """The tokens of a tokenised row at its longer answer: what its batch is filled up to."""
    answers = [len(row[name]) for name in IDS[1:] if name in row]
    return {"length": len(row.get("prompt_ids", ())) + max(answers)}


def main(folder: Path, grouped: bool, steps: int, peak: bool) -> None:
    work = read(folder)
    rows = load_dataset("json", data_files=str(folder / "data.jsonl"), split="train")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    trainer = TRAINERS[work.method][1](
        str(folder / "model"), args=options(folder, work, grouped, steps), train_dataset=rows,
        processing_class=tokenizer, callbacks=[Clock(peak)],
    )  # fmt: skip
    if grouped:
        trainer.train_dataset = trainer.train_dataset.map(length)
    trainer.data_collator = Watched(trainer.data_collator)
    trainer.train()
    trainer.save_model()
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    shapes = trainer.data_collator.shapes[: len(losses) * work.packs_per_step]  # a loader reads one ahead
    tokens = [
        sum(s["tokens"][0] for s in shapes[i : i + work.packs_per_step])
        for i in range(0, len(shapes), work.packs_per_step)
    ]
    tell(losses=losses, tokens=tokens, shapes=shapes)


if __name__ == "__main__":
    words = sys.argv[2:]
    main(Path(sys.argv[1]), "grouped" in words, int((*filter(str.isdigit, words), 0)[0]), "peak" in words)
