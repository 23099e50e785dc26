"""From the rows of `datasets:` to prepared examples: length policy, counts, held-out split, cache."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.config.load import DatasetSpec, digest
from tunesmith.errors import ConfigError, DataError, PluginError
from tunesmith.files.row import Row, Source
from tunesmith.plugins.discovery import core_version
from tunesmith.run import Run
from tunesmith_engine.batch.examples import Example, ExampleStore, Segment
from tunesmith_engine.data.cache import Counts, Prepared, cached, keep, noting, read, shared
from tunesmith_engine.data.rows import filtered, fingerprints, read_all


def prepare(run: Run) -> Prepared:
    """Read, tokenise and split the data of a run, or take it from the cache; fills run.tokenizer and run.data."""
    core = run.core
    if not run.config.datasets and not run.config.streamed:
        where = run.config.document.where(())
        raise ConfigError("there is nothing to train on", where=where, help="write datasets: ...", code="no-data")
    if run.tokenizer is None:
        run.tokenizer = run.hooks.load_tokenizer(run)
    raw = read_all(run)
    sources, known = filtered(run, raw), fingerprints(raw)
    fingerprint = _fingerprint(run, [known, fingerprints(sources)])
    folder = Path(core.dataset_prepared_path) / fingerprint[:20] if core.dataset_prepared_path and sources else None
    if folder and None in known:
        run.note("prepared data", "not kept: the rows of some dataset have no fingerprint to know them by")
        folder = None
    build = partial(_build, run, sources, fingerprint)
    if folder is not None:
        with run.world.main_first():
            run.data = cached(run, folder, fingerprint)
            if run.data is None:
                keep(run, folder, *noting(run, build))
                run.data = read(run, folder, fingerprint, cached=False)
    elif run.world.size > 1 and sources:
        run.data = shared(run, fingerprint, build)
    else:
        run.data = build()
    for name, counts in run.data.counts.items():
        counts.report(run, name)
    return run.data


def _build(run: Run, sources: list[Source], fingerprint: str) -> Prepared:
    kept: dict[bool, list[Example]] = {False: [], True: []}
    counts: dict[str, Counts] = {}
    for source in sources:
        spec, one = source.spec, Counts()
        made = list(_examples(run, source, one))
        _check_columns(spec, made, [*kept[False], *kept[True]][:1])
        kept[spec.group == "test_datasets"] += made
        if not one.kept:
            _nothing_left(run, spec, one)
        counts[f"{spec.group}[{spec.index}] {spec.settings.path}"] = one
    train, held = kept[False], kept[True]
    if run.core.val_set_size:
        train, held = _split(train, run.core.val_set_size, run.core.seed)
        if not train:
            message = f"val_set_size leaves nothing of {len(held):,} examples to train on"
            where = run.config.document.where(("val_set_size",), value=True)
            raise ConfigError(message, where=where, help="write val_set_size: 0.05")
    trained = ExampleStore.collect(train) if run.config.datasets else None
    return Prepared(trained, ExampleStore.collect(held) if held else None, counts, fingerprint)


def _examples(run: Run, source: Source, counts: Counts) -> Iterator[Example]:
    """The examples of one entry, by as many processes as the config says."""
    from tunesmith_engine.data import workers

    processes = run.core.dataset_num_proc
    if processes > 1 and not workers.available():
        run.note("dataset_num_proc", "this system can't fork, so one process tokenises")
        processes = 1
    if processes == 1:
        return examples_of(run, source.spec, source.rows, counts)
    return workers.examples_by(processes, run, source.spec, source.rows, counts)


def _check_columns(spec: DatasetSpec, made: list[Example], first: list[Example]) -> None:
    """Raise DataError for an example without a column that others have: a method would not know what it is there."""
    wanted = (first or made)[0].columns.keys() if made else ()
    for example in made:
        if example.columns.keys() != wanted:
            name = sorted(example.columns.keys() ^ wanted)[0]
            what = "an earlier entry" if first else "its first row"
            message = f"{spec.settings.path}: row {example.origin[1]} and {what} differ: only one has {name!r}"
            raise DataError(message, where=spec.where, code="row", help="every row of a run has it, or none")


def examples_of(run: Run, spec: DatasetSpec, rows: Iterable[Row], counts: Counts) -> Iterator[Example]:
    """The examples of one dataset entry within sequence_len, lazily; `counts` is kept up to date."""
    places: deque[str] = deque()  # of rows that a strategy has read ahead
    entry = run.config.entries.index(spec)

    def noting() -> Iterator[Row]:
        for row in rows:
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
                piece.origin = (entry, number)
                yield piece
    if places:
        raise _not_one_each(spec, f"no example for {places[0]}")


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


def held_out(rows: int, size: float, seed: int) -> list[int]:
    """Which of so many rows are held out: a share of them (size below 1), or a number."""
    number = max(round(rows * size) if size < 1 else int(size), 1)
    return np.random.default_rng([seed, 1]).permutation(rows)[:number].tolist()


def _split(examples: list[Example], size: float, seed: int) -> tuple[list[Example], list[Example]]:
    """What is trained on, and what is held out: a share or number of rows is drawn; pieces of one stay together."""
    rows = list(dict.fromkeys(e.origin for e in examples))
    drawn = {rows[i] for i in held_out(len(rows), size, seed)}
    return [e for e in examples if e.origin not in drawn], [e for e in examples if e.origin in drawn]


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


def _fingerprint(run: Run, rows: list[Any]) -> str:
    """Hash of everything that prepared data depends on, and of nothing else."""
    core, config = run.core, run.config
    parts: dict[str, Any] = {
        "versions": [core_version(), metadata.version("tunesmith-engine")],
        "makers": [_maker(run, name) for name in _makers(run)],
        "tokenizer": tokenizer_fingerprint(run.tokenizer),
        "lengths": [core.sequence_len, core.excess_length_strategy],
        "split": [core.val_set_size, core.seed] if core.val_set_size else None,
        "rows": rows,
        "strategies": [[s.group, s.strategy, s.row_kind, s.settings.type, _values(s.options)] for s in config.entries],
    }
    if config.streamed:
        parts["stream"] = [spec.settings.model_dump(mode="json") for spec in config.streamed]
        parts["buffer"] = core.streaming_multipack_buffer_size
    return digest(parts)


def _makers(run: Run) -> list[str]:
    """Words of the plugins that have a hand in rows, tokenizer or examples, wrappers among them."""
    hooks = ("load_rows", "filter_rows", "load_tokenizer", "build_dataset")
    return sorted({call.plugin for hook in hooks for call in run.hooks.calls(hook)})


def _maker(run: Run, name: str) -> list[Any]:
    """A plugin as far as it decides what examples are: its version (of a local one, its file) and its settings."""
    plugin = run.hooks.by_name[name]
    return [name, plugin.distribution, plugin.content or plugin.version, _values(run.config.plugins.get(name))]


def _values(settings: Any) -> Any:
    return settings.model_dump(mode="json") if settings is not None else None
