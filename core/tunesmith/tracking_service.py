"""The process of a tracker: call the library of a service with what the run sends. See tracking.py."""

from __future__ import annotations

import json
import os
import platform
import queue
import select
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from tunesmith.files.record import json_object, last_record
from tunesmith.redact import clean, redact

PAGE = "report.html"
LINGER = 20.0
"""Seconds to send what is left after the run was killed."""
MODEL_FILES = (
    "*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "adapter_config.json",
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "vocab.*", "merges.txt",
    "*.model", "*processor*config.json", "README.md",
)  # fmt: skip


class Service:
    """One run at a service. `serve` calls the methods in the order of the run; an error of `log` is only counted.

    Attributes:
        folder: output_dir.
        options: what `Tracker.settings` returned.
        known: what `keep` has stored of the run, if it continues; else empty.
    """

    name: ClassVar[str]
    folder: Path
    options: dict[str, Any]
    known: dict[str, Any]

    def load(self) -> None:
        """Import the library."""

    def open(self) -> None:
        """Start the run at the service, or continue it if `known` names one."""
        raise NotImplementedError

    def log(self, step: int, scalars: dict[str, float], record: dict[str, Any]) -> None:
        """Log the numbers of a step, by name; `record` also has its epoch, tables, and histograms of finite numbers."""
        raise NotImplementedError

    def page(self, path: Path) -> None:
        """Upload the page of the run."""

    def model(self, name: str, files: list[Path]) -> None:
        """Upload the files of a checkpoint, "checkpoint-12", or of the final "model"."""

    def end(self, status: str) -> None:
        """End the run: done, interrupted, failed, or running if it was killed."""

    def keep(self, **values: Any) -> None:
        """Store JSON values in output_dir, for the run that continues this one."""
        self.known |= values
        path = self.folder / f"tracker-{self.name}.json"
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(json.dumps(self.known), encoding="utf-8")
        os.replace(partial, path)

    def reply(self, **values: Any) -> None:
        """Answer the run.

        `warning` is printed; `later` says what to do with data that could not be sent,
        and `about` where the run is: both are in the summary.
        """
        print(json.dumps(clean(values)), file=self._replies, flush=True)

    def fell_back(self, error: BaseException, command: str) -> None:
        """Warn that the run could not be started online, and is recorded offline. `command` sends it later."""
        reason = _first_line(error) or type(error).__name__
        self.reply(warning=f"could not start the run online: {reason}; it is recorded offline: {command}")

    def facts(self) -> dict[str, Any]:
        """Return the config without secrets, the versions, and what is trained, as run.json has them."""
        record = last_record(self.folder)
        versions = {plugin["distribution"]: plugin["version"] for plugin in record.get("plugins", ())}
        versions |= {"python": platform.python_version(), **record.get("versions", {})}
        return {"config": record.get("config", {}), "versions": versions, "outline": record.get("outline", {})}

    def handle(self, kind: str, value: Any) -> None:
        """Handle one message of the run."""
        if kind == "open":
            self.options, self.folder = value, Path(value["folder"])
            self.known = json_object(self.folder / f"tracker-{self.name}.json") if value["resumed"] else {}
            self._models = {path.name for path in self._checkpoints()}
            self.load()
            self.reply(ready=True)
            self.open()
        elif kind == "log" and value["step"] > self.known.get("step", -1):  # else it was logged before a kill
            self.log(value["step"], value["scalars"], value)
            self.keep(step=value["step"])
        elif kind == "page" and (self.folder / PAGE).is_file():
            self.page(self.folder / PAGE)
        elif kind == "final":
            self._upload("model", self.folder)
        elif kind == "end":
            self.end(value)
        if kind in ("log", "page") and self.options.get("model") == "checkpoint":
            for path in self._checkpoints():
                if path.name not in self._models:
                    self._models.add(path.name)
                    self._upload(path.name, path)

    def _upload(self, name: str, folder: Path) -> None:
        self.reply(uploading=name)
        names = sorted({path for pattern in MODEL_FILES for path in folder.glob(pattern) if path.is_file()})
        self.model(name, names)

    def _checkpoints(self) -> Iterator[Path]:
        """Yield the complete checkpoints that have the files of a model."""
        for path in sorted(self.folder.glob("checkpoint-*/manifest.json")):
            if json_object(path).get("exported", True):
                yield path.parent

    def serve(self) -> None:
        """Handle the messages of the run until it ends. What the library prints is dropped."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the run ends this process
            signal.signal(number, signal.SIG_IGN)
        self._replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        messages: queue.SimpleQueue[list[Any] | None] = queue.SimpleQueue()
        threading.Thread(target=_read, args=(messages,), daemon=True).start()
        while (message := messages.get()) is not None:
            kind, value = message
            try:
                self.handle(kind, value)
            except BaseException as error:
                self.reply(failed=kind, why=f"{kind}: {type(error).__name__}: {_first_line(error)}")
                if kind == "open":
                    return
            else:
                self.reply(done=kind)
            if kind == "end":
                return
        self.end("running")


def table_of(rows: list[dict[str, Any]], missing: Any = None) -> tuple[list[str], list[list[Any]]]:
    """Return the columns and the cells of a table; `missing` stands where a row does not have a column."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return columns, [[row.get(column, missing) for column in columns] for row in rows]


def _first_line(error: BaseException) -> str:
    return next(iter(redact(str(error)).strip().splitlines()), "")[:300]


def _read(messages: queue.SimpleQueue[list[Any] | None]) -> None:
    """Pass on each line from the run. If the run is gone without an end, so is this process, after a while."""
    buffer, run = b"", os.getppid()
    while True:
        # A worker that the run has forked may keep the pipe open.
        if not select.select([0], [], [], 1.0)[0]:
            if os.getppid() != run:
                break
            continue
        if not (chunk := os.read(0, 1 << 20)):
            break
        *lines, buffer = (buffer + chunk).split(b"\n")
        for line in lines:
            messages.put(json.loads(line))
    messages.put(None)
    timer = threading.Timer(LINGER, os.killpg, (os.getpgid(0), signal.SIGKILL))
    timer.daemon = True
    timer.start()
