"""Whether the model, tokenizer and datasets of a run can be had: from a folder, the cache, or the hub."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, get_token, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tunesmith import DataError, EnvironmentProblem, Finding, ModelError, Run, SafetyError
from tunesmith.files.paths import HUB, is_hub_id
from tunesmith.finding import size
from tunesmith_hf import HFSettings
from tunesmith_hf.files import PICKLES
from tunesmith_hf.scan import named_weights

SECONDS = 5
"""How long the hub may take to answer."""


def findings(run: Run, settings: HFSettings) -> Iterator[Finding]:
    """One for the model, and one for each other thing that is on the hub; what `inspect` refused is left out."""
    core, weights = run.core, not settings.reinit_weights
    revision = settings.remote_code.revision if settings.remote_code else settings.revision_of_model
    if Path(core.base_model).is_dir():
        yield from folder(Path(core.base_model), weights)
    elif run.given_model is None and is_hub_id(core.base_model, revision):
        yield look("base_model", core.base_model, "model", revision, weights)
    other = core.tokenizer_config
    if other and run.tokenizer is None and not Path(other).exists() and is_hub_id(other):
        yield look("tokenizer_config", other, "model", None, weights=False)
    for spec in run.config.entries:
        if spec.source == HUB:
            yield look(f"dataset {spec.index}", spec.settings.path, "dataset", spec.settings.revision, weights=False)


def folder(path: Path, weights: bool) -> Iterator[Finding]:
    """How much a local model is, where it is whole."""
    if not weights:
        yield Finding("base_model", "ok", f"{path}: no weights needed")
    elif whole(path):
        yield Finding(
            "base_model", "ok", f"{path}: {size(sum(f.stat().st_size for f in weight_files(path)))} of weights"
        )


def weight_files(path: Path) -> list[Path]:
    return list(path.glob("*.safetensors"))


def whole(path: Path) -> bool:
    """Whether a folder has weights, and all that its index names, if it has one."""
    return bool(weight_files(path)) and all((path / name).is_file() for name in named_weights(path, str(path)))


def look(what: str, name: str, kind: str, revision: str | None, weights: bool) -> Finding:
    """A finding about one hub id; `weights` says whether it has to bring any."""
    found = cached(name, kind, revision, weights)
    try:
        return reachable(what, name, kind, revision, weights, found)
    except OfflineModeIsEnabled:
        why = "HF_HUB_OFFLINE is set"
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403, 404):
            return refused(what, name, kind, revision, error, status)
        why = f"{constants.ENDPOINT} answers {status}"
    except Exception as error:  # whatever the HTTP library of this release raises where there is no network
        why = f"{constants.ENDPOINT} can't be reached ({type(error).__name__})"
    if found:
        return Finding(what, "ok", f"{name}: in the cache; {why}")
    help = f"where there is a network: hf download {name}{' --repo-type dataset' if kind == 'dataset' else ''}"
    return Finding(what, "problem", f"{name}: not in the cache, and {why}", help, _code(kind))


def reachable(what: str, name: str, kind: str, revision: str | None, weights: bool, found: bool) -> Finding:
    """What the hub says of it, and whether there is room to download it. Raises what the hub refuses with."""
    hub = HfApi()
    info: Any = hub.repo_info(name, repo_type=kind, revision=revision, timeout=SECONDS, files_metadata=True)
    if info.gated:
        hub.auth_check(name, repo_type=kind)
    token = "with a token" if get_token() else "without a token"
    told = f"{name}: on the hub, {token}"
    tensors = [file for file in info.siblings if file.rfilename.endswith(".safetensors")]
    if weights and not tensors:
        if any(Path(file.rfilename).match(pattern) for file in info.siblings for pattern in PICKLES):
            help = "take a revision or a model with .safetensors files"
            return Finding(what, "problem", f"{name}: weights as pickles only", help, SafetyError.exit_code)
        return Finding(what, "problem", f"{name}: no .safetensors weights", exit_code=_code(kind))
    if found:
        return Finding(what, "ok", f"{told}; in the cache")
    fetched = [file for file in tensors if "/" not in file.rfilename and file.rfilename.startswith("model")]
    needed = sum(file.size or 0 for file in (info.siblings if kind == "dataset" else fetched if weights else []))
    cache = Path(constants.HF_HUB_CACHE)
    free = shutil.disk_usage(next(p for p in (cache, *cache.parents) if p.exists())).free
    if needed > free:
        help = "HF_HOME names another folder for downloads"
        message = f"{name}: {size(needed)} to download, and {cache} has {size(free)} free"
        return Finding(what, "problem", message, help, EnvironmentProblem.exit_code)
    return Finding(what, "ok", f"{told}; {size(needed)} to download")


def refused(what: str, name: str, kind: str, revision: str | None, error: HfHubHTTPError, status: int) -> Finding:
    """Why the hub does not give it, told apart: no access, no such revision, no such repository, a bad token."""
    page = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{name}"
    token, help = bool(get_token()), "hf auth login"
    if isinstance(error, GatedRepoError):
        why = f"is gated ({status}), and the token has no access" if token else f"is gated ({status}); no token is set"
        help = f"ask for access at {page}" + ("" if token else ", then: hf auth login")
    elif isinstance(error, RevisionNotFoundError):
        why, help = f"has no revision {revision!r} ({status})", f"{page}/tree/main lists them"
    elif isinstance(error, RepositoryNotFoundError) and (status == 404 or token):
        why = (
            f"is not on the hub, or private and not for this token ({status})"
            if token
            else f"no such {kind} ({status})"
        )
        help = "check the spelling: owner/name"
    elif isinstance(error, RepositoryNotFoundError):
        why = f"does not exist, or is private, and no token is set ({status})"
    else:
        why = f"the hub refuses {'the token' if token else 'access without a token'} ({status})"
    return Finding(what, "problem", f"{name}: {why}", help, _code(kind))


def cached(name: str, kind: str, revision: str | None, weights: bool) -> bool:
    """Whether an earlier download left all that is needed."""
    if kind == "dataset":
        prepared = Path(os.environ.get("HF_DATASETS_CACHE", Path(constants.HF_HOME) / "datasets"))
        return (prepared / name.replace("/", "___")).is_dir()
    config = try_to_load_from_cache(name, "config.json", revision=revision)
    if not isinstance(config, str):
        return False
    return not weights or whole(Path(config).parent)


def _code(kind: str) -> int:
    return ModelError.exit_code if kind == "model" else DataError.exit_code
