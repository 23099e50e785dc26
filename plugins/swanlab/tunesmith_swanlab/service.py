"""The process that calls the library of SwanLab, and starts its run: nothing else does."""

from __future__ import annotations

import glob
import os
import secrets
from collections import deque
from pathlib import Path
from typing import Any

from tunesmith.tracking_service import Service, table_of

KEY = "SWANLAB_API_KEY"


class SwanLabService(Service):
    """One run at SwanLab. The files that it writes are in output_dir/swanlog, also online."""

    name = "swanlab"

    def load(self) -> None:
        if self.options["api_key"]:
            os.environ[KEY] = self.options["api_key"]  # messages show *** for what such a variable contains
        import swanlab

        self.swanlab: Any = swanlab
        self.rows: dict[str, deque[dict[str, Any]]] = {}

    def open(self) -> None:
        """Continue the run of output_dir, or start one; if the service can't be reached, offline."""
        run_id = self.known.get("id") or secrets.token_hex(8)
        resumed = "id" in self.known
        self.keep(id=run_id)
        try:
            self.start(run_id, self.options["mode"], resumed)
        except BaseException as error:  # its login ends a process with SystemExit
            if self.swanlab.has_run():
                self.swanlab.finish()
            self.start(run_id, "offline", resumed)
            self.fell_back(error, self.sync)

    def start(self, run_id: str, mode: str | None, resumed: bool) -> None:
        swanlab, options, facts = self.swanlab, self.options, self.facts()
        folder = self.folder / "swanlog"
        folder.mkdir(exist_ok=True)
        settings = swanlab.Settings(
            interactive=False,
            api_host=options["api_host"],
            web_host=options["web_host"],
            probe=swanlab.Settings.Probe(git=False, requirements=False),
            terminal=swanlab.Settings.Terminal(proxy_type="none"),
        )
        self.run = swanlab.init(
            log_dir=str(folder),
            mode=mode,
            workspace=options["workspace"],
            project=options["project"],
            name=options["name"],
            description=options["description"],
            id=run_id,
            resume="allow",
            config=facts["config"] | {"versions": facts["versions"], "outline": facts["outline"]},
            settings=settings,
            callbacks=self.callbacks(),
        )
        self.sync = f"swanlab sync {self.run.dir}"
        online = mode in (None, "online") and self.run.url
        self.reply(
            later=f"to send what was recorded: {self.sync}", about=self.run.url if online else f"{mode}; {self.sync}"
        )

    def callbacks(self) -> list[Any]:
        if not self.options["webhook"]:
            return []
        from swanlab.plugin.notification import LarkCallback

        return [LarkCallback(webhook_url=self.options["webhook"], secret=self.options["webhook_secret"], language="en")]

    def log(self, step: int, scalars: dict[str, float], record: dict[str, Any]) -> None:
        self.last = step
        self.run.log({name: float(value) for name, value in scalars.items()}, step=step)
        if not self.options["tables"]:
            return
        evaluated = any(name.startswith("eval/") for name in scalars)
        for name, rows in record["tables"].items():
            buffer = self.rows.setdefault(name, deque(maxlen=self.options["buffer"]))
            buffer.extend({"step": step, **row} for row in rows)
        if evaluated or step % self.options["interval"] == 0:
            self.send_tables()

    def send_tables(self) -> None:
        """Send the rows that were kept, and forget them."""
        for name, rows in self.rows.items():
            if rows:
                table = self.swanlab.echarts.Table()
                table.add(*table_of(list(rows), missing=""))
                self.run.log({name: table}, step=self.last)
                rows.clear()

    def page(self, path: Path) -> None:
        self.send_tables()
        self.save(path)

    def model(self, name: str, files: list[Path]) -> None:
        for file in files:
            self.save(file)

    def save(self, path: Path) -> None:
        if not self.run.save(glob.escape(str(path)), base_path=str(path.parent), policy="now"):
            raise RuntimeError(f"{path.name} was not taken")  # the library only writes that to its log

    def end(self, status: str) -> None:
        error = None if status == "done" else f"the run is {status}"
        self.run.finish(state="success" if error is None else "crashed", error=error)


if __name__ == "__main__":
    SwanLabService().serve()
