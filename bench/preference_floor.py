"""Train on the task of bench/preference.py with a loop written by hand for this task only, as fast as possible.

    python -m bench.preference_floor FOLDER [STEPS]    a child of bench/preference.py

It uses a transformers model, packed rows with each prompt once, attention per example, the head only at scored tokens,
the reference in the same pass without gradients, and fused AdamW.
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

from bench.child import report
from bench.preference_off import clock
from bench.preference_work import Work, others, read

BETA = 0.1


@dataclass
class Tree:
    """The token ids of a prompt and of its answers, and the label for KTO."""

    prompt: list[int]
    answers: list[list[int]]
    label: bool = True

    @property
    def width(self) -> int:
        return len(self.prompt) + sum(map(len, self.answers))


@dataclass
class Pack:
    """Concatenated trees: T tokens, N scored tokens, S answers."""

    ids: Tensor
    """Token ids [1, T]."""
    positions: Tensor
    """Positions [1, T]."""
    parts: list[tuple[int, list[int], list[Tensor]]]
    """For each tree, the length of the prompt, the lengths of the answers, and the masks of answers after the first."""
    score_from: Tensor
    """Indices [N] of the tokens whose predictions are scored."""
    target_ids: Tensor
    """Token ids [N] to predict there."""
    sequence: Tensor
    """Index [N] of the answer of each scored token."""
    last: Tensor
    """Index [S] of the last token of each answer."""


def pack_of(trees: Sequence[Tree]) -> Pack:
    ids, positions, parts, score_from, target_ids, sequence, last = [], [], [], [], [], [], []
    number = 0
    for tree in trees:
        start, prompt = len(ids), len(tree.prompt)
        ids += tree.prompt
        positions += range(prompt)
        masks = []
        for index, answer in enumerate(tree.answers):
            score_from += [start + prompt - 1, *range(len(ids), len(ids) + len(answer) - 1)]
            target_ids += answer
            sequence += [number] * len(answer)
            ids += answer
            positions += range(prompt, prompt + len(answer))
            last.append(len(ids) - 1)
            number += 1
            if index:
                hidden = torch.ones(len(answer), prompt + len(answer), dtype=torch.bool).triu(prompt + 1)
                masks.append(torch.zeros(hidden.shape).masked_fill_(hidden, float("-inf")))
        parts.append((prompt, [len(a) for a in tree.answers], masks))
    numbers = (torch.tensor(x) for x in (score_from, target_ids, sequence, last))
    return Pack(torch.tensor([ids]), torch.tensor([positions]), parts, *numbers)


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: None, scaling: float, pack: Pack, **_: Any
) -> tuple[Tensor, None]:
    """Compute the attention of a pack, with the signature that transformers requires.

    A prompt and its first answer are one text. The other answers attend to the prompt and to themselves.
    """
    lengths = [n for prompt, (first, *rest), _ in pack.parts for n in (prompt + first, *rest)]
    q, k, v = (x.split(lengths, 2) for x in (query, key, value))
    outputs, at = [], 0
    for prompt, _answers, masks in pack.parts:
        first_text = at
        outputs.append(
            F.scaled_dot_product_attention(
                q[first_text], k[first_text], v[first_text], is_causal=True, scale=scaling, enable_gqa=True
            )
        )
        for visible in masks:
            at += 1
            keys = torch.cat([k[first_text][:, :, :prompt], k[at]], 2)
            values = torch.cat([v[first_text][:, :, :prompt], v[at]], 2)
            outputs.append(F.scaled_dot_product_attention(q[at], keys, values, visible, scale=scaling, enable_gqa=True))
        at += 1
    return torch.cat([o.transpose(1, 2) for o in outputs], 1), None


def trees(folder: Path, work: Work) -> list[Tree]:
    """Return the rows as token ids. For KTO, the second answer is one to another prompt, for the baseline."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    rows = [json.loads(line) for line in (folder / "data.jsonl").read_text("utf-8").splitlines()]
    keys = ["prompt", *(("completion",) if work.method == "kto" else ("chosen", "rejected"))]
    texts = [row[key] for key in keys for row in rows]
    ids = [e.ids for e in tokenizer._tokenizer.encode_batch(texts, add_special_tokens=False)]
    prompts, *answers = (ids[i : i + len(rows)] for i in range(0, len(ids), len(rows)))
    end = [tokenizer.eos_token_id]
    result = [Tree(prompt, [a + end for a in own]) for prompt, *own in zip(prompts, *answers, strict=True)]
    if work.method != "kto":
        return result
    for row, tree, other in zip(rows, result, others(rows), strict=True):
        tree.label = row["label"]
        tree.answers.append(result[other].answers[0])
    return result


def packed(items: list[Tree], capacity: int) -> list[list[Tree]]:
    """Pack trees by best fit, longest first."""
    packs: list[list[Tree]] = []
    room: list[int] = []
    for item in sorted(items, key=lambda item: -item.width):
        fitting = [(left, i) for i, left in enumerate(room) if left >= item.width]
        if not fitting:
            packs.append([])
            room.append(capacity)
        i = min(fitting)[1] if fitting else len(packs) - 1
        packs[i].append(item)
        room[i] -= item.width
    return packs


def hidden_states(model: Any, pack: Pack) -> Tensor:
    """Return the last hidden states [T, H] of a pack."""
    output = model.model(input_ids=pack.ids, position_ids=pack.positions, use_cache=False, pack=pack)
    states: Tensor = output.last_hidden_state[0]
    return states


def sums(model: Any, pack: Pack) -> Tensor:
    """Return the log-probability [S] of each answer of a pack."""
    hidden = hidden_states(model, pack)
    logps = -F.cross_entropy(model.lm_head(hidden[pack.score_from]), pack.target_ids, reduction="none")
    return logps.new_zeros(len(pack.last)).index_add(0, pack.sequence, logps)


def dpo(model: Any, reference: Any, packs: list[list[Tree]], number: int) -> list[Callable[[], Tensor]]:
    def loss(pack: Pack) -> Tensor:
        with torch.no_grad():
            reference_logps = sums(reference, pack)
        chosen, rejected = (sums(model, pack) - reference_logps).view(-1, 2).unbind(1)
        return -F.logsigmoid(BETA * (chosen - rejected)).sum() / number

    return [functools.partial(loss, pack_of(trees)) for trees in packs]


def kto(model: Any, reference: Any, packs: list[list[Tree]], number: int) -> list[Callable[[], Tensor]]:
    reference_logps, baseline_ratios = [], []
    with torch.no_grad():
        for trees in packs:
            own, other = sums(reference, pack_of(trees)).view(-1, 2).unbind(1)
            reference_logps.append(own)
            baseline_ratios.append(sums(model, pack_of([Tree(t.prompt, t.answers[1:]) for t in trees])) - other)
    baseline = torch.cat(baseline_ratios).mean().clamp_min(0)

    def loss(trees: list[Tree], reference_logps: Tensor) -> Tensor:
        ratios = sums(model, pack_of([Tree(t.prompt, t.answers[:1]) for t in trees])) - reference_logps
        sign = torch.tensor([1.0 if t.label else -1.0 for t in trees])
        return torch.sigmoid(BETA * sign * (baseline - ratios)).sum() / number

    return [functools.partial(loss, trees, own) for trees, own in zip(packs, reference_logps, strict=True)]


def reward(model: Any, reference: None, packs: list[list[Tree]], number: int) -> list[Callable[[], Tensor]]:
    def loss(pack: Pack) -> Tensor:
        chosen, rejected = model.score(hidden_states(model, pack)[pack.last]).view(-1, 2).unbind(1)
        return -F.logsigmoid(chosen - rejected).sum() / number

    return [functools.partial(loss, pack_of(trees)) for trees in packs]


def main(folder: Path, steps: int) -> None:
    work = read(folder)
    AttentionInterface.register("floor", attend)
    AttentionMaskInterface.register("floor", lambda *a, **k: None)
    kind: Any = AutoModelForSequenceClassification if work.method == "reward" else AutoModelForCausalLM
    model: Any = kind.from_pretrained(folder / "model", dtype=torch.float32, attn_implementation="floor")
    model.train()
    reference = None if work.method == "reward" else copy.deepcopy(model).requires_grad_(False)
    packs = packed(trees(folder, work), work.sequence_len)
    losses_of = {"dpo": dpo, "kto": kto, "reward": reward}[work.method]
    optimizer = torch.optim.AdamW(model.parameters(), lr=work.learning_rate, weight_decay=0.0, fused=True)
    losses: list[float] = []
    tokens: list[int] = []
    for epoch in range(work.epochs):
        order = np.random.default_rng((work.seed, epoch)).permutation(len(packs))
        for start in range(0, len(order), work.packs_per_step):
            if steps and len(losses) == steps:
                break
            step = [packs[i] for i in order[start : start + work.packs_per_step]]
            total = 0.0
            for make_loss in losses_of(model, reference, step, sum(map(len, step))):
                loss = make_loss()
                loss.backward()
                total += loss.item()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(total)
            tokens.append(sum(tree.width for pack in step for tree in pack))
            clock.step()
    clock.report()
    model.save_pretrained(folder / "floor")
    AutoTokenizer.from_pretrained(folder / "model").save_pretrained(folder / "floor")
    report(losses=losses, tokens=tokens)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
