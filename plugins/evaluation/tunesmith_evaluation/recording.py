"""Write an evaluation into the run.json of the run whose model was evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith import EnvironmentProblem, SavedModel
from tunesmith.engine import engine

HELP = "wait for the run, or write --no-record"


@dataclass(frozen=True)
class Record:
    """The run.json that an evaluation is added to; None if the model belongs to no run."""

    folder: Path | None

    @classmethod
    def of(cls, saved: SavedModel) -> Record:
        """Return the record of a saved model. Raises EnvironmentProblem if its run is in progress."""
        places = (saved.folder, saved.folder.absolute().parent)
        folder = next((place for place in places if (place / "run.json").is_file()), None)
        if folder is not None:
            try:
                with engine("runtime.lock").locked(folder):
                    pass
            except EnvironmentProblem as error:
                raise EnvironmentProblem(str(error.problems[0].message), help=HELP, code="in-use") from error
        return cls(folder)

    def write(self, result: Mapping[str, Any]) -> str | None:
        """Add a result, and return the file. Raises EnvironmentProblem if a run has the folder by now."""
        if self.folder is None:
            return None
        engine("runtime.record").add_evaluation(self.folder, dict(result))
        return str(self.folder / "run.json")
