"""Rows of datasets on the hub, by the datasets library, which is an extra: only they need it."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from huggingface_hub import constants

from tunesmith import DatasetSpec, EnvironmentProblem, Row, Run, SafetyError
from tunesmith.files.paths import HUB, nearest

OF_FILES = {"ds_type": None, "sample_by": "line"}
"""Keys of an entry that say something of files alone, and what they are where nothing is said."""


def check_entry(run: Run, spec: DatasetSpec) -> None:
    """Raise ConfigError for a key that has no effect on a dataset of the hub, EnvironmentProblem without its library.

    Warns of a path that was perhaps meant. Neither asks the hub nor imports the library.
    """
    if spec.source != HUB or spec.reader != "hf":
        return
    for key, nothing in OF_FILES.items():
        if getattr(spec.settings, key) != nothing:
            message = "is for files, and this is a dataset on the hub, which says it itself"
            raise run.config.error((spec.group, spec.index, key), message, f"drop {key}")
    path = Path(spec.settings.path)
    if (near := nearest(spec.settings.path)) is not None and near.exists():
        run.warn((spec.group, spec.index, "path"), f"{path} is looked for on the hub; here there is {near}")
    found = find_spec("datasets")
    if found is None or found.origin is None:  # a folder of that name is no package
        raise _no_library(spec)


def _no_library(spec: DatasetSpec) -> EnvironmentProblem:
    message = f"{spec.settings.path} is a dataset on the hub, and the datasets library is not installed"
    return EnvironmentProblem(message, where=spec.where, help='pip install "tunesmith[hub]"', code="package")


class HubRows:
    """Rows of a dataset on the hub, by the datasets library: prepared and memory-mapped in its own cache."""

    def __init__(self, spec: DatasetSpec):
        self.spec = spec

    @functools.cached_property
    def dataset(self) -> Any:
        try:
            import datasets
        except ModuleNotFoundError as error:
            raise _no_library(self.spec) from error
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
            if "script" in message:  # as datasets says it
                help = "take a dataset of files (parquet, json)"
                raise SafetyError(message, where=self.spec.where, code="dataset-script", help=help) from error
            help = "it is neither a local file nor to be had from the hub: check the path, the name and the network"
            if constants.HF_HUB_OFFLINE:
                help = "HF_HUB_OFFLINE is set, so only the cache is read; an earlier run without it fills the cache"
            raise EnvironmentProblem(message, where=self.spec.where, help=help) from error

    @property
    def fingerprint(self) -> str:
        return str(self.dataset._fingerprint)

    def __iter__(self) -> Iterator[Row]:
        for number, record in enumerate(self.dataset):
            yield Row(record, f"{self.spec.settings.path}[{self.spec.settings.split}]#{number}")
