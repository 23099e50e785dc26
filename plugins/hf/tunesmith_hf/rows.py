"""Read rows of datasets on the hub with the datasets library, an optional extra."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from huggingface_hub import constants

from tunesmith import DatasetSpec, EnvironmentProblem, Row, Run, SafetyError
from tunesmith.files.paths import HUB, nearest

FILE_KEYS = {"ds_type": None, "sample_by": "line"}
"""Keys of an entry that apply only to files -> their defaults."""


def check_entry(run: Run, spec: DatasetSpec) -> None:
    """Raise ConfigError for a key that has no effect on hub datasets, EnvironmentProblem without the datasets library.

    Warn if there is a local path of a similar name. The hub is not asked and the library is not imported.
    """
    if spec.source != HUB or spec.reader != "hf":
        return
    for key, default in FILE_KEYS.items():
        if getattr(spec.settings, key) != default:
            message = "is for files, but this dataset is on the hub"
            raise run.config.error((spec.group, spec.index, key), message, f"drop {key}")
    path = Path(spec.settings.path)
    if (near := nearest(spec.settings.path)) is not None and near.exists():
        run.warn((spec.group, spec.index, "path"), f"{path} is loaded from the hub; did you mean the local {near}?")
    library = find_spec("datasets")
    if library is None or library.origin is None:  # without an origin it is a folder that happens to have the name
        raise _library_missing(spec)


def _library_missing(spec: DatasetSpec) -> EnvironmentProblem:
    message = f"{spec.settings.path} is a dataset on the hub, but the datasets library is not installed"
    return EnvironmentProblem(message, where=spec.where, help='pip install "tunesmith[hub]"', code="package")


class HubRows:
    """Rows of a dataset on the hub. The datasets library prepares and memory-maps them in its own cache."""

    def __init__(self, spec: DatasetSpec):
        self.spec = spec

    @functools.cached_property
    def dataset(self) -> Any:
        try:
            import datasets
        except ModuleNotFoundError as error:
            raise _library_missing(self.spec) from error
        settings = self.spec.settings
        try:
            return datasets.load_dataset(
                settings.path,
                settings.name,
                split=settings.split,
                revision=settings.revision,
                data_files=settings.data_files,
            )
        except (OSError, ValueError, RuntimeError) as error:
            message = f"dataset {settings.path}: {(str(error) or type(error).__name__).splitlines()[0]}"
            if "script" in message:  # "Dataset scripts are no longer supported"
                help = "use a dataset of files (parquet, json)"
                raise SafetyError(message, where=self.spec.where, code="dataset-script", help=help) from error
            help = (
                "there is no such local file and no such dataset on the hub: check the path, the name and the network"
            )
            if constants.HF_HUB_OFFLINE:
                help = "HF_HUB_OFFLINE is set, so only the cache is read: run once without it to fill the cache"
            raise EnvironmentProblem(message, where=self.spec.where, help=help) from error

    @property
    def fingerprint(self) -> str:
        return str(self.dataset._fingerprint)

    def __iter__(self) -> Iterator[Row]:
        for number, record in enumerate(self.dataset):
            yield Row(record, f"{self.spec.settings.path}[{self.spec.settings.split}]#{number}", padded=True)
