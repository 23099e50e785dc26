"""Render conversations in a child process, one batch ahead, and name the row that exceeds the limits.

The child is not trusted: its JSON is checked before use. If it dies, a new child gets the unanswered rows one by one,
and the row that ends that child too is refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from tunesmith import DataError
from tunesmith_chat import wire
from tunesmith_chat.answers import Refusal, Rendered, read
from tunesmith_chat.conversation import Conversation
from tunesmith_chat.process import Child, ChildDied

BATCH = 512
"""The number of rows of a request and of a tokenizer call: enough to use its threads, few enough to stay lazy."""
_SIZE = 1 << 20  # approximate bytes of a request, and characters of the texts that are yielded together
_LONGEST = 400  # characters of a template's message that are shown
_HELP = (
    "a template that loops or grows without end is broken or hostile; to use one that you trust, write "
    "chat_template: jinja and chat_template_jinja: ./chat.jinja"
)


class TemplateSpec(NamedTuple):
    """A template and the options under which its trained text is found.

    ends: for each end token its text, the option that applies to it, and the value of that option. roles: the roles
    that are trained. kwargs: further variables of the template. prompt: render a prompt for the model to answer, with
    nothing trained.
    """

    source: str
    special_tokens: dict[str, str] = {}
    ends: Sequence[tuple[str, str, str]] = ()
    roles: Sequence[str] = ()
    kwargs: dict[str, Any] = {}
    prompt: bool = False


class Opened(NamedTuple):
    """A compiled template.

    number: identifies it in jobs. marks_generation: it has generation blocks. variables: the names that it reads;
    empty if its TemplateSpec has no kwargs.
    """

    number: int
    marks_generation: bool
    variables: frozenset[str]


class BadTemplate(Exception):
    """A template that does not compile, or not within the limits. The message continues "the chat template"."""

    def __init__(self, message: str, code: str | None = None, help: str | None = None):
        super().__init__(message)
        self.code, self.help = code, help


Job = tuple[str, str, str, int]
"""A conversation to render: the place of its row, its column, the JSON to send, and its number of messages.

It is a plain tuple and does not refer to the row, because many jobs are alive at a time and the garbage collector skips
plain tuples of strings.
"""


class _Batch(NamedTuple):
    """The jobs of one request, and the number of messages of the longest."""

    jobs: Sequence[Job]
    request: str
    longest: int


class Renderer:
    """A renderer with one child process, which is started on demand, also after it died or after a fork."""

    def __init__(self) -> None:
        self._templates: list[TemplateSpec] = []
        self._child: Child | None = None

    def __enter__(self) -> Renderer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.close()

    def open(self, template: TemplateSpec) -> Opened:
        """Compile a template. Call this before `render`. Raise BadTemplate."""
        try:
            marks, names = self._open(self._running_child(), template)
        except ChildDied as death:
            self.close()
            raise BadTemplate(f"{death} to compile", code="template-limit", help=_HELP) from None
        self._templates.append(template)
        return Opened(len(self._templates) - 1, marks, names)

    def job(self, chat: Conversation, number: int) -> Job:
        """Return the job of rendering a conversation with template `number`. Raise DataError if it is not JSON."""
        request: tuple[Any, ...] = (number, chat.messages, chat.tools)
        try:
            body = wire.packed(request if chat.plans is None else (*request, chat.plans))
            return chat.row.where, chat.field, body, len(chat.messages)
        except (RecursionError, TypeError, ValueError) as error:
            raise chat.row.error(chat.field, f"can't be passed to a chat template: {error}") from error

    def render(self, jobs: Iterable[Job]) -> Iterator[list[Rendered]]:
        """Yield the rendered text of each job, in order and in groups. The child works while the caller uses them.

        Jobs are read a batch ahead. An error from reading a job is raised after the results of the jobs before it.
        Raise DataError for a row that can't be rendered.
        """
        failures: list[Exception] = []
        batches = _batches(jobs, failures)
        batch = next(batches, None)
        if batch:
            self._send(batch)
        while batch:
            following = next(batches, None)
            group: list[Rendered] = []
            for answers in self._answers(batch):
                group += answers
                if sum(len(rendered.text) for rendered in group) > _SIZE:
                    yield group
                    group = []
            if following:
                self._send(following)
            if group:
                yield group
            batch = following
        if failures:
            raise failures[0]

    def _running_child(self) -> Child:
        """Return the child, with every template opened. Start it if needed. Raise ChildDied."""
        if self._child is None or not self._child.usable:
            self._child = Child()
            for template in self._templates:
                self._open(self._child, template)
        return self._child

    def _open(self, child: Child, template: TemplateSpec) -> tuple[bool, frozenset[str]]:
        request = wire.packed(("open", template._asdict()))
        child.send(request)
        answer = child.receive(len(request))[0]
        try:
            ((line, message),) = answer
            if isinstance(line, bool):
                return line, frozenset(map(str, message))
            raise BadTemplate(f"is not valid Jinja: line {int(line)}: {_shortened(message)}")
        except (TypeError, ValueError):
            raise ChildDied("returns a malformed answer") from None

    def _send(self, batch: _Batch) -> None:
        try:
            self._running_child().send(batch.request, batch.longest)
        except ChildDied:
            self.close()  # _answers starts a new child

    def _answers(self, batch: _Batch) -> Iterator[list[Rendered]]:
        """Yield the answers to a batch that was sent. If the child dies, send the other rows singly to a new one."""
        done = 0
        try:
            child = self._child
            if child is None or not child.usable:
                child = self._running_child()
                child.send(batch.request, batch.longest)
            for answers in self._receive(child, batch):
                done += len(answers)
                yield answers
        except ChildDied as death:
            self.close()
            if len(batch.jobs) == 1:
                where, field, *_ = batch.jobs[0]
                message = f"the chat template {death} on this row"
                raise _row_error(where, field, message, _HELP, "template-limit") from None
        for job in batch.jobs[done:]:
            single = _batch([job])
            self._send(single)
            yield from self._answers(single)

    def _receive(self, child: Child, batch: _Batch) -> Iterator[list[Rendered]]:
        """Yield the child's answers to a batch, one message at a time. Raise ChildDied, DataError."""
        pending = deque(batch.jobs)
        while pending:
            message, text = child.receive(len(batch.request), batch.longest)
            rendered: list[Rendered] = []
            try:
                answers = read(message, text, len(pending))
            except wire.ProtocolError:
                raise ChildDied("returns a malformed answer") from None
            for answer in answers:
                where, field, *_ = pending.popleft()
                if isinstance(answer, Refusal):
                    problem, help, code = answer
                    raise _row_error(where, field, _shortened(problem), help and _shortened(help), code)
                rendered.append(answer)
            yield rendered


def _row_error(where: str, field: str, message: str, help: str | None, code: str) -> DataError:
    return DataError(f"{field}: {message}", where=where, help=help, code=code)


def _batches(jobs: Iterable[Job], failures: list[Exception]) -> Iterator[_Batch]:
    """Yield batches of BATCH rows or about _SIZE bytes. If reading a job fails, add the error to `failures`."""
    batch: list[Job] = []
    size = 0
    try:
        for job in jobs:
            batch.append(job)
            size += len(job[2])
            if len(batch) == BATCH or size > _SIZE:
                yield _batch(batch)
                batch, size = [], 0
    except Exception as error:
        failures.append(error)
    if batch:
        yield _batch(batch)


def _batch(jobs: Sequence[Job]) -> _Batch:
    bodies = ",".join([body for _, _, body, _ in jobs])
    return _Batch(jobs, f'["find",[{bodies}]]', max(messages for *_, messages in jobs))


def _shortened(message: object) -> str:
    """Return a template's message without what exceeds its longest length."""
    text = str(message)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
