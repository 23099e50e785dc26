"""A child of bench/preference.py: the loop that one writes by hand for this work alone, as fast as it goes.

    python -m bench.preference_floor FOLDER [STEPS]

A transformers model; rows packed, the prompt of a row once and its answers beside it, attention example by example, the
head at scored tokens alone, the reference in the same pass without gradients, fused AdamW.
"""

from __future__ import annotations

import copy
import functools
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from bench.child import tell
from bench.preference_off import clock
from bench.preference_work import Work, others, read

BETA = 0.1


@dataclass
class Tree:
    """Token ids of a prompt and of the answers to it; of KTO, the label too."""

    prompt: list[int]
    answers: list[list[int]]
    label: bool = True

    @property
    def width(self) -> int:
        return len(self.prompt) + sum(map(len, self.answers))


@dataclass
class Row:
    """Trees end to end: ids [1, T], positions [1, T], (tokens of the prompt, of each answer) and masks of the answers
    after the first; source [N], target [N] and sequence [N] of the scored tokens, last [S] token of each answer."""

    ids: Tensor
    positions: Tensor
    parts: list[tuple[int, list[int], list[Tensor]]]
    source: Tensor
    target: Tensor
    sequence: Tensor
    last: Tensor


def row_of(trees: Sequence[Tree]) -> Row:
    ids, positions, parts, source, target, sequence, last = [], [], [], [], [], [], []
    number = 0
    for tree in trees:
        start, prompt = len(ids), len(tree.prompt)
        ids += tree.prompt
        positions += range(prompt)
        masks = []
        for index, answer in enumerate(tree.answers):
            source += [start + prompt - 1, *range(len(ids), len(ids) + len(answer) - 1)]
            target += answer
            sequence += [number] * len(answer)
            ids += answer
            positions += range(prompt, prompt + len(answer))
            last.append(len(ids) - 1)
            number += 1
            if index:
                hidden = torch.ones(len(answer), prompt + len(answer), dtype=torch.bool).triu(prompt + 1)
                masks.append(torch.zeros(hidden.shape).masked_fill_(hidden, float("-inf")))
        parts.append((prompt, [len(a) for a in tree.answers], masks))
    numbers = (torch.tensor(x) for x in (source, target, sequence, last))
    return Row(torch.tensor([ids]), torch.tensor([positions]), parts, *numbers)


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: None, scaling: float, row: Row, **_: Any
) -> tuple[Tensor, None]:
    """Attention of a packed row, as transformers wants it: prompt and first answer are one text, the others see the
    prompt and themselves."""
    lengths = [n for prompt, (first, *rest), _ in row.parts for n in (prompt + first, *rest)]
    q, k, v = (x.split(lengths, 2) for x in (query, key, value))
    outputs, at = [], 0
    for prompt, _answers, masks in row.parts:
        own = at
        outputs.append(
            F.scaled_dot_product_attention(q[own], k[own], v[own], is_causal=True, scale=scaling, enable_gqa=True)
        )
        for visible in masks:
            at += 1
            keys, values = torch.cat([k[own][:, :, :prompt], k[at]], 2), torch.cat([v[own][:, :, :prompt], v[at]], 2)
            outputs.append(F.scaled_dot_product_attention(q[at], keys, values, visible, scale=scaling, enable_gqa=True))
        at += 1
    return torch.cat([o.transpose(1, 2) for o in outputs], 1), None


def trees(folder: Path, work: Work) -> list[Tree]:
    """The rows as token ids; KTO's each with an answer to another prompt as the second, for the baseline."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    rows = [json.loads(line) for line in (folder / "data.jsonl").read_text("utf-8").splitlines()]
    keys = ["prompt", *(("completion",) if work.method == "kto" else ("chosen", "rejected"))]
    texts = [row[key] for key in keys for row in rows]
    ids = [e.ids for e in tokenizer._tokenizer.encode_batch(texts, add_special_tokens=False)]
    prompts, *answers = (ids[i : i + len(rows)] for i in range(0, len(ids), len(rows)))
    end = [tokenizer.eos_token_id]
    made = [Tree(prompt, [a + end for a in own]) for prompt, *own in zip(prompts, *answers, strict=True)]
    if work.method != "kto":
        return made
    for row, tree, other in zip(rows, made, others(rows), strict=True):
        tree.label = row["label"]
        tree.answers.append(made[other].answers[0])
    return made


def packed(items: list[Tree], capacity: int) -> list[list[Tree]]:
    """Best fit, longest first."""
    rows: list[list[Tree]] = []
    room: list[int] = []
    for item in sorted(items, key=lambda item: -item.width):
        fitting = [(left, i) for i, left in enumerate(room) if left >= item.width]
        if not fitting:
            rows.append([])
            room.append(capacity)
        i = min(fitting)[1] if fitting else len(rows) - 1
        rows[i].append(item)
        room[i] -= item.width
    return rows


def sums(model: Any, row: Row) -> Tensor:
    """Log-probability [S] of each answer of a row."""
    hidden = model.model(input_ids=row.ids, position_ids=row.positions, use_cache=False, row=row).last_hidden_state[0]
    logps = -F.cross_entropy(model.lm_head(hidden[row.score_from]), row.target_ids, reduction="none")
    return logps.new_zeros(len(row.last)).index_add(0, row.sequence, logps)


def dpo(model: Any, reference: Any, rows: list[list[Tree]], number: int) -> list[Callable[[], Tensor]]:
    def loss(row: Row) -> Tensor:
        with torch.no_grad():
            expected = sums(reference, row)
        chosen, rejected = (sums(model, row) - expected).view(-1, 2).unbind(1)
        return -F.logsigmoid(BETA * (chosen - rejected)).sum() / number

    return [functools.partial(loss, row_of(row)) for row in rows]


def kto(model: Any, reference: Any, rows: list[list[Tree]], number: int) -> list[Callable[[], Tensor]]:
    expected, found = [], []
    with torch.no_grad():
        for row in rows:
            own, other = sums(reference, row_of(row)).view(-1, 2).unbind(1)
            expected.append(own)
            found.append(sums(model, row_of([Tree(t.prompt, t.answers[1:]) for t in row])) - other)
    baseline = torch.cat(found).mean().clamp_min(0)

    def loss(row: list[Tree], expected: Tensor) -> Tensor:
        ratios = sums(model, row_of([Tree(t.prompt, t.answers[:1]) for t in row])) - expected
        sign = torch.tensor([1.0 if t.label else -1.0 for t in row])
        return torch.sigmoid(BETA * sign * (baseline - ratios)).sum() / number

    return [functools.partial(loss, row, own) for row, own in zip(rows, expected, strict=True)]


def reward(model: Any, reference: None, rows: list[list[Tree]], number: int) -> list[Callable[[], Tensor]]:
    def loss(row: Row) -> Tensor:
        out = model.model(input_ids=row.ids, position_ids=row.positions, use_cache=False, row=row).last_hidden_state[0]
        chosen, rejected = model.score(out[row.last]).view(-1, 2).unbind(1)
        return -F.logsigmoid(chosen - rejected).sum() / number

    return [functools.partial(loss, row_of(row)) for row in rows]


def main(folder: Path, steps: int) -> None:
    work = read(folder)
    AttentionInterface.register("floor", attend)
    AttentionMaskInterface.register("floor", lambda *a, **k: None)
    kind: Any = AutoModelForSequenceClassification if work.method == "reward" else AutoModelForCausalLM
    model: Any = kind.from_pretrained(folder / "model", dtype=torch.float32, attn_implementation="floor")
    model.train()
    reference = None if work.method == "reward" else copy.deepcopy(model).requires_grad_(False)
    rows = packed(trees(folder, work), work.sequence_len)
    losses_of = {"dpo": dpo, "kto": kto, "reward": reward}[work.method]
    optimizer = torch.optim.AdamW(model.parameters(), lr=work.learning_rate, weight_decay=0.0, fused=True)
    losses: list[float] = []
    tokens: list[int] = []
    for epoch in range(work.epochs):
        order = np.random.default_rng((work.seed, epoch)).permutation(len(rows))
        for start in range(0, len(order), work.packs_per_step):
            if steps and len(losses) == steps:
                break
            step = [rows[i] for i in order[start : start + work.packs_per_step]]
            total = 0.0
            for make_loss in losses_of(model, reference, step, sum(map(len, step))):
                loss = make_loss()
                loss.backward()
                total += loss.item()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(total)
            tokens.append(sum(tree.width for row in step for tree in row))
            clock.step()
    clock.tell()
    model.save_pretrained(folder / "floor")
    AutoTokenizer.from_pretrained(folder / "model").save_pretrained(folder / "floor")
    tell(losses=losses, tokens=tokens)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
