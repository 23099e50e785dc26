"""Describe the head of a classifier in the config of its model, so that transformers computes the same scores."""

from __future__ import annotations

from typing import Any

from tunesmith import ModelSpec, Run


def describe(run: Run, model: Any, spec: ModelSpec) -> None:
    """Set the labels in the model's config, and note whether the head is new."""
    loaded = type(model).__name__ in (model.config.architectures or ())
    origin = "from base_model" if loaded else "new, with random weights"
    run.note("score head", f"{origin}; trained{' fully, in addition to the adapter' if run.core.adapter else ''}")
    if names := next(iter(spec.heads.values())).names:
        model.config.id2label = dict(enumerate(names))
        model.config.label2id = {name: number for number, name in enumerate(names)}
    if spec.exports == "sequence_classifier":
        set_pad_token(run, model)


def set_pad_token(run: Run, model: Any) -> None:
    """Set the pad token in the model's config.

    transformers reads the score at the last token that is not padding. If answers end with the pad token, it would read
    the score at the token before. The config then names no pad token, and answers are scored correctly one at a time.
    """
    pad = run.tokenizer.pad_token_id
    problem = "the tokenizer has no pad token" if pad is None else None
    if pad is not None and pad in last_tokens(run):
        pad, problem = None, f"answers end with the pad token {run.tokenizer.pad_token}"
    if problem:
        help = "write special_tokens: {pad_token: ...} with a token that does not end answers"
        run.warn("base_model", f"{problem}, so transformers can score only one answer at a time; {help}")
    for config in (model.config, model.config.get_text_config()):
        config.pad_token_id = pad


def last_tokens(run: Run) -> set[int]:
    """Return the tokens at which the training examples are scored; the end token if they are streamed."""
    if run.data is None or run.data.train is None:
        return {run.tokenizer.eos_token_id}
    return run.data.train.last_tokens()
