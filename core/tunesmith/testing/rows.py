"""Rows of every row kind, made of a few words, and the same content in the shapes that prompt strategies read."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Records = list[dict[str, Any]]
WORDS = (
    "the", "a", "red", "blue", "green", "cat", "dog", "bird", "sees", "likes", "finds", "one", "two", "three", "old",
    "new", "house", "tree", "river", "stone",
)  # fmt: skip


def sentence(random_: random.Random, least: int = 3, most: int = 20) -> str:
    """Return a sentence of `least` to `most` words."""
    return " ".join(random_.choices(WORDS, k=random_.randint(least, most))) + "."


def _conversation(random_: random.Random, records: Records) -> dict[str, Any]:
    turns = [
        {"role": role, "content": sentence(random_)}
        for _ in range(random_.randint(1, 2))
        for role in ("user", "assistant")
    ]
    return {"messages": turns}


def _text(random_: random.Random, records: Records) -> dict[str, Any]:
    return {"text": sentence(random_, 5, 40)}


def _pair(random_: random.Random, records: Records) -> dict[str, Any]:
    return {"prompt": sentence(random_), "chosen": sentence(random_, 2, 9), "rejected": sentence(random_, 2, 9)}


def _prompt(random_: random.Random, records: Records) -> dict[str, Any]:
    return {"prompt": sentence(random_)}


def _answer(random_: random.Random, records: Records) -> dict[str, Any]:
    """Return a prompt and its answer. Of three successive rows, the first two have the same prompt."""
    prompt = records[-1]["prompt"] if len(records) % 3 == 1 else sentence(random_)
    return {"prompt": prompt, "completion": sentence(random_, 2, 9)}


def _labelled(random_: random.Random, records: Records) -> dict[str, Any]:
    return {**_answer(random_, records), "label": len(records) % 5 in (0, 2)}


def _scored(random_: random.Random, records: Records) -> dict[str, Any]:
    return {**_answer(random_, records), "score": random_.randint(-4, 4) / 4}


def _stepwise(random_: random.Random, records: Records) -> dict[str, Any]:
    """Return a solution of one to four steps. A step that mentions a dog is wrong."""
    steps = [sentence(random_, 2, 8) for _ in range(random_.randint(1, 4))]
    return {"prompt": sentence(random_), "completions": steps, "labels": ["dog" not in step for step in steps]}


_KINDS: dict[str, Callable[[random.Random, Records], dict[str, Any]]] = {
    "text": _text,
    "conversation": _conversation,
    "pair": _pair,
    "labelled": _labelled,
    "prompt": _prompt,
    "stepwise": _stepwise,
    "scored": _scored,
}
KINDS = tuple(_KINDS)
"""The row kinds that `rows` knows."""


def rows(kind: str, count: int, seed: int = 0) -> Records:
    """Return rows of unequal lengths, the same for the same seed. `kind` is one of KINDS."""
    random_ = random.Random(seed)
    records: Records = []
    for _ in range(count):
        records.append(_KINDS[kind](random_, records))
    return records


def write_rows(path: Path, records: Records) -> Path:
    """Write rows as JSON lines, and return the path."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def shapes(kind: str, count: int, seed: int = 0) -> Iterator[Records]:
    """Yield the same rows in each shape that is common for a kind: the plain one first, then wider ones.

    A wider row has the columns of many data sets at once, of which a strategy reads a few.
    """
    plain = rows(kind, count, seed)
    yield plain
    random_ = random.Random(seed)

    def say() -> str:
        return sentence(random_, 2, 9)

    if kind in ("conversation", "text"):
        names = (
            "instruction", "input", "output", "question", "answer", "response", "system", "system_prompt", "prompt",
            "generation", "message_1", "message_2", "article", "summary", "explanation", "context", "text", "category",
            "revision", "solution", "reflection", "corrected", "scores", "critiques", "unanswerable_question",
            "INSTRUCTION", "RESPONSE",
        )  # fmt: skip
        for row in plain:
            row |= {name: say() for name in names if name not in row}
            turns = (("human", say()), ("gpt", say()))
            row["conversations"] = [{"from": name, "value": text} for name, text in turns]
            row["choices"] = [say(), say()]
        yield plain
        yield [{**row, "conversations": _by_role(("user", "bot"), say)} for row in plain]
        yield [{**row, "conversations": _by_role(("human", "gpt"), say)} for row in plain]
    if kind in ("pair", "labelled"):
        yield [_as_texts(row, say) for row in plain]
        yield [_as_messages(_as_texts(row, say)) for row in plain]


def _by_role(roles: tuple[str, str], say: Callable[[], str]) -> list[dict[str, str]]:
    return [{"role": role, "from": role, "value": say()} for role in roles]


def _as_texts(row: dict[str, Any], say: Callable[[], str]) -> dict[str, Any]:
    """Return a row of answers with the column names of the usual data sets."""
    prompt, answer = row["prompt"], row.get("completion", "")
    others = dict.fromkeys(("input", "question", "instruction"), prompt) | {"system": say()}
    if "chosen" in row:
        texts = {"chosen_response": row["chosen"], "rejected_response": row["rejected"]}
        ranked = [{"answer": row["chosen"], "rank": 1.0}, {"answer": row["rejected"], "rank": 2.0}]
        return {**row, **others, **texts, "answers": ranked, "num": 2}
    return {**row, **others, "chosen": answer, "chosen_response": answer}


def _as_messages(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose answers are conversations."""
    asked = {"role": "user", "content": row["prompt"]}
    answers = [key for key in ("chosen", "rejected", "completion") if key in row]
    return {**row, **{key: [asked, {"role": "assistant", "content": row[key]}] for key in answers}}
