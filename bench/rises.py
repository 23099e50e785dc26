"""Held-out accuracy of each method of preference and reward learning, before training and after, on GSM8K rows.

    python -m bench.rises FOLDER [METHOD ...] [key=value ...] [--third] [--gpt2]

FOLDER keeps the base model: small, fine-tuned on other questions (messages.jsonl); all start from it. --third measures
the rows that settings are chosen on, and no others; --gpt2 takes the GPT-2 tokenizer of the data. Accuracy is how often
the better answer of a pair has the higher reward, a tie counting one half; how often a good answer has a higher reward
than a bad one to another prompt ("labels"); or how often a step is judged rightly. Held out by
prompt: nothing of it is trained on. By pair: its prompt is, and the chosen answer with it, beside other rejected ones.
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
PROMPTS, HELD, THIRD = 920, 200, 120  # the first to report, the next to choose settings on, all others trained


class Method(NamedTuple):
    """A row of the table. reward: log-probability of an answer (sum) or of a token of it (mean), or the log-ratio of
    that to the base; the score of an answer; or the judgement of each step. judge: what it is measured on."""

    keys: Row
    reward: str
    file: str = "preference"
    type: str = "chatml.prompt_pairs"
    judge: str = "pairs"


KTO = {"rl": "kto", "kto_desirable_weight": 1.4}  # by the advice that a run gives: 896 rows are true, 1,062 false
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
JUDGES = {  # who reads held-out rows, and what is asked of them
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
    """What tells the rows of a prompt apart: the rejected answer of a pair, or the only one."""
    answer = row.get("rejected") or row.get("completion") or row["completions"]
    return str(answer[-1]["content"] if isinstance(answer[-1], dict) else answer)


def split(file: str) -> dict[str, list[Row]]:
    """The rows of a file by part; a prompt is in the same part in all files. By pair, the first of several answers to a
    trained prompt is held out."""
    order = list(dict.fromkeys(prompt_of(row) for row in read("stepwise")))
    random.Random(7).shuffle(order)
    place = {prompt: index for index, prompt in enumerate(order[:PROMPTS])}
    answers = defaultdict(list)
    for row in read("stepwise" if file == "stepwise" else "preference"):
        answers[prompt_of(row)].append(answer_of(row))
    parts: dict[str, list[Row]] = {"trained": [], "prompt": [], "pair": [], "third": []}
    for row in read(file):
        index, known = place.get(prompt_of(row), PROMPTS), answers[prompt_of(row)]
        if index < HELD + THIRD:
            parts["prompt" if index < HELD else "third"].append(row)
        elif index < PROMPTS:
            parts["pair" if len(known) > 1 and answer_of(row) == known[0] else "trained"].append(row)
    return parts


def base_model(folder: Path, gpt2: bool) -> Path:
    """A Llama of 128 x 2, fine-tuned on messages.jsonl for three epochs; made once for a folder."""
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
    """What is said of pairs [P, 2], "sum" and "mean", or "score"; of steps [M], "step": rightly judged or not. Of
    single answers [P, 1]."""
    policy.model.eval()
    found, scored = defaultdict(list), kind in ("score", "step")
    for start in range(0, len(examples), 8):
        batch = collate(examples[start : start + 8], score_points=scored)
        out = policy(batch, Needs(logps=not scored, scores=scored))
        if scored:
            steps = kind == "step"
            found[kind].append(out.scores.argmax(-1) == batch.columns["label"] if steps else out.scores.view(-1, 2))
        else:
            for name, by_sequence in (("sum", batch.sum_by_sequence), ("mean", batch.mean_by_sequence)):
                found[name].append(by_sequence(out.logps).view(batch.examples, -1))
    return {name: torch.cat(parts).float() for name, parts in found.items()}


def right(reward: Tensor) -> Tensor:
    """Of pairs [P, 2], 1 where the chosen answer has the higher reward, and one half where neither has; steps as is."""
    return reward if reward.ndim == 1 else 0.5 + 0.5 * (reward[:, 0] - reward[:, 1]).sign()


def above(reward: Tensor, good: Tensor) -> Tensor:
    """Of single answers [P, 1], for each good one the share of the bad ones whose reward is lower."""
    return 0.5 + 0.5 * (reward[good] - reward[~good].T).sign().mean(1)


def rise(before: Tensor, after: Tensor, prompts: list[str]) -> str:
    """Accuracy before and after, and the standard error of the difference; bold where that is less than two of them.
    Differences are paired, and those of one prompt are added up first, as they are not independent."""
    difference, sums = after - before, dict.fromkeys(prompts, 0.0)
    for prompt, off in zip(prompts, (difference - difference.mean()).tolist(), strict=True):
        sums[prompt] += off
    error = sum(value**2 for value in sums.values()) ** 0.5 / len(prompts)
    bold = "" if difference.mean() >= 2 * error > 0 else "**"
    return f"{before.mean():.3f} | {bold}{after.mean():.3f}{bold} ± {error:.3f}"


@functools.cache
def held_out(base: Path, judge: str, part: str) -> tuple[list[Example], list[str], dict[str, Tensor]]:
    """Rows of a part as a judge reads them, the prompt of each answer or step, and what the base says."""
    method, rows = JUDGES[judge], split(JUDGES[judge].file)[part]
    with tempfile.TemporaryDirectory() as folder:
        run = prepare(run_of(folder, base, method, rows))
    examples = list(run.data.train)
    prompts = [prompt_of(rows[e.origin[1]]) for e in examples for _ in rows[e.origin[1]].get("labels", "1")]
    return examples, prompts, rewards(build_policy(run), examples, method.reward.split()[0])


def measure(base: Path, method: Method, parts: tuple[str, ...], overrides: tuple[str, ...]) -> dict[str, str]:
    """Train a method. By part, the rise of its own reward, and that of the bare log-probabilities of answers."""
    kind, _, ratio = method.reward.partition(" ")
    found = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        policy = train(run_of(folder, base, method, split(method.file)["trained"], overrides)).policy
    for part in parts:
        if method.judge == "labels" and part == "pair":  # no good answer is held out to a prompt that is trained on
            continue
        examples, prompts, before = held_out(base, method.judge, part)
        after = rewards(policy, examples, kind)
        origin, judged = before[kind] if ratio else torch.zeros(()), right
        if method.judge == "labels":
            good = torch.tensor([e.columns["label"] > 0 for e in examples])
            judged = functools.partial(above, good=good)
            prompts = [prompt for prompt, is_good in zip(prompts, good.tolist(), strict=True) if is_good]
        found[part] = rise(judged(before[kind] - origin), judged(after[kind] - origin), prompts)
        if "sum" in before:
            found[f"{part}, bare"] = rise(judged(before["sum"]), judged(after["sum"]), prompts)
    return found


def without_learning(part: str) -> None:
    """Print what needs no model: the longer answer, the one of more steps, and the commoner label of steps."""
    rows, steps = split("preference")[part], [label for row in split("stepwise")[part] for label in row["labels"]]
    sizes = torch.tensor([[[len(row[s]), row[s].count("\n")] for s in ("chosen", "rejected")] for row in rows]).float()
    longer, more = (right(sizes[..., i]).mean() for i in (0, 1))
    print(f"{part}: {len(rows)} pairs, the longer answer {longer:.3f}, the one of more steps {more:.3f}; ", end="")
    print(f"{len(steps)} steps, all of them wrong {1 - sum(steps) / len(steps):.3f}")


def main(*arguments: str) -> None:
    overrides = tuple(word for word in arguments if "=" in word)
    words = [word for word in arguments if "=" not in word and not word.startswith("--")]
    folder, *names = words or ["outputs/rises"]
    parts = ("third",) if "--third" in arguments else ("prompt", "pair")
    base = base_model(Path(folder), "--gpt2" in arguments)
    for part in parts:
        without_learning(part)
    print("| method |" + "".join(f" by {part}, before | after |" for part in (*parts, *(f"{p}, bare" for p in parts))))
    for name in names or (["reward"] if pairs.quick else METHODS):
        found = measure(base, METHODS[name], parts, overrides)
        figures = (found.get(part + bare, " | ") for bare in ("", ", bare") for part in parts)
        print("|", " | ".join((" ".join((name, *overrides)), *figures)), "|", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
