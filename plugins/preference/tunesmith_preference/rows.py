"""Read the rows of an entry as texts of a prompt and its answers."""

from __future__ import annotations

from typing import NamedTuple

from tunesmith import Row
from tunesmith_preference import PreferenceDataset
from tunesmith_preference.checks import NAMES
from tunesmith_preference.common import split_common
from tunesmith_preference.formats import FORMATS, Format, Markup
from tunesmith_preference.messages import Turn, conversation
from tunesmith_preference.sides import check_sides
from tunesmith_preference.template import Template
from tunesmith_preference.values import label, number, shown


class Texts(NamedTuple):
    """The texts of a row: its prompt, its answers (chosen and rejected, or a single one), and its numbers."""

    prompt: str
    answers: list[str]
    columns: dict[str, float]


class Reader:
    """A reader of the rows of an entry. The first row decides the columns, and every other row must have them."""

    def __init__(self, kind: str, type_name: str, options: PreferenceDataset):
        self.format: Format = FORMATS[kind][type_name]
        self.options = options
        self.labelled = kind == "labelled"
        self.columns: dict[str, str] = {}
        """Part of a row -> its column."""
        self.unread: list[str] = []
        self.common = False
        """The rows have no prompt: the common beginning of both answers is the prompt."""
        self.templates: dict[str, Template] = {}
        if self.format.markup is None:
            parts = ("prompt", *self.format.answers)
            self.templates = {p: Template(getattr(options, f"{p}_format"), NAMES[p]) for p in parts}

    def read(self, row: Row) -> Texts:
        """Return the texts of a row. Raises DataError with file, line and field for an invalid row."""
        if not self.columns:
            self._find_columns(row)
        columns = [self.columns[part] for part in self.format.answers]
        history: list[Turn] = []
        if self.format.ranked:
            answers, columns = _ranked(row, *columns, self.options.nectar_pair)
        elif self.format.messages:
            history, answers = self._messages(row)
        else:
            answers = [self._answer(row, column) for column in columns]
        prompt: str | None = None
        if self.common:
            prompt, answers = split_common(row, columns, answers)
        check_sides(row, columns, answers)
        prompt = self._prompt(row, history, prompt)
        if self.templates:
            parts = zip(self.format.answers, answers, strict=True)
            answers = [self.templates[part].fill(**{part: answer}) for part, answer in parts]
        numbers = {"label": label(row, self.columns["label"])} if self.labelled else {}
        if "margin" in self.columns:
            numbers["margin"] = number(row, "margin")
        elif not self.labelled and "margin" in row:
            raise row.error("margin", "is missing in the first row, so no row may have one", "give every row a margin")
        return Texts(prompt, answers, numbers)

    def _find_columns(self, row: Row) -> None:
        """Decide from the first row which columns are read. Raises DataError if a required one is missing."""
        prompt = {"prompt": self.format.prompt} if self.format.prompt else {}
        for part, names in {**prompt, **self.format.answers}.items():
            setting = getattr(self.options, f"field_{part}", None)
            names = (setting,) if setting else names
            column = next((name for name in names if name in row), None)
            if part == "prompt" and column is None and not setting and self._has_only_answers(row):
                self.common = self.format.markup is None
                if self.common:
                    continue
                help = "for texts with a marker before each turn, write type: chat_template.dialogue; "
                help += "type: passthrough takes the common beginning of both answers as the prompt"
                columns = ", ".join(map(str, row))
                if len(names) == 1:
                    raise row.error(names[0], f"no such column; found: {columns}", help)
                raise row.error(part, f"no column {', '.join(names[:-1])} or {names[-1]}; the row has: {columns}", help)
            if column is None and len(names) > 1:
                columns = ", ".join(map(str, row)) or "none"
                raise row.error(part, f"no column {', '.join(names[:-1])} or {names[-1]}; the row has: {columns}")
            self.columns[part] = column or names[0]
        system = self._system_column(row)
        if system is not None:
            self.columns["system"] = system
        if self.labelled:
            self.columns["label"] = self.options.field_label
        elif "margin" in row:
            self.columns["margin"] = "margin"
        self.unread = [str(name) for name in row if name not in self.columns.values()]

    def _has_only_answers(self, row: Row) -> bool:
        """Return True for a pair of texts without another text that may be the prompt under a name of its own."""
        answers = [name for names in self.format.answers.values() for name in names]
        others = [name for name in row if name not in (*answers, "system", "margin", self.options.field_system)]
        pair = len(self.format.answers) == 2 and not self.labelled
        return pair and not any(isinstance(row[name], str | list) for name in others)

    def _system_column(self, row: Row) -> str | None:
        """Return the column with the system prompt, or None if none is read."""
        writes_system = self.format.system and (not self.templates or "system" in self.templates["prompt"].names)
        if not writes_system:
            return None
        if self.templates or self.options.field_system:
            return self.options.field_system or self.format.system
        return self.format.system if self.format.system in row else None

    def _system(self, row: Row) -> str:
        """Return the system prompt, empty if the row has none. A column that the entry names must be there."""
        column = self.columns.get("system")
        if column is None:
            return ""
        if row.get(column) is None and (column in row or not (self.templates or self.options.field_system)):
            return ""
        text: str = row.require(column)
        return text

    def _prompt(self, row: Row, history: list[Turn], common: str | None) -> str:
        """Return the text before the answer. `history` has the messages before it, if the format reads messages.

        common: the prompt of a row without a column for it.
        """
        system = self._system(row)
        markup = self.format.markup
        if markup is None:
            text = row.require(self.columns["prompt"]) if common is None else common
            return self.templates["prompt"].fill(prompt=text, system=system)
        turns = [("user", row.require(self.columns["prompt"]))] if self.format.prompt else history
        if system or (markup.system is not None):
            turns = [("system", system or markup.system or ""), *turns]
        return written(markup, turns) + markup.answer

    def _answer(self, row: Row, column: str) -> str:
        if isinstance(row.get(column), list):
            raise row.error(
                column,
                "must be a string, got list",
                "type: chatml.argilla_chat reads answers that are lists of messages",
            )
        text: str = row.require(column)
        return text

    def _messages(self, row: Row) -> tuple[list[Turn], list[str]]:
        """Return the messages before the answer, which all answers share, and the answers."""
        read = {column: conversation(row, column) for column in (self.columns[part] for part in self.format.answers)}
        histories = [history for history, _ in read.values()]
        for column, history in zip(list(read)[1:], histories[1:], strict=True):
            if history != histories[0]:
                first = next(iter(read))
                raise row.error(column, f"differs from {first} before the last message", "only the answers may differ")
        if self.format.prompt and len(histories[0]) > 1:  # the prompt column has one turn; the others would be lost
            message = f"has {len(histories[0])} messages before the answer, but this type reads one"
            help = "type: chatml.argilla_chat and llama3.argilla_chat read full conversations"
            raise row.error(next(iter(read)), message, help)
        if self.format.prompt:
            (role, content), column = histories[0][0], self.columns["prompt"]
            if role != "user" or content.strip() != row.require(column).strip():
                message = f"begins with another message than the text of {column}, which would be lost"
                raise row.error(next(iter(read)), message, f"make {column} the user's message before the answer")
        return histories[0], [answer for _, answer in read.values()]


def written(markup: Markup, turns: list[Turn]) -> str:
    """Return the text of turns in a markup."""
    template = Template(markup.turn, ("role", "content"))
    return "".join(template.fill(role=role, content=content) for role, content in turns)


def _ranked(row: Row, column: str, pair: str) -> tuple[list[str], list[str]]:
    """Return the chosen and the rejected of ranked answers (1 is best), and the place of each in the row.

    The best is chosen. The worst is rejected, or the second with `pair` "best_second".
    """
    ranked: list[tuple[float, str, str]] = []
    for index, entry in enumerate(row.require(column, list)):
        place = f"{column}[{index}]"
        if not isinstance(entry, dict):
            raise row.error(place, f"must be a mapping of rank and answer, got {shown(entry)}")
        parts = Row({f"{place}.{key}": entry[key] for key in ("rank", "answer") if key in entry}, row.where)
        ranked.append((number(parts, f"{place}.rank"), parts.require(f"{place}.answer"), f"{place}.answer"))
    ranked.sort(key=lambda answer: answer[0])
    better, worse = ranked[:1], ranked[1:2] if pair == "best_second" else ranked[1:][-1:]
    if not worse:
        raise row.error(column, f"must have at least two answers, got {len(ranked)}")
    if better[0][0] == worse[0][0]:
        raise row.error(column, f"must have a better answer: both answers of the pair have rank {better[0][0]:g}")
    (_, chosen, first), (_, rejected, second) = *better, *worse
    return [chosen, rejected], [first, second]
