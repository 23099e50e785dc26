"""Implement `tunesmith serve`."""

from __future__ import annotations

import shlex
import subprocess

import click

NAMES = ("vllm", "sglang", "llama.cpp", "ollama", "transformers")


@click.command()
@click.argument("source", metavar="RUN.YAML|MODEL")
@click.argument("extra", nargs=-1, type=click.UNPROCESSED)
@click.option("--with", "name", type=click.Choice(NAMES), help="The server. Default: the first one that is installed.")
@click.option("--base", metavar="MODEL", help="Folder or hub id of an adapter's base model, if it is not where it was.")
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True, help="The port to listen on.")
@click.option("--print", "print_only", is_flag=True, help="Print the command, and do not run it.")
def serve(source: str, extra: tuple[str, ...], name: str | None, base: str | None, port: int, print_only: bool) -> None:
    """Serve a trained model: print the command of a server for it, and run it.

    The argument is the YAML file of a run, its output_dir or a checkpoint, the folder of a model, an adapter or an
    export, or a hub id. Further arguments of the server come after --. It listens on this machine only.

    \b
    Examples:
      tunesmith serve run.yaml
      tunesmith serve outputs/first --with vllm --print
      tunesmith serve outputs/first -- --gpu-memory-utilization 0.8
    """
    from tunesmith import ConfigError
    from tunesmith_serve.facts import read_facts
    from tunesmith_serve.servers import SERVERS, choose

    facts = read_facts(source, base)
    chosen = name or choose(facts)
    server = SERVERS[chosen]
    path = server.path()
    if path is None and not print_only:
        raise ConfigError(f"{chosen} is not installed", where="command line", code="usage", help=server.install)
    commands = server.commands(facts, path or server.executable, port, devices())
    commands[-1] += extra
    for command in commands:
        click.echo(shlex.join([server.executable, *command[1:]]))
    if print_only:
        return
    for command in commands:
        code = subprocess.run(command, check=False).returncode
        if code:
            raise SystemExit(code)


def devices() -> int:
    """Return the number of GPUs."""
    import torch

    return torch.cuda.device_count()
