"""The table of formats: for each row kind and `type:`, which columns are read, and how they are written out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Markup(NamedTuple):
    """How the turns of a conversation are written."""

    turn: str
    """A whole turn: {role} and {content}."""
    answer: str
    """What an answer follows."""
    end: str
    """What ends an answer, and is trained with it."""
    special: tuple[str, ...]
    """Texts that are one token each in the vocabulary of a model of this markup."""
    system: str | None = None
    """The system turn of a row that has none; None writes no such turn."""


CHATML = Markup(
    "<|im_start|>{role}\n{content}<|im_end|>\n",
    "<|im_start|>assistant\n",
    "<|im_end|>",
    ("<|im_start|>", "<|im_end|>"),
)
LLAMA3 = Markup(
    "<|start_header_id|>{role}<|end_header_id|>\n\n{content}<|eot_id|>",
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "<|eot_id|>",
    ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
)
ZEPHYR = Markup("<|{role}|>\n{content}</s>\n", "<|assistant|>\n", "</s>", ("</s>",), system="")


class Format(NamedTuple):
    """What a row of one type holds. Of the names for a column, the first that the data has is read.

    prompt: no name where it is in the messages. answers: chosen and rejected, or the completion, each with its names.
    markup: None for texts that stand as they are. messages: answers are lists of messages, the last one the answer.
    ranked: the one column of answers holds many, each with its rank.
    """

    prompt: tuple[str, ...]
    answers: Mapping[str, tuple[str, ...]]
    system: str | None = "system"
    markup: Markup | None = None
    messages: bool = False
    ranked: bool = False

    @property
    def fields(self) -> set[str]:
        """What of a row can be read from a column of another name."""
        named = {"system"} if self.system else set()
        return named | ({"prompt"} if self.prompt else set()) | (set() if self.ranked else set(self.answers))


PAIR = {"chosen": ("chosen",), "rejected": ("rejected",)}
RESPONSES = {"chosen": ("chosen_response",), "rejected": ("rejected_response",)}
EITHER = {"chosen": ("chosen", "chosen_response"), "rejected": ("rejected", "rejected_response")}
ONE = {"completion": ("completion",)}
AUTOMATIC = Format(("prompt", "input", "question", "instruction"), EITHER)
PLAIN = ("passthrough", "passthrough.default", "user_defined")
"""Types whose texts stand as they are, or as the entry's own formats write them."""


def _in_each_chat(formats: dict[str, Format]) -> dict[str, Format]:
    """The same columns in every markup of chats."""
    chats = {"chatml": CHATML, "llama3": LLAMA3}
    return {name + end: one._replace(markup=markup) for name, markup in chats.items() for end, one in formats.items()}


PAIRS = {
    **_in_each_chat(
        {
            "": AUTOMATIC,
            ".default": AUTOMATIC,
            ".argilla": Format(("instruction",), RESPONSES),
            ".argilla_chat": Format((), PAIR, system=None, messages=True),
            ".icr": Format(("input",), PAIR),
            ".intel": Format(("question",), PAIR),
            ".prompt_pairs": Format(("prompt",), PAIR),
            ".ultra": Format(("prompt",), PAIR, messages=True),
        }
    ),
    "bradley_terry.llama3.icr": Format(("input",), PAIR, markup=LLAMA3),
    "zephyr.nectar": Format(("prompt",), {"answers": ("answers",)}, system=None, markup=ZEPHYR, ranked=True),
    **dict.fromkeys(PLAIN, Format(("prompt",), PAIR)),
}
LABELLED = {
    **_in_each_chat(
        {
            ".argilla": Format(("instruction",), ONE),
            ".argilla_chat": Format((), ONE, system=None, messages=True),
            ".intel": Format(("question",), ONE),
            ".prompt_pairs": Format(("prompt",), ONE),
            ".ultra": Format(("prompt",), ONE),
        }
    ),
    **dict.fromkeys(PLAIN, Format(("prompt",), ONE)),
}
FORMATS: dict[str, dict[str, Format]] = {"pair": PAIRS, "labelled": LABELLED}
"""Row kind -> type -> format."""
