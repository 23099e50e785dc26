"""The head of two labels at each token, and what a saved model says about it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor
from transformers import AutoModelForSequenceClassification
from transformers.models.auto.modeling_auto import MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING

from tunesmith import LanguageModel, ModelError, Run

LABELS = ("wrong", "right")


@contextlib.contextmanager
def token_classifiers(run: Run, role: str) -> Iterator[None]:
    """Within the block, loading the policy makes a token classifier where a sequence classifier is asked for.

    They are classes of their own in transformers: what is saved has to load as the first, whose head also has a bias.
    Raises ModelError for an architecture that has no such class.
    """
    before = AutoModelForSequenceClassification._model_mapping
    if role == "policy":
        AutoModelForSequenceClassification._model_mapping = MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING
    try:
        yield
    except ModelError as error:
        if "Unrecognized configuration class" not in str(error):
            raise
        where = run.config.document.where(("base_model",), value=True)
        message = f"base_model {run.core.base_model}: transformers has no token classifier of this architecture"
        help = "a process reward model is one: take another base_model, or reward_model: true with pairs"
        raise ModelError(message, where=where, help=help, code="architecture") from error
    finally:
        AutoModelForSequenceClassification._model_mapping = before


def by_any_name(language_model: LanguageModel) -> LanguageModel:
    """Have the head found where its class calls it otherwise (GPT-NeoX: classifier)."""
    if not hasattr(language_model.module, "score") and hasattr(language_model.module, "classifier"):

        def scores(hidden: Tensor) -> Tensor:
            head: Any = language_model.module.classifier  # at each call: an adapter puts another in its place
            return head(hidden)

        language_model.scores = scores  # type: ignore[method-assign]
    return language_model


def describe(run: Run, model: Any) -> None:
    """Name the labels in the model's config; say whether the head is new."""
    given = type(model).__name__ in (model.config.architectures or ())
    whole = ", whole, beside the adapter" if run.core.adapter else ""
    run.note("score head", f"{'that of base_model' if given else 'new, from random weights'}; it is trained{whole}")
    model.config.id2label = dict(enumerate(LABELS))
    model.config.label2id = {label: number for number, label in enumerate(LABELS)}
