"""Implement `tunesmith score SOURCE ROWS`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from tunesmith import EnvironmentProblem, ModelError, SavedModel, find_saved

EPILOG = """
\b
Examples:
  tunesmith score outputs/reward pairs.jsonl
  tunesmith score outputs/reward answers.jsonl --output scored.jsonl
  tunesmith score outputs/prm solutions.jsonl --output scored.jsonl
"""
STEPS, SEQUENCES = "process_reward_model", "reward_model"
"""Keys that load a process reward model, and one that scores full answers."""


@click.command(epilog=EPILOG)
@click.argument("source", metavar="SOURCE")
@click.argument("rows", metavar="ROWS", type=click.Path(path_type=Path))
@click.option("--output", metavar="FILE", type=click.Path(path_type=Path),
              help="Write the rows with their scores to a file. Default: print them.")  # fmt: skip
@click.option("--raw", is_flag=True, help="Join prompt and completion as texts, without the chat template.")
@click.option(
    "--step-separator", metavar="TEXT", help="Text after each step. Default: that of the run, or a line break."
)
@click.option("--batch-tokens", type=click.IntRange(1), default=2**14, show_default=True,
              help="Most tokens that are computed together.")  # fmt: skip
@click.option("--base", metavar="MODEL", help="Folder or hub id of the base model, if it is not where it was.")
def score(
    source: str, rows: Path, output: Path | None, raw: bool, step_separator: str | None, batch_tokens: int,
    base: str | None,
) -> None:  # fmt: skip
    """Score answers with a reward model, or the steps of solutions with a process reward model.

    SOURCE is the YAML file of a run, its output_dir, a checkpoint, the folder of a model or adapter, or a hub id. ROWS
    is a JSON Lines file. A row has `prompt` and `completion` or `completions`, or `messages`, or `chosen` and
    `rejected`; for a process reward model, `prompt` and the steps in `completions`.
    """
    saved = find_saved(source, base)
    keys = saved.keys()
    if not keys.get(STEPS) and not keys.get(SEQUENCES):
        message = f"{saved.path} has no head that scores answers"
        help = "train one with reward_model: true, or with process_reward_model: true for steps"
        raise ModelError(message, where="command line", help=help, code="reward-head")
    from tunesmith_rewardmodel.rows import read_rows

    separator = (step_separator or separator_of(saved)) if keys.get(STEPS) else None
    answers: Any = read_rows(rows, separator)
    from tunesmith import open_model
    from tunesmith_rewardmodel.scoring import check_loaded, score_answers, score_steps, summary

    with open_model(source, base=base) as model:
        check_loaded(model)
        if separator is not None:
            scored = list(score_steps(model, answers, separator, batch_tokens))
        else:
            scored = list(score_answers(model, answers, raw, batch_tokens))
    lines = "".join(json.dumps(row) + "\n" for row in scored)
    if output is None:
        click.echo(lines, nl=False)
    else:
        _write(output, lines)
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in summary(scored).items())
    click.echo(f"{output or rows}: {len(scored):,} rows; {numbers}", err=output is None)


def separator_of(saved: SavedModel) -> str:
    """Return the text that the run wrote after each step."""
    entries = saved.get("datasets")
    first = entries[0] if isinstance(entries, list) and entries and isinstance(entries[0], dict) else {}
    separator = first.get("step_separator")
    return separator if isinstance(separator, str) and separator else "\n"


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        message = f"{path} can't be written: {error.strerror}"
        where = "command line (--output)"
        raise EnvironmentProblem(message, where=where, help="choose another place", code="disk") from error
