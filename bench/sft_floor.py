"""A child of bench/against.py: the loop that one writes by hand for this work alone, as fast as it goes.

    python -m bench.sft_floor FOLDER

A transformers model, rows packed, attention example by example, the head at scored tokens alone, fused AdamW.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, AutoModelForCausalLM, AutoTokenizer

from bench.child import tell
from bench.sft_work import Work


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: None, scaling: float, lengths: list[int], **_: Any
) -> tuple[Tensor, None]:
    """Attention of a packed row, example by example, as transformers wants it."""
    outputs = []
    for q, k, v in zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True):
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=True)
        outputs.append(out.transpose(1, 2))
    return torch.cat(outputs, 1), None


def examples(folder: Path) -> list[tuple[list[int], list[int]]]:
    """Ids of each conversation, and the places of those that the assistant says; the template is written out."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    texts, spans = [], []
    for line in (folder / "data.jsonl").read_text("utf-8").splitlines():
        text, said = "", []
        for m in json.loads(line)["messages"]:
            text += f"<|im_start|>{m['role']}\n"
            start = len(text)
            text += f"{m['content']}<|im_end|>"
            if m["role"] == "assistant":
                said.append((start, len(text)))
            text += "\n"
        texts.append(text)
        spans.append(said)
    made = []
    for encoding, said in zip(tokenizer._tokenizer.encode_batch(texts, add_special_tokens=False), spans, strict=True):
        starts, ends = np.array(encoding.offsets).T
        scored = np.zeros(len(starts), bool)
        for a, b in said:
            scored |= (ends > a) & (starts < b)
        made.append((encoding.ids, np.flatnonzero(scored).tolist()))
    return made


def packed(items: list[tuple[list[int], list[int]]], capacity: int) -> list[list[tuple[list[int], list[int]]]]:
    """Best fit, longest first."""
    rows: list[list[Any]] = []
    room: list[int] = []
    for item in sorted(items, key=lambda item: -len(item[0])):
        fitting = [(left, i) for i, left in enumerate(room) if left >= len(item[0])]
        if not fitting:
            rows.append([])
            room.append(capacity)
        i = min(fitting)[1] if fitting else len(rows) - 1
        rows[i].append(item)
        room[i] -= len(item[0])
    return rows


def logps(model: Any, row: list[tuple[list[int], list[int]]]) -> Tensor:
    """Log-probabilities [N] of the scored tokens of a row."""
    lengths = [len(ids) for ids, _ in row]
    starts = np.cumsum([0, *lengths])
    ids = torch.tensor([token for ids, _ in row for token in ids])
    position = torch.cat([torch.arange(n) for n in lengths])
    scored = torch.tensor([start + place for start, (_, said) in zip(starts, row, strict=False) for place in said])
    hidden = model.model(input_ids=ids[None], position_ids=position[None], use_cache=False, lengths=lengths)
    logits = model.lm_head(hidden.last_hidden_state[0, scored - 1])
    return -F.cross_entropy(logits, ids[scored], reduction="none")


def main(folder: Path) -> None:
    work = Work(**json.loads((folder / "work.json").read_text("utf-8")))
    AttentionInterface.register("floor", attend)
    AttentionMaskInterface.register("floor", lambda *a, **k: None)
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder / "model", dtype=torch.float32, attn_implementation="floor"
    )
    model.train()
    rows = packed(examples(folder), work.sequence_len)
    order = np.random.default_rng(work.seed).permutation(len(rows))
    optimizer = torch.optim.AdamW(model.parameters(), lr=work.learning_rate, weight_decay=0.0, fused=True)
    losses = []
    for start in range(0, len(order), work.packs_per_step):
        step = [rows[i] for i in order[start : start + work.packs_per_step]]
        scored = sum(len(said) for row in step for _, said in row)
        total = 0.0
        for row in step:
            loss = -logps(model, row).sum() / scored
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(total)
    model.save_pretrained(folder / "floor")
    AutoTokenizer.from_pretrained(folder / "model").save_pretrained(folder / "floor")
    tokens = sum(len(ids) for row in rows for ids, _ in row)
    tell(first=losses[0], last=losses[-1], steps=len(losses), tokens=tokens)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
