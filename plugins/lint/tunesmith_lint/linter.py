"""Apply the rules to all rows of all entries."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from tunesmith import DataError, DatasetSpec, Problem, Run, Source
from tunesmith.engine import engine
from tunesmith_lint.ledger import Ledger
from tunesmith_lint.outcomes import outcomes
from tunesmith_lint.row_view import RowView
from tunesmith_lint.rules import BY_NAME, RULES, Rule, Severity
from tunesmith_lint.tally import Tally
from tunesmith_lint.vocabulary import Vocabulary

PLACES = 3
"""The number of rows that a finding names."""


@dataclass
class Fault:
    """A finding: the rule, the entry, the number of rows affected, and the first of them.

    message: the message of the error, if a strategy refused the rows, or what was not used of them.
    """

    name: str
    severity: Severity
    entry: str
    help: str
    count: int = 0
    rows: int = 0
    first: list[str] = field(default_factory=list)
    message: str | None = None

    def add(self, where: str) -> None:
        self.count += 1
        if len(self.first) < PLACES:
            self.first.append(where)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Report:
    """The findings, errors first, and the statistics of each entry."""

    faults: list[Fault]
    tallies: list[Tally]

    def as_json(self) -> dict[str, Any]:
        return {
            "findings": [fault.as_json() for fault in self.faults],
            "entries": [tally.statistics() for tally in self.tallies],
        }


def lint(run: Run, off: Collection[str] = (), streamed: int = 10_000) -> Report:
    """Check all rows of a run and return the findings and statistics.

    off: names of rules to leave out. streamed: the number of rows to read from each streamed entry. Errors that are not
    about the data (ModelError, PluginError, ...) are raised.
    """
    if run.tokenizer is None:
        run.tokenizer = run.hooks.load_tokenizer(run)
    vocabulary, ledger = Vocabulary(run), Ledger(run)
    faults, tallies = [], []
    for number, source in enumerate(sources_of(run, streamed)):
        entry = Entry(run, source.spec, vocabulary)
        progress = engine("data.progress").Progress(entry.tally.name)
        with progress.shown():
            entry.read(Source(source.spec, progress.of(source.rows)), ledger, number)
        faults += entry.faults()
        tallies.append(entry.tally)
    faults += repeated_rows(ledger, tallies)
    faults = [fault for fault in faults if fault.name not in off]
    return Report(sorted(faults, key=lambda fault: fault.severity != "error"), tallies)


def sources_of(run: Run, streamed: int) -> Iterator[Source]:
    """Yield the entries with the rows that filters keep."""
    sources = engine("data.rows")
    prepared = iter(sources.filtered(run, sources.read_all(run)))
    for spec in run.config.entries:
        if spec in run.config.streamed:
            yield Source(spec, islice(sources.Reading(spec, sources.rows_of(run, spec)), streamed))
        else:
            yield next(prepared)


class Entry:
    """A dataset entry, and the findings of the rules in the rows read so far."""

    def __init__(self, run: Run, spec: DatasetSpec, vocabulary: Vocabulary):
        self.run, self.spec, self.vocabulary = run, spec, vocabulary
        self.tally = Tally(spec)
        self.row_faults: dict[str, Fault] = {}
        self.refusals: dict[str, Fault] = {}
        self.notices: dict[str, Fault] = {}
        """Notice of rows -> its finding."""

    def read(self, source: Source, ledger: Ledger, number: int) -> None:
        """Check all rows, and add those that the engine keeps to the ledger."""
        rules = [rule for rule in RULES if rule.row]
        for outcome in outcomes(self.run, self.spec, source.rows):
            if isinstance(outcome, Problem):
                self.refuse(outcome)
                continue
            row, example = outcome
            lengths = engine("data.lengths")
            try:
                limit, strategy = self.run.core.sequence_len, lengths.excess_strategy(self.run, self.spec)
                pieces, decision = lengths.fit(example, limit, strategy, row.where)
            except DataError as error:
                self.refuse(error.problems[0])
                continue
            view = RowView(self.spec, self.vocabulary, row, example, decision, pieces)
            self.tally.add(view)
            for text in row.notices:
                rule = BY_NAME["not-read"]
                new = Fault(rule.name, rule.severity, self.tally.name, rule.help, message=text)
                self.notices.setdefault(text, new).add(row.where)
            for rule in rules:
                if rule.row and rule.row(view):
                    self.fault(rule, self.row_faults).add(row.where)
            if view.remaining or (pieces and not view.completions):
                ledger.add(number, self.spec.group == "test_datasets", row.where, example)

    def refuse(self, problem: Problem) -> None:
        """Record a row or an entry that can't be used."""
        self.tally.refused += problem.where != self.spec.where
        rule = BY_NAME.get(problem.code) or Rule(problem.code, "error", "")
        fault = self.fault(rule, self.refusals)
        fault.severity = "error"  # too-long is a warning if the row is only dropped, but here the run would fail
        fault.message = fault.message or problem.message
        fault.help = problem.help or rule.help
        fault.add(problem.where or self.spec.where)

    def fault(self, rule: Rule, faults: dict[str, Fault]) -> Fault:
        return faults.setdefault(rule.name, Fault(rule.name, rule.severity, self.tally.name, rule.help))

    def faults(self) -> list[Fault]:
        """Return the findings of the entry. A finding in too few or too many rows is left out, as its rule demands."""
        tally = self.tally
        result = [fault for fault in self.row_faults.values() if BY_NAME[fault.name].applies(fault.count, tally)]
        for rule in RULES:
            if rule.entry and (count := rule.entry(tally)):
                result.append(Fault(rule.name, rule.severity, tally.name, rule.help, count, first=[self.spec.where]))
        if not tally.rows and not self.refusals:
            rule = BY_NAME["no-rows"]
            result.append(Fault(rule.name, rule.severity, tally.name, rule.help, first=[self.spec.where]))
        result += [*self.refusals.values(), *self.notices.values()]
        for fault in result:
            fault.rows = tally.rows + tally.refused
        return result


def repeated_rows(ledger: Ledger, tallies: list[Tally]) -> Iterator[Fault]:
    """Yield a finding for each rule on repeated rows and each entry that contains such rows."""
    for name, indices in ledger.repeats().items():
        rule = BY_NAME[name]
        by_entry: dict[int, Fault] = {}
        for index in indices.tolist():
            tally = tallies[ledger.entries[index]]
            new = Fault(name, rule.severity, tally.name, rule.help, rows=tally.rows + tally.refused)
            by_entry.setdefault(ledger.entries[index], new).add(ledger.place(index))
        yield from by_entry.values()
