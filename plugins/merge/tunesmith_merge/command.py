"""Implement `tunesmith merge-lora`."""

from __future__ import annotations

from pathlib import Path

import click

from tunesmith.finding import size
from tunesmith.next_command import load_command


@click.command()
@click.argument("source", metavar="RUN.YAML|RUN|ADAPTER", type=click.Path(path_type=Path))
@click.option("--output", "out", metavar="DIR", type=click.Path(path_type=Path),
              help="The folder to write, which must not exist. Default: merged, in the folder of the adapter.",
              )  # fmt: skip
@click.option("--base", metavar="MODEL", help="Folder or hub id of the base model, if it is not where it was.")
@click.option("--dtype", metavar="TYPE", help="bfloat16, float16 or float32. Default: that of the base model.")
@click.option("--no-verify", is_flag=True, help="Do not compare the merged model with the unmerged one.")
def merge_lora(source: Path, out: Path | None, base: str | None, dtype: str | None, no_verify: bool) -> None:
    """Merge the adapter of a run into its base model, and write a model that needs no peft.

    The argument is the YAML file of a run, the output_dir of a run, or the folder of an adapter in peft's format.

    \b
    Examples:
      tunesmith merge-lora run.yaml
      tunesmith merge-lora outputs/first --output models/first
      tunesmith merge-lora outputs/first/checkpoint-100 --dtype bfloat16
    """
    from tunesmith.optional import hide

    hide("bitsandbytes", "torchao")  # peft imports them if they are installed; merging needs neither
    from tunesmith_merge.merging import merge

    def report(phase: str) -> None:
        click.echo(phase, err=True)

    done = merge(source, out, base=base, dtype=dtype, verify=not no_verify, report=report)
    click.echo(f"merged: {done.tensors:,} tensors of {size(done.bytes)}, in {done.folder}")
    if not done.tied:
        click.echo("untied: head and embeddings have a weight each, because the adapter changes them differently")
    if done.dropped:
        click.echo(f"dropped: {', '.join(done.dropped)}, which this class of model does not have")
    if done.largest:
        parts = f"{len(done.differences)} parts of the model"
        click.echo(f"compared: {parts}; largest relative difference {done.largest.value:.1e}, in {done.largest.part}")
    if done.uncompared:
        click.echo(f"not compared: {', '.join(done.uncompared[:3])}, ... ({len(done.uncompared)}), which no text uses")
    if load := load_command(done.folder):
        click.echo(f"next: {load}")
