"""Implement `tunesmith chat`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("source", metavar="SOURCE")
@click.option("--base", metavar="MODEL", help="The base model of the adapter, if it is not where it was.")
@click.option("--compare", metavar="base|SOURCE2", help="A second model that gets the same messages: base is the one "
              "that SOURCE was trained from.")  # fmt: skip
@click.option("--system", metavar="TEXT", help="The system message.")
@click.option("--temperature", metavar="NUMBER", help="0 takes the likeliest token. Default: 0.7.")
@click.option("--top-p", metavar="NUMBER", help="Draw from the likeliest tokens with this probability together. "
              "Default: 0.95.")  # fmt: skip
@click.option("--top-k", metavar="NUMBER", help="Draw from so many tokens. Default: 0, all.")
@click.option("--min-p", metavar="NUMBER", help="Draw from tokens with at least this share of the likeliest one's "
              "probability. Default: 0.")  # fmt: skip
@click.option("--max-new-tokens", metavar="NUMBER", help="The longest answer. Default: 1,024, or as many as fit.")
@click.option("--seed", metavar="NUMBER", help="Equal seeds give equal answers. Default: 0.")
@click.option("--device", metavar="DEVICE", help="cpu, cuda, cuda:1, mps. Default: that of the run, or the best one.")
@click.option("--save", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False),
              help="Append conversations to this file, as rows of training data.")  # fmt: skip
@click.option("--web", is_flag=True, help="Serve a page on this machine, instead of using the terminal.")
@click.option("--port", metavar="N", type=click.IntRange(0, 65535), help="The port of the page. Default: 8765; "
              "0 takes a free one.")  # fmt: skip
def chat(source: str, web: bool, port: int | None, save: Path | None, system: str | None, **options: Any) -> None:
    """Talk to a model.

    SOURCE is the YAML file of a run, its output_dir, a checkpoint, the folder of a model or an adapter, or a hub id.

    On a terminal, /help lists what else you can type. In a pipe, each line is a message, and only answers are printed.

    \b
    Examples:
      tunesmith chat run.yaml
      tunesmith chat outputs/first --compare base
      echo "What is the capital of France?" | tunesmith chat outputs/first --temperature 0
      tunesmith chat outputs/first --web
    """
    from tunesmith_playground.opening import converse

    converse(source, web=web, port=port, save=save, system=system, **options)
