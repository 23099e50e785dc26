"""From the rows of `datasets:` to prepared examples: length policy, counts, held-out split, cache."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.config import DatasetSpec, digest
from tunesmith.discovery import core_version
from tunesmith.errors import ConfigError, DataError, PluginError, TunesmithError
from tunesmith.row import Row
from tunesmith.run import Run
from tunesmith_engine.cache import Counts, Prepared, cached, keep, read
from tunesmith_engine.examples import Example, ExampleStore, Segment


def prepare(run: Run) -> Prepared:
    """Read, tokenise and split the data of a run, or take it from the cache; fills run.tokenizer and run.data."""
    core = run.core
    if not run.config.datasets and not run.config.pretraining:
        where = run.config.document.where(())
        raise ConfigError("there is nothing to train on", where=where, help="write datasets: ...", code="no-data")
    if run.tokenizer is None:
        run.tokenizer = run.hooks.load_tokenizer(run)
    if run.config.pretraining:
        run.data = Prepared(None, None, {}, _fingerprint(run, []))
        return run.data
    rows = [run.hooks.load_rows(run, spec) for spec in run.config.datasets]
    fingerprint = _fingerprint(run, rows)
    folder = Path(core.dataset_prepared_path) / fingerprint[:20] if core.dataset_prepared_path else None
    if folder and any(getattr(source, "fingerprint", None) is None for source in rows):
        run.note("prepared data", "not kept: the rows of some dataset have no fingerprint to know them by")
        folder = None
    if folder is None:
        run.data = _build(run, rows, fingerprint)
    else:
        with run.world.main_first():
            run.data = cached(run, folder, fingerprint)
            if run.data is None:
                keep(run, folder, _build(run, rows, fingerprint))
                run.data = read(folder, fingerprint, cached=False)
    for name, counts in run.data.counts.items():
        counts.report(run, name)
    return run.data


def _build(run: Run, sources: list[Iterable[Row]], fingerprint: str) -> Prepared:
    kept: list[Example] = []
    counts: dict[str, Counts] = {}
    for index, (spec, rows) in enumerate(zip(run.config.datasets, sources, strict=True)):
        one = Counts()
        kept += examples_of(run, spec, rows, one)
        if not one.kept:
            _nothing_left(run, spec, one)
        counts[f"datasets[{index}] {spec.settings.path}"] = one
    held, rest = _split([e.origin for e in kept], run.core.val_set_size, run.core.seed)
    if not rest and kept:
        message = f"val_set_size leaves nothing of {len(kept):,} examples to train on"
        where = run.config.document.where(("val_set_size",), value=True)
        raise ConfigError(message, where=where, help="write val_set_size: 0.05")
    train = ExampleStore.collect(kept[i] for i in rest)
    held_out = ExampleStore.collect(kept[i] for i in held) if held else None
    return Prepared(train, held_out, counts, fingerprint)


def examples_of(run: Run, spec: DatasetSpec, rows: Iterable[Row], counts: Counts) -> Iterator[Example]:
    """The examples of one dataset entry within sequence_len, lazily; `counts` is kept up to date."""
    places: deque[str] = deque()  # of rows that a strategy has read ahead

    def noting() -> Iterator[Row]:
        for row in reading(spec, rows):
            places.append(row.where)
            yield row

    for number, example in enumerate(run.hooks.build_dataset(run, spec, noting())):
        if not places:
            raise _not_one_each(spec, "more examples than rows")
        where = places.popleft()
        counts.rows += 1
        pieces, outcome = fit(example, run.core.sequence_len, run.core.excess_length_strategy, where)
        untrained = len(example.segments) > 1 and not any(p.trained_tokens for p in pieces)
        if outcome:
            counts.mention(outcome, where)
        if outcome == "too_long":
            continue
        if untrained:
            counts.mention("untrained", where)
            continue
        counts.kept += 1
        for piece in pieces:
            if piece.trained_tokens or len(example.segments) == 1:
                counts.examples += 1
                counts.tokens += piece.width
                counts.trained_tokens += piece.trained_tokens
                piece.origin = (spec.index, number)
                yield piece
    if places:
        raise _not_one_each(spec, f"no example for {places[0]}")


def reading(spec: DatasetSpec, rows: Iterable[Row]) -> Iterator[Row]:
    """The rows of a source; one that breaks off is a DataError of its own, not of the strategy that asks for more."""
    last = None
    try:
        for row in rows:
            last = row.where
            yield row
    except (TunesmithError, GeneratorExit):
        raise
    except Exception as error:
        after = f"after {last}" if last else "from the start"
        message = f"{spec.settings.path} can't be read {after}: {type(error).__name__}: {error}"
        raise DataError(message, where=spec.where, code="unreadable") from error


def _not_one_each(spec: DatasetSpec, what: str) -> PluginError:
    message = f"plugin {spec.strategy} gives {what} of {spec.settings.path}: a strategy gives one example for each row"
    help = "give an example whose weights are all 0 for a row that is not to be trained on"
    return PluginError(message, where=spec.where, help=help)


def fit(example: Example, limit: int, strategy: str, where: str) -> tuple[list[Example], str | None]:
    """Bring an example within `limit` positions: the pieces, and what was done (too_long, truncated, split)."""
    if example.longest <= limit:
        return [example], None
    if strategy == "drop":
        return [], "too_long"
    if strategy == "raise":
        message = f"{example.longest:,} tokens are more than sequence_len {limit:,}"
        raise DataError(message, where=where, code="too-long", help="excess_length_strategy: drop, truncate or split")
    if strategy == "split":
        if len(example.segments) > 2 or len(example.segments[0].tokens):
            help = "split is for texts and conversations; write excess_length_strategy: truncate or drop"
            raise DataError("a prompt with completions can't be split", where=where, code="too-long", help=help)
        whole = example.segments[1]
        cuts = [_cut(whole, start, start + limit) for start in range(0, len(whole.tokens), limit)]
        return [
            Example([example.segments[0], c], example.columns, example.fields, example.inputs) for c in cuts
        ], "split"
    segments = [_cut(s, 0, max(0, limit - s.fork)) for s in example.segments]
    return [Example(segments, example.columns, example.fields, example.inputs)], "truncated"


def _cut(s: Segment, start: int, end: int) -> Segment:
    columns = {k: v[start:end] if np.ndim(v) else v for k, v in s.columns.items()}
    notes = [(min(stop, end) - start, why) for stop, why in s.notes if stop > start]
    return Segment(s.tokens[start:end], s.weights[start:end], s.parent, s.fork, columns, notes)


def _split(origins: list[tuple[int, int]], size: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices of held-out examples and of the rest: a share or number of rows is drawn; pieces of one stay together."""
    rows = list(dict.fromkeys(origins))
    number = round(len(rows) * size) if size < 1 else int(size)
    if size and rows:
        number = max(number, 1)
    drawn = {rows[i] for i in np.random.default_rng([seed, 1]).permutation(len(rows))[:number]}
    held = [i for i, origin in enumerate(origins) if origin in drawn]
    return held, [i for i, origin in enumerate(origins) if origin not in drawn]


def _nothing_left(run: Run, spec: DatasetSpec, counts: Counts) -> None:
    if not counts.rows:
        raise DataError(f"{spec.settings.path} has no rows", where=spec.where, code="no-rows")
    first = counts.first.get("untrained") or counts.first.get("too_long") or []
    help = "raise sequence_len, or write excess_length_strategy: truncate"
    if counts.untrained:
        help = "tunesmith preprocess --debug shows each token with the reason why it is trained or masked"
    raise DataError(
        f"nothing is left of {spec.settings.path}: of {counts.rows} rows {counts.untrained} have no trained token and "
        f"{counts.too_long} are longer than sequence_len {run.core.sequence_len}; first: {', '.join(first)}",
        where=spec.where,
        code="nothing-trained",
        help=help,
    )


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """Hash of everything that a tokenizer does: vocabulary, rules, special tokens, template."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend is not None else repr(tokenizer)
    special = {k: str(v) for k, v in sorted(getattr(tokenizer, "special_tokens_map", {}).items())}
    return digest([rules, special, getattr(tokenizer, "chat_template", None)])


def _fingerprint(run: Run, sources: list[Iterable[Row]]) -> str:
    """Hash of everything that prepared data depends on, and of nothing else."""
    core, config = run.core, run.config
    parts: dict[str, Any] = {
        "versions": [core_version(), metadata.version("tunesmith-engine")],
        "makers": [_maker(run, name) for name in _makers(run)],
        "tokenizer": tokenizer_fingerprint(run.tokenizer),
        "lengths": [core.sequence_len, core.excess_length_strategy],
        "split": [core.val_set_size, core.seed],
        "rows": [getattr(rows, "fingerprint", None) for rows in sources],
    }
    for spec in [*config.datasets, *config.pretraining]:
        entry = [spec.strategy, spec.row_kind, spec.settings.type, _values(spec.options)]
        parts.setdefault("strategies", []).append(entry)
    if config.pretraining:
        parts["stream"] = [spec.settings.model_dump(mode="json") for spec in config.pretraining]
        parts["buffer"] = core.streaming_multipack_buffer_size
    return digest(parts)


def _makers(run: Run) -> list[str]:
    """Words of the plugins that have a hand in rows, tokenizer or examples, wrappers among them."""
    hooks = ("load_rows", "load_tokenizer", "build_dataset")
    return sorted({call.plugin for hook in hooks for call in run.hooks.calls(hook)})


def _maker(run: Run, name: str) -> list[Any]:
    """A plugin as far as it decides what examples are: its version (of a local one, its file) and its settings."""
    plugin = run.hooks.by_name[name]
    return [name, plugin.distribution, plugin.content or plugin.version, _values(run.config.plugins.get(name))]


def _values(settings: Any) -> Any:
    return settings.model_dump(mode="json") if settings is not None else None
