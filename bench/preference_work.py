"""Prepare the same preference task for all competitors: a folder with a model, its tokenizer, rows and options."""

from __future__ import annotations

import functools
import itertools
import json
import os
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import sft_work
from tests import tiny

END = 1  # end token after an answer
KEYS: dict[str, dict[str, Any]] = {"dpo": {"rl": "dpo"}, "kto": {"rl": "kto"}, "reward": {"reward_model": True}}


@dataclass(frozen=True)
class Work:
    """The task: train a Llama of `hidden` x `layers` on `rows` rows for `epochs` epochs with a method.

    Rows are from GSM8K or, with `prompt` and `answer`, generated with that many tokens on average. `batch` is the
    number of rows in a batch of TRL; 0 means as many as Tunesmith puts into a pack on average.
    """

    method: str
    hidden: int
    layers: int
    vocabulary: int
    rows: int
    prompt: int = 0
    answer: int = 0
    epochs: int = 1
    sequence_len: int = 2048
    packs_per_step: int = 2
    batch: int = 0
    learning_rate: float = 1e-4
    seed: int = 7

    @property
    def name(self) -> str:
        rows = f"prompts of {self.prompt}, answers of {self.answer}" if self.prompt else "GSM8K"
        return f"{self.method}, {rows}, {self.hidden} x {self.layers}, vocabulary {self.vocabulary:,}"


@functools.cache
def tokenizer(vocabulary: int) -> Any:
    return sft_work.tokenizer(vocabulary)


@functools.cache
def words(vocabulary: int) -> list[str]:
    """Return words with a leading space that are one token each."""
    encoder = tokenizer(vocabulary)
    texts = (encoder.decode([number]) for number in range(len(encoder)))
    candidates = [text for text in texts if text[:1] == " " and text[1:].isascii() and text[1:].isalpha()]
    return [text for text in candidates if len(encoder(text).input_ids) == 1]


def text(random: np.random.Generator, vocabulary: int, average: int) -> str:
    """Return a text whose number of tokens is between half and one and a half times the average."""
    return "".join(random.choice(words(vocabulary), random.integers(average // 2, average * 3 // 2 + 1)))


def rows(work: Work) -> list[dict[str, Any]]:
    """Return rows of the kind that the method needs: pairs, or single answers with a label."""
    name = "kto.jsonl" if work.method == "kto" else "preference.jsonl"
    if not work.prompt:
        data = os.environ.get("TUNESMITH_TEST_DATA")
        if not data:
            raise RuntimeError(f"set TUNESMITH_TEST_DATA to the folder that contains gsm8k/{name}")
        lines = [json.loads(line) for line in (Path(data) / "gsm8k" / name).read_text("utf-8").splitlines()]
        if work.method == "kto":  # alternate the labels, and avoid the same prompt twice in succession
            good, bad = ([line for line in lines if line["label"] is label] for label in (True, False))
            lines = [line for pair in zip(good, bad[len(bad) // 2 :] + bad, strict=False) for line in pair]
        # Take rows from the whole file, because rows with the same prompt are next to each other.
        step = max(1, len(lines) // work.rows) | (work.method == "kto")  # an odd step alternates the labels
        return lines[::step][: work.rows]
    random = np.random.default_rng(zlib.crc32(name.encode()))

    def sampled(average: int) -> str:
        return text(random, work.vocabulary, average)

    if work.method == "kto":
        return [{"prompt": sampled(work.prompt), "completion": sampled(work.answer), "label": i % 2 == 0}
                for i in range(work.rows)]  # fmt: skip
    return [{"prompt": sampled(work.prompt), "chosen": sampled(work.answer), "rejected": sampled(work.answer)}
            for _ in range(work.rows)]  # fmt: skip


def lengths(work: Work, rows: Sequence[dict[str, Any]]) -> list[list[int]]:
    """Return the number of tokens of the prompt and of two answers, with their end tokens, for each row.

    For KTO, the second answer is one to another prompt.
    """
    encoder = tokenizer(work.vocabulary)._tokenizer
    columns = [key for key in ("prompt", "chosen", "rejected", "completion") if key in rows[0]]
    counts = [[len(e) for e in encoder.encode_batch([row[key] for row in rows])] for key in columns]
    if work.method == "kto":
        counts.append([counts[1][other] for other in others(rows)])
    return [[prompt, first + END, second + END] for prompt, first, second in zip(*counts, strict=True)]


def others(rows: Sequence[dict[str, Any]]) -> list[int]:
    """Return for each row the index of the next row with another prompt. The first row follows the last."""
    result = []
    for index, row in enumerate(rows):
        after = itertools.chain(range(index + 1, len(rows)), range(index))
        result.append(next(other for other in after if rows[other]["prompt"] != row["prompt"]))
    return result


def small_llama(folder: Path, hidden: int, layers: int, vocabulary: int) -> Path:
    """Write a Llama with heads of 64 dimensions, half as many for keys and values, and return its folder."""
    heads = hidden // 64
    return tiny.model_folder(
        folder / "model", "llama", hidden_size=hidden, intermediate_size=hidden * 8 // 3 // 8 * 8,
        num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=heads // 2, head_dim=64,
        vocab_size=vocabulary, max_position_embeddings=8192, tie_word_embeddings=True, initializer_range=0.005,
    )  # fmt: skip


def make(folder: Path, work: Work) -> None:
    """Write model, tokenizer, rows, run.yaml (for Tunesmith), work.json and lengths.json (for others) to a folder."""
    model = small_llama(folder, work.hidden, work.layers, work.vocabulary)
    if work.method == "reward":
        with_score_head(model)
    tokenizer(work.vocabulary).save_pretrained(model)
    task_rows = rows(work)
    data = tiny.write_rows(folder / "data.jsonl", task_rows)
    shutil.copy(Path(__file__).with_name("preference_off.py"), folder / "off.py")
    row_lengths = lengths(work, task_rows)
    batch = work.batch or max(2, round(work.sequence_len * len(row_lengths) / sum(map(sum, row_lengths))))
    tiny.write_config(
        folder, base_model=str(model), datasets=[{"path": str(data), "type": "passthrough"}], **KEYS[work.method],
        plugins=["./off.py"], sequence_len=work.sequence_len, micro_batch_size=1, num_epochs=work.epochs,
        gradient_accumulation_steps=work.packs_per_step, learning_rate=work.learning_rate, lr_scheduler="constant",
        optimizer="adamw_torch_fused", weight_decay=0.0, max_grad_norm=1.0, seed=work.seed,
    )  # fmt: skip
    description = asdict(work) | {"batch": batch}
    (folder / "work.json").write_text(json.dumps(description), encoding="utf-8")
    (folder / "lengths.json").write_text(json.dumps(row_lengths), encoding="utf-8")


def with_score_head(model: Path) -> None:
    """Turn the model in a folder into a sequence classifier, so that all competitors start with the same head."""
    import torch
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.set_verbosity_error()  # it would warn about the new head
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        classifier: Any = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1)
        classifier.score.weight.data.normal_(std=0.05)
    classifier.config.pad_token_id = tiny.tokenizer().pad_token_id
    classifier.save_pretrained(model)


def read(folder: Path) -> Work:
    return Work(**json.loads((folder / "work.json").read_text("utf-8")))


def read_lengths(folder: Path) -> list[list[int]]:
    row_lengths: list[list[int]] = json.loads((folder / "lengths.json").read_text("utf-8"))
    return row_lengths
