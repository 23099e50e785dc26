"""The same preference work for every competitor: one folder with a model, its tokenizer, rows and options."""

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

END = 1
"""The end token after an answer."""
KEYS: dict[str, dict[str, Any]] = {"dpo": {"rl": "dpo"}, "kto": {"rl": "kto"}, "reward": {"reward_model": True}}


@dataclass(frozen=True)
class Work:
    """What is trained: a Llama of `hidden` x `layers` on `rows` rows, `epochs` times, by a method.

    Rows are GSM8K's, or, with `prompt` and `answer`, made ones of that many tokens on average. `batch` is the number of
    rows that TRL takes at a time: as many as ours packs into a row, unless it is named.
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
    """Words with a space before them that are one token each, wherever they stand."""
    made = tokenizer(vocabulary)
    texts = (made.decode([number]) for number in range(len(made)))
    lone = [text for text in texts if text[:1] == " " and text[1:].isascii() and text[1:].isalpha()]
    return [text for text in lone if len(made(text).input_ids) == 1]


def text(random: np.random.Generator, vocabulary: int, average: int) -> str:
    """So many tokens, from half the average to one and a half times."""
    return "".join(random.choice(words(vocabulary), random.integers(average // 2, average * 3 // 2 + 1)))


def rows(work: Work) -> list[dict[str, Any]]:
    """Rows of the method's kind: pairs, or single answers with a label."""
    name = "kto.jsonl" if work.method == "kto" else "preference.jsonl"
    if not work.prompt:
        data = os.environ.get("TUNESMITH_TEST_DATA")
        if not data:
            raise RuntimeError(f"TUNESMITH_TEST_DATA does not name the folder of gsm8k/{name}")
        lines = [json.loads(line) for line in (Path(data) / "gsm8k" / name).read_text("utf-8").splitlines()]
        if work.method == "kto":  # both labels in turn, and never one prompt twice in succession
            good, bad = ([line for line in lines if line["label"] is label] for label in (True, False))
            lines = [line for two in zip(good, bad[len(bad) // 2 :] + bad, strict=False) for line in two]
        # from all over the file: its rows with one prompt stand together
        every = max(1, len(lines) // work.rows) | (work.method == "kto")  # an odd step takes labels in turn
        return lines[::every][: work.rows]
    random = np.random.default_rng(zlib.crc32(name.encode()))

    def some(average: int) -> str:
        return text(random, work.vocabulary, average)

    if work.method == "kto":
        return [{"prompt": some(work.prompt), "completion": some(work.answer), "label": i % 2 == 0}
                for i in range(work.rows)]  # fmt: skip
    return [{"prompt": some(work.prompt), "chosen": some(work.answer), "rejected": some(work.answer)}
            for _ in range(work.rows)]  # fmt: skip


def lengths(work: Work, made: Sequence[dict[str, Any]]) -> list[list[int]]:
    """Tokens of each row: of its prompt, and of two answers with their end token; of KTO, the row's own and one to
    another prompt."""
    encoder = tokenizer(work.vocabulary)._tokenizer
    columns = [key for key in ("prompt", "chosen", "rejected", "completion") if key in made[0]]
    counts = [[len(e) for e in encoder.encode_batch([row[key] for row in made])] for key in columns]
    if work.method == "kto":
        counts.append([counts[1][other] for other in others(made)])
    return [[prompt, first + END, second + END] for prompt, first, second in zip(*counts, strict=True)]


def others(made: Sequence[dict[str, Any]]) -> list[int]:
    """For each row the next one with another prompt, and after the last the first."""
    found = []
    for index, row in enumerate(made):
        after = itertools.chain(range(index + 1, len(made)), range(index))
        found.append(next(other for other in after if made[other]["prompt"] != row["prompt"]))
    return found


def make(folder: Path, work: Work) -> None:
    """Write model, tokenizer, rows, run.yaml (ours) and work.json (the others read it, with `lengths`) to a folder."""
    heads = work.hidden // 64
    model = tiny.model_folder(
        folder / "model", "llama", hidden_size=work.hidden, intermediate_size=work.hidden * 8 // 3 // 8 * 8,
        num_hidden_layers=work.layers, num_attention_heads=heads, num_key_value_heads=heads // 2, head_dim=64,
        vocab_size=work.vocabulary, max_position_embeddings=8192, tie_word_embeddings=True, initializer_range=0.005,
    )  # fmt: skip
    if work.method == "reward":
        with_score_head(model)
    tokenizer(work.vocabulary).save_pretrained(model)
    made = rows(work)
    data = tiny.write_rows(folder / "data.jsonl", made)
    shutil.copy(Path(__file__).with_name("preference_off.py"), folder / "off.py")
    found = lengths(work, made)
    batch = work.batch or max(2, round(work.sequence_len * len(found) / sum(map(sum, found))))
    tiny.write_config(
        folder, base_model=str(model), datasets=[{"path": str(data), "type": "passthrough"}], **KEYS[work.method],
        plugins=["./off.py"], sequence_len=work.sequence_len, micro_batch_size=1, num_epochs=work.epochs,
        gradient_accumulation_steps=work.packs_per_step, learning_rate=work.learning_rate, lr_scheduler="constant",
        optimizer="adamw_torch_fused", weight_decay=0.0, max_grad_norm=1.0, seed=work.seed,
    )  # fmt: skip
    told = asdict(work) | {"batch": batch}
    (folder / "work.json").write_text(json.dumps(told), encoding="utf-8")
    (folder / "lengths.json").write_text(json.dumps(found), encoding="utf-8")


def with_score_head(model: Path) -> None:
    """Make the model of a folder a sequence classifier, so that all begin with the same head."""
    import torch
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.set_verbosity_error()  # it would report the head that is made here
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made: Any = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1)
        made.score.weight.data.normal_(std=0.05)
    made.config.pad_token_id = tiny.tokenizer().pad_token_id
    made.save_pretrained(model)


def read(folder: Path) -> Work:
    return Work(**json.loads((folder / "work.json").read_text("utf-8")))


def read_lengths(folder: Path) -> list[list[int]]:
    found: list[list[int]] = json.loads((folder / "lengths.json").read_text("utf-8"))
    return found
