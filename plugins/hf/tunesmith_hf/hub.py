"""Report for `doctor` if a run's model, tokenizer and datasets are available in a folder, the cache or the hub."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from fnmatch import fnmatch
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
from tunesmith_hf.files import PICKLES, specs_of
from tunesmith_hf.scan import INDEX, named_weights
from tunesmith_hf.source import TEXTS, is_base, revision_of, where_key

SECONDS = 5
"""Time limit for an answer of the hub."""


def findings(run: Run, settings: HFSettings) -> Iterator[Finding]:
    """Yield a finding for the model, and one for each other part of the run that is on the hub.

    Paths that `inspect` has already refused are left out.
    """
    core, weights = run.core, not settings.reinit_weights
    for spec in reversed(specs_of(run)):
        trust = settings.remote_code if is_base(spec) else None
        revision = trust.revision if trust else revision_of(spec, settings)
        needed = weights or not is_base(spec)
        if Path(spec.path).is_dir():
            yield from local_model(where_key(spec), Path(spec.path), needed)
        elif is_hub_id(spec.path, revision):
            yield check_repository(where_key(spec), spec.path, "model", revision, needed)
    tokenizer = core.tokenizer_config
    if tokenizer and run.tokenizer is None and not Path(tokenizer).exists() and is_hub_id(tokenizer):
        yield check_repository("tokenizer_config", tokenizer, "model", None, weights=False)
    for spec in run.config.entries:
        if spec.source == HUB:
            entry = spec.settings
            what = f"dataset {spec.index}"
            yield check_repository(what, entry.path, "dataset", entry.revision, weights=False, subset=entry.name)


def local_model(key: str, path: Path, weights: bool) -> Iterator[Finding]:
    """Yield the size of a local model if its files are complete."""
    if not weights:
        yield Finding(key, "ok", f"{path}: no weights needed")
    elif is_complete(path):
        yield Finding(key, "ok", f"{path}: {size(sum(f.stat().st_size for f in weight_files(path)))} of weights")


def weight_files(path: Path) -> list[Path]:
    return list(path.glob("*.safetensors"))


def is_complete(path: Path) -> bool:
    """Return True if a folder has weights, including all files that its index lists."""
    return bool(weight_files(path)) and all((path / name).is_file() for name in named_weights(path, str(path)))


def check_repository(
    what: str, name: str, kind: str, revision: str | None, weights: bool, subset: str | None = None
) -> Finding:
    """Return a finding about one hub id. With `weights`, the repository must have safetensors weights.

    subset: the subset (configuration) of a dataset.
    """
    in_cache = is_cached(name, kind, revision, weights, subset)
    try:
        return query_hub(what, name, kind, revision, weights, in_cache)
    except OfflineModeIsEnabled:
        why = "HF_HUB_OFFLINE is set"
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403, 404):
            return explain_refusal(what, name, kind, revision, error, status)
        why = f"{constants.ENDPOINT} returned status {status}"
    except Exception as error:  # without a network, the exception depends on the release's HTTP library
        why = f"{constants.ENDPOINT} can't be reached ({type(error).__name__})"
    if in_cache:
        return Finding(what, "ok", f"{name}: in the cache; {why}")
    help = f"with network access, run: hf download {name}{' --repo-type dataset' if kind == 'dataset' else ''}"
    return Finding(what, "problem", f"{name}: not in the cache, and {why}", help, _exit_code(kind))


def query_hub(what: str, name: str, kind: str, revision: str | None, weights: bool, in_cache: bool) -> Finding:
    """Return the hub's answer about a repository, including the room to download it. Raise the hub's own errors."""
    hub = HfApi()
    info: Any = hub.repo_info(name, repo_type=kind, revision=revision, timeout=SECONDS, files_metadata=True)
    if info.gated:
        hub.auth_check(name, repo_type=kind)
    token = "with a token" if get_token() else "without a token"
    description = f"{name}: on the hub, {token}"
    tensors = [file for file in info.siblings if file.rfilename.endswith(".safetensors")]
    if weights and not tensors:
        if any(Path(file.rfilename).match(pattern) for file in info.siblings for pattern in PICKLES):
            help = "choose a revision or a model with .safetensors files"
            return Finding(what, "problem", f"{name}: weights as pickles only", help, SafetyError.exit_code)
        return Finding(what, "problem", f"{name}: no .safetensors weights", exit_code=_exit_code(kind))
    if in_cache:
        return Finding(what, "ok", f"{description}; in the cache")
    files = info.siblings if kind == "dataset" else downloads(info.siblings, weights)
    needed = sum(file.size or 0 for file in files)
    cache = Path(constants.HF_HUB_CACHE)
    free = shutil.disk_usage(next(p for p in (cache, *cache.parents) if p.exists())).free
    if needed > free:
        help = "set HF_HOME to a folder with enough free space"
        message = f"{name}: {size(needed)} to download, but {cache} has {size(free)} free"
        return Finding(what, "problem", message, help, EnvironmentProblem.exit_code)
    return Finding(what, "ok", f"{description}; {size(needed)} to download")


def downloads(files: list[Any], weights: bool) -> list[Any]:
    """Return the files of a model that a run downloads: texts, and with `weights` the model's shards, or its one file.

    The shards are those that the index lists, whose content is unknown here. By custom their names end with their
    number; a repository may have the same weights under other names too.
    """
    here = [file for file in files if "/" not in file.rfilename]
    chosen = [file for file in here if any(fnmatch(file.rfilename, pattern) for pattern in TEXTS)]
    if not weights:
        return chosen
    tensors = [file for file in here if file.rfilename.endswith(".safetensors")]
    if any(file.rfilename == INDEX for file in here):
        numbered = [file for file in tensors if re.search(r"-\d+-of-\d+\.safetensors$", file.rfilename)]
        named = [file for file in numbered if file.rfilename.startswith("model")]
        return chosen + (named or numbered or tensors)
    return chosen + [file for file in tensors if file.rfilename == "model.safetensors"]


def explain_refusal(
    what: str, name: str, kind: str, revision: str | None, error: HfHubHTTPError, status: int
) -> Finding:
    """Return a finding with the hub's reason: no access, no such revision, no such repository, or a bad token."""
    page = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{name}"
    token, help = bool(get_token()), "run: hf auth login"
    if isinstance(error, GatedRepoError):
        why = f"is gated ({status}), and the token has no access" if token else f"is gated ({status}); no token is set"
        help = f"request access at {page}" + ("" if token else ", then run: hf auth login")
    elif isinstance(error, RevisionNotFoundError):
        why, help = f"has no revision {revision!r} ({status})", f"choose a revision listed at {page}/tree/main"
    elif isinstance(error, RepositoryNotFoundError) and (status == 404 or token):
        why = (
            f"does not exist, or is private and the token has no access ({status})"
            if token
            else f"no such {kind} ({status})"
        )
        help = "check the spelling: owner/name"
    elif isinstance(error, RepositoryNotFoundError):
        why = f"does not exist, or is private; no token is set ({status})"
    else:
        why = f"the hub refuses {'the token' if token else 'access without a token'} ({status})"
    return Finding(what, "problem", f"{name}: {why}", help, _exit_code(kind))


def is_cached(name: str, kind: str, revision: str | None, weights: bool, subset: str | None = None) -> bool:
    """Return True if all needed files are in the cache."""
    if kind == "dataset":
        return is_prepared(name, revision, subset)
    config = try_to_load_from_cache(name, "config.json", revision=revision)
    if not isinstance(config, str):
        return False
    return not weights or is_complete(Path(config).parent)


def is_prepared(name: str, revision: str | None, subset: str | None) -> bool:
    """Return True if the datasets library has prepared a dataset: in the folder NAME/SUBSET/VERSION/COMMIT.

    It writes the name in lower case with underscores, so names are compared without them.
    """
    prepared = Path(os.environ.get("HF_DATASETS_CACHE", Path(constants.HF_HOME) / "datasets"))
    folders = [path for path in prepared.glob("*") if _plain(path.name) == _plain(name.replace("/", "___"))]
    commit = revision
    if revision and not re.fullmatch("[0-9a-f]{40}", revision):
        reference = Path(constants.HF_HUB_CACHE) / f"datasets--{name.replace('/', '--')}" / "refs" / revision
        commit = reference.read_text("utf-8").strip() if reference.is_file() else ""
    for build in (path for folder in folders for path in folder.glob("*/*/*") if path.is_dir()):
        own = build.parent.parent.name
        # A choice of files adds a hash to the name of the subset.
        if (subset is None or own == subset or own.startswith(f"{subset}-")) and commit in (None, build.name):
            return True
    return False


def _plain(name: str) -> str:
    return re.sub("[_-]", "", name).lower()


def _exit_code(kind: str) -> int:
    return ModelError.exit_code if kind == "model" else DataError.exit_code
