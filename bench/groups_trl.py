"""Train on the task of bench/groups.py with TRL's GRPOTrainer.

python -m bench.groups_trl FOLDER [peak]    a child of bench/groups.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from datasets import load_dataset
from transformers import AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from bench.child import report
from bench.groups_work import COMPLETION, GROUP, STEPS, Work, completions, reward
from bench.preference_trl import Clock


def main(folder: Path, peak: bool) -> None:
    work = Work(**json.loads((folder / "work.json").read_text("utf-8")))
    rows = load_dataset("json", data_files=str(folder / "rows.jsonl"), split="train")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    numbers = {row["prompt"]: number for number, row in enumerate(rows)}

    def recorded(prompts: list[str], trainer: Any) -> dict[str, Any]:
        """Return the recorded completions: prompts come once for each of their completions, in order."""
        ids = [
            completions(work, numbers[prompt])[sum(p == prompt for p in prompts[:i])]
            for i, prompt in enumerate(prompts)
        ]
        prompt_ids = [tokenizer(prompt).input_ids for prompt in prompts]
        return {"prompt_ids": prompt_ids, "completion_ids": ids, "logprobs": None}

    options = GRPOConfig(
        output_dir=str(folder / "trl"), seed=work.seed, use_cpu=True, bf16=False, gradient_checkpointing=False,
        per_device_train_batch_size=GROUP, gradient_accumulation_steps=work.groups, num_generations=GROUP,
        max_completion_length=COMPLETION, max_steps=STEPS, learning_rate=work.learning_rate, beta=0.0,
        lr_scheduler_type="constant", optim="adamw_torch_fused", weight_decay=0.0, max_grad_norm=1.0, logging_steps=1,
        save_strategy="no", report_to="none", disable_tqdm=True, shuffle_dataset=False, dataloader_pin_memory=False,
        model_init_kwargs={"attn_implementation": "sdpa", "dtype": "float32"},
    )  # fmt: skip
    trainer = GRPOTrainer(
        str(folder / "model"), reward, options, train_dataset=rows, processing_class=tokenizer,
        rollout_func=recorded, callbacks=[Clock(peak)],
    )  # fmt: skip
    trainer.train()
    report(losses=[line["loss"] for line in trainer.state.log_history if "loss" in line])


if __name__ == "__main__":
    main(Path(sys.argv[1]), "peak" in sys.argv[2:])
