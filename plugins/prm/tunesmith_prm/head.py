"""Load the head of two labels at each token, and describe it in the config of the saved model."""

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
    """Within the block, load the policy as a token classifier instead of a sequence classifier.

    transformers has separate classes for them. The saved model must load as a token classifier, whose head has a bias.
    Raises ModelError for an architecture without a token classifier.
    """
    before = AutoModelForSequenceClassification._model_mapping
    if role == "policy":
        AutoModelForSequenceClassification._model_mapping = MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING
    try:
        yield
    except ModelError as error:
        if "Unrecognized configuration class" not in str(error):
            raise
        where = run.config.place("base_model")
        message = f"base_model {run.core.base_model}: transformers has no token classifier of this architecture"
        help = "use another base_model, or reward_model: true with pairs"
        raise ModelError(message, where=where, help=help, code="architecture") from error
    finally:
        AutoModelForSequenceClassification._model_mapping = before


def by_any_name(language_model: LanguageModel) -> LanguageModel:
    """Use the head `classifier` of a model that has no `score` (GPT-NeoX)."""
    if not hasattr(language_model.module, "score") and hasattr(language_model.module, "classifier"):

        def scores(hidden: Tensor) -> Tensor:
            head: Any = language_model.module.classifier  # looked up at each call, because an adapter replaces it
            return head(hidden)

        language_model.scores = scores  # type: ignore[method-assign]
    return language_model


def describe(run: Run, model: Any) -> None:
    """Set the names of the labels in the model's config, and note whether the head is new."""
    loaded = type(model).__name__ in (model.config.architectures or ())
    origin = "from base_model" if loaded else "new, with random weights"
    run.note("score head", f"{origin}; trained{' fully, in addition to the adapter' if run.core.adapter else ''}")
    model.config.id2label = dict(enumerate(LABELS))
    model.config.label2id = {label: number for number, label in enumerate(LABELS)}
