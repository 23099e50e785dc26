"""Implement `tunesmith export`."""

from __future__ import annotations

from pathlib import Path

import click

from tunesmith.finding import size

FORMS = ("merged", "gguf", "ollama")


@click.command()
@click.argument("source", metavar="RUN.YAML|MODEL")
@click.option("--to", "form", required=True, type=click.Choice(FORMS), help="merged: a full model for transformers, "
              "vLLM and SGLang. gguf: a file for llama.cpp. ollama: that file with a Modelfile.")  # fmt: skip
@click.option("--output", "out", metavar="DIR", type=click.Path(path_type=Path),
              help="The folder to write, which must not exist. Default: merged, gguf or ollama, in that of the model.",
              )  # fmt: skip
@click.option("--quantize", "--dtype", "kind", metavar="TYPE",
              help="F32, F16, BF16; for GGUF also Q8_0, Q5_1, Q5_0, Q4_1, Q4_0. Default: F16, or merged: no change.",
              )  # fmt: skip
@click.option("--base", metavar="MODEL", help="Folder or hub id of an adapter's base model, if it is not where it was.")
@click.option("--pre", metavar="NAME", help="llama.cpp's name of the pre-tokenizer, if it is not recognized.")
@click.option("--template", metavar="NAME", help="The chat template in the Modelfile, if it is not recognized.")
@click.option("--no-verify", is_flag=True, help="Do not compare the result with the trained model.")
def export(
    source: str,
    form: str,
    out: Path | None,
    kind: str | None,
    base: str | None,
    pre: str | None,
    template: str | None,
    no_verify: bool,
) -> None:
    """Export a trained model: merged weights, a GGUF file, or a folder for Ollama.

    The argument is the YAML file of a run, its output_dir or a checkpoint, the folder of a model or an adapter, or a
    hub id. The logits of the result are compared with those of the trained model.

    \b
    Examples:
      tunesmith export run.yaml --to gguf --quantize Q8_0
      tunesmith export outputs/first --to ollama --output exports/first
      tunesmith export outputs/first/checkpoint-100 --to merged --dtype bfloat16
    """
    from tunesmith_export.exporting import Options, export
    from tunesmith_export.next import after_export

    options = Options(form, kind, base, not no_verify, pre, template)
    done = export(source, out, options, lambda text: click.echo(text, err=True))
    click.echo(f"exported: {size(done.bytes)}, {done.path}")
    for note in done.notes:
        click.echo(note)
    for comparison in done.compared:
        click.echo(f"compared: {comparison}")
    if not done.compared:
        click.echo("not compared with the trained model")
    if command := after_export(form, done.folder, done.path):
        click.echo(f"next: {command}")
