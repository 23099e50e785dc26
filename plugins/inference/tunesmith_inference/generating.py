"""Generate completions of rows in groups whose borders depend on the rows and the options alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunesmith import ConfigError, ModelError, PluginError, Problem, TunesmithError
from tunesmith_inference.prompts import PromptRow, problems_of

if TYPE_CHECKING:
    from tunesmith import Completion, OpenModel

BATCH_TOKENS = 2**16
"""The most tokens of a group, and the default. The engine computes no more at a time."""


@dataclass(frozen=True)
class Options:
    """How completions are generated; `tunesmith generate --help` describes the options."""

    max_new_tokens: int = 256
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    stop: tuple[str, ...] = ()
    seed: int = 0
    logprobs: bool = False
    batch_tokens: int = BATCH_TOKENS
    raw: bool = False
    prefix: str = ""

    def check(self) -> None:
        """Raise ConfigError for options that contradict each other."""
        if self.temperature:
            return
        without = {"--top-p": self.top_p != 1, "--top-k": self.top_k, "--min-p": self.min_p, "--n": self.n > 1}
        if name := next((name for name, written in without.items() if written), None):
            message = "has no effect at temperature 0, which always takes the likeliest token"
            raise ConfigError(message, where=f"command line ({name})", help="write --temperature 1.0", code="usage")

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns that are added to each row."""
        names = ["completion", "finish_reason"] if self.n == 1 else ["completions", "finish_reasons"]
        names += ["tokens", *(["token_ids", "logprobs"] if self.logprobs else [])]
        return tuple(f"{self.prefix}{name}" for name in names)


def check_columns(rows: Sequence[PromptRow], options: Options) -> None:
    """Raise DataError if an added column would replace one of a row."""
    problems = [
        Problem(f"the row has a column {name!r} already", row.where, "row", "write --prefix generated_")
        for row in rows
        for name in options.columns
        if name in row.columns
    ]
    if problems:
        raise problems_of(problems)


def check_generates(model: OpenModel) -> None:
    """Raise ModelError for a model that predicts no tokens."""
    if exports := model.run.method.exports:
        message = f"{model.saved.path} is a {exports.replace('_', ' ')}: it scores texts and generates none"
        raise ModelError(message, help=f"tunesmith score {model.saved.path} ROWS.jsonl", code="score-head")


def tokenize(model: OpenModel, rows: Sequence[PromptRow], options: Options) -> list[list[int]]:
    """Return the token ids of the prompts. Raises DataError with all rows that can't be completed."""
    most, prompts, problems = model.policy.language_model.positions, [], []
    for number, row in enumerate(rows):
        model.run.progress("tokenizing prompts", number, len(rows))
        try:
            tokens = _tokens(model, row, options.raw)
        except Exception as error:  # chat templates and tokenizers raise what they like
            detail = error.problems[0].message if isinstance(error, TunesmithError) else str(error)
            help = error.problems[0].help if isinstance(error, TunesmithError) else None
            problems.append(Problem(f"the prompt can't be tokenized: {detail}", row.where, "row", help))
            continue
        if most is not None and len(tokens) + options.max_new_tokens > most:
            message = f"the prompt has {len(tokens):,} tokens, which with {options.max_new_tokens:,} new ones are more"
            help = "shorten the prompt, or write a smaller --max-new-tokens"
            problems.append(Problem(f"{message} than the {most:,} positions of the model", row.where, "row", help))
        prompts.append(tokens)
    if problems:
        raise problems_of(problems)
    return prompts


def _tokens(model: OpenModel, row: PromptRow, raw: bool) -> list[int]:
    from tunesmith import render_prompt

    if raw and not isinstance(row.prompt, str):
        raise PluginError("--raw continues texts, and this is a list of messages", help="drop --raw")
    if raw:
        tokens = list(model.tokenizer(row.prompt).input_ids)
    elif row.tools:
        turns = [{"role": "user", "content": row.prompt}] if isinstance(row.prompt, str) else row.prompt
        text = render_prompt(model.tokenizer, turns, row.tools, model.variables)
        tokens = list(model.tokenizer(text, add_special_tokens=False).input_ids)
    else:
        tokens = model.prompt_tokens(row.prompt)
    if not tokens:
        raise PluginError("it has no tokens")
    return tokens


def groups_of(prompts: Sequence[Sequence[int]], options: Options) -> list[range]:
    """Split the rows into groups of consecutive ones with at most batch_tokens tokens each.

    The last bits of logits depend on the shape of a batch, so a command that continues generates the same groups.
    """
    groups, first, used = [], 0, 0
    for number, prompt in enumerate(prompts):
        tokens = len(prompt) + options.n * options.max_new_tokens
        if number > first and used + tokens > options.batch_tokens:
            groups.append(range(first, number))
            first, used = number, 0
        used += tokens
    return [*groups, range(first, len(prompts))]


def generate_groups(
    model: OpenModel,
    rows: Sequence[PromptRow],
    prompts: Sequence[list[int]],
    groups: Sequence[range],
    options: Options,
    drawn: Callable[[], None] = lambda: None,
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of each group with their completions. `drawn` is called for each token."""
    from tunesmith import Request, Sampling

    sampling = Sampling(options.temperature, options.top_p, options.top_k, options.min_p)
    ends = (*options.stop, *(() if options.raw else model.stop))
    for group in groups:
        requests = [
            Request(prompts[number], options.max_new_tokens, options.n, sampling, ends, (options.seed, number))
            for number in group
        ]
        completions = model.policy.generate(requests, lambda *_: drawn())
        yield [
            rows[number].columns | _columns(model, own, options) for number, own in zip(group, completions, strict=True)
        ]


def _columns(model: OpenModel, completions: Sequence[Completion], options: Options) -> dict[str, Any]:
    """Return the columns of a row's completions: values for one completion, lists for several."""
    values: list[list[Any]] = [
        [text_of(model, one, options.stop) for one in completions],
        [one.finish_reason for one in completions],
        [len(one.tokens) for one in completions],
    ]
    if options.logprobs:
        values.append([one.tokens.tolist() for one in completions])
        values.append([[round(float(logp), 6) for logp in one.logps] for one in completions])
    return dict(zip(options.columns, values if options.n > 1 else [value[0] for value in values], strict=True))


def text_of(model: OpenModel, completion: Completion, stop: Sequence[str]) -> str:
    """Return the text of a completion, without special tokens and from the user's stop string on."""
    text = str(model.tokenizer.decode(completion.tokens.tolist(), skip_special_tokens=True))
    ends = [at for one in stop if (at := text.find(one)) >= 0]
    return text[: min(ends)] if ends else text
