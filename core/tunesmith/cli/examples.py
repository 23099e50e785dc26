"""Describe examples for people: why each token is trained or masked, and what the engine does with the example."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

from tunesmith.cli.shown import Part, ShownExample, Stretch, Token
from tunesmith.engine import engine
from tunesmith.errors import DataError
from tunesmith.run import DatasetSpec, Run

if TYPE_CHECKING:
    from tunesmith_engine.batch.examples import Example, Segment

    from tunesmith.files.row import Row

LONGEST_CHARACTER = 6
"""Most tokens that make one character. UTF-8 has at most four bytes for a character."""
SINGLE_COMPLETION = {"text": "text", "conversation": "conversation", "stepwise": "steps"}
"""Row kind -> name of an example's only completion."""


def shown_examples(run: Run, number: int) -> Iterator[ShownExample]:
    """Yield the first `number` examples of each dataset entry, after filters. Raises DataError."""
    if run.tokenizer is None:
        run.tokenizer = run.hooks.load_tokenizer(run)
    engine_rows = engine("data.rows")
    prepared = iter(engine_rows.filtered(run, engine_rows.read_all(run)))
    for spec in run.config.entries:
        streamed = spec in run.config.streamed
        rows = engine_rows.Reading(spec, engine_rows.rows_of(run, spec)) if streamed else next(prepared).rows
        for where, example in first_examples(run, spec, rows, number):
            yield shown_example(run, spec, where, example)


def first_examples(run: Run, spec: DatasetSpec, rows: Iterable[Row], number: int) -> Iterator[tuple[str, Example]]:
    """Yield (place of the row, example) of the first examples of an entry.

    Strategies yield one example per row, so the oldest place that is not used yet belongs to the next example, however
    far a strategy reads ahead. Only `number` rows are given to it.
    """
    places: deque[str] = deque()

    def recorded() -> Iterator[Row]:
        for row in islice(rows, number):
            places.append(row.where)
            yield row

    for example in islice(run.hooks.build_dataset(run, spec, recorded()), number):
        yield places.popleft() if places else spec.settings.path, example


def shown_example(run: Run, spec: DatasetSpec, where: str, example: Example) -> ShownExample:
    """Return an example as it is shown, with what the engine does with it."""
    limit, strategy = run.core.sequence_len, run.core.excess_length_strategy
    outcome, dropped = engine_outcome(example, limit, strategy, where)
    pair = spec.row_kind == "pair" and [s.parent for s in example.segments] == [0, 0, 0]
    names = part_names(spec.row_kind, example, pair)
    differing = differences(*example.segments[1:]) if pair else {}
    parts = []
    for index, segment in enumerate(example.segments):
        if not len(segment.tokens) and not index and len(example.segments) > 1:
            continue  # the empty prompt of a text or a conversation
        texts = texts_of(run.tokenizer, segment.tokens.tolist(), preceding_token(example, index))
        marked = differing.get(index, frozenset())
        tokens = [
            Token(int(id), text, float(weight), place in marked, token_columns(segment, place))
            for place, (id, text, weight) in enumerate(zip(segment.tokens, texts, segment.weights, strict=True))
        ]
        stretches = [Stretch(why, tokens[start:end]) for start, end, why in reasons(segment)]
        if strategy in ("truncate", "split"):
            stretches = list(divided(stretches, segment.fork, limit, strategy == "truncate"))
        after = names[segment.parent] if index and len(example.segments[segment.parent].tokens) else ""
        columns = {name: float(value) for name, value in segment.columns.items() if not hasattr(value, "__len__")}
        parts.append(Part(names[index], segment.fork, depth(example, index), after, stretches, columns))
    return ShownExample(spec, where, parts, outcome, dropped, {**example.columns, **example.fields}, pair)


def engine_outcome(example: Example, limit: int, strategy: str, where: str) -> tuple[str, bool]:
    """Return what the engine changes in an example, "" for nothing, and True if it drops the example."""
    has_completions = len(example.segments) > 1
    try:
        pieces, fitted = engine("data.lengths").fit(example, limit, strategy, where)
    except DataError as error:
        return f"refused: {error.problems[0].message}", True
    if fitted == "too_long":
        return f"dropped: longer than sequence_len {limit:,}", True
    if has_completions and not any(piece.trained_tokens for piece in pieces):
        return "dropped: nothing " + ("trained is left within sequence_len" if fitted else "is trained"), True
    outcomes = {"truncated": f"cut to sequence_len {limit:,}", "split": f"split into {len(pieces)} examples"}
    return outcomes.get(fitted, ""), False


def part_names(kind: str, example: Example, pair: bool) -> list[str]:
    """Return the names of an example's segments: prompt, chosen, completion 2, ..."""
    number = len(example.segments)
    if pair:
        return ["prompt", "chosen", "rejected"]
    if number > 2:
        return ["prompt", *(f"completion {index}" for index in range(1, number))]
    label = example.columns.get("label") if kind == "labelled" else None
    suffix = "" if label is None else f", labeled {'good' if label else 'bad'}"
    return ["prompt", SINGLE_COMPLETION.get(kind, "completion") + suffix]


def depth(example: Example, index: int) -> int:
    return 0 if index == 0 else 1 + depth(example, example.segments[index].parent)


def token_columns(segment: Segment, place: int) -> dict[str, float]:
    """Return the columns of a token: all of them if it is trained, otherwise those that are not 0."""
    values = {name: value[place] for name, value in segment.columns.items() if getattr(value, "ndim", 0) == 1}
    return {name: float(value) for name, value in values.items() if value or segment.weights[place]}


def reasons(segment: Segment) -> list[tuple[int, int, str]]:
    """Return (start, end, reason) of tokens with the same reason; "trained" or "context" if a strategy gave none."""
    length = len(segment.tokens)
    notes = list(segment.notes)
    if not notes:
        whys = ["trained" if weight else "context" for weight in segment.weights]
        notes = [(end, why) for end, why in enumerate(whys, 1) if end == length or whys[end] != why]
    elif notes[-1][0] < length:
        notes.append((length, "no reason given"))
    starts = [0, *(end for end, _ in notes)]
    return [(start, end, why) for start, (end, why) in zip(starts, notes, strict=False) if end > start]


def divided(stretches: Iterable[Stretch], position: int, limit: int, cuts: bool) -> Iterator[Stretch]:
    """Yield the stretches, divided where the engine divides the example.

    With `cuts`, that is at position `limit`, and what follows is cut. Otherwise it is at each multiple of `limit`,
    where the next example begins. `position` is that of the first token.
    """
    for stretch in stretches:
        end = position + len(stretch.tokens)
        borders = [limit] if cuts else range(limit, end, limit)
        inner = [border for border in borders if position < border < end]
        for start, stop in pairwise([position, *inner, end]):
            tokens = stretch.tokens[start - position : stop - position]
            piece = start // limit + 1 if not cuts and start and start % limit == 0 else 0
            yield replace(stretch, tokens=tokens, cut=cuts and start >= limit, piece=piece)
        position = end


def differences(chosen: Segment, rejected: Segment) -> dict[int, frozenset[int]]:
    """Return, for segments 1 and 2 of a pair, the indices of tokens that are not in the other, in order."""
    indices: tuple[set[int], set[int]] = (set(), set())
    for kind, *bounds in SequenceMatcher(None, chosen.tokens.tolist(), rejected.tokens.tolist()).get_opcodes():
        if kind != "equal":
            indices[0].update(range(*bounds[:2]))
            indices[1].update(range(*bounds[2:]))
    return {index: frozenset(places) for index, places in enumerate(indices, 1)}


def preceding_token(example: Example, index: int) -> list[int]:
    """Return the token before the first one of a segment, if any: a token's text may depend on the one before it."""
    start = example.segments[index].fork
    parent = example.segments[example.segments[index].parent] if index else None
    return [] if parent is None or start <= parent.fork else [int(parent.tokens[start - parent.fork - 1])]


def texts_of(tokenizer: Any, tokens: Sequence[int], context: Sequence[int] = ()) -> list[str]:
    """Return the text of each token: what it adds to the text of the tokens before it, which begin with `context`.

    If several tokens make one character, it is the text of the last of them, and the others have "".
    """
    texts, decoded, pending = [], list(context), []
    for place, token in enumerate(tokens):
        pending.append(token)
        before, after = tokenizer.decode(decoded) if decoded else "", tokenizer.decode([*decoded, *pending])
        text = after[len(before) :] if after.startswith(before) else tokenizer.decode(pending)
        if text.endswith("\ufffd") and len(pending) < LONGEST_CHARACTER and place + 1 < len(tokens):
            texts.append("")
            continue
        texts.append(text)
        decoded, pending = pending, []
    return texts
