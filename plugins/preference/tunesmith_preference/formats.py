"""Table of formats: for each row kind and `type:`, the columns that are read and the text that is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Markup(NamedTuple):
    """The markup of a conversation."""

    turn: str
    """Text of a turn, with {role} and {content}."""
    answer: str
    """Text before an answer."""
    end: str
    """Text after an answer, which is trained with it."""
    special: tuple[str, ...]
    """Texts that are a single token each in the vocabulary of a model with this markup."""
    system: str | None = None
    """System prompt of a row that has none; None writes no system turn."""


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
    """The parts of a row of one type. The first name of a column that the data has is read.

    prompt: names of its column, empty if the prompt is in the messages. answers: chosen and rejected, or the
    completion, each with the names of its column. markup: None for texts that are written as they are. messages: an
    answer is a list of messages, of which the last one is the answer. ranked: one column has a list of ranked answers.
    """

    prompt: tuple[str, ...]
    answers: Mapping[str, tuple[str, ...]]
    system: str | None = "system"
    markup: Markup | None = None
    messages: bool = False
    ranked: bool = False

    @property
    def fields(self) -> set[str]:
        """The parts of a row whose column can be renamed."""
        named = {"system"} if self.system else set()
        return named | ({"prompt"} if self.prompt else set()) | (set() if self.ranked else set(self.answers))


PAIR = {"chosen": ("chosen",), "rejected": ("rejected",)}
RESPONSES = {"chosen": ("chosen_response",), "rejected": ("rejected_response",)}
EITHER = {"chosen": ("chosen", "chosen_response"), "rejected": ("rejected", "rejected_response")}
ONE = {"completion": ("completion",)}
AUTOMATIC = Format(("prompt", "input", "question", "instruction"), EITHER)
PLAIN = ("passthrough", "passthrough.default", "user_defined")
"""Types whose texts are written as they are, or in the entry's own formats."""


def _in_each_chat(formats: dict[str, Format]) -> dict[str, Format]:
    """Return the formats in the markup of each chat, under the name of the chat and their own."""
    chats = {"chatml": CHATML, "llama3": LLAMA3}
    return {name + end: form._replace(markup=markup) for name, markup in chats.items() for end, form in formats.items()}


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
