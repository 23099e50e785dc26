"""The process that calls the library of Trackio."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tunesmith.tracking_service import Service


class TrackioService(Service):
    """One run of Trackio, in a database below TRACKIO_DIR, and in a Space if there is one."""

    name = "trackio"

    def load(self) -> None:
        os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
        import trackio

        self.trackio: Any = trackio

    def open(self) -> None:
        """Continue the run of output_dir, which Trackio finds by its name, or start one."""
        options, facts = self.options, self.facts()
        name = self.known.get("name") or options["name"]
        self.run = self.trackio.init(
            options["project"],
            name,
            space_id=options["space"],
            config=facts["config"] | {"versions": facts["versions"]},
            resume="allow" if "name" in self.known else "never",
            embed=False,
        )
        self.keep(name=self.run.name)
        space, server = options["space"] or os.environ.get("TRACKIO_SPACE_ID"), os.environ.get("TRACKIO_SERVER_URL")
        self.sync = (
            f"to send what was recorded: trackio sync --project {options['project']} --space-id {space or 'USER/NAME'}"
        )
        if server and not space:
            self.sync = "the next run of the project sends what was recorded"
        place = space or server or self.trackio.TRACKIO_DIR
        self.reply(later=self.sync, about=f"run {self.run.name} in {place}")

    def log(self, step: int, scalars: dict[str, float], record: dict[str, Any]) -> None:
        values: dict[str, Any] = dict(scalars)
        for name, rows in record["tables"].items():
            import pandas

            values[name] = self.trackio.Table(dataframe=pandas.DataFrame(rows))
        for name, numbers in record["histograms"].items():
            values[name] = self.trackio.Histogram(numbers)
        self.run.log(values, step=step)

    def page(self, path: Path) -> None:
        if getattr(self.run, "_is_local", True) or getattr(self.run, "_client", True) is not None:
            self.run.log_artifact(path, name=f"report-{self.run.name}", type="report")
        else:  # an upload would wait a minute for the connection; `finish` keeps the records here at once
            self.reply(
                warning=f"the server can't be reached; records are kept in {self.trackio.TRACKIO_DIR}; {self.sync}"
            )

    def end(self, status: str) -> None:
        self.run.finish()


if __name__ == "__main__":
    TrackioService().serve()
