"""Score the answers of rows with a reward model that was trained, and solutions with a process reward model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tunesmith import DataError, Example, ModelError, Needs, Piece, collate, segment, tokenized
from tunesmith_rewardmodel.rows import Answers, Steps

if TYPE_CHECKING:
    from tunesmith import OpenModel

HEAD = "score"
RIGHT = 1
"""The label of a step that is right."""


def score_answers(model: OpenModel, rows: Sequence[Answers], raw: bool, batch_tokens: int) -> Iterator[dict[str, Any]]:
    """Yield each row with the scores of its answers: score, or scores; chosen_score, rejected_score and margin."""
    examples = [Example([segment([]), segment(_tokens(model, row, name, raw))]) for row in rows for name in row.answers]
    scores = _scores(model, examples, batch_tokens)
    for row in rows:
        own = {name: round(float(next(scores)[0]), 6) for name in row.answers}
        if "chosen" in own:
            margin = round(own["chosen"] - own["rejected"], 6)
            yield row.columns | {"chosen_score": own["chosen"], "rejected_score": own["rejected"], "margin": margin}
        else:
            yield row.columns | ({"score": own["score"]} if "score" in own else {"scores": list(own.values())})


def score_steps(model: OpenModel, rows: Sequence[Steps], separator: str, batch_tokens: int) -> Iterator[dict[str, Any]]:
    """Yield each row with `step_scores`: the probability that a step is right, read at the end of its separator."""
    pieces = (_pieces(row, separator) for row in rows)
    examples = [_solution(row, example) for row, example in zip(rows, tokenized(model.tokenizer, pieces), strict=True)]
    _check_positions(model, [(row.where, example.longest) for row, example in zip(rows, examples, strict=True)])
    scores = _scores(model, examples, batch_tokens)
    for row in rows:
        logits = torch.stack([next(scores) for _ in row.steps])
        yield row.columns | {"step_scores": [round(float(p), 6) for p in logits.softmax(-1)[:, RIGHT]]}


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the means of what the rows have: score, accuracy and margin of pairs, step scores and their accuracy."""
    values: dict[str, float] = {}
    if margins := [row["margin"] for row in rows if "margin" in row and "chosen_score" in row]:
        values |= {"accuracy": fmean(margin > 0 for margin in margins), "margin": fmean(margins)}
    names = ("score", "chosen_score", "rejected_score")
    lists = {name: [row[name] for row in rows if name in row] for name in names}
    lists["score"] += [one for row in rows for one in row.get("scores", ())]
    lists["step_score"] = [one for row in rows for one in row.get("step_scores", ())]
    values |= {f"mean_{name}": fmean(own) for name, own in lists.items() if own}
    labelled = [row for row in rows if row.get("labels") and "step_scores" in row]
    if labelled:
        pairs = [pair for row in labelled for pair in zip(row["step_scores"], row["labels"], strict=True)]
        values["accuracy"] = fmean((score > 0.5) == bool(label) for score, label in pairs)
    return values


def _tokens(model: OpenModel, row: Answers, name: str | int, raw: bool) -> list[int]:
    """Return the tokens of a prompt with an answer. Raises DataError if they can't be written."""
    answer, prompt, tokenizer = row.answers[name], row.prompt, model.tokenizer
    if raw or not getattr(tokenizer, "chat_template", None):
        if not isinstance(answer, str) or not isinstance(prompt, str):
            help = "drop --raw" if raw else "write texts: the tokenizer has no chat template"
            raise DataError("the row has messages", where=row.where, help=help, code="row")
        end = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
        tokens = [*tokenizer(prompt + answer).input_ids, *end]
    else:
        turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        turns += [{"role": "assistant", "content": answer}] if isinstance(answer, str) else list(answer)
        try:
            text = str(tokenizer.apply_chat_template(turns, tokenize=False, **model.variables))
        except Exception as error:  # templates raise what they like
            raise DataError(f"the chat template refuses the row: {error}", where=row.where, code="row") from error
        # Up to the last token of the template, which may be a line break, as for the rows of type: chat_template.
        tokens = list(tokenizer(text, add_special_tokens=False).input_ids)
    _check_positions(model, [(row.where, len(tokens))])
    return tokens


def _pieces(row: Steps, separator: str) -> list[Piece]:
    pieces = [Piece.prompt(row.prompt)]
    for number, step in enumerate(row.steps):
        pieces += [Piece(step, 0.0, str(number)), Piece(separator, 0.0, str(number))]
    return pieces


def _solution(row: Steps, example: Example) -> Example:
    """Return a solution with a score point at the last token of each step, its separator."""
    prompt, steps = example.segments
    points = np.zeros(len(steps.tokens), np.float32)
    ends = {why: end for end, why in steps.notes}  # the separator of a step replaces its text
    for number in range(len(row.steps)):
        if (end := ends.get(str(number))) is None:
            raise DataError(f"completions[{number}] has no tokens", where=row.where, code="row")
        points[end - 1] = 1
    return Example([prompt, segment(steps.tokens, points, fork=len(prompt.tokens), score_at=points)])


def _check_positions(model: OpenModel, lengths: Sequence[tuple[str, int]]) -> None:
    """Raise DataError for a row that is longer than the table of positions of the model, if it has one."""
    most = model.policy.language_model.positions
    for where, length in lengths:
        if most is not None and length > most:
            raise DataError(f"{length:,} tokens, and the model has {most:,} positions", where=where, code="row")


def _scores(model: OpenModel, examples: Sequence[Example], batch_tokens: int) -> Iterator[torch.Tensor]:
    """Yield the values of the head, in order: [labels] for each answer or step."""
    share = model.policy.language_model.shares_prompts
    first = 0
    while first < len(examples):
        last, used = first, 0
        while last < len(examples) and (last == first or used + examples[last].width <= batch_tokens):
            used += examples[last].width
            last += 1
        model.run.progress("scoring", first, len(examples))
        with torch.no_grad():
            batch = collate(list(examples[first:last]), share=share).to(model.run.device)
            values = model.policy(batch, Needs(heads=(HEAD,))).heads[HEAD].float().cpu()
        yield from values
        first = last
    model.run.progress("")


def check_loaded(model: OpenModel) -> None:
    """Raise ModelError for a head that predicts other labels than a reward, or than wrong and right."""
    head = model.run.hooks.heads.get(HEAD)
    config = getattr(model.model, "config", None)
    labels = getattr(config, "num_labels", None)
    if head is not None and isinstance(labels, int) and labels != head.labels:
        message = f"the head of {model.saved.path} predicts {labels} labels, but {head.labels} are expected"
        raise ModelError(message, help="name a reward model with one label", code="reward-head")
