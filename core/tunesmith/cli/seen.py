"""What people are shown of an example: each token, why it is trained or masked, and what the engine does with it."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

from tunesmith.engine import engine
from tunesmith.errors import DataError
from tunesmith.run import DatasetSpec, Run

if TYPE_CHECKING:
    from tunesmith_engine.batch.examples import Example, Segment

    from tunesmith.files.row import Row

LONGEST_CHARACTER = 6  # tokens; UTF-8 has at most four bytes to a character
WHOLE = {"text": "text", "conversation": "conversation", "stepwise": "steps"}
"""Row kind -> what its one completion is called."""

CUT = "cut: beyond sequence_len"
NUMBER = re.compile(r" \d+(?![\d.])")
"""That of a turn or a step in its reason."""


@dataclass(frozen=True)
class Token:
    """A token with its text, "" for the first ones of several that make one character, and its loss weight.

    differs: it is not in the other answer of a pair. columns: its numbers that a loss reads.
    """

    id: int
    text: str
    weight: float
    differs: bool = False
    columns: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Stretch:
    """Tokens that follow each other and are trained or masked for one reason.

    cut: they lie beyond sequence_len, so the model does not see them. piece: its number, where one of the examples that
    the row is split into begins here.
    """

    why: str
    tokens: list[Token]
    cut: bool = False
    piece: int = 0

    @property
    def trained(self) -> int:
        return 0 if self.cut else sum(token.weight != 0 for token in self.tokens)

    @property
    def label(self) -> str:
        """The reason, with what the model is spared and weights other than 0 and 1."""
        weights = sorted({token.weight for token in self.tokens} - {0.0})
        said = f"{CUT} ({self.why})" if self.cut else self.why
        if weights in ([], [1.0]) or "weight" in said:
            return said
        return f"{said}, weight {' to '.join(f'{w:g}' for w in dict.fromkeys((weights[0], weights[-1])))}"


@dataclass(frozen=True)
class Part:
    """A segment of the tree: its name, the position of its first token, what it continues, and its own numbers."""

    name: str
    position: int
    depth: int
    after: str
    stretches: list[Stretch]
    columns: dict[str, float]

    @property
    def tokens(self) -> int:
        return sum(len(stretch.tokens) for stretch in self.stretches)


@dataclass(frozen=True)
class Seen:
    """An example as it is shown. fate: what the engine does with it, "" where that is nothing; dropped: it is left out.

    pair: its last two parts are chosen and rejected. facts: columns and fields of the whole example.
    """

    spec: DatasetSpec
    where: str
    parts: list[Part]
    fate: str
    dropped: bool
    facts: dict[str, Any]
    pair: bool = False

    @property
    def stretches(self) -> list[Stretch]:
        return [stretch for part in self.parts for stretch in part.stretches]

    @property
    def tokens(self) -> int:
        return sum(part.tokens for part in self.parts)

    @property
    def trained(self) -> int:
        return 0 if self.dropped else sum(stretch.trained for stretch in self.stretches)

    @property
    def title(self) -> str:
        """Its place, its size, and what becomes of it."""
        said = f"{self.where}: {self.tokens:,} tokens, {self.trained:,} trained"
        return f"{said}; {self.fate}" if self.fate else said


def seen(run: Run, number: int) -> Iterator[Seen]:
    """The first examples of each entry, as many as `number`, of the rows that filters leave. Raises DataError."""
    if run.tokenizer is None:
        run.tokenizer = run.hooks.load_tokenizer(run)
    sources = engine("data.rows")
    prepared = iter(sources.filtered(run, sources.read_all(run)))
    for spec in run.config.entries:
        streamed = spec in run.config.streamed
        rows = sources.Reading(spec, sources.rows_of(run, spec)) if streamed else next(prepared).rows
        for where, example in first_examples(run, spec, rows, number):
            yield see(run, spec, where, example)


def first_examples(run: Run, spec: DatasetSpec, rows: Iterable[Row], number: int) -> Iterator[tuple[str, Example]]:
    """The first examples of an entry with the places of their rows; strategies may read no row further ahead."""
    places: deque[str] = deque()

    def noting() -> Iterator[Row]:
        for row in islice(rows, number):
            places.append(row.where)
            yield row

    for example in islice(run.hooks.build_dataset(run, spec, noting()), number):
        yield places.popleft() if places else spec.settings.path, example


def see(run: Run, spec: DatasetSpec, where: str, example: Example) -> Seen:
    """An example as it is shown, and what becomes of it."""
    limit, strategy = run.core.sequence_len, run.core.excess_length_strategy
    fate, dropped = fate_of(example, limit, strategy, where)
    pair = spec.row_kind == "pair" and [s.parent for s in example.segments] == [0, 0, 0]
    names = names_of(spec.row_kind, example, pair)
    differing = differences(*example.segments[1:]) if pair else {}
    parts = []
    for index, segment in enumerate(example.segments):
        if not len(segment.tokens) and not index and len(example.segments) > 1:
            continue  # the prompt of a text or a conversation
        texts = texts_of(run.tokenizer, segment.tokens.tolist(), before(example, index))
        marked = differing.get(index, frozenset())
        tokens = [
            Token(int(id), text, float(weight), place in marked, numbers(segment, place))
            for place, (id, text, weight) in enumerate(zip(segment.tokens, texts, segment.weights, strict=True))
        ]
        stretches = [Stretch(why, tokens[start:end]) for start, end, why in spans(segment)]
        if strategy in ("truncate", "split"):
            stretches = list(bordered(stretches, segment.fork, limit, strategy == "truncate"))
        after = names[segment.parent] if index and len(example.segments[segment.parent].tokens) else ""
        columns = {name: float(value) for name, value in segment.columns.items() if not hasattr(value, "__len__")}
        parts.append(Part(names[index], segment.fork, depth(example, index), after, stretches, columns))
    return Seen(spec, where, parts, fate, dropped, {**example.columns, **example.fields}, pair)


def fate_of(example: Example, limit: int, strategy: str, where: str) -> tuple[str, bool]:
    """What the engine does with an example, in words, and whether it leaves it out."""
    untrained = len(example.segments) > 1
    try:
        pieces, outcome = engine("data.prepare").fit(example, limit, strategy, where)
    except DataError as error:
        return f"refused: {error.problems[0].message}", True
    if outcome == "too_long":
        return f"dropped: longer than sequence_len {limit:,}", True
    if untrained and not any(piece.trained_tokens for piece in pieces):
        return "dropped: nothing " + ("trained is left within sequence_len" if outcome else "is trained"), True
    said = {"truncated": f"cut to sequence_len {limit:,}", "split": f"split into {len(pieces)} examples"}
    return said.get(outcome, ""), False


def names_of(kind: str, example: Example, pair: bool) -> list[str]:
    """What the segments of an example are called."""
    number = len(example.segments)
    if pair:
        return ["prompt", "chosen", "rejected"]
    if number > 2:
        return ["prompt", *(f"completion {index}" for index in range(1, number))]
    label = example.columns.get("label") if kind == "labelled" else None
    said = "" if label is None else f", labelled {'good' if label else 'bad'}"
    return ["prompt", WHOLE.get(kind, "completion") + said]


def depth(example: Example, index: int) -> int:
    return 0 if index == 0 else 1 + depth(example, example.segments[index].parent)


def numbers(segment: Segment, place: int) -> dict[str, float]:
    """The columns of a token: of one that is trained all, of any other those that are not 0."""
    found = {name: value[place] for name, value in segment.columns.items() if getattr(value, "ndim", 0) == 1}
    return {name: float(value) for name, value in found.items() if value or segment.weights[place]}


def spans(segment: Segment) -> list[tuple[int, int, str]]:
    """Runs of tokens with one reason; where a strategy gave none, trained and masked runs."""
    length = len(segment.tokens)
    notes = list(segment.notes)
    if not notes:
        whys = ["trained" if weight else "context" for weight in segment.weights]
        notes = [(end, why) for end, why in enumerate(whys, 1) if end == length or whys[end] != why]
    elif notes[-1][0] < length:
        notes.append((length, "no reason given"))
    starts = [0, *(end for end, _ in notes)]
    return [(start, end, why) for start, (end, why) in zip(starts, notes, strict=False) if end > start]


def bordered(stretches: Iterable[Stretch], position: int, limit: int, cuts: bool) -> Iterator[Stretch]:
    """The stretches parted at `limit` positions, beyond which they are cut; or at each multiple of it."""
    for stretch in stretches:
        end = position + len(stretch.tokens)
        borders = [limit] if cuts else range(limit, end, limit)
        inner = [border for border in borders if position < border < end]
        for start, stop in pairwise([position, *inner, end]):
            tokens = stretch.tokens[start - position : stop - position]
            piece = start // limit + 1 if not cuts and start and start % limit == 0 else 0
            yield replace(stretch, tokens=tokens, cut=cuts and start >= limit, piece=piece)
        position = end


def differences(one: Segment, other: Segment) -> dict[int, frozenset[int]]:
    """Segment 1 and 2 of a pair -> its tokens that are not in the other, in the order of both."""
    found: tuple[set[int], set[int]] = (set(), set())
    for kind, *bounds in SequenceMatcher(None, one.tokens.tolist(), other.tokens.tolist()).get_opcodes():
        if kind != "equal":
            found[0].update(range(*bounds[:2]))
            found[1].update(range(*bounds[2:]))
    return {index: frozenset(places) for index, places in enumerate(found, 1)}


def before(example: Example, index: int) -> list[int]:
    """The token before the first one of a segment, if there is any: tokenizers write some texts by what precedes."""
    start = example.segments[index].fork
    above = example.segments[example.segments[index].parent] if index else None
    return [] if above is None or start <= above.fork else [int(above.tokens[start - above.fork - 1])]


def texts_of(tokenizer: Any, tokens: Sequence[int], known: Sequence[int] = ()) -> list[str]:
    """The text of each token, which is what it adds to that of `known`, the tokens before.

    A character that is spread over several tokens is the text of the last of them.
    """
    found, known, waiting = [], list(known), []
    for place, token in enumerate(tokens):
        waiting.append(token)
        head, whole = tokenizer.decode(known) if known else "", tokenizer.decode([*known, *waiting])
        text = whole[len(head) :] if whole.startswith(head) else tokenizer.decode(waiting)
        if text.endswith("\ufffd") and len(waiting) < LONGEST_CHARACTER and place + 1 < len(tokens):
            found.append("")
            continue
        found.append(text)
        known, waiting = waiting, []
    return found


def printable(text: str) -> str:
    """Line ends, control characters and direction marks as escapes: data may not steer what shows it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def by_reason(stretches: Iterable[Stretch]) -> dict[str, tuple[int, int]]:
    """Reason -> tokens and trained tokens; turns and steps are not told apart by their numbers."""
    tokens: Counter[str] = Counter()
    trained: Counter[str] = Counter()
    for stretch in stretches:
        why = CUT if stretch.cut else NUMBER.sub("", stretch.why)
        tokens[why] += len(stretch.tokens)
        trained[why] += stretch.trained
    return {why: (number, trained[why]) for why, number in tokens.items()}
