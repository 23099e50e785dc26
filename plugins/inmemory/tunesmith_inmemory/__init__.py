"""Read rows that a script or a notebook passes to `tunesmith.train(config, datasets=...)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith import ConfigError, Plugin, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tunesmith import DatasetSpec, Row, Run

NAME = "inmemory"
plugin = Plugin(sources=("rows",))
OF_FILES = ("split", "name", "revision", "data_files", "ds_type", "sample_by")
"""Keys of an entry that choose among files or their parts."""


@hookimpl
def inspect(run: Run) -> None:
    """Raise ConfigError for keys of entries that have no effect on rows of Python."""
    from tunesmith_inmemory.rows import given

    errors = []
    for spec in run.config.entries:
        if spec.reader == NAME:
            if spec.settings.path.removeprefix("rows://") in run.given_rows:  # the core reports missing ones
                given(run, spec)
            for key in OF_FILES:
                if key in spec.settings.model_fields_set:
                    path = (spec.group, spec.index, key)
                    errors.append(run.config.error(path, "has no effect on rows of Python", "drop the key"))
    if errors:
        raise ConfigError(problem for error in errors for problem in error.problems)


@hookimpl
def load_rows(run: Run, spec: DatasetSpec) -> Iterable[Row]:
    from tunesmith_inmemory.rows import given

    return given(run, spec)
