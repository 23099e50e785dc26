"""Renders conversations in a process of its own, one batch ahead, and names the row that breaks its limits.

What the child says is not trusted: its JSON is checked before it is used. Where the child dies, the rows that it owed
are given to a new one, one by one, and the guilty row is refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from tunesmith import DataError
from tunesmith_chat import wire
from tunesmith_chat.answers import Refusal, Rendered, read
from tunesmith_chat.conversation import Conversation
from tunesmith_chat.process import Child, Died

BATCH = 512
"""Rows of one request and of one tokenizer call: enough to use its threads, few enough to stay lazy."""
_SIZE = 1 << 20  # bytes of a request, and characters of answers handed on together, or a little more
_LONGEST = 400  # characters of what a template says of a row
_HELP = (
    "a template that loops or grows without end is broken or hostile: write chat_template: jinja and "
    "chat_template_jinja: ./chat.jinja with one that you trust"
)


class Form(NamedTuple):
    """A template, and what finding the trained text under it depends on.

    ends: the end tokens, each with the option that says which of them are trained, and its value. kwargs: further
    variables of the template. prompt: render what a model is given to answer, and train nothing.
    """

    source: str
    special_tokens: dict[str, str] = {}
    ends: Sequence[tuple[str, str, str]] = ()
    roles: Sequence[str] = ()
    kwargs: dict[str, Any] = {}
    prompt: bool = False


class Opened(NamedTuple):
    """The number of a form, for jobs; whether its template has generation blocks; which variables it reads.

    The last only where the form has any.
    """

    number: int
    marks_generation: bool
    variables: frozenset[str]


class BadTemplate(Exception):
    """A template that does not compile, or not within the limits: what to say of it, and the error's code and help."""

    def __init__(self, message: str, code: str | None = None, help: str | None = None):
        super().__init__(message)
        self.code, self.help = code, help


Job = tuple[str, str, str, int]
"""A conversation to render: place of its row, its column, what is sent (JSON), and how many messages it has.

Not the row itself, and no class: many are alive at a time, and the garbage collector looks at neither texts nor plain
tuples of them.
"""


class _Batch(NamedTuple):
    """Jobs of one request, and the number of messages of the longest."""

    jobs: Sequence[Job]
    request: str
    longest: int


class Renderer:
    """Has one child, started when first needed, and again after it died or this process forked."""

    def __init__(self) -> None:
        self._forms: list[Form] = []
        self._child: Child | None = None

    def __enter__(self) -> Renderer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.close()

    def open(self, form: Form) -> Opened:
        """Compile the template of a form; to be called before `render`. Raises BadTemplate."""
        try:
            marks, names = self._open(self._started(), form)
        except Died as death:
            self.close()
            raise BadTemplate(f"{death} to compile", code="template-limit", help=_HELP) from None
        self._forms.append(form)
        return Opened(len(self._forms) - 1, marks, names)

    def job(self, chat: Conversation, number: int) -> Job:
        """The job of rendering a conversation with a form. Raises DataError for values that are no JSON."""
        given: tuple[Any, ...] = (number, chat.messages, chat.tools)
        try:
            body = wire.packed(given if chat.plans is None else (*given, chat.plans))
            return chat.row.where, chat.field, body, len(chat.messages)
        except (RecursionError, TypeError, ValueError) as error:
            raise chat.row.error(chat.field, f"can't be given to a chat template: {error}") from error

    def render(self, jobs: Iterable[Job]) -> Iterator[list[Rendered]]:
        """What comes of each job, in order, many at a time; the child goes on while the caller uses them.

        Jobs are read a batch ahead, and an error of reading one is raised in its turn. Raises DataError.
        """
        failed: list[Exception] = []
        batches = _batches(jobs, failed)
        batch = next(batches, None)
        if batch:
            self._ask(batch)
        while batch:
            following = next(batches, None)
            group: list[Rendered] = []
            for some in self._answers(batch):
                group += some
                if sum(len(rendered.text) for rendered in group) > _SIZE:
                    yield group
                    group = []
            if following:
                self._ask(following)
            if group:
                yield group
            batch = following
        if failed:
            raise failed[0]

    # the child

    def _started(self) -> Child:
        """The child, which knows every form. Raises Died."""
        if self._child is None or not self._child.ours:
            self._child = Child()
            for form in self._forms:
                self._open(self._child, form)
        return self._child

    def _open(self, child: Child, form: Form) -> tuple[bool, frozenset[str]]:
        request = wire.packed(("open", form._asdict()))
        child.ask(request)
        answer = child.hear(len(request))[0]
        try:
            ((line, message),) = answer
            if isinstance(line, bool):
                return line, frozenset(map(str, message))
            raise BadTemplate(f"is no Jinja template: line {int(line)}: {_shown(message)}")
        except (TypeError, ValueError):
            raise Died("gives no proper answer") from None

    def _ask(self, batch: _Batch) -> None:
        try:
            self._started().ask(batch.request, batch.longest)
        except Died:
            self.close()  # which is noticed where its answers are waited for

    def _answers(self, batch: _Batch) -> Iterator[list[Rendered]]:
        """The answers to a batch that was asked for; what a child owes that dies is asked of a new one, row by row."""
        done = 0
        try:
            child = self._child
            if child is None or not child.ours:
                child = self._started()
                child.ask(batch.request, batch.longest)
            for some in self._hear(child, batch):
                done += len(some)
                yield some
        except Died as death:
            self.close()
            if len(batch.jobs) == 1:
                where, field, *_ = batch.jobs[0]
                raise _refuse(where, field, f"the chat template {death} on it", _HELP, "template-limit") from None
        for one in batch.jobs[done:]:
            alone = _batch([one])
            self._ask(alone)
            yield from self._answers(alone)

    def _hear(self, child: Child, batch: _Batch) -> Iterator[list[Rendered]]:
        """What the child answers to a batch, a message at a time. Raises Died, DataError."""
        owed = deque(batch.jobs)
        while owed:
            said, text = child.hear(len(batch.request), batch.longest)
            some: list[Rendered] = []
            try:
                answers = read(said, text, len(owed))
            except wire.Broken:
                raise Died("gives no proper answer") from None
            for answer in answers:
                where, field, *_ = owed.popleft()
                if isinstance(answer, Refusal):
                    message, help, code = answer
                    raise _refuse(where, field, _shown(message), help and _shown(help), code)
                some.append(answer)
            yield some


def _refuse(where: str, field: str, message: str, help: str | None, code: str) -> DataError:
    return DataError(f"{field}: {message}", where=where, help=help, code=code)


def _batches(jobs: Iterable[Job], failed: list[Exception]) -> Iterator[_Batch]:
    """Jobs in batches of BATCH rows or about _SIZE bytes; an error of reading one ends them, and is put in `failed`."""
    gathered: list[Job] = []
    size = 0
    try:
        for one in jobs:
            gathered.append(one)
            size += len(one[2])
            if len(gathered) == BATCH or size > _SIZE:
                yield _batch(gathered)
                gathered, size = [], 0
    except Exception as error:
        failed.append(error)
    if gathered:
        yield _batch(gathered)


def _batch(jobs: Sequence[Job]) -> _Batch:
    bodies = ",".join([body for _, _, body, _ in jobs])
    return _Batch(jobs, f'["find",[{bodies}]]', max(messages for *_, messages in jobs))


def _shown(said: object) -> str:
    """What a template says, short, and without what would steer a terminal."""
    text = str(said)
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
