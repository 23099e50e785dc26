"""Implement `tunesmith push`."""

from __future__ import annotations

from pathlib import Path

import click

from tunesmith.finding import size
from tunesmith.printable import printable


@click.command()
@click.argument("source", metavar="RUN.YAML|MODEL")
@click.argument("repo", metavar="REPO")
@click.option("--private", is_flag=True, help="Create the repository as a private one.")
@click.option("--checkpoints", is_flag=True, help="Also send the models of the run's checkpoints.")
@click.option("--base", metavar="HUB_ID", help="The base model on the hub, if the run used a folder.")
@click.option("--revision", metavar="BRANCH", help="The branch to upload to. Default: main.")
@click.option("--with-run", is_flag=True, help="Also send run.json, which contains paths of this machine.")
@click.option("--dry-run", is_flag=True, help="List what would be sent, and send nothing.")
def push(
    source: str,
    repo: str,
    private: bool,
    checkpoints: bool,
    base: str | None,
    revision: str | None,
    with_run: bool,
    dry_run: bool,
) -> None:
    """Upload a trained model to the hub, with its model card.

    The first argument is the YAML file of a run, its output_dir or a checkpoint, or the folder of a model, an adapter
    or an export; the second one is NAME or OWNER/NAME. The token is read from HF_TOKEN or from `hf auth login`.

    \b
    Examples:
      tunesmith push run.yaml my-name/my-model --private
      tunesmith push outputs/first my-name/my-model --dry-run
      tunesmith push outputs/first/gguf my-name/my-model-GGUF
    """
    from tunesmith_publish.hub import send
    from tunesmith_publish.pushing import prepare

    upload = prepare(source, repo, base, checkpoints, with_run, online=not dry_run)
    for name, content in upload.files.items():
        number = len(content) if isinstance(content, bytes) else Path(content).stat().st_size
        click.echo(f"{'would send' if dry_run else 'send'}: {printable(name)} ({size(number)})")
    for name in upload.left_out:
        click.echo(f"not sent: {printable(name)}")
    where = f"{repo}{' (private)' if private else ''}{f', branch {revision}' if revision else ''}"
    if dry_run:
        click.echo(f"{len(upload.files)} files of {size(upload.bytes())} for {where}; nothing was sent")
        return
    address = send(upload, repo, "Upload of a model by Tunesmith", private or None, revision)
    click.echo(f"uploaded: {address}")
