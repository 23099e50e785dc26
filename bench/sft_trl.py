"""Train on the task of bench/against.py with TRL's SFTTrainer.

    python -m bench.sft_trl FOLDER packed|padded    a child of bench/against.py

packed: a batch is one pack. sdpa gets a dense mask that separates the examples; on a CPU, no other attention of
transformers does so. padded: a batch has as many examples as fit in a pack on average, of about equal lengths.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from datasets import load_dataset
from transformers import AutoTokenizer
from trl import SFTConfig, SFTTrainer

from bench.child import report
from bench.sft_work import Work

AVERAGE = 175  # average tokens of a row of messages.jsonl


def main(folder: Path, packed: bool) -> None:
    work = Work(**json.loads((folder / "work.json").read_text("utf-8")))
    options = SFTConfig(
        output_dir=str(folder / "trl"), seed=work.seed, use_cpu=True, bf16=False, gradient_checkpointing=False,
        packing=packed, packing_strategy="bfd", max_length=work.sequence_len, assistant_only_loss=True,
        train_sampling_strategy="random" if packed else "group_by_length", num_train_epochs=1,
        per_device_train_batch_size=1 if packed else work.sequence_len // AVERAGE + 1,
        gradient_accumulation_steps=work.packs_per_step,
        learning_rate=work.learning_rate, lr_scheduler_type="constant", optim="adamw_torch_fused", weight_decay=0.0,
        max_grad_norm=1.0, logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True,
        model_init_kwargs={"attn_implementation": "sdpa", "dtype": "float32"}, dataloader_pin_memory=False,
    )  # fmt: skip
    rows = load_dataset("json", data_files=str(folder / "data.jsonl"), split="train")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    trainer = SFTTrainer(str(folder / "model"), options, train_dataset=rows, processing_class=tokenizer)
    trainer.train()
    trainer.save_model()
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    tokens = sum(map(len, trainer.train_dataset["input_ids"]))
    report(first=losses[0], last=losses[-1], steps=len(losses), tokens=tokens)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "packed")
