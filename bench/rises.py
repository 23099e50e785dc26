"""Measure the held-out accuracy of preference and reward methods before and after training, on GSM8K rows.

    python -m bench.rises FOLDER [METHOD ...] [key=value ...] [--third] [--gpt2]

FOLDER stores the base model, from which all methods start: a small model, fine-tuned on other questions
(messages.jsonl). --third measures only the rows on which settings are chosen. --gpt2 uses the GPT-2 tokenizer of the
data.

Accuracy is one of:

- for pairs, the share of pairs whose better answer has the higher reward (a tie counts as one half);
- for labels, how often a good answer has a higher reward than a bad answer to another prompt;
- for steps, the share of steps that are judged correctly.

Held out by prompt: no row with the prompt is trained on. Held out by pair: the prompt and the chosen answer are trained
on, with other rejected answers.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import random
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench import pairs, sft_work
from tests import tiny
from tunesmith import Example, Needs, Policy, build_policy, collate
from tunesmith.api import prepare, train

Row = dict[str, Any]
PROMPTS, HELD_OUT, THIRD = 920, 200, 120  # all; the first ones, for the figures; the next ones, to choose settings


class Method(NamedTuple):
    """A row of the table.

    reward: the log-probability of an answer (sum) or its mean over tokens (mean), with "log-ratio" relative to the base
    model; the score of an answer (score); or the judgment of each step (step). judge: the key of JUDGES for the
    held-out rows.
    """

    keys: Row
    reward: str
    file: str = "preference"
    type: str = "chatml.prompt_pairs"
    judge: str = "pairs"


KTO = {"rl": "kto", "kto_desirable_weight": 1.4}  # as a run advises for 896 good and 1,062 bad answers
METHODS = {
    "dpo": Method({"rl": "dpo", "learning_rate": 3e-4}, "sum log-ratio"),
    "dpo chat": Method({"rl": "dpo"}, "sum log-ratio", "preference_chat", "chat_template"),
    "dpo ipo": Method({"rl": "dpo", "dpo_loss_type": ["ipo"]}, "mean log-ratio"),
    "kto": Method(KTO, "sum log-ratio", "kto", judge="labels"),
    "kto, on pairs": Method(KTO, "sum log-ratio", "kto"),
    "orpo": Method({"rl": "orpo"}, "mean"),
    "simpo": Method({"rl": "simpo", "rl_beta": 2.0, "simpo_gamma": 1.0}, "mean"),  # section 3 of its paper
    "cpo": Method({"rl": "cpo"}, "sum"),
    "cpo ipo": Method({"rl": "cpo", "cpo_loss_type": "ipo"}, "mean"),
    "reward": Method({"reward_model": True}, "score", judge="scores"),
    "prm": Method({"process_reward_model": True}, "step", "stepwise", "stepwise_supervised", "steps"),
}
JUDGES = {  # methods that read the held-out rows and compute rewards
    "pairs": METHODS["dpo"],
    "labels": Method({"rl": "kto", "kto_loss_type": "apo_zero_unpaired"}, "sum", "kto"),
    "scores": METHODS["reward"],
    "steps": METHODS["prm"],
}


def read(file: str) -> list[Row]:
    text = Path(os.environ["TUNESMITH_TEST_DATA"], "gsm8k", f"{file}.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def prompt_of(row: Row) -> str:
    return str(row["prompt"] if "prompt" in row else row["chosen"][0]["content"])


def answer_of(row: Row) -> str:
    """Return the answer that distinguishes the rows of a prompt: the rejected answer of a pair, or the only answer."""
    answer = row.get("rejected") or row.get("completion") or row["completions"]
    return str(answer[-1]["content"] if isinstance(answer[-1], dict) else answer)


def split(file: str) -> dict[str, list[Row]]:
    """Return the rows of a file by part. A prompt is in the same part in all files.

    For the part "pair", the first of several answers to a trained prompt is held out.
    """
    order = list(dict.fromkeys(prompt_of(row) for row in read("stepwise")))
    random.Random(7).shuffle(order)
    index_of = {prompt: index for index, prompt in enumerate(order[:PROMPTS])}
    answers = defaultdict(list)
    for row in read("stepwise" if file == "stepwise" else "preference"):
        answers[prompt_of(row)].append(answer_of(row))
    parts: dict[str, list[Row]] = {"trained": [], "prompt": [], "pair": [], "third": []}
    for row in read(file):
        index, own_answers = index_of.get(prompt_of(row), PROMPTS), answers[prompt_of(row)]
        if index < HELD_OUT + THIRD:
            parts["prompt" if index < HELD_OUT else "third"].append(row)
        elif index < PROMPTS:
            parts["pair" if len(own_answers) > 1 and answer_of(row) == own_answers[0] else "trained"].append(row)
    return parts


def base_model(folder: Path, gpt2: bool) -> Path:
    """Return the folder of a Llama of 128 x 2, fine-tuned on messages.jsonl for three epochs. Train it if missing."""
    home = folder / ("gpt2" if gpt2 else "bpe")
    if not (home / "out/model.safetensors").exists():
        sft_work.make(home, sft_work.Work(128, 2, 50_304 if gpt2 else 4096, 3000, packs_per_step=1, learning_rate=2e-3))
        with contextlib.redirect_stdout(io.StringIO()):
            tiny.train(home / "run.yaml", "num_epochs=3", "lr_scheduler=cosine", "warmup_steps=20", "save_steps=10000")
    return home / "out"


def run_of(folder: str, base: Path, method: Method, rows: list[Row], overrides: tuple[str, ...] = ()) -> Any:
    data = tiny.write_rows(Path(folder) / "rows.jsonl", rows)
    path = tiny.write_config(
        Path(folder), base_model=str(base), datasets=[{"path": str(data), "type": method.type}], sequence_len=1024,
        micro_batch_size=4, warmup_steps=10, **{"learning_rate": 1e-3, **method.keys},
    )  # fmt: skip
    return tiny.start(path, *overrides)


@torch.no_grad()
def rewards(policy: Policy, examples: list[Example], kind: str) -> dict[str, Tensor]:
    """Return rewards by kind: "sum" and "mean", or "score" ([P, 2] for pairs, [P, 1] for single answers).

    For the kind "step", return a mask [M] of the steps that are judged correctly.
    """
    policy.model.eval()
    parts, scored = defaultdict(list), kind in ("score", "step")
    for start in range(0, len(examples), 8):
        batch = collate(examples[start : start + 8])
        out = policy(batch, Needs(logps=not scored, heads=("score",) if scored else ()))
        if scored:
            steps = kind == "step"
            parts[kind].append(
                out.heads["score"].argmax(-1) == batch.columns["label"] if steps else out.heads["score"].view(-1, 2)
            )
        else:
            for name, by_sequence in (("sum", batch.sum_by_sequence), ("mean", batch.mean_by_sequence)):
                parts[name].append(by_sequence(out.logps).view(batch.examples, -1))
    return {name: torch.cat(tensors).float() for name, tensors in parts.items()}


def correct(reward: Tensor) -> Tensor:
    """Return 1 for each pair [P, 2] whose chosen answer has the higher reward, and 0.5 for ties. Return steps as is."""
    return reward if reward.ndim == 1 else 0.5 + 0.5 * (reward[:, 0] - reward[:, 1]).sign()


def share_above(reward: Tensor, good: Tensor) -> Tensor:
    """Return for each good answer of single answers [P, 1] the share of bad answers with a lower reward."""
    return 0.5 + 0.5 * (reward[good] - reward[~good].T).sign().mean(1)


def rise(before: Tensor, after: Tensor, prompts: list[str]) -> str:
    """Format the accuracy before and after, with the standard error of the difference.

    Differences are paired, and those of one prompt are summed first, because they are not independent. Bold marks a
    rise of less than two standard errors.
    """
    difference, sums = after - before, dict.fromkeys(prompts, 0.0)
    for prompt, deviation in zip(prompts, (difference - difference.mean()).tolist(), strict=True):
        sums[prompt] += deviation
    error = sum(value**2 for value in sums.values()) ** 0.5 / len(prompts)
    bold = "" if difference.mean() >= 2 * error > 0 else "**"
    return f"{before.mean():.3f} | {bold}{after.mean():.3f}{bold} ± {error:.3f}"


@functools.cache
def held_out(base: Path, judge: str, part: str) -> tuple[list[Example], list[str], dict[str, Tensor]]:
    """Return the examples of a part, the prompt of each answer or step, and the rewards of the base model."""
    method, rows = JUDGES[judge], split(JUDGES[judge].file)[part]
    with tempfile.TemporaryDirectory() as folder:
        run = prepare(run_of(folder, base, method, rows))
    examples = list(run.data.train)
    prompts = [prompt_of(rows[e.origin[1]]) for e in examples for _ in rows[e.origin[1]].get("labels", "1")]
    return examples, prompts, rewards(build_policy(run), examples, method.reward.split()[0])


def measure(base: Path, method: Method, parts: tuple[str, ...], overrides: tuple[str, ...]) -> dict[str, str]:
    """Train a method. Return the rise by part, for its own reward and for plain log-probabilities ("plain")."""
    kind, _, ratio = method.reward.partition(" ")
    rises = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        policy = train(run_of(folder, base, method, split(method.file)["trained"], overrides)).policy
    for part in parts:
        if method.judge == "labels" and part == "pair":  # trained prompts have no held-out good answer
            continue
        examples, prompts, before = held_out(base, method.judge, part)
        after = rewards(policy, examples, kind)
        origin, accuracy = before[kind] if ratio else torch.zeros(()), correct
        if method.judge == "labels":
            good = torch.tensor([e.columns["label"] > 0 for e in examples])
            accuracy = functools.partial(share_above, good=good)
            prompts = [prompt for prompt, is_good in zip(prompts, good.tolist(), strict=True) if is_good]
        rises[part] = rise(accuracy(before[kind] - origin), accuracy(after[kind] - origin), prompts)
        if "sum" in before:
            rises[f"{part}, plain"] = rise(accuracy(before["sum"]), accuracy(after["sum"]), prompts)
    return rises


def without_learning(part: str) -> None:
    """Print accuracies without a model: the longer answer, the answer with more steps, and the most common label."""
    rows, steps = split("preference")[part], [label for row in split("stepwise")[part] for label in row["labels"]]
    sizes = torch.tensor([[[len(row[s]), row[s].count("\n")] for s in ("chosen", "rejected")] for row in rows]).float()
    longer, more = (correct(sizes[..., i]).mean() for i in (0, 1))
    print(f"{part}: {len(rows)} pairs, the longer answer {longer:.3f}, the answer with more steps {more:.3f}; ", end="")
    print(f"{len(steps)} steps, all of them wrong {1 - sum(steps) / len(steps):.3f}")


def main(*arguments: str) -> None:
    overrides = tuple(word for word in arguments if "=" in word)
    words = [word for word in arguments if "=" not in word and not word.startswith("--")]
    folder, *names = words or ["outputs/rises"]
    parts = ("third",) if "--third" in arguments else ("prompt", "pair")
    base = base_model(Path(folder), "--gpt2" in arguments)
    for part in parts:
        without_learning(part)
    print("| method |" + "".join(f" by {part}, before | after |" for part in (*parts, *(f"{p}, plain" for p in parts))))
    for name in names or (["reward"] if pairs.quick else METHODS):
        rises = measure(base, METHODS[name], parts, overrides)
        figures = (rises.get(part + suffix, " | ") for suffix in ("", ", plain") for part in parts)
        print("|", " | ".join((" ".join((name, *overrides)), *figures)), "|", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
