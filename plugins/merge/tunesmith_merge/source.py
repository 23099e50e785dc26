"""Find adapter, base model and output folder from what the command names: a YAML file, a run, or an adapter."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith import ConfigError, ModelError, Run, load_config
from tunesmith.files.paths import is_hub_id
from tunesmith.files.record import last_record
from tunesmith_merge.adapter import CONFIG, AdapterFiles, open_adapter

FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
"""Files of a model on the hub that a merge reads."""


@dataclass(frozen=True)
class Source:
    """The inputs of a merge: the adapter, the base model by its name, and the run, if a YAML file names it."""

    adapter: AdapterFiles
    base: str
    revision: str | None
    record: dict[str, Any] = field(default_factory=dict)
    run: Run | None = None

    @property
    def special_tokens(self) -> dict[str, Any]:
        """The tokens that the run gave a role, such as eos_token."""
        if self.run is not None:
            return self.run.core.special_tokens.model_dump()
        config = self.record.get("config")
        tokens = config.get("special_tokens") if isinstance(config, dict) else None
        return tokens if isinstance(tokens, dict) else {}


def find(path: Path, base: str | None) -> Source:
    """Return what a path names: the YAML file of a run, the output folder of a run, or the folder of an adapter.

    `base` replaces the base model that the run or the adapter names. Raises ConfigError or ModelError.
    """
    run, folder = None, path
    if path.is_file():
        config = load_config(str(path))
        run = Run(config, config.hooks())  # not started: its data may be gone
        folder = run.output_dir
    if not folder.is_dir():
        problem = "the run has no output yet" if run else "no such file or folder"
        help = f"tunesmith train {path}" if run else "name the YAML file of a run, its output_dir, or an adapter"
        raise ConfigError(f"{folder}: {problem}", where="command line", code="usage", help=help)
    record = last_record(folder)
    if not (folder / CONFIG).is_file():
        message = f"{folder} has no adapter ({CONFIG})"
        help = "name a run with an adapter, or the folder of an adapter"
        if record:
            help = "a run that trains all weights has nothing to merge; a run that was interrupted has checkpoint-N"
        raise ConfigError(message, where="command line", code="usage", help=help)
    adapter = open_adapter(folder)
    saved = record["config"] if isinstance(record.get("config"), dict) else {}
    named = run.core.base_model if run else saved.get("base_model") or adapter.config.get("base_model_name_or_path")
    revision = saved.get("revision_of_model") or adapter.config.get("revision")
    if base or not named:
        revision = None
    if not (base or named):
        message = f"{folder / CONFIG} does not name its base model"
        raise ConfigError(message, where="command line", code="usage", help="write --base MODEL")
    return Source(adapter, base or str(named), revision, record, run)


def base_folder(source: Source) -> Path:
    """Return the folder of the base model; that of the hub's cache for a hub id, which is downloaded if necessary."""
    folder = Path(source.base)
    if folder.is_dir():
        return folder
    if not is_hub_id(source.base):
        message = f"the base model {source.base} is not a folder on this machine"
        raise ModelError(message, code="merge", help="name it: --base MODEL")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source.base, revision=source.revision, allow_patterns=list(FILES)))
    except Exception as error:  # of the network or the hub, which has many kinds
        detail = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        message = f"the base model {source.base} can't be fetched: {detail}"
        raise ModelError(message, code="merge", help="name a folder: --base MODEL") from error
