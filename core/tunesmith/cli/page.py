"""Tokens as a page: one HTML file that needs neither network nor script. All that is from the data is escaped."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from importlib import resources
from itertools import groupby
from pathlib import Path
from string import Template

from tunesmith.cli.seen import CUT, Part, Seen, Stretch, Token, by_reason, printable
from tunesmith.errors import EnvironmentProblem
from tunesmith.run import Run


def write(file: str, run: Run, examples: Sequence[Seen]) -> None:
    """Write the page of some examples. Raises EnvironmentProblem where that is not possible."""
    try:
        Path(file).write_text(render(run, examples), "utf-8")
    except OSError as error:
        message = f"{file} can't be written: {error.strerror or error}"
        raise EnvironmentProblem(message, help="name another file: --html FILE") from error


def render(run: Run, examples: Sequence[Seen]) -> str:
    """The page of some examples."""
    core, document = run.core, run.config.document
    facts = {
        "model": core.base_model, "tokenizer": core.tokenizer_config, "method": core.rl or "supervised",
        "sequence_len": f"{core.sequence_len:,}", "excess_length_strategy": core.excess_length_strategy,
    }  # fmt: skip
    tokens, trained = sum(seen.tokens for seen in examples), sum(seen.trained for seen in examples)
    tiles = [
        ("examples", f"{len(examples):,}"), ("tokens", f"{tokens:,}"), ("trained", f"{trained:,}"),
        ("share", percent(trained, tokens)), ("left out", f"{sum(seen.dropped for seen in examples):,}"),
    ]  # fmt: skip
    shell = Template(resources.files("tunesmith").joinpath("data", "tokens.html").read_text("utf-8"))
    return shell.substitute(
        file=text(document.name),
        facts="".join(f"<div><dt>{name}</dt><dd>{text(said)}</dd></div>" for name, said in facts.items() if said),
        tiles="".join(f'<div class="tile"><h3>{name}</h3><p>{value}</p></div>' for name, value in tiles),
        reasons="".join(reason(*row, tokens) for row in reasons(examples)),
        entries="".join(entry(list(group)) for _, group in groupby(examples, lambda seen: id(seen.spec))),
    )


def text(value: object) -> str:
    """A text from outside: control characters and direction marks become visible, markup is escaped."""
    return html.escape(printable(str(value)))


def percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "0 %"


def reasons(examples: Iterable[Seen]) -> list[tuple[str, int, int]]:
    """Reason, tokens and trained tokens of each reason on the page, in the order of their number."""
    found = by_reason(stretch for seen in examples for stretch in seen.stretches)
    return sorted(((why, *numbers) for why, numbers in found.items()), key=lambda row: -row[1])


def reason(why: str, tokens: int, trained: int, whole: int) -> str:
    kind = "cut" if why == CUT else "trained" if trained else "masked"
    bar = f'<i style="width:{100 * tokens / whole:.2f}%"></i>'
    return f'<tr class="{kind}"><th>{text(why)}</th><td>{tokens:,}</td><td>{trained:,}</td><td>{bar}</td></tr>'


def entry(examples: Sequence[Seen]) -> str:
    """A dataset entry with its examples."""
    spec = examples[0].spec
    place = f"{spec.group}[{spec.index}]"
    about = f"{place} · type: {spec.type} · {spec.row_kind} rows"
    articles = "".join(map(article, examples))
    return f"<section><h2>{text(spec.settings.path)}</h2><p class=quiet>{text(about)}</p>{articles}</section>"


def article(seen: Seen) -> str:
    fate = f'<span class="fate{" bad" if seen.dropped else ""}">{text(seen.fate)}</span>' if seen.fate else ""
    size = f"{seen.tokens:,} tokens, {seen.trained:,} trained ({percent(seen.trained, seen.tokens)})"
    facts = "".join(
        f"<div><dt>{text(name)}</dt><dd>{text(json.dumps(value, ensure_ascii=False, default=str))}</dd></div>"
        for name, value in seen.facts.items()
    )
    shown = [part_of(part) for part in seen.parts]
    if seen.pair:
        shown[-2:] = [f'<div class="pair">{"".join(shown[-2:])}</div>']
    return (
        f'<article class="example{" dropped" if seen.dropped else ""}"><h3>{text(seen.where)} {fate}</h3>'
        f'<p class="quiet">{size}</p>{map_of(seen)}'
        f"{f'<dl class=facts>{facts}</dl>' if facts else ''}{''.join(shown)}</article>"
    )


def map_of(seen: Seen) -> str:
    """The example as a strip: each stretch as wide as its share of the tokens."""
    parts = []
    for part in seen.parts:
        pieces = "".join(
            f'<i class="{kind_of(stretch)}" style="flex:{len(stretch.tokens)}" title="{text(stretch.label)}"></i>'
            for stretch in part.stretches
        )
        parts.append(f'<div style="flex:{part.tokens}">{pieces}</div>')
    return f'<div class="map" aria-hidden="true">{"".join(parts)}</div>'


def part_of(part: Part) -> str:
    numbers = "".join(f", {name} {value:g}" for name, value in part.columns.items())
    after = f", after the {part.after}" if part.after else ""
    place = text(f"{part.tokens:,} tokens from position {part.position:,}{after}{numbers}")
    first_cut = next((stretch for stretch in part.stretches if stretch.cut), None)
    stretches = "".join(
        (border(CUT, "cut") if stretch is first_cut else "") + stretch_of(stretch) for stretch in part.stretches
    )
    return f'<section class="part"><h4>{text(part.name)} <span class="quiet">{place}</span></h4>{stretches}</section>'


def border(said: str, kind: str = "weighted") -> str:
    return f'<p class="border {kind}">{said}</p>'


def kind_of(stretch: Stretch) -> str:
    """What a stretch is drawn as: cut, masked, wrong (a step), weighted (neither all nor nothing), or trained."""
    if stretch.cut or not stretch.trained:
        return "cut" if stretch.cut else "masked"
    if any(token.weight and token.columns.get("label") == 0 for token in stretch.tokens):
        return "wrong"
    return "trained" if all(token.weight in (0, 1) for token in stretch.tokens) else "weighted"


def stretch_of(stretch: Stretch) -> str:
    opening = border(f"example {stretch.piece} begins here") if stretch.piece else ""
    label = text(stretch.why if stretch.cut else stretch.label)
    why = f'<p class="why">{label} <span class="n">{len(stretch.tokens):,}</span></p>'
    tokens = "".join(token_of(token, stretch.label, number % 2) for number, token in enumerate(stretch.tokens))
    return f'{opening}<div class="stretch {kind_of(stretch)}">{why}<p class="text">{tokens}</p></div>'


def token_of(token: Token, why: str, odd: int) -> str:
    """A token as a span: what it says, and on hover its id, its weight, the reason, and its columns."""
    columns = "".join(f" · {name} {value:g}" for name, value in token.columns.items())
    marks = [name for name, on in (("odd", odd), ("differs", token.differs), ("off", not token.weight)) if on]
    told = text(f"id {token.id} · weight {token.weight:g} · {why}{columns}")
    lines = [text(line) for line in token.text.split("\n")]
    shown = "<i>↵</i>\n".join(lines) if token.text else "<i>…</i>"
    return f'<span class="{" ".join(["t", *marks])}" data-id="{token.id}" title="{told}">{shown}</span>'
