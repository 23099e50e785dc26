"""Upload saved models while a run trains, on a thread, so that the hub never delays or ends a run."""

from __future__ import annotations

import os
import shutil
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith import ConfigError, EnvironmentProblem, Finding
from tunesmith.files.paths import is_hub_id
from tunesmith_publish import PublishSettings
from tunesmith_publish.card import card_of, license_of
from tunesmith_publish.files import Upload, collect

if TYPE_CHECKING:
    from tunesmith import Run

LAST = "last-checkpoint"
NO_TOKEN = "set HF_TOKEN to a token that may write, or log in: hf auth login"


def check(run: Run, settings: PublishSettings) -> None:
    """Raise ConfigError for a name that no repository can have, and warn if checkpoints will have no model."""
    name = settings.hub_model_id
    if name and not is_hub_id(name if "/" in name else f"owner/{name}"):
        help = "write hub_model_id: OWNER/NAME"
        raise ConfigError(f"{name!r} is not a name of a repository", where=run.config.place("hub_model_id"), help=help)
    if name and settings.hub_strategy != "end" and run.core.async_save:
        message = f"is {settings.hub_strategy}, but with async_save only the last checkpoint has a model to upload"
        run.warn("hub_strategy", f"{message}: write hub_strategy: end, or drop async_save")


def token_finding() -> Finding:
    """Return whether there is a token for the hub."""
    from huggingface_hub import get_token

    if get_token():
        return Finding("token of the hub", "ok", "is set")
    return Finding("token of the hub", "warning", "is missing, so uploads will fail", NO_TOKEN)


class Uploader:
    """The uploads of a run, one after the other."""

    def __init__(self, run: Run):
        self.run, self.settings = run, run.settings(PublishSettings)
        self.pool = ThreadPoolExecutor(1, "hub")
        self.pending: list[Future[str]] = []
        self.seen: set[str] = set()

    def start(self) -> None:
        """Note the checkpoints of an earlier part of the run, and warn if there is no token."""
        from huggingface_hub import get_token

        self.seen = {path.name for path in self.run.output_dir.glob("checkpoint-*")}
        if not get_token():
            self.run.warn("hub_model_id", f"there is no token for the hub, so uploads will fail; {NO_TOKEN}")

    def upload_saved(self) -> None:
        """Upload the checkpoints that are new. Raises the error of an earlier upload."""
        self.check_pending()
        strategy = self.settings.hub_strategy
        for folder in sorted(self.run.output_dir.glob("checkpoint-*")):
            if folder.name in self.seen or not exported(folder):
                continue
            self.seen.add(folder.name)
            if strategy == "end" or (strategy == "every_save" and self.pending):
                continue  # the model of a later save replaces it
            places = {"every_save": [""], "checkpoint": ["", LAST], "all_checkpoints": ["", folder.name]}[strategy]
            self.submit(folder, places)

    def complete(self) -> None:
        """Upload the final model, unless the run was interrupted, and wait for all uploads."""
        self.upload_saved()
        if not self.run.interrupted:
            self.submit(self.run.output_dir, [""])
        for future in self.pending:
            future.exception()
        addresses = [future.result() for future in self.pending if future.exception() is None]
        if addresses:
            self.run.note("uploaded", addresses[-1])
        self.check_pending()

    def close(self) -> None:
        """Stop the thread after the upload that it is doing."""
        self.pool.shutdown(wait=True, cancel_futures=True)

    def check_pending(self) -> None:
        """Drop uploads that are done. Raises the error of one that failed."""
        done, self.pending = [f for f in self.pending if f.done()], [f for f in self.pending if not f.done()]
        for error in [error for future in done if (error := future.exception()) is not None]:
            raise error

    def submit(self, folder: Path, places: list[str]) -> None:
        """Upload a folder on the thread. Its files are linked before, because a checkpoint may be deleted meanwhile."""
        name = str(self.settings.hub_model_id)
        base = self.run.core.base_model
        license = license_of(Path(base)) if Path(base).is_dir() else None
        card = card_of(folder, name, license=license)
        stage = Path(tempfile.mkdtemp(prefix=".hub-", dir=self.run.output_dir))
        upload = Upload()
        for place in places:
            upload.files |= collect(folder, card, inside=place).files
        linked(upload, stage)
        self.pending.append(self.pool.submit(self.send, upload, stage, f"step {self.run.step:,}"))

    def send(self, upload: Upload, stage: Path, message: str) -> str:
        """Send an upload, and delete its links."""
        from tunesmith_publish.hub import send

        settings = self.settings
        try:
            return send(upload, str(settings.hub_model_id), message, settings.hub_private_repo, settings.hub_revision)
        except EnvironmentProblem as error:
            command = f"tunesmith push {self.run.output_dir} {settings.hub_model_id}"
            raise EnvironmentProblem(
                error.problems[0].message, code="push", help=f"{error.problems[0].help}; later: {command}"
            ) from error
        finally:
            shutil.rmtree(stage, ignore_errors=True)


def exported(folder: Path) -> bool:
    """Return True if a checkpoint has the files of its model."""
    from tunesmith.engine import engine

    try:
        return bool(engine("checkpoint.save").is_exported(folder))
    except (OSError, ValueError):
        return False


def linked(upload: Upload, stage: Path) -> None:
    """Replace the files of an upload by links to them in another folder, or copies where links are not possible."""
    for number, (name, content) in enumerate(upload.files.items()):
        if isinstance(content, Path):
            target = stage / f"{number}-{content.name}"
            try:
                os.link(content, target)
            except OSError:
                shutil.copyfile(content, target)
            upload.files[name] = target
