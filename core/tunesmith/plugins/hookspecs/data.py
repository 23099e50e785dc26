"""Hooks of data: rows, tokenizer, examples."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tunesmith.plugins.dispatch import spec

if TYPE_CHECKING:
    from tunesmith_engine.batch.examples import Example

    from tunesmith.files.row import Row, Source
    from tunesmith.run import DatasetSpec, Run


@spec("keyed")
def load_rows(run: Run, spec: DatasetSpec) -> Iterable[Row]:
    """Return the raw rows of a dataset entry in order, as an iterable that can be restarted. Raise DataError.

    When: while data is prepared, and again when a streamed dataset resumes. Each Row has its place (`row.where`,
    "file:line"). Prepared data is kept only if the iterable has an attribute `fingerprint`: a JSON value that changes
    with the content. `check` reads the first row of a local file; if that may take long, such as for a slice that has
    to be counted, the iterable has a method `first_row(number)` that returns that row, another one, or None.
    Answers: keyed by the kind of place that `path:` names, as declared in `Plugin.sources`.

    Example:
        @hookimpl
        def load_rows(run, spec):
            return Lines(spec.path)  # its __iter__ yields Row(record, where=f"{spec.path}:{n}")
    """


@spec("keyed")
def check_row(run: Run, spec: DatasetSpec, row: Row) -> None:
    """Raise the error that build_dataset would raise for a row, as far as it is known without a tokenizer.

    When: in every command with a RUN.YAML, after inspect, for the first row of each local dataset entry. `lint` does
    not call it, because it reports all such rows. Use neither torch nor the network. Answers: keyed as build_dataset;
    a strategy without it is not asked.

    Example:
        @hookimpl
        def check_row(run, spec, row):
            row.require(spec.option(MyDataset).field)
    """


@spec("chain")
def filter_rows(run: Run, sources: list[Source]) -> list[Source]:
    """Drop rows before they are tokenized, such as duplicates. `sources` contains the rows of all entries.

    When: while data is prepared, for datasets and test_datasets; not for streams. Return one Source for each, with some
    of its rows: lazily, and the same rows on each iteration. If the choice depends on more than settings, such as the
    content of another file, the rows need an attribute `fingerprint`. Answers: chain, in call order.

    Example:
        @hookimpl
        def filter_rows(run, sources):
            return [replace(source, rows=InEnglish(source.rows)) for source in sources]
    """


@spec("one")
def load_tokenizer(run: Run) -> Any:
    """Return the tokenizer: a fast transformers tokenizer, or an object with the same interface.

    When: before rows are tokenized. The model's weights may be missing. Answers: one.

    Example:
        @hookimpl
        def load_tokenizer(run):
            return AutoTokenizer.from_pretrained(run.core.tokenizer_path)
    """


@spec("keyed")
def build_dataset(run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterable[Example]:
    """Yield one example for each row, lazily and in order: the prompt strategy of a dataset entry.

    When: while data is prepared; for a stream, during training. For a bad row, raise `row.error(field, message)`.
    Answers: keyed by (row kind of the method, `type:` of the entry), as declared in `Plugin.strategies`.

    Example:
        @hookimpl
        def build_dataset(run, spec, rows):
            yield from (Example.text(run.tokenizer(row.require("text")).input_ids) for row in rows)
    """
