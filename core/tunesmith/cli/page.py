"""Write examples as one HTML page that needs neither network nor script. All text from the data is escaped."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from importlib import resources
from itertools import groupby
from pathlib import Path
from string import Template

from tunesmith.cli.shown import CUT, Part, ShownExample, Stretch, Token, by_reason, printable
from tunesmith.errors import EnvironmentProblem
from tunesmith.run import Run


def write(file: str, run: Run, examples: Sequence[ShownExample]) -> None:
    """Write the page of some examples to a file. Raises EnvironmentProblem if that is not possible."""
    try:
        Path(file).write_text(render(run, examples), "utf-8")
    except OSError as error:
        message = f"{file} can't be written: {error.strerror or error}"
        raise EnvironmentProblem(message, help="choose another file: --html FILE") from error


def render(run: Run, examples: Sequence[ShownExample]) -> str:
    """Return the page of some examples."""
    core, document = run.core, run.config.document
    facts = {
        "model": core.base_model, "tokenizer": core.tokenizer_config, "method": core.rl or "supervised",
        "sequence_len": f"{core.sequence_len:,}", "excess_length_strategy": core.excess_length_strategy,
    }  # fmt: skip
    tokens, trained = sum(example.tokens for example in examples), sum(example.trained for example in examples)
    tiles = [
        ("examples", f"{len(examples):,}"), ("tokens", f"{tokens:,}"), ("trained", f"{trained:,}"),
        ("share", percent(trained, tokens)), ("dropped", f"{sum(example.dropped for example in examples):,}"),
    ]  # fmt: skip
    template = Template(resources.files("tunesmith").joinpath("data", "tokens.html").read_text("utf-8"))
    return template.substitute(
        file=text(document.name),
        facts="".join(f"<div><dt>{name}</dt><dd>{text(value)}</dd></div>" for name, value in facts.items() if value),
        tiles="".join(f'<div class="tile"><h3>{name}</h3><p>{value}</p></div>' for name, value in tiles),
        reasons="".join(reason_html(*row, tokens) for row in reasons(examples)),
        entries="".join(entry_html(list(group)) for _, group in groupby(examples, lambda example: id(example.spec))),
    )


def text(value: object) -> str:
    """Return a text of unknown origin for the page: markup, control characters and direction marks are escaped."""
    return html.escape(printable(str(value)))


def percent(part: int, total: int) -> str:
    return f"{100 * part / total:.0f} %" if total else "0 %"


def reasons(examples: Iterable[ShownExample]) -> list[tuple[str, int, int]]:
    """Return (reason, tokens, trained tokens) of each reason, the most frequent first."""
    counts = by_reason(stretch for example in examples for stretch in example.stretches)
    return sorted(((why, *numbers) for why, numbers in counts.items()), key=lambda row: -row[1])


def reason_html(why: str, tokens: int, trained: int, total: int) -> str:
    kind = "cut" if why == CUT else "trained" if trained else "masked"
    bar = f'<i style="width:{100 * tokens / total:.2f}%"></i>'
    return f'<tr class="{kind}"><th>{text(why)}</th><td>{tokens:,}</td><td>{trained:,}</td><td>{bar}</td></tr>'


def entry_html(examples: Sequence[ShownExample]) -> str:
    """Return the section of a dataset entry with its examples."""
    spec = examples[0].spec
    place = f"{spec.group}[{spec.index}]"
    about = f"{place} · type: {spec.type} · {spec.row_kind} rows"
    articles = "".join(map(example_html, examples))
    return f"<section><h2>{text(spec.settings.path)}</h2><p class=quiet>{text(about)}</p>{articles}</section>"


def example_html(example: ShownExample) -> str:
    """Return the article of an example: its title, its size, a strip, its columns and fields, and its parts."""
    style = "outcome bad" if example.dropped else "outcome"
    outcome = f'<span class="{style}">{text(example.outcome)}</span>' if example.outcome else ""
    share = percent(example.trained, example.tokens)
    size = f"{example.tokens:,} tokens, {example.trained:,} trained ({share})"
    facts = "".join(
        f"<div><dt>{text(name)}</dt><dd>{text(json.dumps(value, ensure_ascii=False, default=str))}</dd></div>"
        for name, value in example.facts.items()
    )
    parts = [part_html(part) for part in example.parts]
    if example.pair:
        parts[-2:] = [f'<div class="pair">{"".join(parts[-2:])}</div>']
    return (
        f'<article class="example{" dropped" if example.dropped else ""}"><h3>{text(example.where)} {outcome}</h3>'
        f'<p class="quiet">{size}</p>{strip_html(example)}'
        f"{f'<dl class=facts>{facts}</dl>' if facts else ''}{''.join(parts)}</article>"
    )


def strip_html(example: ShownExample) -> str:
    """Return the strip that outlines an example: each stretch is as wide as its share of the tokens."""
    parts = []
    for part in example.parts:
        pieces = "".join(
            f'<i class="{style_class(stretch)}" style="flex:{len(stretch.tokens)}" title="{text(stretch.label)}"></i>'
            for stretch in part.stretches
        )
        parts.append(f'<div style="flex:{part.tokens}">{pieces}</div>')
    return f'<div class="map" aria-hidden="true">{"".join(parts)}</div>'


def part_html(part: Part) -> str:
    """Return the section of a part: a line about it, and its stretches."""
    numbers = "".join(f", {name} {value:g}" for name, value in part.columns.items())
    after = f", after the {part.after}" if part.after else ""
    place = text(f"{part.tokens:,} tokens from position {part.position:,}{after}{numbers}")
    first_cut = next((stretch for stretch in part.stretches if stretch.cut), None)
    stretches = "".join(
        (border_html(CUT, "cut") if stretch is first_cut else "") + stretch_html(stretch) for stretch in part.stretches
    )
    return f'<section class="part"><h4>{text(part.name)} <span class="quiet">{place}</span></h4>{stretches}</section>'


def border_html(label: str, style: str = "weighted") -> str:
    return f'<p class="border {style}">{label}</p>'


def style_class(stretch: Stretch) -> str:
    """Return the CSS class of a stretch: cut, masked, wrong (a step), weighted (neither 0 nor 1), or trained."""
    if stretch.cut or not stretch.trained:
        return "cut" if stretch.cut else "masked"
    if any(token.weight and token.columns.get("label") == 0 for token in stretch.tokens):
        return "wrong"
    return "trained" if all(token.weight in (0, 1) for token in stretch.tokens) else "weighted"


def stretch_html(stretch: Stretch) -> str:
    opening = border_html(f"example {stretch.piece} begins here") if stretch.piece else ""
    label = text(stretch.why if stretch.cut else stretch.label)
    why = f'<p class="why">{label} <span class="n">{len(stretch.tokens):,}</span></p>'
    tokens = "".join(token_html(token, stretch.label, number % 2) for number, token in enumerate(stretch.tokens))
    return f'{opening}<div class="stretch {style_class(stretch)}">{why}<p class="text">{tokens}</p></div>'


def token_html(token: Token, why: str, odd: int) -> str:
    """Return a token as a span that shows its id, its weight, the reason and its columns on hover."""
    columns = "".join(f" · {name} {value:g}" for name, value in token.columns.items())
    classes = ["t", *(name for name, on in (("odd", odd), ("differs", token.differs), ("off", not token.weight)) if on)]
    title = text(f"id {token.id} · weight {token.weight:g} · {why}{columns}")
    lines = [text(line) for line in token.text.split("\n")]
    content = "<i>↵</i>\n".join(lines) if token.text else "<i>…</i>"
    return f'<span class="{" ".join(classes)}" data-id="{token.id}" title="{title}">{content}</span>'
