"""Find the model that a path names, and the keys of a config that load it.

Commands that use a model (chat, generate, evaluate, export) take the YAML file of a run, its output_dir, one of its
checkpoints, the folder of any model or adapter, or a hub id. How a folder is loaded is known to the plugin that wrote
it, which offers a function of a `SavedModel`: `Plugin(offers={"saved_models": {name: function}})`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tunesmith.config.config import Config
from tunesmith.config.load import load_config
from tunesmith.errors import ConfigError
from tunesmith.files.paths import is_hub_id
from tunesmith.files.record import last_record
from tunesmith.files.untrusted import read_json
from tunesmith.plugins.discovery import installed
from tunesmith.plugins.offers import offers
from tunesmith.run import Run

KIND = "saved_models"
"""The kind of offers of functions that return the keys which load a saved model."""
KEPT = ("device", "bf16", "fp16", "tf32", "sequence_len")
"""Keys of the core that apply to the use of a model as they did to its training."""
REPLACED = ("base_model", "adapter", "tokenizer_config", "special_tokens", "resume_from_checkpoint")
"""Keys of the core that say what a run trains from."""
YAML = (".yaml", ".yml")


@dataclass(frozen=True)
class SavedModel:
    """A model on disk or on the hub.

    Args:
        path: the folder, or a hub id.
        config: the YAML of the run, if the user named it.
        record: the config in run.json of the run, empty if there is none. Anyone can have written it: take values from
            it, and nothing that runs code.
        base: the base model that the user named for an adapter.
    """

    path: str
    config: Config | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    base: str | None = None

    @property
    def folder(self) -> Path:
        """The folder. It does not exist for a hub id."""
        return Path(self.path)

    def get(self, key: str) -> Any:
        """Return the value of a key in the run's YAML or else in its record; None if neither has it."""
        if self.config is not None:
            return self.config.document.values.get(key)
        return self.record.get(key)

    def trusted(self, key: str) -> Any:
        """Return the value of a key in the YAML that the user named; None without one. For keys that run code."""
        return self.config.document.values.get(key) if self.config is not None else None

    @cached_property
    def peft_config(self) -> dict[str, Any]:
        """The content of adapter_config.json, which an adapter has in the layout of peft; empty for another model."""
        path = self.folder / "adapter_config.json"
        return read_json(path) if path.is_file() else {}

    def adapter_keys(self, adapter: str, folder_key: str) -> dict[str, Any]:
        """Return the keys that load an adapter on its base model.

        Args:
            adapter: the value of `adapter:`.
            folder_key: the key that names the folder of a saved adapter.

        The base model is the one that the user names, that of the run, or the one in the adapter's config.
        """
        base = self.base or self.get("base_model") or self.peft_config.get("base_model_name_or_path")
        return {"adapter": adapter, folder_key: self.path} | ({"base_model": str(base)} if base else {})

    def keys(self) -> dict[str, Any]:
        """Return the keys of a config that load the model: those of all plugins that know its folder.

        Raises ConfigError if none does, or if two contradict each other.
        """
        joined: dict[str, Any] = {key: value for key in KEPT if (value := self.get(key)) is not None}
        owners: dict[str, str] = {}
        for name, (offer, *_) in sorted(offers(installed(), KIND).items()):
            for key, value in (offer.load()(self) or {}).items():
                if owners.setdefault(key, name) != name and joined[key] != value:
                    message = f"{self.path}: {owners[key]} and {name} load it with different values of {key}"
                    raise ConfigError(message, where="command line", code="usage", help="name the base model: --base")
                joined[key] = value
        if "base_model" not in joined:
            help = "name the YAML of a run, its output_dir, the folder of a model or an adapter, or a hub id"
            raise ConfigError(f"{self.path} has no model", where="command line", code="usage", help=help)
        return joined

    def evaluation(self, overrides: Sequence[str] = ()) -> Config:
        """Return the config of the run with this model in the place of the one that it trained from: data and method
        stay, and the keys of the plugins that load it are replaced by `keys()`.

        A method that reads a reference, such as DPO, compares the model with the one that its training started from.
        So its config stays as it is, with the weights of the checkpoint that became the final model.

        Without a YAML, the config has no data, unless `overrides` (`key=value`) add some: a record is not asked for
        code, files or plugins. Raises ConfigError.
        """
        keys = self.keys() | {
            "output_dir": f"{self.folder}-evaluation"
        }  # nothing is written, but a run may not replace its model
        if self.config is None or self.config.origin is None:
            config = load_config(keys, overrides)
        else:
            owners = [offer.plugin for offer, *_ in offers(installed(), KIND).values()]
            loading = {
                *REPLACED,
                *(key for owner in owners for key in (owner.info["schema"] or {}).get("properties", ())),
            }
            config = self._reloaded(overrides, dict.fromkeys(loading & self.config.document.values.keys()) | keys)
        if not Run(config, config.hooks()).needs.reference:
            return config
        return self._reloaded(overrides, {"resume_from_checkpoint": str(self._checkpoint())})

    def _reloaded(self, overrides: Sequence[str], keys: Mapping[str, Any]) -> Config:
        """Load the run's YAML again with other keys. Raises ConfigError without one."""
        origin = self.config.origin if self.config is not None else None
        if origin is None:
            message = f"{self.path}: the method compares the model with the one that its training started from"
            help = "name the YAML of the run, which says what that was"
            raise ConfigError(message, where="command line", help=help, code="usage")
        return load_config(origin.source, (*origin.overrides, *overrides), **{**origin.keys, **keys})

    def _checkpoint(self) -> Path:
        """Return the checkpoint with the weights of the final model: that of the last step, or the best one."""
        record = last_record(self.folder)
        outline = record.get("outline")
        step = outline.get("model_step") if isinstance(outline, dict) else None
        folder = self.folder / f"checkpoint-{step or record.get('step')}"
        if not folder.is_dir():
            message = f"{folder} is gone, and the method needs it beside the model that training started from"
            raise ConfigError(message, where="command line", help="name rows and rl: sft, or train again", code="usage")
        return folder


def find_saved(source: str | Path | SavedModel, base: str | None = None) -> SavedModel:
    """Return the model that a source names. Reads no weights.

    Args:
        source: the YAML file of a run, a folder, or a hub id. A model that is found already is returned as it is.
        base: the base model of an adapter, if it is not where it was.

    Raises ConfigError for a run that has saved no model yet, and for a path that does not exist.
    """
    if isinstance(source, SavedModel):
        return source
    path = Path(source)
    if path.suffix.lower() in YAML and (path.is_file() or not path.is_dir()):
        config = load_config(str(path))
        folder = Path(config.core.output_dir)
        _check_folder(folder, f"tunesmith train {path}")
        return SavedModel(str(folder), config, _record(folder), base)
    if path.is_dir():
        _check_folder(path, None)
        return SavedModel(str(path), None, _record(path), base)
    if path.exists() or not is_hub_id(str(source)):
        help = "name the YAML of a run, its output_dir, the folder of a model or an adapter, or a hub id"
        problem = "not a folder, nor a YAML file" if path.exists() else "no such file or folder"
        raise ConfigError(f"{source}: {problem}", where="command line", code="usage", help=help)
    return SavedModel(str(source), base=base)


def model_files(folder: Path) -> bool:
    """Return True if a folder has a model or an adapter in the layout of transformers or peft."""
    return any((folder / name).is_file() for name in ("config.json", "adapter_config.json"))


def _check_folder(folder: Path, train: str | None) -> None:
    """Raise ConfigError for the folder of a run without a final model, with the name of its newest checkpoint."""
    if not folder.is_dir():
        message = f"{folder}: the run has no output yet"
        raise ConfigError(message, where="command line", code="usage", help=train)
    numbers = [path.name.removeprefix("checkpoint-") for path in folder.glob("checkpoint-*") if path.is_dir()]
    if numbers and not model_files(folder):
        newest = folder / f"checkpoint-{max((int(n) for n in numbers if n.isdigit()), default=0)}"
        message = f"{folder}: the run has no final model yet"
        raise ConfigError(message, where="command line", code="usage", help=f"name a checkpoint: {newest}")


def _record(folder: Path) -> dict[str, Any]:
    """Return the config in the run.json of a folder, or of the run that a checkpoint or a merged model belongs to."""
    for place in (folder, folder.absolute().parent):
        config = last_record(place).get("config")
        if isinstance(config, dict):
            return config
    return {}
