"""The process that calls the library of Weights & Biases."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

from tunesmith.tracking_service import Service, table_of

TIMEOUT = "15"
"""Seconds for the start of a run, after which it is recorded offline."""


class WandbService(Service):
    """One run at Weights & Biases. The files that it writes are in output_dir/wandb, also online."""

    name = "wandb"

    def load(self) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # its own telemetry
        os.environ.setdefault("WANDB_INIT_TIMEOUT", TIMEOUT)
        import wandb

        self.wandb: Any = wandb

    def open(self) -> None:
        """Continue the run of output_dir, or start one; if the service can't be reached, offline."""
        run_id = self.options["id"] or self.known.get("id") or secrets.token_hex(4)
        self.keep(id=run_id)
        try:
            self.start(run_id, self.options["mode"])
        except Exception as error:
            self.wandb.teardown(exit_code=1)  # it has the id in use
            self.start(run_id, "offline")
            self.fell_back(error, self.sync)

    def start(self, run_id: str, mode: str | None) -> None:
        wandb, facts = self.wandb, self.facts()
        self.run = wandb.init(
            project=self.options["project"],
            entity=self.options["entity"],
            name=self.options["name"],
            id=run_id,
            resume="allow",
            mode=mode,
            dir=str(self.folder),
            config=facts["config"] | {"tunesmith": {"versions": facts["versions"], "outline": facts["outline"]}},
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_git=True,
                disable_code=True,
                save_code=False,
                x_stats_pid=os.getppid(),
            ),
        )
        self.sync = f"wandb sync {Path(self.run.dir).parent}"
        self.reply(later=f"to send what was recorded: {self.sync}", about=self.run.url or f"offline; {self.sync}")

    def log(self, step: int, scalars: dict[str, float], record: dict[str, Any]) -> None:
        wandb = self.wandb
        if step < self.run.step:  # the service has it already
            return
        values: dict[str, Any] = dict(scalars)
        for name, rows in record["tables"].items():
            columns, cells = table_of(rows)
            values[name] = wandb.Table(columns=columns, data=cells)
        for name, numbers in record["histograms"].items():
            values[name] = wandb.Histogram(numbers)
        for name, (counts, edges) in (record.get("bins") or {}).items():
            values[name] = wandb.Histogram(np_histogram=(counts, edges))
        self.run.log(values, step=step)

    def page(self, path: Path) -> None:
        self.upload("report", "report", [path], [])

    def model(self, name: str, files: list[Path]) -> None:
        self.upload("model", "model", files, ["final" if name == "model" else name])

    def upload(self, name: str, kind: str, files: list[Path], aliases: list[str]) -> None:
        artifact = self.wandb.Artifact(f"{name}-{self.run.id}", type=kind)
        for file in files:
            artifact.add_file(str(file), skip_cache=True)
        logged = self.run.log_artifact(artifact, aliases=aliases)
        if not self.run.settings._offline:
            logged.wait()

    def end(self, status: str) -> None:
        self.run.finish(exit_code=0 if status == "done" else 1)


if __name__ == "__main__":
    WandbService().serve()
