"""Define the prompts of the Alpaca family, by `type:`.

Sources: Taori et al. 2023 (github.com/tatsu-lab/stanford_alpaca) for the Alpaca prompts, and the model card of
orca_mini_v2 for orcamini. The other prompts are those on which models were trained under the same names.
"""

from __future__ import annotations

from string import Formatter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tunesmith_alpaca import AlpacaDataset

USER_DEFINED = "user_defined"


class Columns(NamedTuple):
    """The column of each part of a row, or None for a part that the type does not have."""

    instruction: str = "instruction"
    input: str | None = "input"
    output: str = "output"
    system: str | None = None


class Style(NamedTuple):
    """Templates for str.format: a turn with {instruction} and {input}, one without input, and a text with {system}."""

    turn: str
    turn_without_input: str
    system: str


class Format(NamedTuple):
    """The prompt of a type. opening: the default system text of rows without input, and of rows with input."""

    style: Style
    opening: tuple[str, str] = ("", "")
    columns: Columns = Columns()

    def prompt(self, instruction: str, input: str = "", system: str | None = None) -> str:
        """Return the prompt, which the answer follows directly. system: a text to use instead of the opening."""
        system = self.opening[bool(input)] if system is None else system
        turn = self.style.turn if input else self.style.turn_without_input
        before = self.style.system.format(system=system) if system else ""
        return before + turn.format(instruction=instruction, input=input)


INSTRUCT = Style(
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n",
    "### Instruction:\n{instruction}\n\n### Response:\n",
    "{system}\n\n",
)
CHAT = Style("USER: {instruction}\n{input}\nASSISTANT:", "USER: {instruction}\nASSISTANT:", "SYSTEM: {system}\n")
CHATML = Style(
    "<|im_start|>user\n{instruction}\n{input}<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\n{instruction}<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>system\n{system}<|im_end|>\n",
)
PHI = Style(
    "<|user|>\n{instruction}\n{input}<|end|>\n<|assistant|>\n",
    "<|user|>\n{instruction}<|end|>\n<|assistant|>\n",
    "<|system|>\n{system}<|end|>\n",
)
ORCA = Style(
    "### Human:\n{instruction}\n### Additional Context:\n{input}\n### Assistant:\n",
    "### Human:\n{instruction}\n### Assistant:\n",
    "### System:\n{system}\n",
)
ORCAMINI = Style(
    "### User:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n",
    "### User:\n{instruction}\n\n### Response:\n",
    "### System:\n{system}\n\n",
)
ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.",
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.",
)
CONCISE = (
    "Below is an instruction from a USER that describes a task. "
    "The ASSISTANT writes a response that appropriately and concisely completes the request.",
    "Below is an instruction from a USER that describes a task, paired with an input that provides further context. "
    "The ASSISTANT writes a response that concisely and appropriately completes the request.",
)
WITH_SYSTEM = Columns(system="system")
OPEN_ORCA = Columns("question", None, "response", "system_prompt")

FORMATS = {
    **{
        name + variant: Format(style, opening)
        for name, style in (("alpaca", INSTRUCT), ("alpaca_instruct", INSTRUCT), ("alpaca_chat", CHAT))
        for variant, opening in (("", ALPACA), (".load_no_prompt", ("", "")), (".load_concise", CONCISE))
    },
    "alpaca:instruct": Format(INSTRUCT, ALPACA),
    "alpaca:chat": Format(CHAT, ALPACA),
    "alpaca:chatml": Format(CHATML, ALPACA),
    "alpaca:phi": Format(PHI, ALPACA),
    "alpaca_chat.load_qa": Format(CHAT, CONCISE, Columns("question", None, "answer")),
    "alpaca_chat.load_camel_ai": Format(CHAT, CONCISE, Columns("message_1", None, "message_2")),
    "alpaca_w_system": Format(CHAT, columns=WITH_SYSTEM),
    "alpaca_w_system.load_chat": Format(CHAT, columns=WITH_SYSTEM),
    "alpaca_w_system.load_instruct": Format(INSTRUCT._replace(system="### System:\n{system}\n\n"), columns=WITH_SYSTEM),
    "alpaca_w_system.load_open_orca": Format(ORCA, columns=OPEN_ORCA),
    "alpaca_w_system.load_open_orca_chatml": Format(CHATML, columns=OPEN_ORCA),
    "orcamini": Format(ORCAMINI, columns=OPEN_ORCA),
}


def format_of(type: str, options: AlpacaDataset) -> Format:
    """Return the format of a type with the columns that an entry sets."""
    if type == USER_DEFINED:
        turn = options.format or ""
        no_input = turn if options.no_input_format is None else options.no_input_format
        system = "{system}" if options.system_format is None else options.system_format
        form = Format(Style(turn, no_input, system))
    else:
        form = FORMATS[type]
    columns = {part: getattr(options, f"field_{part}") for part in Columns._fields}
    return form._replace(columns=form.columns._replace(**{part: name for part, name in columns.items() if name}))


def why_invalid(template: str, known: tuple[str, ...]) -> str | None:
    """Return why a custom prompt can't be filled in, such as an unmatched brace or an unknown name, or None."""
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        return f"is not a valid format: {error}"
    for _, name, spec, conversion in parts:
        if name is not None and name not in known:
            return f"contains unknown {{{name}}}; known: {', '.join(f'{{{key}}}' for key in known)}"
        if name is not None and (spec or conversion):
            return f"contains {{{name}}} with a conversion or a format spec; write {{{name}}}"
    return None
