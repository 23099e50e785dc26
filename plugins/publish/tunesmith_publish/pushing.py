"""Gather what the command `push` sends."""

from __future__ import annotations

from pathlib import Path

from tunesmith import ConfigError, find_saved
from tunesmith.files.paths import is_hub_id
from tunesmith_publish.card import card_of, license_of
from tunesmith_publish.files import Upload, collect


def prepare(source: str, repo: str, base: str | None, checkpoints: bool, record: bool, online: bool) -> Upload:
    """Return the upload of a model.

    Args:
        source: the YAML file of a run, or a folder.
        repo: the name of the repository.
        base: the hub id of the base model.
        checkpoints: also send the models in checkpoint-N.
        record: also send run.json.
        online: the hub may be asked for the license of the base model.

    Raises ConfigError for a folder without a model, and SafetyError for files that should not leave the machine.
    """
    from tunesmith_publish.hub import base_license

    for name, option in ((repo, "REPO"), (base, "--base")):
        if name is not None and not is_hub_id(name if "/" in name else f"owner/{name}"):
            message = f"{name!r} is not a name of a repository"
            raise ConfigError(message, where=f"command line ({option})", code="usage", help="write OWNER/NAME")
    saved = find_saved(source)
    folder = saved.folder
    if not folder.is_dir():
        help = "push uploads folders of this machine"
        raise ConfigError(f"{source} is on the hub already", where="command line", code="usage", help=help)
    given = base or str(saved.get("base_model") or saved.peft_config.get("base_model_name_or_path") or "")
    license = license_of(Path(given)) if Path(given).is_dir() else base_license(given if online else None)
    upload = collect(folder, card_of(folder, repo, base, license), base, record=record)
    if not any(name.endswith((".safetensors", ".gguf")) for name in upload.files):
        help = "name the YAML of a run, its output_dir, a checkpoint, or the folder of a model or an export"
        raise ConfigError(f"{folder} has no model", where="command line", code="usage", help=help)
    if checkpoints:
        for path in sorted(folder.glob("checkpoint-*")):
            if path.is_dir():
                upload.files |= collect(path, card_of(path, repo, base, license), base, inside=path.name).files
    return upload
