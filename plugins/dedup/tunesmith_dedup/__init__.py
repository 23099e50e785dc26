"""Removes rows that occur twice, nearly twice, or in evaluation files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveInt

from tunesmith import Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import Run, Source


class NearDeduplication(Settings):
    """What counts as nearly equal, and how it is searched for."""

    threshold: float = Field(0.8, gt=0, le=1)
    """Jaccard similarity of two rows' n-grams from which on they are duplicates: shared ones by all that either has."""
    ngram: PositiveInt = 5
    """How many words or characters that follow each other are compared as one."""
    unit: Literal["words", "characters"] = "words"
    """What n-grams are made of; characters for languages that put no space between words."""
    permutations: int = Field(128, ge=2, le=4096)
    """Length of the MinHash signature; more find more of the pairs near the threshold."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Of the signature."""


class Decontamination(Settings):
    """What training rows must not share words with."""

    files: list[str] = Field(min_length=1)
    """Files with evaluation rows: JSON, parquet and whatever else a dataset's path may lead to; relative to the working
    folder."""
    ngram: PositiveInt = 13
    """How many words or characters that follow each other have to be the same."""
    unit: Literal["words", "characters"] = "words"
    """What n-grams are made of; characters for languages that put no space between words."""
    threshold: float = Field(0.0, ge=0, le=1)
    """Share of an evaluation row's n-grams that a row has to repeat to be dropped; at 0, one of them is enough."""


class DedupSettings(Settings):
    dataset_exact_deduplication: bool = False
    """Drop training rows that are equal to an earlier one, in any entry, or to one of test_datasets."""
    dataset_near_deduplication: bool | NearDeduplication = False
    """Drop training rows that are nearly equal to an earlier one, in any entry, or to one of test_datasets."""
    dataset_decontamination: Decontamination | None = None
    """Drop training rows that share a run of words with rows of evaluation files."""


plugin = Plugin(settings=DedupSettings, switches=tuple(DedupSettings.model_fields))


@hookimpl
def inspect(run: Run) -> None:
    """The evaluation files are there."""
    from tunesmith_dedup.filtered import evaluation_rows

    evaluation_rows(run, run.settings(DedupSettings).dataset_decontamination)


@hookimpl
def filter_rows(run: Run, sources: list[Source]) -> list[Source]:
    """The same sources; what is dropped is found out when the first row is asked for."""
    from tunesmith_dedup.filtered import filtered

    return filtered(run, sources, run.settings(DedupSettings))
