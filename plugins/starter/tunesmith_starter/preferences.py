"""Layouts of pairs of answers, ranked answers, and answers with a label or scores."""

from __future__ import annotations

import re
from typing import Any

from tunesmith_starter.chats import dialogue_keys, message_keys
from tunesmith_starter.columns import Columns
from tunesmith_starter.layout import TEMPLATE, Entry, Layout

PROMPTS = ("prompt", "question", "instruction", "input", "query", "messages", "conversation", "context")
ANSWERS = ("completion", "response", "answer", "output")
SYSTEMS = ("system", "system_prompt", "system_message")
BOTH = (("chosen", "rejected"), ("chosen_response", "rejected_response"), ("response_chosen", "response_rejected"),
        ("preferred", "dispreferred"), ("winner", "loser"))  # fmt: skip
"""Names of the columns of a better and a worse answer."""
BETTER = re.compile(r"better|prefer|chosen|best|winner|choice", re.I)
SCORES = ("helpfulness", "overall_score", "overall", "quality", "score", "rating")
"""Names of the column whose number says how good an answer is, the most general first."""


def prompt_keys(columns: Columns, *, default: str = "prompt") -> tuple[str | None, dict[str, Any]]:
    """Return the column with the prompt, a text or messages, and the keys that name it and the system column."""
    names = [name for name in PROMPTS if name in columns and columns.complete(name)]
    prompt = next((name for name in names if columns.is_text(name) or columns.messages(name)), None)
    keys: dict[str, Any] = {} if prompt in (default, None) else {"field_messages": prompt}
    system = next((name for name in SYSTEMS if name in columns and columns.is_text(name)), None)
    if system not in (None, "system"):
        keys["field_system"] = system
    if prompt and (messages := columns.messages(prompt)):
        keys |= message_keys(messages)
    return prompt, keys


def ranked(columns: Columns) -> Layout | None:
    """Recognize prompts with a list of ranked answers, as in Nectar."""
    prompt, keys = prompt_keys(columns)
    for name in columns.names:
        items = columns.mappings(name)
        if prompt is None or not items or not all({"rank", "answer"} <= item.keys() for item in items):
            continue
        markers = dialogue_keys(columns, prompt, minimum=1)
        typed = {"type": "chat_template.dialogue", **markers} if markers is not None else {"type": "chat_template"}
        entry = Entry(
            {**typed, **keys, "field_ranked": name},
            {"field_ranked": "the best answer is chosen, and the worst rejected"},
            TEMPLATE,
        )
        return Layout("prompts with ranked answers", {"pair": entry})
    return None


def pairs(columns: Columns) -> Layout | None:
    """Recognize pairs of a chosen and a rejected answer: texts, messages, or dialogues in one text."""
    for chosen, rejected in BOTH:
        if chosen not in columns or rejected not in columns:
            continue
        names = {} if chosen == "chosen" else {"field_chosen": chosen, "field_rejected": rejected}
        markers = dialogue_keys(columns, chosen) if columns.is_text(chosen) else None
        if markers is not None:
            entry = Entry({"type": "chat_template.dialogue", **markers, **names}, {}, TEMPLATE)
            return Layout("pairs of dialogues, each in one text", {"pair": entry})
        dialogue = columns.messages(chosen)
        prompt, keys = prompt_keys(columns)
        if dialogue is not None:
            starts_with_answer = set(dialogue.first) <= {"assistant", "gpt", "model", "bot"}
            if not starts_with_answer:  # the conversation is in both columns
                prompt, keys = (
                    "prompt",
                    {"field_messages": "prompt"} if {"prompt", "messages"} <= set(columns.names) else {},
                )
            keys |= message_keys(dialogue)
        elif not columns.is_text(chosen):
            continue
        if prompt is None:
            entry = Entry({"type": "passthrough", **names}, {"type": "the common beginning of both is the prompt"})
            return Layout("pairs of texts with a common beginning", {"pair": entry})
        words = "pairs of conversations" if dialogue is not None else "prompts with a better and a worse answer"
        return Layout(words, {"pair": Entry({"type": "chat_template", **keys, **names}, {}, TEMPLATE)})
    return None


def choices(columns: Columns) -> Layout | None:
    """Recognize prompts with two numbered answers and the number of the better one, as in PKU-SafeRLHF."""
    prompt, keys = prompt_keys(columns)
    better = [name for name in columns.names if BETTER.search(name) and columns.is_label(name)]
    if prompt is None or not better:
        return None
    for first in columns.texts:
        for one, two in (("0", "1"), ("1", "2"), ("a", "b"), ("A", "B")):
            second = first[: -len(one)] + two if first.endswith(one) else ""
            if second in columns.texts and second != first:
                named = {"field_chosen": first, "field_rejected": second, "field_better": better[0]}
                comment = f"0: {first} is better, 1: {second} is"
                entry = Entry({"type": "chat_template", **keys, **named}, {"field_better": comment}, TEMPLATE)
                return Layout("prompts with two answers and the number of the better one", {"pair": entry})
    return None


def labelled(columns: Columns) -> Layout | None:
    """Recognize answers with a label: good or bad."""
    answer = next((name for name in ANSWERS if name in columns and columns.complete(name)), None)
    label = next((name for name in ("label", "labels", "is_good", "desirable") if columns.is_label(name)), None)
    if answer is None or label is None:
        return None
    messages = columns.messages(answer)
    if messages is None and not columns.is_text(answer):
        return None
    prompt, keys = prompt_keys(columns)
    if messages is not None:
        keys |= message_keys(messages)
    elif prompt is None:
        return None
    keys |= {} if answer == "completion" else {"field_completion": answer}
    keys |= {} if label == "label" else {"field_label": label}
    return Layout(
        "answers that are labeled good or bad", {"labelled": Entry({"type": "chat_template", **keys}, {}, TEMPLATE)}
    )


def scored(columns: Columns) -> Layout | None:
    """Recognize answers with scores, as in HelpSteer. They are good from the middle of the scale on."""
    prompt, keys = prompt_keys(columns)
    answer = columns.first(ANSWERS)
    score = next((name for name in SCORES if columns.is_number(name) and columns.complete(name)), None)
    if prompt is None or answer is None or score is None or prompt == answer:
        return None
    values = sorted(columns.values(score))
    threshold = next((value for value in values if 2 * value > values[0] + values[-1]), None)
    named = {} if answer == "completion" else {"field_completion": answer}
    conversation = Entry({"type": "chat_template.prompt_completion", **keys, **named}, {}, TEMPLATE)
    if threshold is None:  # all scores are equal
        return Layout("prompts with a scored answer", {"conversation": conversation})
    label = {"field_label": score, "label_threshold": threshold}
    comments = {"label_threshold": f"answers from this {score} on are good, the others bad"}
    entry = Entry({"type": "chat_template", **keys, **named, **label}, comments, TEMPLATE)
    return Layout("prompts with a scored answer", {"labelled": entry, "conversation": conversation})
