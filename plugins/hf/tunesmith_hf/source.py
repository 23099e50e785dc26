"""Find the files of a model in a folder or download them from the hub, and scan them before they are used."""

from __future__ import annotations

import contextlib
import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from tunesmith import EnvironmentProblem, ModelError, ModelSpec, Run, TunesmithError
from tunesmith.redact import redact
from tunesmith_hf import HFSettings
from tunesmith_hf.architecture import check_config
from tunesmith_hf.scan import check_all_weights, named_weights, scan
from tunesmith_hf.trust import RemoteCode, advice, check_place, checked_code

TEXTS = ["*.json", "*.txt", "*.model", "*.tiktoken", "*.jinja"]
"""Files of a hub model that are downloaded before its weights. Pickles are never downloaded."""

CODE = ("modeling_*.py", "configuration_*.py", "tokenization_*.py", "custom_generate/*.py")
"""Files that usually have a model's own code. Other scripts in the folder are nothing that a library would run."""


class Folders:
    """The folders of a run's hub models by id and revision, so that tokenizer and model are of one commit if a
    branch moves in between."""

    def __init__(self, run: Run):
        self.by_id: dict[tuple[str, str | None], Path] = {}


class Source(NamedTuple):
    """The folder that a library loads from, the model's name, and the permission to run code of the folder."""

    folder: str
    name: str
    runs_code: bool

    @property
    def options(self) -> dict[str, Any]:
        """Arguments for every call of from_pretrained."""
        return {"trust_remote_code": self.runs_code}

    def modules(self) -> AbstractContextManager[None]:
        """Return a context for calls of from_pretrained, in which permitted code is imported from a private folder."""
        if not self.runs_code:
            return contextlib.nullcontext()
        from tunesmith_hf.private import own_modules

        return own_modules()


def model_source(run: Run, settings: HFSettings, spec: ModelSpec, weights: bool) -> Source:
    """Return the source of a model. Only the code of base_model can be permitted. Raise SafetyError or ModelError."""
    where, name = run.config.place(spec.key), spec.path
    trust = settings.remote_code if is_base(spec) else None
    if trust:
        check_place(run, trust)
    revision = trust.revision if trust else revision_of(spec, settings)
    folder = _folder(run, name, revision, where, code=trust is not None)
    code = scan_source(run, folder, trust, spec)
    config = check_config(folder, where, end_is_named(run, spec)) if (folder / "config.json").is_file() else {}
    if weights:
        if not Path(name).is_dir():
            _download(name, folder.name, sorted(named_weights(folder, where)) or ["model.safetensors"], where)
        check_all_weights(folder, config, where)
    return _source(folder, name, code)


def is_base(spec: ModelSpec) -> bool:
    """Return True for base_model: the policy and its reference."""
    return spec.name in ("policy", "reference")


def end_is_named(run: Run, spec: ModelSpec) -> bool:
    """Return True if the YAML names the end token of a model, which then replaces the one of its files."""
    return is_base(spec) and run.core.special_tokens.eos_token is not None


def where_key(spec: ModelSpec) -> str:
    """Return the YAML key of a model as text."""
    return spec.key if isinstance(spec.key, str) else ".".join(map(str, spec.key))


def revision_of(spec: ModelSpec, settings: HFSettings) -> str | None:
    return spec.revision or (settings.revision_of_model if is_base(spec) else None)


def tokenizer_source(run: Run, settings: HFSettings) -> Source:
    """Return the source of the tokenizer: base_model, or tokenizer_config, whose code never runs.

    Raise SafetyError or ModelError.
    """
    if not run.core.tokenizer_config:
        return model_source(run, settings, run.policy_spec, weights=False)
    name, where = run.core.tokenizer_config, run.config.place("tokenizer_config")
    folder = _folder(run, name, None, where, code=False)
    scan(folder, where, "choose another tokenizer: code of tokenizer_config never runs", None)
    return Source(str(folder), redact(name), False)


def scan_source(run: Run, folder: Path, trust: RemoteCode | None, spec: ModelSpec) -> dict[str, bytes] | None:
    """Scan the folder of a model and return its permitted code. Raise SafetyError or ModelError."""
    where = run.config.place(spec.key)
    if not is_base(spec):
        scan(folder, where, f"choose another model: code of {where_key(spec)} never runs", None)
        return None
    if trust is None:
        scan(folder, where, f"{advice(spec.path)}; or remove it from the file", None)
        if files := sorted(path.name for pattern in CODE for path in folder.glob(pattern)):
            run.note("code in base_model", f"not run, transformers has its own: {', '.join(files)}")
        return None
    place = run.config.place(("trust_remote_code", "sha256"))
    code = checked_code(folder, trust, place)
    scan(folder, where, "remove it from the file: trust_remote_code is only for the model's own code", code)
    return code


def _source(folder: Path, name: str, code: dict[str, bytes] | None) -> Source:
    if code is None:
        return Source(str(folder), redact(name), False)
    from tunesmith_hf.private import copy_of

    return Source(str(copy_of(folder, code)), redact(name), True)


def _folder(run: Run, name: str, revision: str | None, where: str, code: bool) -> Path:
    """Return the local folder `name`, or download the text files of the hub model `name` and return their folder."""
    if Path(name).is_dir():
        return Path(name)
    folders = run.owned(Folders).by_id
    if (name, revision) not in folders:
        folder = _download(name, revision, [*TEXTS, *(["*.py"] if code else [])], where)
        if revision and re.fullmatch("[0-9a-f]{40}", revision) and folder.name != revision:
            raise ModelError(f"{name}: asked for commit {revision}, but got {folder.name}", where=where)
        folders[name, revision] = folder
        run.note(name, f"commit {folder.name} of the hub")
    return folders[name, revision]


def _download(name: str, revision: str | None, patterns: list[str], where: str) -> Path:
    """Download files of a hub model to the cache, and return their folder. Raise ModelError.

    Only templates and code are taken from its subfolders.
    """
    import huggingface_hub

    try:
        below = [f"*/{pattern}" for pattern in patterns if pattern not in ("*.py", "*.jinja")]
        return Path(
            huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=patterns, ignore_patterns=below)
        )
    except Exception as error:  # of the hub's library, the operating system or the HTTP library
        lines = str(error).splitlines() or [""]
        help = "name a folder, or a hub id that you have access to; run tunesmith doctor for the reason"
        raise ModelError(f"{name}: {type(error).__name__}: {lines[0]}", where=where, help=help) from error


def unreadable(name: str, error: Exception, where: str, help: str, code: str = "model") -> TunesmithError:
    """Return the error to raise if a library can't read files, or if a package for them is missing."""
    message = " ".join(line.strip() for line in str(error).splitlines()[:2])[:300]
    if isinstance(error, ImportError):
        return EnvironmentProblem(f"{name}: {message}", where=where, code="package")
    return ModelError(f"{name}: {type(error).__name__}: {message}", where=where, help=help, code=code)
