"""Define the rules: a name, a severity, a help text, and a small function that detects the fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from tunesmith_lint.row_view import RowView
from tunesmith_lint.tally import Tally

Severity = Literal["error", "warning"]
BIASED = 2.0
"""Ratio of the mean lengths of good and bad answers, in either direction, from which length-bias warns."""


class Rule(NamedTuple):
    """A fault and how to detect it.

    row: detects the fault in one row; `applies` then decides from the number of such rows if the entry has the fault.
    entry: returns the number of rows affected from the statistics of a whole entry. A rule without either is detected
    elsewhere: by the code of a refusal, or by comparing all entries.
    """

    name: str
    severity: Severity
    help: str
    row: Callable[[RowView], bool] | None = None
    applies: Callable[[int, Tally], bool] = lambda count, tally: count > 0
    entry: Callable[[Tally], int] | None = None


# Rules about one row


def nothing_trained(view: RowView) -> bool:
    return bool(view.completions) and not view.example.trained_tokens


def ends_untrained(view: RowView) -> bool:
    """Return True if the last trained token of a completion is not one at which generation stops."""
    texts = view.trained if view.kind in ("text", "conversation", "pair", "labelled") else []
    return any(len(tokens) and int(tokens[-1]) not in view.vocabulary.ends for tokens in texts)


def double_bos(view: RowView) -> bool:
    return view.vocabulary.bos is not None and view.first_two_tokens() == [view.vocabulary.bos] * 2


def too_long(view: RowView) -> bool:
    return view.outcome == "too_long"


def answer_lost(view: RowView) -> bool:
    return view.outcome == "truncated" and not view.remaining and view.example.trained_tokens > 0


def answer_cut(view: RowView) -> bool:
    return view.outcome == "truncated" and 0 < view.remaining < view.example.trained_tokens


def chosen_is_rejected(view: RowView) -> bool:
    """Return True if both answers have the same tokens, also if they differ only behind the cut of `truncate`."""
    examples = [view.example, *view.pieces] if view.kind == "pair" and len(view.completions) == 2 else []
    return any(np.array_equal(*(segment.tokens for segment in example.segments[1:])) for example in examples)


def has_turns(name: str) -> Callable[[RowView], bool]:
    """Return the function that detects an unusual turn, a name of turns.UNUSUAL."""
    return lambda view: name in view.unusual


def duplicate_key(view: RowView) -> bool:
    return bool(view.row.repeated)


def empty_answer(view: RowView) -> bool:
    return view.kind != "stepwise" and view.has_empty_answer


def empty_turn(view: RowView) -> bool:
    return not view.has_empty_answer and any(not view.has_content(message) for message in view.messages())


def special_in_text(view: RowView) -> bool:
    return view.vocabulary.special is not None and any(map(view.vocabulary.special.search, view.texts))


def replacement_character(view: RowView) -> bool:
    if not any("\ufffd" in text for text in view.texts):
        return False
    return any("\ufffd" in view.vocabulary.tokenizer.decode(tokens.tolist()) for tokens in view.trained)


def unknown_token(view: RowView) -> bool:
    unknown = view.vocabulary.unknown
    return unknown is not None and any((tokens == unknown).any() for tokens in view.trained)


# Rules about an entry


def one_label(tally: Tally) -> int:
    return tally.labels if tally.labels > 1 and tally.good in (0, tally.labels) else 0


def length_bias(tally: Tally) -> int:
    good, bad = tally.mean_lengths
    return tally.sides if good and bad and max(good / bad, bad / good) >= BIASED else 0


RULES = (
    Rule("row", "error", "the prompt strategy refuses the row: fix or remove it"),
    Rule("too-many-refused", "error", "the rest of the entry was not checked: fix these rows first"),
    Rule(
        "template-unstable",
        "error",
        "the chat template renders a turn differently if another turn follows: train one turn per row, or use another "
        "template",
    ),
    Rule("no-rows", "error", "the entry has no rows: check its path, its shards, and what the filters drop"),
    Rule(
        "nothing-trained",
        "error",
        "no token of the row is trained: run `tunesmith preprocess --debug` to see why",
        nothing_trained,
    ),
    Rule(
        "end-never-trained",
        "error",
        "no answer ends with a token at which generation stops, so the model never learns to stop: set "
        "special_tokens: {eos_token: ...} or eot_tokens, or check train_on_eos",
        ends_untrained,
        lambda count, tally: count == tally.answered,
    ),
    Rule(
        "end-sometimes-untrained",
        "warning",
        "these answers do not end with a token at which generation stops, but others in the entry do",
        ends_untrained,
        lambda count, tally: count < tally.answered,
    ),
    Rule(
        "double-bos",
        "error",
        "the text begins with two BOS tokens: the tokenizer adds one, so remove the one in the template or the data",
        double_bos,
    ),
    Rule(
        "too-long",
        "warning",
        "the row is longer than sequence_len and is dropped: raise it, or write excess_length_strategy: truncate",
        too_long,
    ),
    Rule(
        "answer-lost",
        "error",
        "truncating the row to sequence_len removes all trained tokens: raise sequence_len, or drop long rows",
        answer_lost,
    ),
    Rule(
        "answer-cut",
        "warning",
        "an answer is truncated to sequence_len, so its end is not trained: raise sequence_len, or drop long rows",
        answer_cut,
    ),
    Rule(
        "chosen-is-rejected",
        "error",
        "chosen and rejected have the same tokens within sequence_len: there is no preference to learn",
        chosen_is_rejected,
    ),
    Rule(
        "empty-answer",
        "error",
        "the answer is empty or white space: the model learns to generate nothing",
        empty_answer,
    ),
    Rule(
        "not-read",
        "warning",
        "the run does not use this part of the row: name it in the entry, choose a type that reads it, or remove it",
    ),
    Rule(
        "answers-in-a-row",
        "warning",
        "two turns of the assistant follow each other: the second answers nothing; join them, or write what it answers",
        has_turns("answers-in-a-row"),
    ),
    Rule(
        "begins-with-answer",
        "warning",
        "the conversation begins with the assistant, so an answer to nothing is trained: write the user's turn first",
        has_turns("begins-with-answer"),
    ),
    Rule(
        "ends-unanswered",
        "warning",
        "the conversation ends with the user: the turn trains nothing; remove it, or write the answer",
        has_turns("ends-unanswered"),
    ),
    Rule(
        "tool-without-call",
        "warning",
        "a tool returns a result, but no turn before it calls a tool: write the call as tool_calls of the assistant",
        has_turns("tool-without-call"),
    ),
    Rule(
        "duplicate-key",
        "warning",
        "a JSON object has one key twice, and only the last value is read: remove or rename one of them",
        duplicate_key,
    ),
    Rule("empty-turn", "warning", "a message of the conversation is empty", empty_turn),
    Rule(
        "special-in-text",
        "warning",
        "the text contains a special token, unlike most rows: it is tokenized as that token and may end a turn",
        special_in_text,
        lambda count, tally: count < tally.rows / 2,
    ),
    Rule(
        "replacement-character",
        "warning",
        "U+FFFD is trained: the file was decoded with the wrong encoding before it was saved",
        replacement_character,
    ),
    Rule(
        "unknown-token",
        "warning",
        "the tokenizer's unknown token is trained: the vocabulary does not cover all characters of the data",
        unknown_token,
    ),
    Rule(
        "one-label",
        "warning",
        "all labels of the entry are the same: there is nothing to distinguish",
        entry=one_label,
    ),
    Rule(
        "length-bias",
        "warning",
        "good answers are at least twice as long as bad ones, or the reverse: the model may learn only the length",
        entry=length_bias,
    ),
    Rule(
        "duplicate",
        "warning",
        "the row has the same tokens as an earlier training row: write dataset_exact_deduplication: true",
    ),
    Rule(
        "evaluated-on-trained",
        "error",
        "the same tokens are trained on and evaluated on: the evaluation measures memorization",
    ),
    Rule("evaluated-prompt-trained", "warning", "the prompt of an evaluation row is trained on with another answer"),
)
BY_NAME = {rule.name: rule for rule in RULES}
