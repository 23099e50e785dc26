"""Export the most likely first words of the model, which fails as long as the folder of words is missing."""

import json
from pathlib import Path

from tunesmith import Plugin, Settings, hookimpl


class WordSettings(Settings):
    words_folder: str
    """Folder with the list of words."""


plugin = Plugin(settings=WordSettings, on_resume={"words_folder": "free"})


@hookimpl
def save_model(run, path):
    if run.step == run.total_steps:
        words = (Path(run.settings(WordSettings).words_folder) / "words.txt").read_text().split()
        if run.world.main:
            (path / "words.json").write_text(json.dumps(words))
