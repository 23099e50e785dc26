"""Turn the options of the command into overrides of the run's config."""

from __future__ import annotations

import json
from collections.abc import Sequence

from tunesmith import Config, ConfigError, SavedModel

TRAINING = ("datasets", "pretraining_dataset", "streaming", "val_set_size")
"""Keys of the data that a run trains on. They are not needed if other rows are evaluated."""
OF_THE_FILE = ("path", "weight", "shards", "shards_idx", "split", "name", "revision", "data_files", "ds_type")
"""Keys of an entry that belong to its own files."""


def overrides_of(
    saved: SavedModel, words: Sequence[str], tasks: str | None, data: str | None, strategy: str | None
) -> list[str]:
    """Return the overrides for an evaluation: those of the user, and the ones that the options stand for.

    Raises ConfigError for options that contradict each other.
    """
    result = list(words)
    if tasks is not None:
        result.append(f"lm_eval_tasks={json.dumps([name.strip() for name in tasks.split(',') if name.strip()])}")
    if data is not None:
        result.append(f"test_datasets={json.dumps([_entry(saved, data, strategy)])}")
    elif strategy is not None:
        message = "has no effect without --data"
        raise ConfigError(message, where="command line (--type)", help="name the rows: --data FILE", code="usage")
    values = saved.config.document.values if saved.config else {}
    given = any(word.partition("=")[0] == "test_datasets" for word in result)
    if given or values.get("test_datasets"):
        # The rows to evaluate on are known, so those that were trained on need not be read and tokenized.
        written = {word.partition("=")[0] for word in words}
        result += [f"{key}=null" for key in TRAINING if values.get(key) is not None and key not in written]
    return result


def _entry(saved: SavedModel, data: str, strategy: str | None) -> dict[str, object]:
    """Return the entry of a file. Without a strategy, its rows have the shape of the run's first dataset."""
    if strategy is not None:
        return {"path": data, "type": strategy}
    values = saved.config.document.values if saved.config else {}
    entries = values.get("test_datasets") or values.get("datasets") or values.get("pretraining_dataset")
    if not isinstance(entries, list) or not entries:
        help = "write --type chat_template, or another value of `type:` in an entry of datasets"
        raise ConfigError("names no prompt strategy", where="command line (--data)", help=help, code="usage")
    return {key: value for key, value in entries[0].items() if key not in OF_THE_FILE} | {"path": data}


def check_measures(config: Config, saved: SavedModel) -> None:
    """Raise ConfigError if there is nothing to evaluate."""
    if config.core.val_set_size or config.test_datasets or config.hooks().has("evaluate"):
        return
    help = "write --data FILE --type TYPE, or --tasks NAMES"
    if saved.config is not None:
        help += "; or val_set_size: 0.05 in the YAML"
    elif saved.record:
        help += "; or name the YAML of the run, to use its held-out rows"
    message = f"there is nothing to evaluate {saved.path} on"
    raise ConfigError(message, where="command line", help=help, code="no-data")
