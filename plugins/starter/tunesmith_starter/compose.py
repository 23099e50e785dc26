"""Compose a config from what a model and data look like: keys with values and comments, in the order of the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tunesmith import ConfigError
from tunesmith_starter.data import Data
from tunesmith_starter.layout import TOOLS, Entry
from tunesmith_starter.methods import PRETRAINING, MethodChoice
from tunesmith_starter.model import LARGE, Model

Adapter = Literal["lora", "qlora", "full"]
CHATML_TOKENS = frozenset({"<|im_start|>", "<|im_end|>"})
FEW = 40
"""Rows below which nothing is held out."""
CHARACTERS = 3
"""Characters of a token, at least: with fewer, a text has more tokens than this estimate."""
COMPLETION = 256
"""Tokens of a completion that is generated."""
CHAT_TEXT, TOOLS_TEXT = 64, 512
"""Tokens that a chat template writes beside a conversation, without tools and with them."""
SHORTEST, USUAL, LONGEST = 512, 2048, 8192
"""Values of sequence_len: the smallest, the default, and the largest that is written without being asked for."""


@dataclass(frozen=True)
class Line:
    """A key with its value and a comment. An entry of `datasets:` is a mapping with comments of its own."""

    key: str
    value: Any
    comment: str = ""
    comments: Mapping[str, str] | None = None


Part = Sequence[Line]


def adapter_for(model: Model) -> Adapter:
    """Return the adapter to propose: none for a small model and for weights that are trained from scratch."""
    return "full" if model.weights is False or (model.parameters or LARGE) < LARGE else "lora"


def compose(model: Model, data: Sequence[Data], method: MethodChoice, adapter: Adapter, output: str) -> list[Part]:
    """Return the parts of a config, which empty lines separate. Raise ConfigError if rows don't fit the method."""
    entries = [(one, entry_for(one, method)) for one in data]
    parts: list[Part] = [_model(model)]
    if method.keys:
        parts.append([Line(key, value, METHOD_COMMENTS.get(key, "")) for key, value in method.keys.items()])
    if method.rows == ("prompt",):
        parts.append(_rewards(entries))
    if adapter != "full":
        parts.append([Line("adapter", adapter, ADAPTER_COMMENTS[adapter]), Line("lora_r", 16), Line("lora_alpha", 32)])
    parts += [_datasets(entries, method), _template(model, entries)]
    parts += [[*_lengths(model, entries, method), *_steps(method, adapter, data)], [Line("output_dir", output)]]
    return [part for part in parts if part]


METHOD_COMMENTS = {
    "rl_beta": "lower values let the model move further away from where it started",
    "reward_model": "the model learns to score answers",
    "process_reward_model": "the model learns to score the steps of a solution",
}
ADAPTER_COMMENTS = {
    "lora": "small matrices are trained, and the weights stay as they are",
    "qlora": "the same, on weights of 4 bits",
}


def entry_for(data: Data, method: MethodChoice) -> Entry:
    """Return how the rows of a dataset are read for a method. Raise ConfigError if the method can't use them."""
    entry = next((data.layout.entries[kind] for kind in method.rows if kind in data.layout.entries), None)
    if entry is not None:
        return entry
    kinds = " or ".join(data.layout.entries)
    message = f"{data.path}: the rows are {data.layout.words}, which can be read as {kinds} rows, but {method.name} "
    message += f"trains on {' or '.join(method.rows)} rows"
    help = "choose another --method, or write rows for this one: docs/formats.md"
    raise ConfigError(message, where="command line (--method)", help=help, code="usage")


def _model(model: Model) -> Part:
    lines = [Line("base_model", model.name, _about(model))]
    if model.weights is False:
        lines.append(Line("reinit_weights", True, "the folder has no weights: begin with random ones"))
    return lines


def _about(model: Model) -> str:
    facts = [str(kind)] if (kind := model.config.get("model_type")) else []
    if number := model.parameters:
        facts.append(
            f"about {number / 1e9:.1f}B parameters" if number >= 1e8 else f"about {number / 1e6:.1f}M parameters"
        )
    return ", ".join(facts)


def _datasets(entries: Sequence[tuple[Data, Entry]], method: MethodChoice) -> Part:
    if method.name == PRETRAINING:
        streams = [{"path": d.path, "text_column": entry.keys.get("field", "text")} for d, entry in entries]
        return [
            Line("pretraining_dataset", streams),
            Line("max_steps", 1000, "a stream restarts at the end of the data"),
        ]
    values = [{"path": data.path, **entry.keys} for data, entry in entries]
    columns = ", ".join(map(str, entries[0][0].columns.names))
    comments = {"path": f"columns: {columns}", **entries[0][1].comments}
    lines = [Line("datasets", values, comments=comments)]
    if method.rows != ("prompt",) and sum(len(data.columns.rows) for data, _ in entries) >= FEW:
        lines.append(Line("val_set_size", 0.05, "hold out 5 % of the rows, for eval_loss"))
    return lines


def _rewards(entries: Sequence[tuple[Data, Entry]]) -> Part:
    rewards = next((entry.rewards for _, entry in entries if entry.rewards is not None), None)
    if rewards is None:
        message = "no column has a reference answer, so it is not clear what a good completion is"
        help = (
            "add a column answer to the rows, or write the config yourself: docs/rewards.md shows rewards of your own"
        )
        raise ConfigError(message, where="command line (--data)", help=help, code="usage")
    return [
        Line("rewards", [dict(rewards)], f"1 if the completion has the answer in {rewards['column']}, otherwise 0"),
        Line(
            "trl",
            {"num_generations": 8, "max_completion_length": COMPLETION},
            "completions of a prompt, and their length",
        ),
    ]


def _template(model: Model, entries: Sequence[tuple[Data, Entry]]) -> Part:
    """Return the chat template, if an entry needs one that the model does not have. Raise ConfigError without one."""
    needs = {entry.needs for _, entry in entries} - {""}
    if not needs:
        return []
    chatml = model.tokens >= CHATML_TOKENS
    plugins = [] if any(_is_chat(entry) for _, entry in entries) else [Line("plugins", ["chat"], "for chat_template")]
    if TOOLS in needs and model.writes_tools is False:
        if not chatml:
            message = f"the rows have tools, but the chat template of {model.name} does not write tools"
            help = "choose a model whose template does, or write chat_template_jinja: FILE into a config of your own"
            raise ConfigError(message, where="command line (--model)", help=help, code="usage")
        comment = "the model's own template does not write tools" if model.template else "the model has no template"
        return [*plugins, Line("chat_template", "qwen_25", comment)]
    if model.template == "":
        name = "chatml" if chatml else "alpaca"
        return [*plugins, Line("chat_template", name, "the model has no template of its own")]
    if model.template is None and not model.is_chat:
        comment = "the model's own template, or that of Alpaca if it has none"
        return [*plugins, Line("chat_template", "tokenizer_default_fallback_alpaca", comment)]
    return []


def _is_chat(entry: Entry) -> bool:
    return str(entry.keys.get("type", "")).startswith("chat_template")


def _lengths(model: Model, entries: Sequence[tuple[Data, Entry]], method: MethodChoice) -> Part:
    """Return the length of a sequence: that of the longest row that was read, up to what the model was made for."""
    tools = TOOLS in [entry.needs for _, entry in entries]
    needed = max((data.longest for data, _ in entries), default=0) // CHARACTERS + (TOOLS_TEXT if tools else CHAT_TEXT)
    needed += COMPLETION if method.rows == ("prompt",) else 0
    length = next((n for n in (SHORTEST, 1024, USUAL, 4096) if n >= needed), LONGEST)
    texts = any("text" in data.layout.entries for data, _ in entries)
    length = USUAL if texts else length
    limit = model.context or length
    comment = "the longest example, in tokens"
    if limit < length and not texts:
        comment = "the longest that the model was made for; rows with more tokens are left out, and counted"
    lines = [Line("sequence_len", min(length, limit), comment)]
    return [*lines, Line("excess_length_strategy", "split", "longer texts become several examples")] if texts else lines


def _steps(method: MethodChoice, adapter: Adapter, data: Sequence[Data]) -> Part:
    few = all(one.complete for one in data) and sum(len(one.columns.rows) for one in data) < FEW
    if method.rows == ("prompt",):
        sizes = [Line("micro_batch_size", 8, "completions of a forward pass"),
                 Line("gradient_accumulation_steps", 4, "32 completions in a step: those of 4 prompts")]  # fmt: skip
    else:
        sizes = [Line("micro_batch_size", 1, "packs of sequence_len tokens, each with several examples"),
                 Line("gradient_accumulation_steps", 1 if few else 4)]  # fmt: skip
    if method.name != PRETRAINING:
        sizes.append(Line("num_epochs", 3 if method.name == "sft" else 1))
    rate = Line("learning_rate", method.rate(adapter), "the rate for an adapter" if adapter != "full" else "")
    more = [Line("lr_scheduler", "cosine"), *([] if few else [Line("warmup_ratio", 0.05)])]
    checkpoint = [] if few else [Line("gradient_checkpointing", True, "a third slower, but needs much less memory")]
    return [*sizes, rate, *more, *checkpoint]
