"""`tunesmith completion`: the script with which a shell completes commands, options and values."""

from __future__ import annotations

import click

PROGRAM, VARIABLE = "tunesmith", "_TUNESMITH_COMPLETE"
INSTALL = {
    "bash": 'add this line to ~/.bashrc: eval "$(tunesmith completion bash)"',
    "zsh": 'add this line to ~/.zshrc, after compinit: eval "$(tunesmith completion zsh)"',
    "fish": "run: tunesmith completion fish > ~/.config/fish/completions/tunesmith.fish",
}
"""Shell -> how to use the script in every new shell."""


@click.command()
@click.argument("shell", type=click.Choice(sorted(INSTALL)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that completes commands in a shell: bash, zsh or fish.

    \b
    Use it in every new shell:
      bash  echo 'eval "$(tunesmith completion bash)"' >> ~/.bashrc
      zsh   echo 'eval "$(tunesmith completion zsh)"' >> ~/.zshrc
      fish  tunesmith completion fish > ~/.config/fish/completions/tunesmith.fish
    """
    from click.shell_completion import get_completion_class

    source = get_completion_class(shell)
    assert source is not None
    root = ctx.find_root().command
    click.echo(f"# To complete commands of {PROGRAM} in every new shell, {INSTALL[shell]}")
    complete = source(root, {}, PROGRAM, VARIABLE)
    click.echo(complete.source_template % complete.source_vars())
