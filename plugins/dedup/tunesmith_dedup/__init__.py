"""Drop training rows that occur twice, nearly twice, or in evaluation files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveInt

from tunesmith import PathText, Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import Run, Source


class NearDeduplication(Settings):
    """The definition of a near duplicate, and the search for it."""

    threshold: float = Field(0.8, gt=0, le=1)
    """Drop a row if the Jaccard similarity of its n-grams and those of an earlier row is at least this value."""
    ngram: PositiveInt = 5
    """Number of consecutive words or characters in an n-gram."""
    unit: Literal["words", "characters"] = "words"
    """Unit of n-grams. Use characters for languages that do not separate words with spaces."""
    permutations: int = Field(128, ge=2, le=4096)
    """Length of the MinHash signature. Longer signatures find more of the pairs near the threshold."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of the MinHash signature."""


class Decontamination(Settings):
    """Evaluation data that training rows must not repeat."""

    files: list[PathText] = Field(min_length=1)
    """Files with evaluation rows, in any format that a dataset path accepts (JSON, parquet, ...). Paths are relative to
    the working directory."""
    ngram: PositiveInt = 13
    """Number of consecutive words or characters that must be equal."""
    unit: Literal["words", "characters"] = "words"
    """Unit of n-grams. Use characters for languages that do not separate words with spaces."""
    threshold: float = Field(0.0, ge=0, le=1)
    """Drop a row if it repeats at least this share of an evaluation row's n-grams. With 0, one n-gram is enough."""


class DedupSettings(Settings):
    dataset_exact_deduplication: bool = False
    """Drop training rows that equal an earlier row of any entry, or a row of test_datasets."""
    dataset_near_deduplication: bool | NearDeduplication = False
    """Drop training rows that nearly equal an earlier row of any entry, or a row of test_datasets."""
    dataset_decontamination: Decontamination | None = None
    """Drop training rows that share a sequence of words with rows of evaluation files."""


plugin = Plugin(settings=DedupSettings, switches=tuple(DedupSettings.model_fields))


@hookimpl
def inspect(run: Run) -> None:
    """Check that the evaluation files exist."""
    from tunesmith_dedup.filtered import evaluation_rows

    evaluation_rows(run, run.settings(DedupSettings).dataset_decontamination)


@hookimpl
def filter_rows(run: Run, sources: list[Source]) -> list[Source]:
    """Return sources with filtered rows. The filters run when the first row is requested."""
    from tunesmith_dedup.filtered import filtered

    return filtered(run, sources, run.settings(DedupSettings))
