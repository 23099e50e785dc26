"""The rules: each one a name, how bad it is, what it says, and a small function that sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from tunesmith_lint.looks import Look
from tunesmith_lint.tally import Tally

Severity = Literal["error", "warning"]
BIASED = 2.0
"""How many times as long the good answers are as the bad ones, or the reverse, before length is what is learnt."""


class Rule(NamedTuple):
    """A fault, and how it is seen: in a row, of which `stands` then says whether so many of all are a fault; in what is
    known of a whole entry; or, without both, elsewhere: by the code of a refusal, or over all entries."""

    name: str
    severity: Severity
    help: str
    row: Callable[[Look], bool] | None = None
    stands: Callable[[int, Tally], bool] = lambda found, tally: found > 0
    entry: Callable[[Tally], int] | None = None


# in a row


def nothing_trained(look: Look) -> bool:
    return bool(look.completions) and not look.example.trained_tokens


def ends_untrained(look: Look) -> bool:
    """A completion that is learnt as a text, and of which the last trained token does not end one."""
    texts = look.trained if look.kind in ("text", "conversation", "pair", "labelled") else []
    return any(len(tokens) and int(tokens[-1]) not in look.words.ends for tokens in texts)


def double_bos(look: Look) -> bool:
    return look.words.bos is not None and look.opening() == [look.words.bos] * 2


def too_long(look: Look) -> bool:
    return look.outcome == "too_long"


def answer_lost(look: Look) -> bool:
    return look.outcome == "truncated" and not look.left and look.example.trained_tokens > 0


def answer_cut(look: Look) -> bool:
    return look.outcome == "truncated" and 0 < look.left < look.example.trained_tokens


def chosen_is_rejected(look: Look) -> bool:
    if look.kind != "pair" or len(look.completions) != 2:
        return False
    chosen, rejected = (segment.tokens for segment in look.completions)
    return len(chosen) == len(rejected) and bool((chosen == rejected).all())


def empty_answer(look: Look) -> bool:
    return look.kind != "stepwise" and look.empty


def empty_turn(look: Look) -> bool:
    return not look.empty and any(not look.said(message) for message in look.messages())


def special_in_text(look: Look) -> bool:
    return look.words.special is not None and any(map(look.words.special.search, look.text))


def replacement_character(look: Look) -> bool:
    if not any("\ufffd" in text for text in look.text):
        return False
    return any("\ufffd" in look.words.tokenizer.decode(tokens.tolist()) for tokens in look.trained)


def unknown_token(look: Look) -> bool:
    return look.words.unknown is not None and any((tokens == look.words.unknown).any() for tokens in look.trained)


# in an entry


def one_label(tally: Tally) -> int:
    return tally.labels if tally.labels > 1 and tally.good in (0, tally.labels) else 0


def length_bias(tally: Tally) -> int:
    better, worse = tally.mean_lengths
    return tally.sides if better and worse and max(better / worse, worse / better) >= BIASED else 0


RULES = (
    Rule("row", "error", "its strategy refuses the row: mend or remove it"),
    Rule("too-many-refused", "error", "the rest of the entry was not looked at: mend these rows first"),
    Rule(
        "template-unstable",
        "error",
        "the template writes a turn differently once another follows: one trained turn a row, or another template",
    ),
    Rule("no-rows", "error", "the entry has no rows: look at its path, its shards, and what filters leave"),
    Rule(
        "nothing-trained",
        "error",
        "no token of the row is trained: preprocess --debug shows why",
        nothing_trained,
    ),
    Rule(
        "end-never-trained",
        "error",
        "no answer ends in a token that generation stops at, so the model never learns to stop: name it in "
        "special_tokens: {eos_token: ...} or eot_tokens, or look at train_on_eos",
        ends_untrained,
        lambda found, tally: found == tally.answered,
    ),
    Rule(
        "end-sometimes-untrained",
        "warning",
        "these answers do not end in a token that generation stops at, and others of the entry do",
        ends_untrained,
        lambda found, tally: found < tally.answered,
    ),
    Rule(
        "double-bos",
        "error",
        "the text begins with two BOS: one is the tokenizer's, so take the other out of the template or the data",
        double_bos,
    ),
    Rule(
        "too-long",
        "warning",
        "the row is longer than sequence_len and is left out: raise it, or write excess_length_strategy: truncate",
        too_long,
    ),
    Rule(
        "answer-lost",
        "error",
        "cut at sequence_len, nothing that is trained is left of the row: raise sequence_len, or drop long rows",
        answer_lost,
    ),
    Rule(
        "answer-cut",
        "warning",
        "an answer is cut at sequence_len, and its end is not trained: raise sequence_len, or drop long rows",
        answer_cut,
    ),
    Rule(
        "chosen-is-rejected",
        "error",
        "both answers of the pair are the same tokens: there is nothing to prefer",
        chosen_is_rejected,
    ),
    Rule(
        "empty-answer",
        "error",
        "the answer is empty or white space: the model learns to say nothing",
        empty_answer,
    ),
    Rule("empty-turn", "warning", "a message of the conversation says nothing", empty_turn),
    Rule(
        "special-in-text",
        "warning",
        "a text has a special token written in it, which most rows do not: it becomes that token, and may end a turn",
        special_in_text,
        lambda found, tally: found < tally.rows / 2,
    ),
    Rule(
        "replacement-character",
        "warning",
        "U+FFFD is trained: the file was read in the wrong encoding before it came here",
        replacement_character,
    ),
    Rule(
        "unknown-token",
        "warning",
        "the tokenizer's unknown token is trained: the vocabulary lacks characters of the data",
        unknown_token,
    ),
    Rule(
        "one-label",
        "warning",
        "all labels of the entry are the same: there is nothing to tell apart",
        entry=one_label,
    ),
    Rule(
        "length-bias",
        "warning",
        "good answers are twice as long as bad ones or the reverse, so length may be all that is learnt",
        entry=length_bias,
    ),
    Rule("duplicate", "warning", "the tokens are those of an earlier training row: dataset_exact_deduplication: true"),
    Rule(
        "evaluated-on-trained",
        "error",
        "the same tokens are trained on and evaluated on, so the evaluation measures memory",
    ),
    Rule("evaluated-prompt-trained", "warning", "an evaluated prompt is trained on with another answer"),
)
BY_NAME = {rule.name: rule for rule in RULES}
