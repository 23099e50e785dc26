"""Implement `tunesmith generate SOURCE PROMPTS`."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import yaml

from tunesmith import ConfigError, SavedModel, find_saved
from tunesmith.cli.commands import json_option, show

EPILOG = """
\b
Examples:
  tunesmith generate run.yaml prompts.jsonl --output answers.jsonl
  tunesmith generate outputs/first questions.txt --output answers.jsonl --temperature 0 --max-new-tokens 64
  tunesmith generate outputs/first/checkpoint-100 rows.jsonl --output samples.jsonl --n 4 --logprobs
"""
BATCH = 2**16
FILES = ("*.safetensors", "*config.json", "tokenizer.json", "*.jinja")
"""Files that make a model another one if they change."""


@click.command(epilog=EPILOG)
@click.argument("source", metavar="SOURCE")
@click.argument("prompts", metavar="PROMPTS", type=click.Path(path_type=Path))
@click.argument("keys", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--output", metavar="FILE", type=click.Path(path_type=Path), required=True, help="The file to write.")
@click.option("--field", metavar="NAME", help="The column of the prompt. Default: messages or prompt.")
@click.option("--max-new-tokens", type=click.IntRange(1), default=256, show_default=True, help="Longest completion.")
@click.option("--n", type=click.IntRange(1), default=1, show_default=True, help="Completions of each prompt.")
@click.option("--temperature", type=click.FloatRange(0), default=1.0, show_default=True,
              help="0 takes the likeliest token.")  # fmt: skip
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), default=1.0, show_default=True,
              help="Sample from the smallest set of tokens with this probability.")  # fmt: skip
@click.option("--top-k", type=click.IntRange(0), default=0, show_default=True,
              help="Sample from so many tokens; 0 for all.")  # fmt: skip
@click.option("--min-p", type=click.FloatRange(0, 1), default=0.0, show_default=True,
              help="Sample from the tokens with this share of the likeliest one's probability.")  # fmt: skip
@click.option("--stop", multiple=True, metavar="TEXT", help="End a completion before this text. May be repeated.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Equal seeds, equal completions.")
@click.option("--logprobs", is_flag=True, help="Add the ids of the tokens and their log-probabilities.")
@click.option("--batch-tokens", type=click.IntRange(1, BATCH), default=BATCH, show_default=True,
              help="Most tokens that are computed together. Lower it if memory runs out.")  # fmt: skip
@click.option("--raw", is_flag=True, help="Continue texts as they are, without the chat template.")
@click.option("--prefix", default="", metavar="TEXT", help="Begin the names of the added columns with this text.")
@click.option("--base", metavar="MODEL", help="Folder or hub id of the base model, if it is not where it was.")
@click.option("--overwrite", is_flag=True, help="Replace the output file instead of continuing it.")
@json_option
def generate(
    source: str, prompts: Path, keys: tuple[str, ...], output: Path, field: str | None, base: str | None,
    overwrite: bool, as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Complete the prompts in a file with a trained model.

    SOURCE is the YAML file of a run, its output_dir, a checkpoint, the folder of a model or adapter, or a hub id.
    PROMPTS is a JSON Lines file, whose rows have `messages` or `prompt`, or a .txt file with one prompt per line.
    A command that was interrupted continues if it is run again. KEY=VALUE replaces a key: device=cpu.
    """
    from tunesmith_inference.generating import Options, check_columns
    from tunesmith_inference.prompts import read_prompts

    wanted = Options(**options)
    wanted.check()
    replaced = dict(map(_key, keys))
    rows = read_prompts(prompts, field)
    check_columns(rows, wanted)
    saved = find_saved(source, base)
    settings = {
        "format": 1,
        "model": identity(saved, replaced),
        "prompts": {"rows": len(rows), "sha256": hashlib.sha256(prompts.read_bytes()).hexdigest(), "field": field},
        "options": asdict(wanted),
    }
    from tunesmith_inference.output import Output

    file = Output(output, settings, overwrite)
    try:
        result = _run(source, base, replaced, rows, wanted, file)
    except KeyboardInterrupt:
        written = f"{file.complete_lines():,} of {len(rows):,} rows are in {output}"
        click.echo(f"{written}; the same command continues", err=True)
        raise
    finally:
        file.close()
    show(result, as_json, lambda: click.echo(line_of(result)))


def _run(source: str, base: str | None, keys: dict[str, Any], rows: Any, options: Any, file: Any) -> dict[str, Any]:
    """Generate what the file does not contain yet, and return the numbers of the summary."""
    result: dict[str, Any] = {"output": str(file.path), "rows": len(rows), "generated": 0, "tokens": 0}
    if (done := file.complete_lines()) == len(rows):
        return result | {"seconds": 0.0, "finish_reasons": {}, "continued_after": done}
    from tunesmith import open_model
    from tunesmith_inference.generating import check_generates, generate_groups, groups_of, tokenize

    with open_model(source, base=base, **keys) as model:
        check_generates(model)
        prompts = tokenize(model, rows, options)
        groups = groups_of(prompts, options)
        left = [group for group in groups if group.stop > done]
        file.keep(left[0].start)
        reasons: Counter[str] = Counter()
        started, count, first, reason = time.monotonic(), 0, left[0].start, options.columns[1]

        def drawn() -> None:
            nonlocal count
            count += 1
            model.run.progress(f"generating, {first:,} of {len(rows):,} rows done; tokens", count)

        for group, lines in zip(left, generate_groups(model, rows, prompts, left, options, drawn), strict=True):
            file.write(lines)
            first = group.stop
            for line in lines:
                reasons.update([line[reason]] if options.n == 1 else line[reason])
        model.run.progress("")
    seconds = round(time.monotonic() - started, 3)
    numbers = {"generated": len(rows) - left[0].start, "tokens": count, "seconds": seconds}
    return result | numbers | {"finish_reasons": dict(reasons), "continued_after": left[0].start}


def line_of(result: dict[str, Any]) -> str:
    """Return the summary: rows, tokens, time, and why completions ended."""
    if not result["generated"]:
        return f"{result['output']}: complete, {result['rows']:,} rows; nothing to do"
    speed = f", {result['tokens'] / result['seconds']:,.0f} tok/s" if result["seconds"] else ""
    ends = ", ".join(f"{name} {number:,}" for name, number in sorted(result["finish_reasons"].items()))
    after = f" after the {result['continued_after']:,} that it had" if result["continued_after"] else ""
    rows = f"{result['generated']:,} rows{after}, {result['tokens']:,} tokens in {result['seconds']:.1f} s{speed}"
    return f"{result['output']}: {rows}; ended by {ends}"


def identity(saved: SavedModel, keys: dict[str, Any]) -> dict[str, Any]:
    """Return what tells whether a model is still the same: its keys, and size and time of its files."""
    loading = saved.keys() | keys
    folders = {path for path in (saved.folder, Path(str(loading["base_model"]))) if path.is_dir()}
    files = {
        str(file): [file.stat().st_size, file.stat().st_mtime_ns]
        for folder in sorted(folders)
        for pattern in FILES
        for file in sorted(folder.glob(pattern))
    }
    return {"keys": {name: str(value) for name, value in loading.items()}, "files": files}


def _key(word: str) -> tuple[str, Any]:
    """Return key and value of `key=value`, whose value is YAML."""
    name, separator, value = word.partition("=")
    if not separator or not name.isidentifier():
        raise ConfigError(f"unexpected argument: {word}", where="command line", help="write KEY=VALUE", code="usage")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"the value is not YAML: {value}", where=f"command line ({name})", code="usage") from error
