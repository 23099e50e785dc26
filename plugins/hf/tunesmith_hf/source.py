"""Where the files of a model are read from: a folder, or a commit of the hub in its cache, scanned before any use."""

from __future__ import annotations

import contextlib
import re
import weakref
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from tunesmith import EnvironmentProblem, ModelError, Run, TunesmithError
from tunesmith.redact import redact
from tunesmith_hf import HFSettings
from tunesmith_hf.scan import check_all_weights, named_weights, scan
from tunesmith_hf.trust import RemoteCode, advice, check_place, checked_code

TEXTS = ["*.json", "*.txt", "*.model", "*.tiktoken", "*.jinja"]
"""What is fetched of a model on the hub before its weights; pickles never are."""
_folders: weakref.WeakKeyDictionary[Run, dict[str, Path]] = weakref.WeakKeyDictionary()
# By run and hub id: its tokenizer and its model are of one commit, also where a branch moves in between.


class Source(NamedTuple):
    """What a library is given to load from, and what it is told about code in there."""

    folder: str
    name: str
    runs_code: bool

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of every from_pretrained."""
        return {"trust_remote_code": self.runs_code}

    def modules(self) -> AbstractContextManager[None]:
        """Around every from_pretrained: where code that may run is imported from."""
        if not self.runs_code:
            return contextlib.nullcontext()
        from tunesmith_hf.private import own_modules

        return own_modules()


def model_source(run: Run, settings: HFSettings, weights: bool) -> Source:
    """Of base_model. Raises SafetyError, ModelError."""
    where = run.config.document.where(("base_model",), value=True)
    trust, name = settings.remote_code, run.core.base_model
    if trust:
        check_place(run, trust)
    revision = trust.revision if trust else settings.revision_of_model
    folder = _folder(run, name, revision, where, code=trust is not None)
    code = look(run, folder, trust, where, name)
    if weights:
        if not Path(name).is_dir():
            _fetch(name, folder.name, sorted(named_weights(folder, where)) or ["model.safetensors"], where)
        check_all_weights(folder, where)
    return _given(folder, name, code)


def tokenizer_source(run: Run, settings: HFSettings) -> Source:
    """Of the tokenizer: that of base_model, or another that may bring no code. Raises SafetyError, ModelError."""
    if not run.core.tokenizer_config:
        return model_source(run, settings, weights=False)
    name, where = run.core.tokenizer_config, run.config.document.where(("tokenizer_config",), value=True)
    folder = _folder(run, name, None, where, code=False)
    scan(folder, where, "take another tokenizer: it may bring no code", None)
    return Source(str(folder), redact(name), False)


def look(run: Run, folder: Path, trust: RemoteCode | None, where: str, name: str) -> dict[str, bytes] | None:
    """Scan the folder of base_model; gives the code in it that may run. Raises SafetyError, ModelError."""
    if trust is None:
        scan(folder, where, f"{advice(name)}; or take it out of the file", None)
        if files := sorted(path.name for pattern in ("*.py", "custom_generate/*.py") for path in folder.glob(pattern)):
            run.note("code in base_model", f"not run: {', '.join(files)}")
        return None
    place = run.config.document.where(("trust_remote_code", "sha256"), value=True)
    code = checked_code(folder, trust, place)
    scan(folder, where, "take it out of the file: trust_remote_code is for code of the model's own", code)
    return code


def _given(folder: Path, name: str, code: dict[str, bytes] | None) -> Source:
    if code is None:
        return Source(str(folder), redact(name), False)
    from tunesmith_hf.private import copy_of

    return Source(str(copy_of(folder, code)), redact(name), True)


def _folder(run: Run, name: str, revision: str | None, where: str, code: bool) -> Path:
    """The folder of that name, or the texts of a model on the hub at a revision, as one commit."""
    if Path(name).is_dir():
        return Path(name)
    known = _folders.setdefault(run, {})
    if name not in known:
        folder = _fetch(name, revision, [*TEXTS, *(["*.py"] if code else [])], where)
        if revision and re.fullmatch("[0-9a-f]{40}", revision) and folder.name != revision:
            raise ModelError(f"{name}: asked for commit {revision}, and got {folder.name}", where=where)
        known[name] = folder
        run.note(name, f"commit {folder.name} of the hub")
    return known[name]


def _fetch(name: str, revision: str | None, patterns: list[str], where: str) -> Path:
    """Files of a model on the hub, through its cache; in folders of their own are only templates and code."""
    import huggingface_hub

    try:
        below = [f"*/{pattern}" for pattern in patterns if pattern not in ("*.py", "*.jinja")]
        return Path(
            huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=patterns, ignore_patterns=below)
        )
    except Exception as error:  # the hub's own, the operating system's, or those of whatever speaks HTTP
        lines = str(error).splitlines() or [""]
        help = "a hub id of a model that you may read, or a folder; tunesmith doctor looks closer"
        raise ModelError(f"{name}: {type(error).__name__}: {lines[0]}", where=where, help=help) from error


def unreadable(name: str, error: Exception, where: str, help: str, code: str = "model") -> TunesmithError:
    """The error to raise for what a library says of files that it can't read, or lacks a package for."""
    said = " ".join(line.strip() for line in str(error).splitlines()[:2])[:300]
    if isinstance(error, ImportError):
        return EnvironmentProblem(f"{name}: {said}", where=where, code="package")
    return ModelError(f"{name}: {type(error).__name__}: {said}", where=where, help=help, code=code)
