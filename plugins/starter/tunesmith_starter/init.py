"""`tunesmith init`: look at a model and data, ask what they do not show, and write a config that trains."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tunesmith import ConfigError

if TYPE_CHECKING:
    from tunesmith_starter.compose import Adapter
    from tunesmith_starter.data import Data
    from tunesmith_starter.methods import MethodChoice


@click.command(
    epilog="""
\b
Examples:
  tunesmith init
  tunesmith init --model Qwen/Qwen2.5-0.5B-Instruct --data chats.jsonl --output run.yaml
  tunesmith init --model ./my-model --data pairs.jsonl --method orpo --adapter full --yes
"""
)
@click.option("--model", metavar="MODEL", help="The model to train: a folder or a hub id.")
@click.option("--data", metavar="PATH", multiple=True, help="A dataset to train on. May be given several times.")
@click.option("--method", metavar="NAME", help="sft, dpo, kto, orpo, reward, prm, grpo, pretraining or another method.")
@click.option("--adapter", type=click.Choice(["lora", "qlora", "full"]), help="An adapter, or full for all weights.")
@click.option("--output", metavar="FILE", help="The file to write. Default: run.yaml.")
@click.option(
    "--linearize", metavar="FILE", help="Write conversations from trees of messages to FILE, and train on it."
)
@click.option("--force", is_flag=True, help="Replace files that exist.")
@click.option("--yes", is_flag=True, help="Ask nothing, and take the default of everything that is not given.")
def init(
    model: str | None, data: tuple[str, ...], method: str | None, adapter: str | None, output: str | None,
    linearize: str | None, force: bool, yes: bool,
) -> None:  # fmt: skip
    """Look at a model and data, and write a config that trains on them.

    On a terminal, it asks for what is not given.
    """
    from tunesmith_starter import model as of_model
    from tunesmith_starter.compose import adapter_for, compose
    from tunesmith_starter.yaml_text import text_of

    asks = not yes and sys.stdin.isatty() and sys.stdout.isatty()
    name = model or asked(asks, "--model", "Model to train (a folder or a hub id)")
    looked = of_model.look_at(name)
    paths = data or tuple(shlex.split(asked(asks, "--data", "Data (a file, a folder, or a hub id)")))
    datasets = [look(path, linearize, force) for path in paths]
    choice = choose_method(datasets, method, asks)
    kind = choose_adapter(adapter, adapter_for(looked), asks)
    file = Path(output or (click.prompt("File to write", default="run.yaml") if asks else "run.yaml"))
    parts = compose(looked, datasets, choice, kind, f"./outputs/{file.stem}")
    arguments = shlex.join(["tunesmith", "train", str(file)])
    text = text_of([f"{choice.title} on {datasets[0].layout.words}. Train with", f"  {arguments}"], parts)
    write(file, text, force, asks)
    report(file)


def asked(asks: bool, option: str, question: str) -> str:
    """Return the answer to a question. Raise ConfigError if there is no terminal to ask on."""
    if not asks:
        raise ConfigError(f"{option} is not given", where="command line", help=f"write {option} ...", code="usage")
    return str(click.prompt(question))


def look(path: str, linearize: str | None, force: bool) -> Data:
    """Return a dataset and its layout, and print what was found. Trees of messages are written as conversations."""
    from tunesmith.printable import printable
    from tunesmith_starter.data import look_at

    looked = look_at(path)
    click.echo(printable(f"{path}: {looked.layout.words}"))
    if not looked.layout.linearize:
        return looked
    from tunesmith_starter.linearize import write_conversations

    if linearize is None:
        columns = ", ".join(looked.columns.names)
        message = f"{path}: the rows are {looked.layout.words}, which can't be trained as they are; columns: {columns}"
        help = "add --linearize FILE to write each path from the root of a tree to a leaf as a conversation"
        raise ConfigError(message, where="command line (--data)", help=help, code="tree-layout")
    click.echo(write_conversations(path, Path(linearize), force))
    return look_at(linearize)


def choose_method(datasets: list[Data], given: str | None, asks: bool) -> MethodChoice:
    """Return the method: the given one, the one that is chosen, or the one that fits the first dataset."""
    from tunesmith_starter.methods import PREFERRED, method_named, methods

    if given is not None:
        return method_named(given)
    default = PREFERRED[datasets[0].layout.kind]
    if not asks:
        return method_named(default)
    kinds = set.intersection(*(data.layout.trainable for data in datasets))
    fitting = sorted(name for name, choice in methods().items() if kinds & set(choice.rows))
    click.echo(f"methods for these rows: {', '.join(fitting) or 'none is installed'}")
    return method_named(click.prompt("Method", default=default))


def choose_adapter(given: str | None, default: Adapter, asks: bool) -> Adapter:
    """Return the adapter: the given one, the one that is chosen, or the default."""
    if given is None and asks:
        kinds = click.Choice(["lora", "qlora", "full"])
        given = click.prompt("Adapter (full trains all weights)", type=kinds, default=default)
    return given or default  # type: ignore[return-value]


def write(file: Path, text: str, force: bool, asks: bool) -> None:
    """Write a file. Raise ConfigError if it exists and may not be replaced, or if it can't be written."""
    where = "command line (--output)"
    if file.exists() and not force and not (asks and click.confirm(f"{file} exists. Replace it?")):
        raise ConfigError(f"{file} exists", where=where, help="add --force, or name another file", code="usage")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}", where=where, help="name another file", code="usage") from error


def report(file: Path) -> None:
    """Run the checks of `tunesmith check` on the file, and print what was found and what to type next."""
    from tunesmith import start

    click.echo(f"{file}: written; checking it")
    run = start(file)
    for name, note in run.notes.items():
        click.echo(f"warning: {name}: {note}", err=True)
    click.echo(f"{file}: no problems found; active plugins: {', '.join(p.name for p in run.hooks.plugins)}")
    click.echo(f"next: {shlex.join(['tunesmith', 'check', str(file)])}")
