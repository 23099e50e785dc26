"""Layouts of instructions, questions, prompts and texts."""

from __future__ import annotations

from typing import Any

from tunesmith_starter.chats import ANSWERING
from tunesmith_starter.columns import Columns
from tunesmith_starter.layout import TEMPLATE, Entry, Layout

QUESTIONS = ("prompt", "question", "query", "problem", "instruction", "input", "task")
ANSWERS = ("answer", "response", "output", "completion", "solution", "generation", "target")
GOLD = ("answer", "ground_truth", "gold", "solution", "target", "expected_answer", "final_answer")
INPUTS = ("input", "context")
TEXTS = ("text", "content", "document", "body", "markdown")
MATH = "####"
"""Text before the final answer of a solution, as in GSM8K."""
SYSTEMS = ("system_prompt", "system_message")


def tokenized(columns: Columns) -> Layout | None:
    """Recognize rows that are tokens already, or segments with a label."""
    if {"input_ids", "labels"} <= set(columns.names):
        return Layout("tokens with labels", {"conversation": Entry({"type": "tokenized"})})
    segments = columns.mappings("segments")
    if segments and all({"label", "text"} <= item.keys() for item in segments):
        return Layout("segments that are trained or not", {"conversation": Entry({"type": "input_output"})})
    return None


def prompts(columns: Columns) -> Layout | None:
    """Recognize prompts whose answer is in a column for rewards, without a worked answer, as in DAPO-Math."""
    name = next((name for name in ("prompt", "messages", "question") if columns.messages(name)), None)
    messages = columns.messages(name) if name else None
    if name is None or messages is None or set(messages.roles) & ANSWERING:
        return None
    if (messages.role, messages.content) != ("role", "content"):  # type: prompt reads no other names
        return None
    gold = gold_column(columns)
    entry = Entry({"type": "prompt", **named(name)}, {}, TEMPLATE, reward(gold) if gold else None)
    return Layout("prompts as messages" + (f" with a reference answer in {gold}" if gold else ""), {"prompt": entry})


def gold_column(columns: Columns) -> str | None:
    """Return the column with the reference answer; `outer.inner` for a key of mappings."""
    if columns.is_mapping("reward_model") and all("ground_truth" in v for v in columns.values("reward_model")):
        return "reward_model.ground_truth"
    names = [name for name in GOLD if name in columns and columns.values(name)]
    return next((name for name in names if columns.is_text(name) or columns.is_number(name)), None)


def reward(column: str, *, marked: bool = False) -> dict[str, Any]:
    """Return the reward that compares a completion with a column: the last number, after #### if it has this mark."""
    keys: dict[str, Any] = {"name": "exact_match", "column": column, "extract": r"(-?\d[\d,]*(?:\.\d+)?)\D*$"}
    return {**keys, "extract_gold": MATH} if marked else keys


def named(column: str) -> dict[str, Any]:
    return {} if column in ("prompt", "messages", "question") else {"field_prompt": column}


def instructions(columns: Columns) -> Layout | None:
    """Recognize an instruction, its input, and an output, as in Alpaca and Dolly."""
    output = columns.first(("output", "response", "answer", "completion"))
    if not columns.is_text("instruction") or output is None:
        return None
    extra = next((name for name in INPUTS if name in columns and columns.is_text(name)), None)
    if extra is None and "input" not in columns:
        return None
    keys = {} if extra in (None, "input") else {"field_input": extra}
    keys |= {} if output == "output" else {"field_output": output}
    system = next((name for name in ("system", *SYSTEMS) if columns.is_text(name)), None)
    keys |= {"field_system": system} if system else {}
    words = f"instructions with {extra or 'input'} and {output}"
    comments = {"type": "the prompt of Alpaca: use it with the trained model"}
    return Layout(words, {"conversation": Entry({"type": "alpaca", **keys}, comments)})


def questions(columns: Columns) -> Layout | None:
    """Recognize a question and its answer."""
    question = columns.first(QUESTIONS)
    answer = columns.first([name for name in ANSWERS if name != question])
    if question is None:
        return None
    gold = gold_column(columns)
    if answer is None:
        if gold is None:
            return None
        entry = Entry({"type": "prompt", **named(question), "chat": True}, {}, TEMPLATE, reward(gold))
        return Layout(f"prompts with a reference answer in {gold}", {"prompt": entry})
    keys: dict[str, Any] = {} if question == "prompt" else {"field_messages": question}
    keys |= {} if answer == "completion" else {"field_completion": answer}
    system = next((name for name in SYSTEMS if columns.is_text(name)), None)
    keys |= {"field_system": system} if system else {}
    entries = {"conversation": Entry({"type": "chat_template.prompt_completion", **keys}, {}, TEMPLATE)}
    marked = all(MATH in text for text in columns.values(answer))
    if gold is not None and (marked or gold != answer or short(columns, gold)):
        comments = {"chat": "the text is a message of the user"}
        prompt = {"type": "prompt", **named(question), "chat": True}
        entries["prompt"] = Entry(prompt, comments, TEMPLATE, reward(gold, marked=marked))
    return Layout(f"{question} and {answer}", entries)


def short(columns: Columns, name: str) -> bool:
    """Return True if the texts of a column are short enough to be compared as a whole."""
    return all(len(str(value)) <= 40 for value in columns.values(name))


def texts(columns: Columns) -> Layout | None:
    """Recognize plain texts."""
    name = columns.first(TEXTS) or (
        columns.names[0] if len(columns.names) == 1 and columns.is_text(columns.names[0]) else None
    )
    if name is None:
        return None
    keys = {} if name == "text" else {"field": name}
    return Layout("plain texts", {"text": Entry({"type": "completion", **keys})})
