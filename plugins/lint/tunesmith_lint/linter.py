"""Goes through all rows of all entries, and says what the rules find."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from tunesmith import DataError, DatasetSpec, Problem, Run, Source
from tunesmith.engine import engine
from tunesmith_lint.ledger import Ledger
from tunesmith_lint.looks import Look
from tunesmith_lint.outcomes import outcomes
from tunesmith_lint.rules import BY_NAME, RULES, Rule, Severity
from tunesmith_lint.tally import Tally
from tunesmith_lint.vocabulary import Vocabulary

PLACES = 3
"""Rows that a finding names."""


@dataclass
class Fault:
    """One finding: a rule in an entry, in how many of its rows, and where first. said: the words of a refusal."""

    name: str
    severity: Severity
    entry: str
    help: str
    count: int = 0
    rows: int = 0
    first: list[str] = field(default_factory=list)
    said: str | None = None

    def add(self, where: str) -> None:
        self.count += 1
        if len(self.first) < PLACES:
            self.first.append(where)


@dataclass
class Report:
    """The findings, the gravest first, and the statistics of each entry."""

    faults: list[Fault]
    tallies: list[Tally]

    def as_json(self) -> dict[str, Any]:
        return {"findings": [asdict(one) for one in self.faults], "entries": [one.numbers() for one in self.tallies]}


def lint(run: Run, off: Collection[str] = (), streamed: int = 10_000) -> Report:
    """Look at every row; at the first `streamed` ones of an entry that is streamed. Rules in `off` are left out.

    Raises what is no fault of the data: ModelError, PluginError, ...
    """
    if run.tokenizer is None:
        run.tokenizer = run.hooks.load_tokenizer(run)
    words, ledger = Vocabulary(run), Ledger(run)
    faults, tallies = [], []
    for number, source in enumerate(sources_of(run, streamed)):
        entry = Entry(run, source.spec, words)
        entry.read(source, ledger, number)
        faults += entry.faults()
        tallies.append(entry.tally)
    faults += shared(ledger, tallies)
    faults = [fault for fault in faults if fault.name not in off]
    return Report(sorted(faults, key=lambda fault: fault.severity != "error"), tallies)


def sources_of(run: Run, streamed: int) -> Iterator[Source]:
    """The entries with the rows that filters leave."""
    sources = engine("data.rows")
    prepared = iter(sources.filtered(run, sources.read_all(run)))
    for spec in run.config.entries:
        if spec in run.config.streamed:
            yield Source(spec, islice(sources.Reading(spec, sources.rows_of(run, spec)), streamed))
        else:
            yield next(prepared)


class Entry:
    """One entry, and what the rules have found in it so far."""

    def __init__(self, run: Run, spec: DatasetSpec, words: Vocabulary):
        self.run, self.spec, self.words = run, spec, words
        self.tally = Tally(spec)
        self.of_rows: dict[str, Fault] = {}
        self.refusals: dict[str, Fault] = {}

    def read(self, source: Source, ledger: Ledger, number: int) -> None:
        """Go through the rows; those that the engine keeps are noted in the ledger."""
        rules = [rule for rule in RULES if rule.row]
        for outcome in outcomes(self.run, self.spec, source.rows):
            if isinstance(outcome, Problem):
                self.refuse(outcome)
                continue
            row, example = outcome
            core = self.run.core
            try:
                limit, strategy = core.sequence_len, core.excess_length_strategy
                pieces, what = engine("data.prepare").fit(example, limit, strategy, row.where)
            except DataError as error:
                self.refuse(error.problems[0])
                continue
            left = sum(piece.trained_tokens for piece in pieces)
            look = Look(self.spec, self.words, row, example, what, left)
            self.tally.add(look)
            for rule in rules:
                if rule.row and rule.row(look):
                    self.fault(rule, self.of_rows).add(row.where)
            if left or (pieces and not look.completions):
                ledger.add(number, self.spec.group == "test_datasets", row.where, example)

    def refuse(self, problem: Problem) -> None:
        """Note a row, or an entry, that can't be used."""
        self.tally.refused += problem.where != self.spec.where
        rule = BY_NAME.get(problem.code) or Rule(problem.code, "error", "")
        fault = self.fault(rule, self.refusals)
        fault.severity = "error"  # also of what is a warning where it is only left out
        fault.said = fault.said or problem.message
        fault.help = problem.help or rule.help
        fault.add(problem.where or self.spec.where)

    def fault(self, rule: Rule, found: dict[str, Fault]) -> Fault:
        return found.setdefault(rule.name, Fault(rule.name, rule.severity, self.tally.name, rule.help))

    def faults(self) -> list[Fault]:
        """What was found, of the rules that so many rows are a fault for."""
        tally = self.tally
        found = [fault for fault in self.of_rows.values() if BY_NAME[fault.name].stands(fault.count, tally)]
        for rule in RULES:
            if rule.entry and (count := rule.entry(tally)):
                found.append(Fault(rule.name, rule.severity, tally.name, rule.help, count, first=[self.spec.where]))
        if not tally.rows and not self.refusals:
            rule = BY_NAME["no-rows"]
            found.append(Fault(rule.name, rule.severity, tally.name, rule.help, first=[self.spec.where]))
        found += self.refusals.values()
        for fault in found:
            fault.rows = tally.rows + tally.refused
        return found


def shared(ledger: Ledger, tallies: list[Tally]) -> Iterator[Fault]:
    """Rows that are the same as others, by the entry that they stand in."""
    for name, indices in ledger.found().items():
        rule = BY_NAME[name]
        by_entry: dict[int, Fault] = {}
        for index in indices.tolist():
            tally = tallies[ledger.entries[index]]
            new = Fault(name, rule.severity, tally.name, rule.help, rows=tally.rows + tally.refused)
            by_entry.setdefault(ledger.entries[index], new).add(ledger.place(index))
        yield from by_entry.values()
