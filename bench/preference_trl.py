"""Train on the task of bench/preference.py with TRL's trainers.

    python -m bench.preference_trl FOLDER random|grouped [STEPS] [peak]    a child of bench/preference.py

Batches are padded, in random order or grouped by length. Those of KTO are in the order of the rows, because its trainer
supports no other. The shape of each batch is reported, because the cost depends on the padding. With `peak`, the peak
memory in addition to the memory after loading is reported too.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from datasets import load_dataset
from transformers import AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, RewardConfig, RewardTrainer

from bench.child import report
from bench.preference_off import clock
from bench.preference_work import Work, read

TRAINERS: dict[str, tuple[Any, Any]] = {
    "dpo": (DPOConfig, DPOTrainer), "kto": (KTOConfig, KTOTrainer), "reward": (RewardConfig, RewardTrainer)
}  # fmt: skip
IDS = ("prompt_ids", "completion_ids", "chosen_ids", "rejected_ids")


class RecordingCollator:
    """A collator that records the shape of each forward pass of the policy."""

    def __init__(self, collate: Any):
        self.collate = collate
        self.shapes: list[dict[str, list[int]]] = []

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        batch = self.collate(rows)
        shapes = {name: list(batch[name].shape) for name in ("input_ids", "KL_input_ids") if name in batch}
        self.shapes.append(shapes | {"tokens": [int(batch["attention_mask"].sum())]})
        return batch


class Clock(TrainerCallback):
    """A callback that drives the clock of bench/preference_off.py."""

    def __init__(self, peak: bool):
        self.peak = peak

    def on_train_begin(self, *arguments: Any, **named: Any) -> None:
        clock.start(self.peak)

    def on_step_end(self, *arguments: Any, **named: Any) -> None:
        clock.step()

    def on_train_end(self, *arguments: Any, **named: Any) -> None:
        clock.report()


def options(folder: Path, work: Work, grouped: bool, steps: int) -> Any:
    sampling: dict[str, Any] = {} if work.method == "kto" else {"train_sampling_strategy": "random"}
    if grouped:
        sampling = {"train_sampling_strategy": "group_by_length", "length_column_name": "length"}
        sampling["remove_unused_columns"] = False
    return TRAINERS[work.method][0](
        output_dir=str(folder / "trl"), seed=work.seed, use_cpu=True, bf16=False, gradient_checkpointing=False,
        max_length=None, num_train_epochs=work.epochs, max_steps=steps or -1,
        per_device_train_batch_size=work.batch, gradient_accumulation_steps=work.packs_per_step,
        learning_rate=work.learning_rate, lr_scheduler_type="constant", optim="adamw_torch_fused", weight_decay=0.0,
        max_grad_norm=1.0, logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True,
        model_init_kwargs={"attn_implementation": "sdpa", "dtype": "float32"}, dataloader_pin_memory=False, **sampling,
    )  # fmt: skip


def length(row: dict[str, Any]) -> dict[str, int]:
    """Return the number of tokens of a tokenized row with its longer answer, which decides the padding."""
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
    trainer.data_collator = RecordingCollator(trainer.data_collator)
    trainer.train()
    trainer.save_model()
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    shapes = trainer.data_collator.shapes[: len(losses) * work.packs_per_step]  # the loader reads one batch ahead
    tokens = [
        sum(s["tokens"][0] for s in shapes[i : i + work.packs_per_step])
        for i in range(0, len(shapes), work.packs_per_step)
    ]
    report(losses=losses, tokens=tokens, shapes=shapes)


if __name__ == "__main__":
    words = sys.argv[2:]
    main(Path(sys.argv[1]), "grouped" in words, int((*filter(str.isdigit, words), 0)[0]), "peak" in words)
