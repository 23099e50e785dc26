"""The process that calls the library of Comet."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path
from typing import Any

from tunesmith.tracking_service import Service, table_of

DEFAULTS = {
    "auto_histogram_tensorboard_logging": False, "auto_log_co2": False, "auto_metric_logging": False,
    "auto_output_logging": False, "auto_param_logging": False, "display_summary_level": 0, "log_code": False,
    "log_env_details": False, "log_git_metadata": False, "log_git_patch": False, "log_graph": False,
    "parse_args": False,
}  # fmt: skip
"""Switch off automatic logging, which would describe this process instead of the run."""


class CometService(Service):
    """One experiment at Comet. Archives of offline experiments are in output_dir/comet."""

    name = "comet"

    def load(self) -> None:
        if self.options["api_key"]:
            os.environ["COMET_API_KEY"] = self.options["api_key"]  # messages show *** for such a variable
        os.environ.setdefault("COMET_LOGGING_CONSOLE", "CRITICAL")
        os.environ.setdefault("COMET_ERROR_TRACKING_ENABLE", "false")
        os.environ.setdefault("COMET_HTTP_SESSION_RETRY_TOTAL", "1")
        import comet_ml

        self.comet: Any = comet_ml

    def open(self) -> None:
        """Continue the experiment of output_dir, or create one; if the service can't be reached, offline."""
        resumed = "key" in self.known
        key = self.known.get("key") or self.options["key"] or secrets.token_hex(16)
        self.keep(key=key)
        mode = "get" if resumed else self.options["mode"] or ("get_or_create" if self.options["key"] else "create")
        online = self.options["online"]
        if online is None:
            online = os.environ.get("COMET_START_ONLINE", "true").lower() not in ("0", "false")
        try:
            self.start(key, mode, online)
        except Exception as error:
            self.start(key, mode, False)
            self.fell_back(error, self.sync)
        if not resumed:
            facts = self.facts()
            self.experiment.log_parameters(facts["config"])
            self.experiment.log_others({f"version {name}": version for name, version in facts["versions"].items()})
            self.experiment.log_other("outline", str(facts["outline"]))

    def start(self, key: str, mode: str, online: bool) -> None:
        folder = Path(self.options["config"].get("offline_directory") or self.folder / "comet")
        folder.mkdir(parents=True, exist_ok=True)
        values = DEFAULTS | {"name": self.options["name"]} | self.options["config"]
        config = self.comet.ExperimentConfig(**values | {"offline_directory": str(folder)})
        self.experiment = self.comet.start(
            workspace=self.options["workspace"],
            project_name=self.options["project"],
            experiment_key=key,
            mode=mode,
            online=online,
            experiment_config=config,
        )
        self.sync = f"comet upload {folder}/*.zip"
        about = str(self.experiment.url) if online else f"offline; {self.sync}"
        self.reply(about=about, later=f"to send what was recorded: {self.sync}")

    def log(self, step: int, scalars: dict[str, float], record: dict[str, Any]) -> None:
        self.experiment.log_metrics(scalars, step=step, epoch=int(record["epoch"]))
        for name, rows in record["tables"].items():
            columns, cells = table_of(rows, missing="")
            file = f"{re.sub(r'[^0-9A-Za-z_.-]', '_', name)}-{step}.csv"
            self.experiment.log_table(file, tabular_data=cells, headers=columns)
        for name, numbers in record["histograms"].items():
            self.experiment.log_histogram_3d(numbers, name=name, step=step)

    def page(self, path: Path) -> None:
        self.experiment.log_asset(str(path), file_name=path.name)

    def end(self, status: str) -> None:
        self.experiment.log_other("status", status)
        self.experiment.end()


if __name__ == "__main__":
    CometService().serve()
