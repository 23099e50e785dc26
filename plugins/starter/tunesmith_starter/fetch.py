"""`tunesmith examples` and `tunesmith fetch`: the examples and the documentation, from the installed package."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import click

from tunesmith import ConfigError, EnvironmentProblem

KINDS = ("examples", "docs")
DEEPSPEED = "deepspeed_configs"
SKIPPED = {"__pycache__", ".ipynb_checkpoints"}


def folder_of(kind: str) -> Path:
    """Return the folder with the examples or docs: in the package, or in the repository of an editable installation."""
    here = Path(__file__).resolve().parent
    for folder in (here / "packaged" / kind, here.parents[2] / kind):
        if folder.is_dir():
            return folder
    help = "pip install --force-reinstall tunesmith-starter"
    raise EnvironmentProblem(f"the installed package has no {kind}", help=help)


def files_of(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, sorted."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not SKIPPED & set(path.relative_to(folder).parts):
            yield path


@click.command()
@click.argument("name", required=False)
@click.option("--dest", metavar="DIR", help="Copy the example and the data that it names into a folder.")
@click.option("--force", is_flag=True, help="Replace files that exist.")
def examples(name: str | None, dest: str | None, force: bool) -> None:
    """List the examples, or print or copy one of them.

    \b
    Examples:
      tunesmith examples
      tunesmith examples qwen3
      tunesmith examples qwen3/dpo > dpo.yaml
      tunesmith examples dpo --dest .
    """
    folder = folder_of("examples")
    files = [*sorted(folder.glob("*.yaml")), *sorted(folder.glob("*/*.yaml"))]
    paths = {path.relative_to(folder).with_suffix("").as_posix(): path for path in files}
    families = list(dict.fromkeys(stem.partition("/")[0] for stem in paths if "/" in stem))
    stem = name.removesuffix(".yaml").rstrip("/") if name else None
    if stem is None or stem in families:
        listed = [one for one in paths if (one.startswith(f"{stem}/") if stem else "/" not in one)]
        width = max(map(len, listed))
        for one in listed:
            click.echo(f"{one:<{width}}  {title(paths[one], drop=bool(stem))}")
        if stem is None:
            click.echo(f"folders: {', '.join(families)}; tunesmith examples {families[0]} lists one of them")
        click.echo("next: tunesmith examples NAME prints one; tunesmith fetch examples copies all, with their data")
        return
    if stem not in paths:
        from tunesmith.spelling import nearest

        close = nearest(stem, set(paths))
        help = f"did you mean {close!r}?" if close else "tunesmith examples lists them"
        raise ConfigError(f"unknown example {name!r}", where="command line", help=help, code="usage")
    if dest is None:
        click.echo(paths[stem].read_text("utf-8"), nl=False)
        return
    text = paths[stem].read_text("utf-8")
    wanted = [
        path for path in files_of(folder) if path == paths[stem] or named_in(text, path.relative_to(folder.parent))
    ]
    copy(wanted, folder.parent, Path(dest), force)
    click.echo(f"next: tunesmith check examples/{stem}.yaml")


def named_in(text: str, path: Path) -> bool:
    """Return True if a config names a file, or the folder of a model that has it."""
    folder = path.parent.as_posix()
    as_folder = folder != "examples" and any(
        line.partition("#")[0].rstrip().endswith(folder) for line in text.splitlines()
    )
    return path.as_posix() in text or as_folder


def title(path: Path, drop: bool = False) -> str:
    """Return the first sentence of the comment at the beginning of an example; the second one with `drop`."""
    lines = []
    for line in path.read_text("utf-8").splitlines():
        if not line.startswith("# "):
            break
        lines.append(line[2:].strip())
    text = " ".join(lines)
    return (text.partition(". ")[2] if drop else text).partition(". ")[0].rstrip(".") + "."


@click.command()
@click.argument("kind", metavar="examples|docs")
@click.option("--dest", metavar="DIR", help="The folder that gets the copy. Default: a folder of this name here.")
@click.option("--force", is_flag=True, help="Replace files that exist.")
def fetch(kind: str, dest: str | None, force: bool) -> None:
    """Copy the examples or the documentation into a folder.

    They come from the installed package, so that this works without a network.

    \b
    Examples:
      tunesmith fetch examples
      tunesmith fetch docs --dest ./tunesmith-docs
    """
    if kind == DEEPSPEED:
        message = "deepspeed configurations are not fetched: the key deepspeed takes the name of a ready one"
        help = "write deepspeed: zero2 (or zero1, zero3, zero3_offload), which needs the extra deepspeed"
        raise ConfigError(message, where="command line", help=help, code="usage")
    if kind not in KINDS:
        help = f"write tunesmith fetch {' or '.join(KINDS)}"
        raise ConfigError(f"unknown kind of files {kind!r}", where="command line", help=help, code="usage")
    folder = folder_of(kind)
    target = Path(dest or kind)
    copy(list(files_of(folder)), folder, target, force)
    first = f"tunesmith check {target / 'quickstart.yaml'}" if kind == "examples" else f"open {target / 'start.md'}"
    click.echo(f"next: {first}")


def copy(paths: list[Path], base: Path, target: Path, force: bool) -> None:
    """Copy files into a folder, with their place below `base`. Raise ConfigError before anything would be replaced."""
    pairs = [(path, target / path.relative_to(base)) for path in paths]
    existing = [
        new for path, new in pairs if new.exists() and not (new.is_file() and new.read_bytes() == path.read_bytes())
    ]
    where = "command line (--dest)"
    if existing and not force:
        message = f"{existing[0]} exists, and has another content" + (
            f"; and {len(existing) - 1} more" if existing[1:] else ""
        )
        raise ConfigError(
            message, where=where, help="add --force to replace them, or name another folder", code="usage"
        )
    try:
        for path, new in pairs:
            new.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, new)
    except OSError as error:
        raise EnvironmentProblem(f"{error.filename or target}: {error.strerror}", where=where, code="disk") from error
    click.echo(f"{len(pairs)} files in {target}")
