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

NO_SCRIPTS = "Dataset scripts are no longer supported"
"""Start of the datasets library's message for a dataset whose rows are produced by code."""
UNREACHABLE = {"ConnectError", "ConnectTimeout", "ReadTimeout", "ConnectionError", "ProxyError", "SSLError", "gaierror"}
"""Exceptions of HTTP libraries for a host that does not answer, by name, since the library depends on the release."""


def is_network_error(error: BaseException | None) -> bool:
    """Return True if an exception, or one that caused it, says that a host can't be reached."""
    while error is not None:
        if UNREACHABLE & {parent.__name__ for parent in type(error).__mro__}:
            return True
        error = error.__cause__ or error.__context__
    return False


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
        except Exception as error:  # of the library, the operating system or the HTTP library
            raise self._explain(error) from error

    def _explain(self, error: Exception) -> SafetyError | EnvironmentProblem:
        """Return the error to raise if a dataset can't be loaded: scripts, no network, or no such dataset."""
        settings, where = self.spec.settings, self.spec.where
        text = (str(error).splitlines() or [""])[0] or type(error).__name__
        if isinstance(error, RuntimeError) and text.startswith(NO_SCRIPTS):
            help = "use a dataset of files (parquet, json)"
            message = f"dataset {settings.path}: {text}"
            return SafetyError(message, where=where, code="dataset-script", help=help)
        offline = bool(constants.HF_HUB_OFFLINE)
        if is_network_error(error) and not offline:
            message = f"dataset {settings.path}: the hub at {constants.ENDPOINT} can't be reached, and it is not cached"
            help = "check the network and HF_ENDPOINT; if the dataset is a local file, check its path"
            return EnvironmentProblem(message, where=where, help=help)
        help = "there is no such local file and no such dataset on the hub: check the path, the name and the network"
        if offline:
            help = "HF_HUB_OFFLINE is set, so only the cache is read: run once without it to fill the cache"
        return EnvironmentProblem(f"dataset {settings.path}: {text}", where=where, help=help)

    @property
    def fingerprint(self) -> str:
        return str(self.dataset._fingerprint)

    def __iter__(self) -> Iterator[Row]:
        for number, record in enumerate(self.dataset, 1):
            yield Row(record, f"{self.spec.settings.path}[{self.spec.settings.split}]#{number}", padded=True)
