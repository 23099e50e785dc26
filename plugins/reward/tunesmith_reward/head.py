"""What a saved reward model says about its head, so that others score with it as it was trained."""

from __future__ import annotations

from itertools import islice
from typing import Any

from tunesmith import Run

LOOKED_AT = 256
"""Examples whose last tokens are looked at."""


def describe(run: Run, model: Any) -> None:
    """Name the label and the pad token in the model's config; say whether the head is new.

    transformers takes the score at the last token that is not padding. A pad token that answers end with would be
    taken for padding, and the score from the token before it: then none is named, and one conversation at a time is
    scored right.
    """
    given = type(model).__name__ in (model.config.architectures or ())
    whole = ", whole, beside the adapter" if run.core.adapter else ""
    run.note("score head", f"{'that of base_model' if given else 'new, from random weights'}; it is trained{whole}")
    model.config.id2label, model.config.label2id = {0: "reward"}, {"reward": 0}
    pad = run.tokenizer.pad_token_id
    trouble = "the tokenizer has no pad token" if pad is None else None
    if pad is not None and pad in last_tokens(run):
        pad, trouble = None, f"answers end with the pad token {run.tokenizer.pad_token}"
    if trouble:
        help = "write special_tokens: {pad_token: ...}, another token than ends an answer"
        run.warn("reward_model", f"{trouble}, so transformers will score one answer at a time; {help}")
    for config in (model.config, model.config.get_text_config()):
        config.pad_token_id = pad


def last_tokens(run: Run) -> set[int]:
    """The tokens at which some of the training examples are scored; the end token where they are streamed."""
    if run.data is None or run.data.train is None:
        return {run.tokenizer.eos_token_id}
    examples = islice(run.data.train, LOOKED_AT)
    return {example.path_tokens(i)[-1] for example in examples for i in range(1, len(example.segments))}
