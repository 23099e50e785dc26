"""Train on the task of bench/against.py with a loop written by hand for this task only, as fast as possible.

    python -m bench.sft_floor FOLDER    a child of bench/against.py

It uses a transformers model, packed rows, attention per example, the head only at scored tokens, and fused AdamW.
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

from bench.child import report
from bench.sft_work import Work


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: None, scaling: float, lengths: list[int], **_: Any
) -> tuple[Tensor, None]:
    """Compute the attention of a pack per example, with the signature that transformers requires."""
    outputs = []
    for q, k, v in zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True):
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=True)
        outputs.append(out.transpose(1, 2))
    return torch.cat(outputs, 1), None


def examples(folder: Path) -> list[tuple[list[int], list[int]]]:
    """Return the token ids of each conversation and the positions of the tokens of the assistant."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    texts, spans_of = [], []
    for line in (folder / "data.jsonl").read_text("utf-8").splitlines():
        text, spans = "", []
        for m in json.loads(line)["messages"]:
            text += f"<|im_start|>{m['role']}\n"
            start = len(text)
            text += f"{m['content']}<|im_end|>"
            if m["role"] == "assistant":
                spans.append((start, len(text)))
            text += "\n"
        texts.append(text)
        spans_of.append(spans)
    encodings = tokenizer._tokenizer.encode_batch(texts, add_special_tokens=False)
    result = []
    for encoding, spans in zip(encodings, spans_of, strict=True):
        starts, ends = np.array(encoding.offsets).T
        scored = np.zeros(len(starts), bool)
        for a, b in spans:
            scored |= (ends > a) & (starts < b)
        result.append((encoding.ids, np.flatnonzero(scored).tolist()))
    return result


def packed(items: list[tuple[list[int], list[int]]], capacity: int) -> list[list[tuple[list[int], list[int]]]]:
    """Pack items by best fit, longest first."""
    packs: list[list[Any]] = []
    room: list[int] = []
    for item in sorted(items, key=lambda item: -len(item[0])):
        fitting = [(left, i) for i, left in enumerate(room) if left >= len(item[0])]
        if not fitting:
            packs.append([])
            room.append(capacity)
        i = min(fitting)[1] if fitting else len(packs) - 1
        packs[i].append(item)
        room[i] -= len(item[0])
    return packs


def logps(model: Any, pack: list[tuple[list[int], list[int]]]) -> Tensor:
    """Return the log-probabilities [N] of the scored tokens of a pack."""
    lengths = [len(ids) for ids, _ in pack]
    starts = np.cumsum([0, *lengths])
    ids = torch.tensor([token for ids, _ in pack for token in ids])
    position_ids = torch.cat([torch.arange(n) for n in lengths])
    scored = torch.tensor(
        [start + position for start, (_, positions) in zip(starts, pack, strict=False) for position in positions]
    )
    hidden = model.model(input_ids=ids[None], position_ids=position_ids[None], use_cache=False, lengths=lengths)
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
    packs = packed(examples(folder), work.sequence_len)
    order = np.random.default_rng(work.seed).permutation(len(packs))
    optimizer = torch.optim.AdamW(model.parameters(), lr=work.learning_rate, weight_decay=0.0, fused=True)
    losses = []
    for start in range(0, len(order), work.packs_per_step):
        step = [packs[i] for i in order[start : start + work.packs_per_step]]
        scored = sum(len(positions) for pack in step for _, positions in pack)
        total = 0.0
        for pack in step:
            loss = -logps(model, pack).sum() / scored
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(total)
    model.save_pretrained(folder / "floor")
    AutoTokenizer.from_pretrained(folder / "model").save_pretrained(folder / "floor")
    tokens = sum(len(ids) for pack in packs for ids, _ in pack)
    report(first=losses[0], last=losses[-1], steps=len(losses), tokens=tokens)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
