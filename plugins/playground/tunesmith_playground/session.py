"""A conversation on a terminal or in a pipe."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tunesmith import ConfigError, TunesmithError
from tunesmith.printable import printable
from tunesmith_playground import slash
from tunesmith_playground.answering import Answering
from tunesmith_playground.conversation import Conversation, Turn
from tunesmith_playground.display import colored, display, style
from tunesmith_playground.reading import complete_with, read_message, script_line, terminal_line
from tunesmith_playground.rows import append_rows
from tunesmith_playground.settings import Settings
from tunesmith_playground.speakers import Speaker

PROMPT = "> "


class Leave(KeyboardInterrupt):
    """Raised by the second Ctrl-C during an answer."""


class Session:
    """A conversation with models, and what the user has set.

    Args:
        speakers: the models.
        settings: how tokens are drawn.
        system: the system message.
        save: the file to which conversations are appended when they end.
        interactive: a person types on a terminal. Otherwise lines come from a program, which reads the answers.
    """

    def __init__(
        self,
        speakers: Sequence[Speaker],
        settings: Settings,
        system: str | None = None,
        save: Path | None = None,
        interactive: bool = False,
    ):
        self.speakers, self.settings, self.save, self.interactive = speakers, settings, save, interactive
        self.conversation = Conversation()
        self.interrupted = False
        if system:
            self.set_system(system)

    @property
    def chats(self) -> bool:
        return all(speaker.chats for speaker in self.speakers)

    def say(self, text: str) -> None:
        """Tell the user something that is not an answer."""
        stream = sys.stdout if self.interactive else sys.stderr
        print(style(printable(text), self.interactive and colored(), dim=True), file=stream, flush=True)

    def run(self) -> None:
        """Answer messages until the input ends. In a pipe, the first error ends the session."""
        if self.interactive:
            complete_with(f"/{name}" for name in slash.COMMANDS)
            self.say(self._welcome())
        else:
            _replace_what_is_not_text()
        for speaker in self.speakers:
            if speaker.note:
                self.say(speaker.note)
        try:
            while (text := self._read()) is not None:
                try:
                    if not self.handle(text):
                        break
                except Leave:
                    break
                except KeyboardInterrupt:  # before the first token
                    if not self.interactive:
                        raise
                    self.interrupted = True
                    self.say("stopped")
                except TunesmithError as error:
                    if not self.interactive:
                        raise
                    self._report(error)
        finally:
            self.finish()

    def handle(self, text: str) -> bool:
        """Carry out a command or answer a message. Return False to end the session."""
        text = text.encode("utf-8", "replace").decode("utf-8")  # halves of surrogate pairs, which no tokenizer reads
        if text.startswith("/") and not text.startswith("//"):
            return slash.run(self, text)
        if text.strip() or (not self.chats and self.conversation.turns):
            self.ask(text.removeprefix("/") if text.startswith("//") else text)
        return True

    def ask(self, text: str) -> None:
        """Answer a message. If that is impossible, the message is not part of the conversation."""
        self.conversation.turns.append(Turn(text))
        try:
            self.answer()
        except BaseException:
            self.conversation.turns.pop()
            raise

    def answer(self) -> None:
        """Answer the last message."""
        turn = self.conversation.turns[-1]
        requests = [one.request(self.conversation, side, self.settings) for side, one in enumerate(self.speakers)]
        answering = Answering(self.speakers, requests)
        shown = display([speaker.name for speaker in self.speakers], self.interactive)
        with _interruptible(answering.stop, self.interactive):
            shown.begin(answering.thinking)
            for side, text in answering:
                if text is None:
                    shown.finish(side, answering.answers[side])
                else:
                    shown.add(side, text)
        turn.answers = answering.answers
        self.interrupted = any(answer.ending == "abort" for answer in turn.answers)

    def set_system(self, text: str) -> None:
        """Set the system message of the conversation, or drop it if empty. Raises ConfigError for a text model."""
        if text and not self.chats:
            message = "a model without a chat template has no system message"
            raise ConfigError(message, where="system", help="write it into the text", code="usage")
        self.conversation.system = text or None

    def rows(self) -> list[dict[str, Any]]:
        """Return the conversation as rows of training data; that with the first model, if there are two."""
        return self.conversation.rows(0, self.chats)

    def finish(self) -> None:
        """Save the conversation, if the user asked for it, and begin a new one."""
        if self.save is not None and (rows := self.rows()):
            append_rows(self.save, rows)
        self.conversation = Conversation(self.conversation.system)

    def _read(self) -> str | None:
        """Return the next message; None at the end of the input, or at the second Ctrl-C."""
        if not self.interactive:
            return read_message(script_line, "")
        while True:
            try:
                text = read_message(terminal_line, PROMPT)
                self.interrupted = False
                return text
            except KeyboardInterrupt:
                sys.stdout.write("\n")
                if self.interrupted:
                    return None
                self.interrupted = True
                self.say("Ctrl-C again, Ctrl-D or /quit to leave")

    def _welcome(self) -> str:
        names = " and ".join(speaker.name for speaker in self.speakers)
        if self.chats:
            return f"{names}. /help lists commands; Ctrl-C stops an answer."
        return (
            f"{names}: a model without a chat template, which continues texts. Write the beginning of a text; an "
            "empty line continues the last one. /help lists commands."
        )

    def _report(self, error: TunesmithError) -> None:
        for problem in error.problems:
            self.say(f"{problem.message}\n  {problem.help}" if problem.help else problem.message)


def _replace_what_is_not_text() -> None:
    """Read bytes of stdin that are not text as replacement characters."""
    with contextlib.suppress(AttributeError):  # a stream of another type, in a test
        sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]


@contextlib.contextmanager
def _interruptible(stop: Callable[[], None], active: bool) -> Iterator[None]:
    """Let Ctrl-C call `stop`. A second one raises Leave, in case a token takes long."""
    if not active:
        yield
        return

    def second(number: int, frame: Any) -> None:
        raise Leave

    def first(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, second)
        stop()

    before = signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
