"""Every plugin of this repository keeps the promises that the conformance checks of tunesmith.testing list."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.repo.source import words
from tunesmith.testing import Setup, rows
from tunesmith.testing.conformance import conformance

pytestmark = pytest.mark.slow
"""Fifty plugins take minutes. To check one: pytest tests/contract/test_conformance.py -k NAME."""
TEXTS = [row["text"] for row in rows("text", 12)]
FUNCTION = f"{Path(__file__).with_name('row_function.py')}:text"
SEGMENTS: list[dict[str, Any]] = [
    {"segments": [{"label": False, "text": "the cat"}, {"label": True, "text": text}]} for text in TEXTS
]
TOKENS: list[dict[str, Any]] = [{"input_ids": [5, 6, 7 + i], "labels": [-100, 6, 7 + i]} for i in range(12)]
PROMPT = {"field_instruction": "instruction", "field_output": "output", "format": "{instruction}\n"}
TALK = "Human: hello\n\nAssistant:"
DIALOGUES = [{"text": f"{TALK} {t}", "chosen": f"{TALK} {t}", "rejected": f"{TALK} no {t}", "completion": f"{TALK} {t}",
              "label": n % 2 == 0} for n, t in enumerate(TEXTS)]  # fmt: skip
EXCHANGES = [{"conversation": [{"input": "hello", "output": text}]} for text in TEXTS]
COMPLETIONS = [{"prompt": "hello", "completion": text} for text in TEXTS]
STEPS: dict[str, list[dict[str, Any]]] = {
    "stepwise_supervised.prm800k": [
        {
            "question": {"problem": "Which words?"},
            "label": {
                "finish_reason": "solution",
                "steps": [{"completions": [{"text": text, "rating": 1 - 2 * (n % 2)}], "chosen_completion": 0}],
            },
        }
        for n, text in enumerate(TEXTS)
    ],
    "stepwise_supervised.math_shepherd": [
        {"input": f"Which words? Step 1: {text} ки", "label": f"Which words? Step 1: {text} {'+-'[n % 2]}"}
        for n, text in enumerate(TEXTS)
    ],
}
TORCHAO = [f"{prefix}_{bits}" for prefix in ("adamw_torch", "ao_adamw") for bits in ("8bit", "4bit", "fp8")]
EACH_ADAPTER = (
    "only_the_adapter_is_trained", "disabled_is_the_base_model", "saved_adapter", "resumed_adapter", "adapter_on_packs",
    "trains_an_adapter", "finite_loss", "packed_is_unpacked", "accumulated_is_one_batch", "uneven_batches",
    "shared_is_repeated", "resumed_loss", "saved_model", "two_processes_are_one",
)  # fmt: skip
"""Checks that would train each of the 40 values of adapter: that the plugin adapters answers."""
HAS = {module: find_spec(module) is not None for module in ("comet_ml", "deepspeed", "swanlab", "wandb")}
"""Libraries of services: a tracker is switched off where its own is not installed."""
SETUPS = {name: Setup() for name in words() + words("contrib")} | {
    "adapters": Setup(
        skip=dict.fromkeys(EACH_ADAPTER, "plugins/adapters/tests checks each type, with options that fit")
    ),
    "alpaca": Setup(entries={"user_defined": {"type": PROMPT}}),
    "chat": Setup(
        rows={
            "chat_template.dialogue": DIALOGUES,
            "chat_template.exchanges": EXCHANGES,
            "chat_template.prompt_completion": COMPLETIONS,
        }
    ),
    "comet": Setup(keys={"use_comet": HAS["comet_ml"], "comet_online": False}),
    "mlflow": Setup(keys={"use_mlflow": False}),  # it writes to the working folder: its own tests have another one
    "swanlab": Setup(keys={"use_swanlab": HAS["swanlab"], "swanlab_mode": "offline"}),
    "trackio": Setup(keys={"use_trackio": False}),  # it writes to a folder of the user
    "wandb": Setup(keys={"use_wandb": HAS["wandb"], "wandb_mode": "offline"}),
    "cce": Setup(no_run="its kernels need a GPU"),
    "deepspeed": Setup(
        keys={"deepspeed": "zero1"}, no_run=None if HAS["deepspeed"] else "the library deepspeed is not installed"
    ),
    "dialogue": Setup(rows={"dialogue": [{"text": f"A: hello\nB: {text}"} for text in TEXTS]}),
    "freeze": Setup(keys={"unfrozen_parameters": [r"model\.layers\.1"]}),
    "functions": Setup(
        rows={"function": [{"text": text} for text in TEXTS]},
        entries={"function": {"type": FUNCTION}},
        skip={"errors_of_rows": "the function of a user defines which columns there are"},
    ),
    "inputoutput": Setup(rows={"input_output": SEGMENTS}),
    "preference": Setup(entries={"user_defined": {"type": {"prompt_format": "{prompt}\n"}}}),
    "lmeval": Setup(
        skip={"nothing_is_left_behind": "it needs the file of a task: plugins/lmeval/tests train with one"}
    ),
    "lora": Setup(leave_out=["adapter: qlora"]),  # a base of 4 bits, which the plugin qlora brings
    "optimizers": Setup(leave_out=[f"optimizer: {name}" for name in TORCHAO] if find_spec("torchao") is None else ()),
    "pretokenized": Setup(rows={"tokenized": TOKENS}),
    "qlora": Setup(keys={"adapter": "qlora"}),
    "stepwise": Setup(rows=STEPS),
    "textmetrics": Setup(keys={"generation_metrics": ["exact_match"], "generation_metrics_max_new_tokens": 2}),
    "trigger": Setup(keys={"dynamic_checkpoint": {"enabled": True}}),
    "samples": Setup(skip={"failing_disk": "it generates on every process, so that it can't be muted on one of them"}),
}
"""Settings that a plugin needs before the checks can run it."""

test_conformance = conformance(SETUPS)
